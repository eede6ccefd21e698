"""The heads that judge a text: shapes, losses, padding, and a way back from disk."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from gpt_neox_japanese.model.heads import (
    GPTNeoXJapaneseForQuestionAnswering,
    GPTNeoXJapaneseForSequenceClassification,
    GPTNeoXJapaneseForTokenClassification,
)
from tests.model.conftest import MakeConfig, MakeModel

HEADS = [
    GPTNeoXJapaneseForQuestionAnswering,
    GPTNeoXJapaneseForSequenceClassification,
    GPTNeoXJapaneseForTokenClassification,
]
IDS = torch.tensor([[5, 6, 7, 8], [9, 10, 11, 12]])


@pytest.fixture
def head(tiny_config: MakeConfig) -> Callable[..., Any]:
    def make(model_class: Any, **changes: Any) -> Any:
        torch.manual_seed(0)
        return model_class(tiny_config(num_labels=3, **changes)).eval()

    return make


@pytest.mark.parametrize("model_class", HEADS)
def test_a_language_model_becomes_a_judge(
    tiny_model: MakeModel, tmp_path: Path, model_class: Any
) -> None:
    language_model = tiny_model()
    language_model.save_pretrained(tmp_path)
    judge, report = model_class.from_pretrained(tmp_path, output_loading_info=True)
    missing = {name.split(".")[0] for name in report["missing_keys"]}
    assert missing in ({"score"}, {"qa_outputs"})
    ours = judge.gpt_neox_japanese(IDS).last_hidden_state
    assert torch.equal(ours, language_model.gpt_neox_japanese(IDS).last_hidden_state)


@pytest.mark.parametrize("model_class", HEADS)
def test_a_saved_judge_is_the_same_judge(
    head: Callable[..., Any], tmp_path: Path, model_class: Any
) -> None:
    judge = head(model_class)
    judge.save_pretrained(tmp_path)
    assert torch.equal(model_class.from_pretrained(tmp_path)(IDS)[0], judge(IDS)[0])


@pytest.mark.parametrize("model_class", HEADS)
def test_embeddings_can_be_replaced(head: Callable[..., Any], model_class: Any) -> None:
    judge = head(model_class)
    judge.resize_token_embeddings(70, mean_resizing=False)
    assert judge.get_input_embeddings() is judge.gpt_neox_japanese.embed_in
    assert judge.get_input_embeddings().weight.shape == (70, 32)


@pytest.mark.parametrize("side", ["left", "right"])
def test_padding_does_not_change_the_class_of_a_text(head: Callable[..., Any], side: str) -> None:
    judge = head(GPTNeoXJapaneseForSequenceClassification)
    text = IDS[:1]
    pad = (2, 0) if side == "left" else (0, 2)
    padded = torch.cat([torch.nn.functional.pad(text, pad), torch.full((1, 6), 9)])
    mask = (padded != 0).long()
    torch.testing.assert_close(judge(padded, attention_mask=mask).logits[:1], judge(text).logits)


def test_every_head_learns(head: Callable[..., Any]) -> None:
    sequences = head(GPTNeoXJapaneseForSequenceClassification)
    tokens = head(GPTNeoXJapaneseForTokenClassification)
    spans = head(GPTNeoXJapaneseForQuestionAnswering)
    starts, ends = torch.tensor([0, 1]), torch.tensor([2, 3])
    for output, shape in (
        (sequences(IDS, labels=torch.tensor([0, 2])), (2, 3)),
        (tokens(IDS, labels=IDS % 3), (2, 4, 3)),
        (spans(IDS, start_positions=starts, end_positions=ends), (2, 4)),
    ):
        assert output[1].shape == shape
        output.loss.backward()
    for judge in (sequences, tokens, spans):
        assert judge.gpt_neox_japanese.embed_in.weight.grad.any()
