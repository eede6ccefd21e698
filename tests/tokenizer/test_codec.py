from __future__ import annotations

import copy
import doctest
import json
import math
import pickle
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import gpt_neox_japanese
from gpt_neox_japanese.errors import CheckpointError, TokenizationError, VocabularyError
from gpt_neox_japanese.tokenizer import codec as codec_module
from gpt_neox_japanese.tokenizer import token_ids
from gpt_neox_japanese.tokenizer.added_tokens import AddedToken, AddedTokens
from gpt_neox_japanese.tokenizer.codec import Codec
from gpt_neox_japanese.tokenizer.vocabulary import Vocabulary
from tests.hub import environment_of
from tests.tokenizer.small import EMOJI_INV, TAGS, vocabulary

CODEC = Codec(vocabulary(["猫", "です", "ー"]))


def run(code: str, **environment: str) -> str:
    """What a fresh interpreter prints."""
    source = str(Path(gpt_neox_japanese.__file__).parents[1])
    return subprocess.run(
        [sys.executable, "-c", code],
        env={"PYTHONPATH": source, **environment},
        check=True,
        capture_output=True,
        text=True,
    ).stdout.strip()


def test_little_text_does_not_load_numba(tmp_path: Path) -> None:
    CODEC.save(tmp_path)
    code = f"""
import sys
from gpt_neox_japanese.tokenizer.codec import Codec
codec = Codec.load({str(tmp_path)!r})
assert codec.decode(codec.encode("猫です")) == "猫です"
print("numba" in sys.modules, "torch" in sys.modules, "transformers" in sys.modules)"""
    assert run(code) == "False False False"


def test_ids_do_not_change_when_the_kernel_takes_over() -> None:
    codec = Codec(CODEC.vocabulary)
    text = "猫です\n" * 200
    first = codec.encode(text)
    for _ in range(20):
        assert codec.encode(text) == first
        assert codec.encode_batch([text, text]) == [first, first]


@pytest.mark.slow
def test_kernel_compiles_where_nothing_can_be_written(tmp_path: Path) -> None:
    package = tmp_path / "gpt_neox_japanese"
    source = Path(gpt_neox_japanese.__file__).parent
    for file in [*source.glob("*.py"), *source.glob("tokenizer/*.py")]:
        target = package / file.relative_to(source)
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(file.read_bytes())
        # A file where the cache's directory should be stops root as well, unlike permissions.
        (target.parent / "__pycache__").touch()
    CODEC.save(tmp_path)
    code = f"""
from gpt_neox_japanese.tokenizer.codec import Codec
codec = Codec.load({str(tmp_path)!r})
print(len(codec.encode("猫です" * 10_000)))"""
    assert run(code, PYTHONPATH=str(tmp_path), HOME="/dev/null") == "20000"


def test_codec_survives_pickling_and_copying() -> None:
    codec = Codec(vocabulary(["猫"]), legacy=False)
    ids = codec.encode("猫🐯" * 10_000)
    for twin in (pickle.loads(pickle.dumps(codec)), copy.deepcopy(codec)):
        assert (twin.legacy, twin.clean) == (False, False)
        assert twin.encode("猫🐯" * 10_000) == ids
    assert len(pickle.dumps(codec)) < 100_000


def test_class_of_an_emoji_must_be_a_tag() -> None:
    broken = Vocabulary((("猫",), *((tag,) for tag in TAGS)), {"🐯": "猫"}, {"猫": "🐯"})
    with pytest.raises(VocabularyError, match="'猫'; write a tag"):
        Codec(broken)


def test_cleaning_needs_its_tags() -> None:
    tags = tuple((tag,) for tag in TAGS if tag != "<URL>")
    with pytest.raises(VocabularyError, match="<URL>"):
        Codec(Vocabulary(tags, {}, {}), clean=True)


def test_half_a_surrogate_pair_cannot_be_decoded_to() -> None:
    broken = Vocabulary(CODEC.vocabulary.surfaces, {}, {**EMOJI_INV, "<|emoji1|>": "\ud83d"})
    with pytest.raises(VocabularyError, match="half of a surrogate pair"):
        Codec(broken)


# ---- Where users of tiktoken look ----------------------------------------------------------------


