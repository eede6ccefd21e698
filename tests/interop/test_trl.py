"""trl learns of a conversation what our own training learns, and leaves a model that chats."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
import torch

from gpt_neox_japanese import (
    Codec,
    GPTNeoXJapaneseForCausalLM,
    GPTNeoXJapaneseTokenizer,
    register,
)
from gpt_neox_japanese.assets import default_chat_template
from gpt_neox_japanese.tokenizer.chat_template import ChatTemplate
from tests.cli.run import run
from tests.float_model import float_model

trl: Any = pytest.importorskip("trl", reason="needs trl: pip install trl")
datasets: Any = pytest.importorskip("datasets")

TALK = [
    [("user", "猫は何と鳴く？"), ("assistant", "にゃあ。")],
    [
        ("system", "短く答える。"),
        ("user", "今日は。"),
        ("assistant", "今日は。"),
        ("user", "空は何色？"),
        ("assistant", "青です。"),
    ],
]


@pytest.mark.filterwarnings("ignore")  # trl's and its dependencies' own
def test_answers_are_learned_and_the_saved_model_chats(tmp_path: Path) -> None:
    register()
    start = float_model()
    tokenizer = GPTNeoXJapaneseTokenizer.from_pretrained(start)
    tokenizer.chat_template = default_chat_template()
    talk = [[{"role": role, "content": text} for role, text in messages] for messages in TALK]
    trainer = trl.SFTTrainer(
        GPTNeoXJapaneseForCausalLM.from_pretrained(start, dtype=torch.float32),
        trl.SFTConfig(
            str(tmp_path / "run"),
            max_length=64,
            max_steps=15,
            learning_rate=3e-4,
            logging_steps=1,
            report_to="none",
            save_strategy="no",
            bf16=False,
            use_cpu=True,
            gradient_checkpointing=False,
        ),
        train_dataset=datasets.Dataset.from_list(
            [{"prompt": messages[:-1], "completion": messages[-1:]} for messages in talk]
        ),
        processing_class=tokenizer,
    )

    codec = Codec.from_pretrained(start)
    with closing(ChatTemplate(default_chat_template(), codec)) as template:
        ours = [template.encode_turns(messages).ids for messages in talk]
    assert [row["input_ids"] for row in trainer.train_dataset] == ours
    for row, messages in zip(trainer.train_dataset, talk, strict=True):
        answer = [*codec.encode(messages[-1]["content"]), codec.eot_token]
        rest = len(row["labels"]) - len(answer)
        assert row["labels"] == [-100] * rest + answer

    trainer.train()
    losses = [line["loss"] for line in trainer.state.log_history if "loss" in line]
    assert losses[-1] < losses[0] / 2
    trainer.save_model(tmp_path / "model")
    again = GPTNeoXJapaneseTokenizer.from_pretrained(tmp_path / "model")
    assert again.apply_chat_template(talk[1])["input_ids"] == ours[1]
    result = run("chat", "--model", tmp_path / "model", "--temperature", 0, stdin="猫は何と鳴く？")
    assert result.exit_code == 0, result.output
    assert result.stdout == "にゃあ。\n"
