"""Documents kept apart, and subword regularisation."""

from __future__ import annotations

import dataclasses
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from gpt_neox_japanese.errors import ArgumentError
from gpt_neox_japanese.model.config import GPTNeoXJapaneseConfig
from gpt_neox_japanese.model.modeling import GPTNeoXJapaneseForCausalLM
from gpt_neox_japanese.tokenizer.codec import Codec
from gpt_neox_japanese.training.data.dataset import TrainingWindows, positions
from gpt_neox_japanese.training.data.prepare import prepare
from gpt_neox_japanese.training.data.run_data import open_data
from gpt_neox_japanese.training.data.shards import PreparedData, ShardedTokens
from gpt_neox_japanese.training.data.subword_regularization import SubwordDropoutEpochs
from gpt_neox_japanese.training.machine import cpu_attention
from gpt_neox_japanese.training.run import train
from gpt_neox_japanese.training.settings import Architecture, Settings
from tests.tokenizer.small import vocabulary
from tests.training.test_defaults import made


def test_positions_begin_anew_at_every_document() -> None:
    ids = np.array([5, 6, 9, 1, 2, 9, 9, 3])
    assert positions(ids, 9).tolist() == [0, 1, 0, 1, 2, 0, 0, 1]


@pytest.mark.parametrize("implementation", ["eager", "sdpa", cpu_attention.NAME])
def test_a_masked_window_is_its_documents_each_on_its_own(implementation: str) -> None:
    torch.manual_seed(0)
    model = GPTNeoXJapaneseForCausalLM(
        GPTNeoXJapaneseConfig(
            vocab_size=20,
            hidden_size=16,
            num_hidden_layers=2,
            num_attention_heads=2,
            max_position_embeddings=16,
            initializer_range=0.5,
            bos_token_id=9,
            eos_token_id=9,
        )
    ).eval()
    parts = [[3, 4, 5], [9, 6, 7, 8], [9], [9, 2, 3]]
    alone = torch.cat([model(torch.tensor([part])).logits[0] for part in parts])
    ids = np.array([i for part in parts for i in part])
    model.set_attn_implementation(implementation)
    together = model(
        torch.from_numpy(ids)[None],
        position_ids=torch.from_numpy(positions(ids, 9))[None],
        use_cache=False,
    ).logits[0]
    torch.testing.assert_close(together, alone, rtol=1e-4, atol=1e-5)


def test_flash_attention_that_would_mix_documents_is_refused(
    prepared: Path, tmp_path: Path
) -> None:
    settings = Settings(attention="flash_attention_2", batch_size=4, gradient_accumulation=3)
    apart = dataclasses.replace(settings, document_masking=True)
    with pytest.raises(ArgumentError, match="--batch-size 1 and --gradient-accumulation 12, or"):
        train(prepared, tmp_path / "run", apart, Architecture(16, 1, 2))


def test_windows_have_positions_only_when_documents_are_kept_apart() -> None:
    stream = ShardedTokens([np.array([1, 2, 9, 3, 4, 9, 5, 6, 9, 7], np.uint16)])
    assert "position_ids" not in TrainingWindows(stream, 4, 5, 0)[0]
    item = TrainingWindows(stream, 4, 5, 0, document_start=9)[0]
    assert item["position_ids"].tolist() == positions(item["input_ids"].numpy(), 9).tolist()


@pytest.fixture(scope="module")
def codec() -> Codec:
    return Codec(vocabulary(["吾輩", "吾", "輩", "は", "猫", "猫は"]), legacy=False)


def stream_of(codec: Codec, texts: list[str]) -> tuple[ShardedTokens, int]:
    eos = codec.vocabulary.ids["<|endoftext|>"]
    ids = [i for text in texts for i in (*codec.encode(text), eos)]
    return ShardedTokens([np.array(ids, np.uint16)]), eos


def documents(codec: Codec, stream: ShardedTokens, eos: int) -> list[str]:
    ids = stream.read(0, len(stream))
    return [codec.decode(d[:-1]) for d in np.split(ids, np.flatnonzero(ids == eos) + 1)[:-1]]


def test_every_epoch_holds_the_whole_text_in_other_pieces(codec: Codec) -> None:
    texts = ["吾輩は猫は🐯" * 9, "", "吾輩 <|endoftext|>" * 7, "é猫は"]
    stream, eos = stream_of(codec, texts)
    epochs = SubwordDropoutEpochs(stream, codec, eos, 0.5, seed=3)
    first, second = epochs(0), epochs(1)
    for epoch in (first, second):
        assert documents(codec, epoch, eos) == texts
        assert epoch.read(0, 20).tolist() != stream.read(0, 20).tolist()
    assert first.read(0, 20).tolist() != second.read(0, 20).tolist()
    again = SubwordDropoutEpochs(stream, codec, eos, 0.5, seed=3)(1)
    assert again.read(0, len(again)).tolist() == second.read(0, len(second)).tolist()


def test_without_dropout_an_epoch_is_the_stored_one(codec: Codec) -> None:
    stream, eos = stream_of(codec, ["吾輩は猫は" * 5, "猫"])
    epoch = SubwordDropoutEpochs(stream, codec, eos, 0.0, seed=0)(0)
    assert epoch.read(0, len(epoch)).tolist() == stream.read(0, len(stream)).tolist()


def test_an_epoch_of_text_that_is_encoded_anew_has_as_many_tokens_as_its_windows(
    tmp_path: Path,
) -> None:
    (tmp_path / "cat.txt").write_text("吾輩は猫である。名前はまだ無い。" * 50, encoding="utf-8")
    prepare([tmp_path / "cat.txt"], "default", tmp_path / "data", held_out=0, workers=1)
    data = open_data(tmp_path / "data", None)
    settings = made(settings=Settings(sequence_length=64, subword_dropout=0.5))
    tokens = data.tokens_per_epoch(64, settings)
    assert data.training_windows(settings, 1).windows_per_epoch == tokens // 64 - 1
    assert tokens > 1.1 * data.tokens_per_epoch(64)


def test_a_run_with_both_resumes_in_the_middle_of_a_later_epoch(
    prepared: Path, tmp_path: Path
) -> None:
    per_epoch = len(PreparedData(prepared).train) // 64
    settings = Settings(
        sequence_length=64,
        batch_size=32,
        steps=2 * per_epoch // 32 + 2,
        dtype="fp32",
        document_masking=True,
        subword_dropout=0.3,
        save_every=per_epoch // 32 + 2,
        log_every=1,
    )
    shape = Architecture(16, 1, 2)
    assert train(prepared, tmp_path / "whole", settings, shape)
    shutil.copytree(tmp_path / "whole", tmp_path / "cut")
    shutil.rmtree(tmp_path / "cut" / f"checkpoint-{settings.steps}")
    assert train(prepared, tmp_path / "cut", settings, shape, resume=True)
    for name in ("model.safetensors",):
        found, expected = ((tmp_path / run / name).read_bytes() for run in ("cut", "whole"))
        assert found == expected
    plain = dataclasses.replace(settings, document_masking=False, subword_dropout=0.0)
    assert train(prepared, tmp_path / "plain", plain, shape)
    assert (tmp_path / "plain" / "model.safetensors").read_bytes() != expected