def test_examples_in_the_docstrings_give_what_they_show() -> None:
    for module in (codec_module, token_ids):
        found = doctest.testmod(
            module,
            extraglobs={"codec": Codec.from_pretrained("default")},
            optionflags=doctest.ELLIPSIS | doctest.IGNORE_EXCEPTION_DETAIL,
        )
        assert found.attempted >= 5
        assert found.failed == 0


def test_ids_are_a_list_or_an_array_as_the_name_says() -> None:
    texts = ["猫です", "", "猫<BR>🐯"]
    rows = CODEC.encode_batch(texts)
    assert rows == [CODEC.encode(text) for text in texts]
    assert json.loads(json.dumps(rows)) == rows
    ragged = CODEC.encode_batch_to_numpy(texts)
    assert (ragged.ids.dtype, ragged.bounds.dtype) == (np.int32, np.int64)
    assert [row.tolist() for row in ragged] == rows
    for text, row in zip(texts, rows, strict=True):
        for array in (CODEC.encode_to_numpy(text), CODEC.encode_bytes(text.encode())):
            assert (array.dtype, array.tolist()) == (np.int32, row)


def test_number_of_ids_and_the_end_of_text_are_those_of_the_vocabulary() -> None:
    size = len(CODEC.vocabulary)
    assert CODEC.n_vocab == len(CODEC) == size
    assert CODEC.eot_token == CODEC.token_to_id("<|endoftext|>") == size - 1
    more = CODEC.with_added(AddedTokens({size + 2: AddedToken("<|user|>", special=True)}))
    assert more.n_vocab == size + 3
    assert (repr(CODEC), repr(more)) == (
        f"Codec(n_vocab={size}, legacy=True, clean=False)",
        f"Codec(n_vocab={size + 3}, legacy=True, clean=False, added_tokens=1)",
    )


def test_typed_special_tokens_are_text_unless_they_are_allowed() -> None:
    text = "猫<|endoftext|>です<BR>"
    end, line = CODEC.eot_token, CODEC.token_to_id("<BR>")
    cat, desu = CODEC.encode("猫です")
    typed_end, typed_line = CODEC.encode("<|endoftext|>"), CODEC.encode("<BR>")
    assert CODEC.encode(text) == [cat, *typed_end, desu, *typed_line]
    assert CODEC.encode(text, allowed_special={"<BR>"}) == [cat, *typed_end, desu, line]
    assert CODEC.encode(text, allowed_special={"<|endoftext|>"}) == [cat, end, desu, *typed_line]
    for allowed in ("all", CODEC.special_tokens_set):
        ids = [cat, end, desu, line]
        assert CODEC.encode(text, allowed_special=allowed) == ids
        assert CODEC.encode_batch([text, text], allowed_special=allowed) == [ids, ids]
        assert CODEC.encode_bytes(text.encode(), allowed_special=allowed).tolist() == ids
        offsets = CODEC.encode_with_offsets(text, allowed_special=allowed).offsets
        assert [text[start:stop] for start, stop in offsets] == [
            "猫",
            "<|endoftext|>",
            "です",
            "<BR>",
        ]


def test_special_added_tokens_are_allowed_by_name_and_ordinary_ones_always() -> None:
    size = len(CODEC.vocabulary)
    tokens = {size: AddedToken("彁"), size + 1: AddedToken("<|user|>", special=True, rstrip=True)}
    codec = CODEC.with_added(AddedTokens(tokens))
    assert "<|user|>" in codec.special_tokens_set
    assert "彁" not in codec.special_tokens_set
    cat = codec.token_to_id("猫")
    assert codec.encode("彁<|user|> 猫", allowed_special={"<|user|>"}) == [size, size + 1, cat]
    typed = codec.encode("彁<|user|> 猫")
    assert typed[0] == size
    assert size + 1 not in typed
    assert codec.encode("彁<|user|> 猫", allowed_special={"<BR>"}) == typed


