"""The trainers of the ecosystem take the model as it is."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from transformers import Trainer, TrainingArguments

import gpt_neox_japanese
from tests.model.conftest import MakeModel

TEXTS = [{"input_ids": row, "labels": row} for row in torch.arange(3, 43).view(8, 5).tolist()]


def trained(model: nn.Module, directory: Path, **options: Any) -> Any:
    arguments = TrainingArguments(
        output_dir=str(directory),
        use_cpu=True,
        report_to=[],
        learning_rate=1e-2,
        lr_scheduler_type="constant",
        num_train_epochs=4,
        disable_tqdm=True,
        logging_strategy="no",
        save_strategy="no",
        dataloader_pin_memory=False,
        seed=1,
        **options,
    )
    trainer = Trainer(model, arguments, train_dataset=TEXTS, eval_dataset=TEXTS)
    before = trainer.evaluate()["eval_loss"]
    trainer.train()
    assert trainer.evaluate()["eval_loss"] < before
    return {name: parameter.detach() for name, parameter in model.named_parameters()}


@pytest.mark.filterwarnings("ignore")  # of accelerators that are not there
def test_trainer_accumulates_to_what_one_large_batch_gives(
    tiny_model: MakeModel, tmp_path: Path
) -> None:
    pytest.importorskip("accelerate")
    model = tiny_model(attention_dropout=0.0)
    other = copy.deepcopy(model)
    other.skip_logits_in_training = True
    large = trained(model, tmp_path, per_device_train_batch_size=4)
    small = trained(other, tmp_path, per_device_train_batch_size=1, gradient_accumulation_steps=4)
    torch.testing.assert_close(small, large, rtol=1e-3, atol=1e-3)


@pytest.mark.filterwarnings("ignore")  # of accelerators that are not there
def test_trainer_checkpoints_gradients(tiny_model: MakeModel, tmp_path: Path) -> None:
    pytest.importorskip("accelerate")
    model = tiny_model(attention_dropout=0.0)
    other = copy.deepcopy(model)
    options = {"per_device_train_batch_size": 4}
    stored = trained(model, tmp_path, **options)
    again = trained(other, tmp_path, gradient_checkpointing=True, **options)
    assert all(layer.gradient_checkpointing for layer in other.gpt_neox_japanese.layers)
    torch.testing.assert_close(again, stored)


@pytest.mark.filterwarnings("ignore")  # PEFT's and its dependencies' own
@pytest.mark.parametrize("gradient_checkpointing", [False, True])
def test_lora_has_default_targets(
    tiny_model: MakeModel, tmp_path: Path, gradient_checkpointing: bool
) -> None:
    peft = pytest.importorskip("peft")
    gpt_neox_japanese.register()
    base = tiny_model()
    ids = torch.tensor([[5, 6, 7, 8]])
    before = base(ids).logits
    model = peft.get_peft_model(base, peft.LoraConfig(task_type="CAUSAL_LM"))
    if gradient_checkpointing:
        model.enable_input_require_grads()
        model.gradient_checkpointing_enable()
    learning = [name for name, p in model.named_parameters() if p.requires_grad]
    assert len(learning) == 4
    assert all("attention.query_key_value.lora_" in name for name in learning)

    optimizer = torch.optim.SGD(model.parameters(), lr=1.0)
    for _ in range(2):
        model.train()(input_ids=ids, labels=ids, use_cache=False).loss.backward()
        optimizer.step()
    after = model.eval()(input_ids=ids).logits
    assert (after - before).abs().max() > 1e-3
    model.save_pretrained(tmp_path)
    again = peft.PeftModel.from_pretrained(tiny_model(), tmp_path)
    torch.testing.assert_close(again(input_ids=ids).logits, after)
    torch.testing.assert_close(model.merge_and_unload()(ids).logits, after)
