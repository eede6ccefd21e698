"""Teach the small model to answer with trl: answers first (SFT), then which of two is better (DPO).

    pip install trl
    python examples/trl_chat.py

`neox-ja train` does the first by itself. Conversations are lists of messages here: of plain texts
trl would make a text, without the template that says who speaks.
"""

from __future__ import annotations

from copy import deepcopy
from tempfile import TemporaryDirectory
from typing import Any

import torch
from datasets import Dataset
from trl import DPOConfig, DPOTrainer, SFTConfig, SFTTrainer

import gpt_neox_japanese as ours
from gpt_neox_japanese.assets import default_chat_template


def said(role: str, content: str) -> list[dict[str, str]]:
    """One message."""
    return [{"role": role, "content": content}]


def answer(model: Any, question: str) -> str:
    """What a model says to it."""
    prompt: Any = tokenizer.apply_chat_template(
        said("user", question), add_generation_prompt=True, return_dict=True, return_tensors="pt"
    )
    ids = model.eval().generate(**prompt, max_new_tokens=10, do_sample=False)[0]
    return str(tokenizer.decode(ids[prompt["input_ids"].shape[1] :], skip_special_tokens=True))


ours.register()  # trl makes transformers.GPTNeoXJapaneseForCausalLM, which is now ours
tokenizer = ours.GPTNeoXJapaneseTokenizer.from_pretrained(ours.default_model_directory())
tokenizer.chat_template = default_chat_template()
model = ours.GPTNeoXJapaneseForCausalLM.from_pretrained(ours.default_model_directory())
model = model.dequantize(torch.float32)  # type: ignore[no-untyped-call]  # integers are not trained
question = said("user", "空は何色？")
blue, red = said("assistant", "青です。"), said("assistant", "赤です。")
answers = Dataset.from_list([{"prompt": question, "completion": blue}] * 3)
pairs = Dataset.from_list([{"prompt": question, "chosen": red, "rejected": blue}] * 3)
options: Any = {"max_length": 64, "logging_steps": 5, "report_to": "none", "save_strategy": "no"}
options |= {"bf16": False, "gradient_checkpointing": False}

with TemporaryDirectory() as folder:
    sft = SFTConfig(folder, max_steps=10, learning_rate=3e-4, **options)
    SFTTrainer(model, sft, train_dataset=answers, processing_class=tokenizer).train()
    print("SFT:", answer(model, "空は何色？"))
    dpo = DPOConfig(folder, max_steps=10, learning_rate=3e-4, **options)
    before = deepcopy(model)  # the reference: what SFT made, not the model that it began with
    trainer = DPOTrainer(model, before, dpo, train_dataset=pairs, processing_class=tokenizer)
    trainer.train()
    trainer.save_model(folder)
    print("DPO:", answer(ours.GPTNeoXJapaneseForCausalLM.from_pretrained(folder), "空は何色？"))
