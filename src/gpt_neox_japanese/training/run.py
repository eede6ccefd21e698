"""One training run: from scratch or onward from a checkpoint, on Hugging Face's Trainer."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any, cast

import torch
from torch import nn
from torch.optim import Optimizer
from transformers import PrinterCallback, Trainer, TrainingArguments
from transformers.trainer_callback import ProgressCallback

from gpt_neox_japanese.errors import DataError
from gpt_neox_japanese.model.config import GPTNeoXJapaneseConfig
from gpt_neox_japanese.model.modeling import GPTNeoXJapaneseForCausalLM
from gpt_neox_japanese.tokenizer.vocabulary import Vocabulary
from gpt_neox_japanese.training import attention
from gpt_neox_japanese.training.checkpoint import export, newest_checkpoint
from gpt_neox_japanese.training.dataset import HeldOutWindows, TrainingWindows
from gpt_neox_japanese.training.memory import keep_freed_memory
from gpt_neox_japanese.training.optimizer import MuonAndAdamW
from gpt_neox_japanese.training.reporting import Export, Interruption, Report
from gpt_neox_japanese.training.settings import Architecture, Settings
from gpt_neox_japanese.training.shards import PreparedData

__all__ = ["train"]

SETTINGS = "train.json"

_DTYPES = {"bf16": torch.bfloat16, "fp32": torch.float32}


class _Trainer(Trainer):
    """Trainer with our optimizer."""

    def create_optimizer(self, model: Any = None) -> Optimizer:
        if self.optimizer is None:
            self.optimizer = MuonAndAdamW(
                cast(nn.Module, model or self.model),
                self.args.learning_rate,
                self.args.weight_decay,
            )
        return self.optimizer


def train(
    data_directory: Path,
    output: Path,
    settings: Settings,
    start: Architecture | Path,
    *,
    resume: bool = False,
) -> bool:
    """Train, and leave a finished model in `output`.

    Args:
        data_directory: a prepared corpus.
        output: the run's directory: the finished model, `train.json`, `loss.jsonl`, and the
            `checkpoint-<step>` directories the run can be resumed from.
        settings: how to train.
        start: a new model's shape, or the directory of a model to train on.
        resume: continue the run in `output` from its newest checkpoint.

    Returns:
        Whether the run reached its end; False when Ctrl-C stopped it early.

    Raises:
        DataError: the data does not fit the model, `output` holds another run, or there is
            nothing to resume.
    """
    data = PreparedData(data_directory)
    vocabulary = Vocabulary.load(data_directory)
    data.check_vocabulary(vocabulary.fingerprint, data_directory)
    checkpoint = _checkpoint_to_resume(output, resume)
    torch.manual_seed(settings.seed)
    model = _start_model(start, data, vocabulary, settings)
    if not torch.cuda.is_available():
        keep_freed_memory()
        if settings.dtype == "bf16":
            model.set_attn_implementation(attention.NAME)

    output.mkdir(parents=True, exist_ok=True)
    _save_settings(output, data_directory, settings, start)
    with Interruption() as interruption:
        trainer = _make_trainer(model, data, output, settings, interruption)
        trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)
    return bool(trainer.state.global_step >= settings.steps)


def _checkpoint_to_resume(output: Path, resume: bool) -> Path | None:
    if not resume:
        if output.exists() and (not output.is_dir() or any(output.iterdir())):
            raise DataError(
                f"{output} exists and is not empty; continue its run with --resume, "
                "or choose another --output"
            )
        return None
    checkpoint = newest_checkpoint(output)
    if checkpoint is None:
        raise DataError(f"{output} holds no checkpoint to resume from; run without --resume")
    return checkpoint


def _start_model(
    start: Architecture | Path, data: PreparedData, vocabulary: Vocabulary, settings: Settings
) -> GPTNeoXJapaneseForCausalLM:
    if isinstance(start, Path):
        data.check_vocabulary(Vocabulary.load(start).fingerprint, start)
        model = GPTNeoXJapaneseForCausalLM.from_pretrained(start, dtype=torch.float32)
        longest = model.config.max_position_embeddings
        if settings.sequence_length > longest:
            raise DataError(
                f"the model in {start} reads at most {longest} tokens, "
                f"--sequence-length is {settings.sequence_length}"
            )
        return model
    return GPTNeoXJapaneseForCausalLM(
        GPTNeoXJapaneseConfig(
            vocab_size=data.manifest.vocabulary_size,
            hidden_size=start.hidden_size,
            num_hidden_layers=start.layers,
            num_attention_heads=start.heads,
            max_position_embeddings=settings.sequence_length,
            bos_token_id=vocabulary.ids.get("<|startoftext|>", data.manifest.eos_token_id),
            eos_token_id=data.manifest.eos_token_id,
            attention_dropout=0.0,
            hidden_dropout=0.0,
        )
    )


def _save_settings(
    output: Path, data_directory: Path, settings: Settings, start: Architecture | Path
) -> None:
    origin = {"model": start.name} if isinstance(start, Path) else {"architecture": asdict(start)}
    record = {"data": data_directory.name, **origin, **asdict(settings)}
    (output / SETTINGS).write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")


def _make_trainer(
    model: GPTNeoXJapaneseForCausalLM,
    data: PreparedData,
    output: Path,
    settings: Settings,
    interruption: Interruption,
) -> Trainer:
    arguments = _arguments(
        output, settings, evaluates=len(data.held_out) > settings.sequence_length
    )
    windows_per_step = (
        settings.batch_size
        * settings.gradient_accumulation
        * max(arguments.n_gpu, 1)
        * arguments.world_size
    )
    held_out = data.manifest.held_out
    report = Report(
        output,
        windows_per_step * settings.sequence_length,
        held_out.tokens / max(held_out.characters, 1),
    )
    finish = Export(lambda: export(model, data.directory, output, _DTYPES[settings.save_dtype]))
    trainer = _Trainer(
        model=model,
        args=arguments,
        train_dataset=TrainingWindows(
            data.train,
            settings.sequence_length,
            settings.steps * windows_per_step,
            settings.seed,
        ),
        eval_dataset=HeldOutWindows(data.held_out, settings.sequence_length, settings.eval_tokens),
        # Only one of several processes reports and writes.
        callbacks=[interruption, *([report, finish] if arguments.process_index == 0 else [])],
    )
    trainer.remove_callback(PrinterCallback)
    trainer.remove_callback(ProgressCallback)
    return trainer


def _arguments(output: Path, settings: Settings, *, evaluates: bool) -> TrainingArguments:
    return TrainingArguments(
        output_dir=str(output),
        per_device_train_batch_size=settings.batch_size,
        per_device_eval_batch_size=settings.batch_size,
        gradient_accumulation_steps=settings.gradient_accumulation,
        max_steps=settings.steps,
        learning_rate=settings.learning_rate,
        weight_decay=settings.weight_decay,
        max_grad_norm=settings.max_grad_norm,
        lr_scheduler_type="warmup_stable_decay",
        warmup_steps=round(settings.warmup * settings.steps),
        lr_scheduler_kwargs={
            "num_decay_steps": round(settings.decay * settings.steps),
            "decay_type": "linear",
        },
        seed=settings.seed,
        bf16=settings.dtype == "bf16",
        use_cpu=not torch.cuda.is_available(),
        torch_compile=settings.compile,
        # The dataset is in the order of the run already.
        train_sampling_strategy="sequential",
        dataloader_pin_memory=torch.cuda.is_available(),
        logging_strategy="steps",
        logging_steps=settings.log_every,
        logging_nan_inf_filter=False,
        eval_strategy="steps" if evaluates else "no",
        eval_steps=settings.eval_every,
        prediction_loss_only=True,
        save_strategy="steps",
        save_steps=settings.save_every,
        save_total_limit=2,
        disable_tqdm=True,
        report_to="none",
    )
