"""A mask means the same to every attention implementation, or it is refused."""

from __future__ import annotations

import warnings

import pytest
import torch
from transformers.cache_utils import StaticCache
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from gpt_neox_japanese.model.decode.cache_names import cache_of
from gpt_neox_japanese.model.masks import as_mask, document_positions
from tests.model.conftest import MakeModel

IDS = torch.tensor([[5, 6, 7, 8], [9, 10, 11, 12]])
# The second token looks at itself alone.
ALLOWED = torch.tensor([[1, 0, 0, 0], [0, 1, 0, 0], [1, 1, 1, 0], [1, 1, 1, 1]]).bool()
ALLOWED = ALLOWED.expand(2, 1, 4, 4)


def test_a_mask_says_something_of_the_past_too(tiny_model: MakeModel) -> None:
    model = tiny_model()
    past = cache_of(model(IDS))
    with pytest.raises(ValueError, match=r"attention_mask has shape \(2, 1\); it must be \(2, 5\)"):
        model(IDS[:, :1], attention_mask=torch.ones(2, 1), past_key_values=past)


@pytest.mark.parametrize("use_cache", [True, False])
def test_columns_of_a_mask_for_tokens_to_come_do_not_count(
    tiny_model: MakeModel, use_cache: bool
) -> None:
    model = tiny_model()
    mask = torch.tensor([[0, 1, 1, 1, 1, 1], [1, 1, 1, 1, 0, 0]])
    logits = model(IDS, attention_mask=mask, use_cache=use_cache).logits
    assert torch.equal(logits, model(IDS, attention_mask=mask[:, :4]).logits)


@pytest.mark.parametrize("implementation", ["eager", "sdpa"])
@pytest.mark.parametrize("without_avx512", [True, False])
def test_a_prepared_mask_of_integers_blocks_what_is_zero(
    tiny_model: MakeModel,
    monkeypatch: pytest.MonkeyPatch,
    implementation: str,
    without_avx512: bool,
) -> None:
    monkeypatch.setattr("gpt_neox_japanese.model.decode.linear._WITHOUT_AVX512", without_avx512)
    model = tiny_model(attn_implementation=implementation).bfloat16()
    mask = torch.ones(2, 1, 4, 4).tril().bool()
    logits = model(IDS, attention_mask=mask.long()).logits
    assert torch.equal(logits, model(IDS, attention_mask=mask).logits)


@pytest.mark.parametrize("pad", [0, None], ids=["pad id", "padding with the end of text"])
def test_left_padding_without_a_mask_is_warned_of(tiny_model: MakeModel, pad: int | None) -> None:
    model = tiny_model(pad_token_id=pad)
    padded = IDS.clone()
    padded[0, :2] = 2 if pad is None else pad
    with pytest.warns(UserWarning, match="there is no attention_mask"):
        model(padded)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        model(padded, attention_mask=(padded != padded[0, 0]).long())
        model(padded[:1])  # one row alone needs no padding: it is a text that begins so


def forms_of(allowed: torch.Tensor) -> dict[str, torch.Tensor]:
    """A prepared mask in every form that a caller may give it."""
    blocked = torch.zeros(allowed.shape)
    return {
        "booleans": allowed,
        "integers": allowed.long(),
        "one for all texts": allowed[:1],
        "lowest": blocked.masked_fill(~allowed, torch.finfo(torch.float32).min),
        "infinity": blocked.masked_fill(~allowed, -torch.inf),
        "double": blocked.double().masked_fill(~allowed, torch.finfo(torch.float64).min),
        "half": blocked.half().masked_fill(~allowed, torch.finfo(torch.float16).min),
    }


@pytest.mark.parametrize("implementation", ["eager", "sdpa"])
@pytest.mark.parametrize("form", forms_of(ALLOWED))
def test_a_prepared_mask_means_the_same_in_every_form(
    tiny_model: MakeModel, implementation: str, form: str
) -> None:
    expected = tiny_model()(IDS, attention_mask=ALLOWED).logits
    assert not torch.allclose(expected, tiny_model()(IDS).logits)
    model = tiny_model(attn_implementation=implementation)
    with torch.no_grad():
        logits = model(IDS, attention_mask=forms_of(ALLOWED)[form]).logits
    torch.testing.assert_close(logits, expected)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_a_row_that_may_look_at_nothing_stays_finite_in_any_dtype(
    tiny_model: MakeModel, dtype: torch.dtype
) -> None:
    allowed = ALLOWED.clone()
    allowed[:, :, 0] = False  # as a token of padding has it
    model = tiny_model().to(dtype)
    for form in forms_of(allowed).values():
        assert model(IDS, attention_mask=form).logits.isfinite().all()


@pytest.mark.parametrize("keys", [1, 3, 5])
def test_a_prepared_mask_of_other_keys_is_refused(tiny_model: MakeModel, keys: int) -> None:
    with pytest.raises(ValueError, match=r"a prepared one must be \(2, 1, 4, 4\)"):
        tiny_model()(IDS, attention_mask=torch.ones(2, 1, 4, keys))