def test_disallowed_special_tokens_are_errors_as_in_tiktoken() -> None:
    text = "猫<BR>です<|endoftext|>"
    for disallowed in ("all", {"<BR>"}, ["<BR>", "<TAB>"]):
        for call in (CODEC.encode, CODEC.encode_to_numpy, CODEC.encode_with_offsets):
            with pytest.raises(TokenizationError, match="'<BR>' at character 1"):
                call(text, disallowed_special=disallowed)
        with pytest.raises(TokenizationError, match="'<BR>' at character 1"):
            CODEC.encode_batch(["猫", text], disallowed_special=disallowed)
        with pytest.raises(TokenizationError, match="'<BR>' at character 1"):
            CODEC.encode_bytes(text.encode(), disallowed_special=disallowed)
    with pytest.raises(TokenizationError, match=r"'<\|endoftext\|>' at character 7"):
        CODEC.encode(text, allowed_special={"<BR>"}, disallowed_special="all")
    allowed = CODEC.encode(text, allowed_special="all", disallowed_special="all")
    assert allowed == CODEC.encode(text, allowed_special="all")
    assert CODEC.encode(text, disallowed_special={"<TAB>"}) == CODEC.encode(text)


@pytest.mark.parametrize("allowed", ["<BR>", True, 3, {"<|nowhere|>"}, {"猫"}])
def test_what_is_no_special_token_cannot_be_allowed(allowed: Any) -> None:
    with pytest.raises(TokenizationError, match="allowed_special"):
        CODEC.encode("猫", allowed_special=allowed)


def test_bytes_of_ids_are_those_of_their_text() -> None:
    text = "猫한です\n"
    ids = CODEC.encode(text)
    assert CODEC.decode_bytes(ids) == b"".join(map(CODEC.decode_single_token_bytes, ids))
    assert CODEC.decode_bytes(np.array(ids)).decode() == text
    assert CODEC.decode_bytes(ids * 5000) == text.encode() * 5000
    assert CODEC.decode_single_token_bytes(ids[1]) == "한".encode()[:1]
    with pytest.raises(TokenizationError, match="outside the vocabulary"):
        CODEC.decode_single_token_bytes(len(CODEC))


def test_bytes_that_form_no_character_are_decoded_as_errors_says() -> None:
    ids = [*CODEC.encode("한")[:1], *CODEC.encode("猫")]
    assert CODEC.decode(ids) == CODEC.decode(ids, errors="replace") == "\ufffd猫"
    assert CODEC.decode(ids, "ignore") == "猫"
    with pytest.raises(UnicodeDecodeError):
        CODEC.decode(ids, "strict")


def test_compiled_encoder_is_loaded_when_the_threshold_says(tmp_path: Path) -> None:
    CODEC.save(tmp_path)
    code = f"""
import sys
from gpt_neox_japanese.tokenizer.codec import Codec
loaded = []
for threshold in (4, 0):
    codec = Codec.from_pretrained({str(tmp_path)!r}, jit_threshold=threshold)
    codec.encode("猫です")
    loaded.append("numba" in sys.modules)
print(*loaded)"""
    assert run(code) == "False True"


@pytest.mark.parametrize("threshold", [-1, 1.5, True, None])
def test_threshold_that_is_no_number_of_characters_is_named(threshold: Any) -> None:
    with pytest.raises(TokenizationError, match="jit_threshold"):
        Codec(CODEC.vocabulary, jit_threshold=threshold)


def test_directory_that_is_not_there_is_named(tmp_path: Path) -> None:
    for load in (Codec.from_pretrained, Codec.load):
        with pytest.raises(CheckpointError, match="nowhere"):
            load(tmp_path / "nowhere")


def test_vocabulary_of_the_hub_is_fetched_and_nothing_else(
    hub: str, hub_requests: list[str], tmp_path: Path
) -> None:
    published = tmp_path / "published" / "model"
    CODEC.save(published)
    (published / "model.safetensors").write_bytes(b"not needed")
    code = f"""
from gpt_neox_japanese import Codec
codec = Codec.from_pretrained("someone/model", cache_dir={str(tmp_path / "cache")!r})
print(codec.fingerprint, codec.encode("猫です"))"""
    expected = f"{CODEC.fingerprint} {CODEC.encode('猫です')}"
    assert run(code, **environment_of(hub, tmp_path)) == expected
    assert set(hub_requests) == {"vocab.txt", "emoji.json", "tokenizer_config.json"}


def with_word(codec: Codec) -> Any:
    return codec.with_added(AddedTokens({len(codec): AddedToken("a")}))


@pytest.mark.parametrize("unknown", [True, -1, 10**6, 1.5, len(CODEC), len(CODEC) + 1])
def test_an_unknown_token_that_is_no_id_is_named(unknown: Any) -> None:
    added = AddedTokens({len(CODEC) + 2: AddedToken("a")})
    with pytest.raises(VocabularyError, match=rf"unknown is {unknown}\b"):
        Codec(CODEC.vocabulary, unknown=unknown, added=added)
    assert Codec(CODEC.vocabulary, unknown=len(CODEC) + 2, added=added)


