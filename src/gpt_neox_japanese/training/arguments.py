"""The settings of a run in the words of transformers' Trainer."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from transformers import TrainingArguments
from transformers.integrations.integration_utils import INTEGRATION_TO_CALLBACK

from gpt_neox_japanese.checks import one_line, short_repr
from gpt_neox_japanese.errors import ArgumentError
from gpt_neox_japanese.model.config import GPTNeoXJapaneseConfig
from gpt_neox_japanese.training.settings import RunSettings

__all__ = ["DTYPES", "scoring_window", "training_arguments"]

_MAX_SCORING_WINDOW = 4096

DTYPES = {"bf16": torch.bfloat16, "fp32": torch.float32}
"""What torch calls the precisions of a run."""


def training_arguments(
    output: Path,
    settings: RunSettings,
    config: GPTNeoXJapaneseConfig,
    *,
    measures: bool,
    starts: bool,
) -> TrainingArguments:
    """Say a run's settings in the words of transformers' Trainer.

    Args:
        output: The run's directory.
        settings: How it is trained.
        config: The model.
        measures: Whether there is held-out text to measure on.
        starts: Whether the run begins, and is not resumed.

    Returns:
        Arguments; making them joins the processes of torchrun.

    Raises:
        ArgumentError: An option cannot be used here, or needs what is not installed.
    """
    if settings.shard and not torch.cuda.is_available():
        # accelerate would copy the model into every process, and say nothing.
        raise ArgumentError("--shard needs GPUs; on CPUs leave it out: each process has a copy")
    wsd = settings.schedule == "wsd"
    options: dict[str, Any] = _checkpointing(settings)
    if not settings.shard:  # every parameter has a gradient in every pass, and no buffer changes
        options |= {"ddp_find_unused_parameters": False, "ddp_broadcast_buffers": False}
    if settings.shard:
        options |= {"fsdp": True, "fsdp_config": {"version": 2}}
    arguments = TrainingArguments(
        output_dir=str(output),
        per_device_train_batch_size=settings.batch_size,
        per_device_eval_batch_size=_scoring_batch(config, settings),
        gradient_accumulation_steps=settings.gradient_accumulation,
        max_steps=settings.steps,
        learning_rate=settings.learning_rate,
        weight_decay=settings.weight_decay,
        max_grad_norm=settings.max_grad_norm,
        lr_scheduler_type="warmup_stable_decay" if wsd else "cosine",
        warmup_steps=_warmup_steps(settings),
        lr_scheduler_kwargs={
            "num_decay_steps": round(settings.decay * settings.steps),
            "decay_type": "linear",
        }
        if wsd
        else {},
        seed=settings.seed,
        bf16=settings.dtype == "bf16",
        use_cpu=not torch.cuda.is_available(),
        torch_compile=settings.compile,
        # The dataset is in the order of the run already.
        train_sampling_strategy="sequential",
        remove_unused_columns=False,
        dataloader_pin_memory=torch.cuda.is_available(),
        logging_strategy="steps",
        logging_steps=settings.log_every,
        logging_first_step=True,
        logging_nan_inf_filter=False,
        eval_strategy="steps" if measures else "no",
        eval_steps=settings.eval_every,
        eval_on_start=measures and starts,
        metric_for_best_model="loss" if measures else None,
        greater_is_better=False if measures else None,
        prediction_loss_only=True,
        save_strategy="steps",
        save_steps=settings.save_every,
        disable_tqdm=True,
        report_to=_reporters(settings.report_to),
        **options,
    )
    # A process trains on one GPU, torchrun starts one for each; Trainer would put a DataParallel
    # around the model, which multiplies the batch and cannot be measured.
    arguments._n_gpu = min(arguments.n_gpu, 1)
    return arguments


def _warmup_steps(settings: RunSettings) -> int:
    """Steps until the peak rate. The first of them has the rate 0: one alone would do nothing."""
    steps = round(settings.warmup * settings.steps)
    return steps if steps > 1 else 0


def _checkpointing(settings: RunSettings) -> dict[str, Any]:
    # The argument was renamed; versions before 5.23 know only the old name, later ones warn of it.
    known = TrainingArguments.__dataclass_fields__
    new, old = "activation_checkpointing", "gradient_checkpointing"
    if not settings.gradient_checkpointing:
        return {}
    return {new if new in known else old: True}


def scoring_window(config: GPTNeoXJapaneseConfig, settings: RunSettings) -> int:
    """Tell how many tokens a model reads at once when it is measured: as many as it can.

    Args:
        config: The model; one that reads very many has no memory for them while it is trained.
        settings: How it is trained.
    """
    longest = int(config.max_position_embeddings)
    return min(longest, max(_MAX_SCORING_WINDOW, settings.sequence_length))


def _scoring_batch(config: GPTNeoXJapaneseConfig, settings: RunSettings) -> int:
    """Windows of a measurement at once: about as many tokens as in a pass of training."""
    tokens = settings.batch_size * settings.sequence_length
    return max(1, tokens // scoring_window(config, settings))


def _reporters(names: Sequence[str]) -> list[str] | str:
    """What transformers calls `report_to`: names that it knows, of programs that are there."""
    known = sorted(INTEGRATION_TO_CALLBACK)
    for name in names:
        if name not in known:
            raise ArgumentError(
                f"--report-to {short_repr(name)} is no reporter of transformers; it has "
                f"{', '.join(known)}"
            )
        try:
            INTEGRATION_TO_CALLBACK[name]()
        except (RuntimeError, ImportError) as error:
            raise ArgumentError(
                f"--report-to {name} cannot be used: {one_line(error)}; install it first"
            ) from error
    return list(names) or "none"