@pytest.mark.parametrize("shape", [(3, 1, 4, 4), (2, 1, 3, 4)])
def test_a_prepared_mask_of_other_tokens_is_refused(
    tiny_model: MakeModel, shape: tuple[int, ...]
) -> None:
    with pytest.raises(ValueError, match=r"a prepared one must be \(2, 1, 4, 4\)"):
        tiny_model()(IDS, attention_mask=torch.ones(shape))


def test_a_prepared_mask_covers_the_past_too(tiny_model: MakeModel) -> None:
    model = tiny_model()
    past = cache_of(model(IDS[:, :3]))
    with pytest.raises(ValueError, match=r"a prepared one must be \(2, 1, 1, 4\)"):
        model(IDS[:, 3:], attention_mask=torch.ones(2, 1, 1, 1), past_key_values=past)
    logits = model(IDS[:, 3:], attention_mask=ALLOWED[:, :, 3:], past_key_values=past).logits
    torch.testing.assert_close(logits, model(IDS).logits[:, 3:])


def test_the_keys_of_a_cache_of_fixed_size_are_all_its_places(tiny_model: MakeModel) -> None:
    model = tiny_model()
    allowed = torch.nn.functional.pad(ALLOWED, (0, 4))
    cache = StaticCache(config=model.config, max_cache_len=8)
    logits = model(IDS, attention_mask=allowed, past_key_values=cache).logits
    torch.testing.assert_close(logits, model(IDS, attention_mask=ALLOWED).logits)


@pytest.mark.parametrize("given", [[[1, 1, 1, 1]] * 2, torch.ones(2, 4).numpy()])
def test_a_mask_that_is_no_tensor_is_refused(tiny_model: MakeModel, given: object) -> None:
    with pytest.raises(ValueError, match=r"it must be a tensor: torch\.tensor"):
        tiny_model()(IDS, attention_mask=given)


@pytest.mark.parametrize("implementation", ["flash_attention_2", "flex_attention"])
def test_an_implementation_that_reads_no_prepared_mask_says_so(
    tiny_model: MakeModel, implementation: str
) -> None:
    config = tiny_model().config
    config._attn_implementation_internal = implementation
    with pytest.raises(ValueError, match=f"'{implementation}' attention does not read"):
        as_mask(ALLOWED, torch.zeros(2, 4, 32), None, config)


@pytest.mark.parametrize(
    ("positions", "documents"),
    [
        ([0, 1, 0, 1], [0, 1, 0, 1]),
        ([5, 6, 0, 1], [0, 1, 0, 1]),  # the first began before
        ([0, 0, 0, 1], [0, 0, 0, 1]),
        ([0, 1, 2, 3], [0, 1, 2, 3]),
        ([7, 8, 9, 10], [0, 1, 2, 3]),
        ([0, 1, 5, 6], [0, 1, 2, 3]),  # one text, some of which is skipped
    ],
)
def test_flash_attention_is_told_of_documents_and_of_nothing_else(
    tiny_model: MakeModel,
    monkeypatch: pytest.MonkeyPatch,
    positions: list[int],
    documents: list[int],
) -> None:
    told = []

    def flash(
        module: torch.nn.Module, query: torch.Tensor, *_: object, **kwargs: torch.Tensor
    ) -> tuple[torch.Tensor, None]:
        told.append(kwargs["position_ids"])
        return torch.zeros_like(query).transpose(1, 2), None

    monkeypatch.setitem(ALL_ATTENTION_FUNCTIONS._global_mapping, "flash_test", flash)
    model = tiny_model(num_hidden_layers=1)
    model.config._attn_implementation_internal = "flash_test"
    given = torch.tensor([positions])
    out = model(IDS[:1], position_ids=given)
    assert told.pop().tolist() == [documents]
    mask = torch.ones(1, 8, dtype=torch.long)
    model(IDS[:1], position_ids=given, attention_mask=mask[:, :4])
    model(IDS[:1], position_ids=given, past_key_values=cache_of(out))
    model(IDS[:1])
    assert told == [None, None, None]


def test_documents_of_several_rows_are_refused_where_flash_attention_would_mix_them(
    tiny_model: MakeModel,
) -> None:
    config = tiny_model().config
    config._attn_implementation_internal = "flash_attention_2"
    documents = torch.tensor([[0, 1, 2, 3], [0, 1, 0, 1]])
    with pytest.raises(ValueError, match="documents in a batch of 2 rows"):
        document_positions(documents, 2, config)
    for positions in ([[0, 1, 2, 3], [4, 5, 6, 9]], [[0, 1, 0, 1]]):
        kept = document_positions(torch.tensor(positions), len(positions), config)
        assert kept is not None
        assert kept.tolist() == ([[0, 1, 2, 3]] * 2 if len(positions) > 1 else positions)