@pytest.mark.parametrize("threshold", [0, 10_000])
@pytest.mark.parametrize("word", ["犬", "です"])
def test_a_lone_surrogate_is_named_with_its_text_and_place(threshold: int, word: str) -> None:
    codec = Codec(CODEC.vocabulary, jit_threshold=threshold)
    codec = codec.with_added(AddedTokens({len(CODEC): AddedToken(word)}))
    with pytest.raises(TokenizationError, match=r"texts\[1\] .*U\+D800, at character 3"):
        codec.encode_batch(["猫です" * 20, "猫です\ud800", "猫"])
    for encode in (codec.encode, codec.encode_with_offsets):
        with pytest.raises(TokenizationError, match=r"the text .*U\+D800, at character 3"):
            encode("猫です\ud800")


@pytest.mark.parametrize(
    "call",
    [
        lambda codec: codec.encode(3),
        lambda codec: codec.encode(None),
        lambda codec: codec.encode(b"a"),
        lambda codec: codec.encode_to_numpy(3),
        lambda codec: codec.encode_with_offsets(3),
        lambda codec: codec.encode_batch("ab"),
        lambda codec: codec.encode_batch([1, 2]),
        lambda codec: codec.encode_batch(None),
        lambda codec: codec.encode_batch(["a", "b"], num_threads=1.5),
        lambda codec: codec.encode_batch(["a", "b"], num_threads=0),
        lambda codec: codec.encode_bytes("a"),
        lambda codec: codec.encode_bytes(5),
        lambda codec: codec.encode_bytes(np.zeros(3)),
        lambda codec: codec.encode_bytes(np.zeros((2, 2), np.uint8)),
        lambda codec: codec.encode_bytes(np.zeros(4, np.uint8)[::2]),
        lambda codec: codec.encode_bytes(memoryview(b"abcd")[::2]),
        lambda codec: codec.encode_bytes(memoryview(b"abcd").cast("i")),
        lambda codec: codec.encode("a", allowed_special={1, "b"}),
        lambda codec: codec.encode("a", allowed_special=[["b"]]),
        lambda codec: codec.encode("a", disallowed_special={1}),
        lambda codec: codec.encode("a", disallowed_special=frozenset({1, "b"})),
        lambda codec: codec.encode("a", dropout="a"),
        lambda codec: codec.encode("a", dropout=math.nan),
        lambda codec: codec.encode("a", dropout=0.5, seed=1.5),
        lambda codec: codec.encode("a", dropout=0.5, seed=-1),
        lambda codec: codec.encode("a", seed=-1),
        lambda codec: with_word(codec).encode("a", dropout=7),
        lambda codec: with_word(codec).encode("猫a猫", dropout=0.5, seed=-1),
        lambda codec: with_word(codec).encode("猫a猫", dropout=0.5, seed=1.5),
        lambda codec: codec.decode(5),
        lambda codec: codec.decode("12"),
        lambda codec: codec.decode([1.5]),
        lambda codec: codec.decode([True]),
        lambda codec: codec.decode([10**30]),
        lambda codec: codec.decode([[1], [2, 3]]),
        lambda codec: codec.decode([[1], [2]]),
        lambda codec: codec.decode(codec.encode("한")[:1], "nowhere"),
        lambda codec: codec.stream_decoder(errors="nowhere"),
        lambda codec: codec.decode_batch(5),
        lambda codec: codec.decode_single_token_bytes(1.5),
        lambda codec: codec.id_to_token("a"),
        lambda codec: codec.stream_decoder().feed(1.5),
    ],
)
def test_arguments_of_the_wrong_kind_are_named(call: Callable[[Any], object]) -> None:
    with pytest.raises(TokenizationError):
        call(Codec.from_pretrained("default"))


def test_text_that_stands_for_what_is_unknown_does_not_become_special_when_saved(
    tmp_path: Path,
) -> None:
    codec = Codec(CODEC.vocabulary, unknown=CODEC.encode("猫")[0])
    codec.save(tmp_path)
    again = Codec.from_pretrained(tmp_path)
    assert again.special_tokens_set == codec.special_tokens_set
    assert again.encode("猫です한", disallowed_special="all") == codec.encode("猫です한")
