"""One training run: from scratch or onward from a checkpoint, on Hugging Face's Trainer."""

from __future__ import annotations

import importlib.util
import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import PrinterCallback, Trainer, TrainingArguments
from transformers.trainer_callback import ProgressCallback

from gpt_neox_japanese.errors import ArgumentError, DataError
from gpt_neox_japanese.files.model_directory import DEFAULT, find_model
from gpt_neox_japanese.files.outputs import check_output, check_writable, target
from gpt_neox_japanese.files.remote import as_path
from gpt_neox_japanese.training.checkpoints.export import export
from gpt_neox_japanese.training.checkpoints.manager import CheckpointManager
from gpt_neox_japanese.training.checkpoints.reader import load_progress
from gpt_neox_japanese.training.data.dataset import HeldOutWindows, TrainingWindows
from gpt_neox_japanese.training.data.run_data import RunData, open_data
from gpt_neox_japanese.training.data.subword_regularization import SubwordDropoutEpochs
from gpt_neox_japanese.training.distributed import barrier
from gpt_neox_japanese.training.malloc import keep_freed_memory
from gpt_neox_japanese.training.model_setup import make_model, merged_model
from gpt_neox_japanese.training.report.callbacks import (
    LOSS_LOG,
    InterruptCallback,
    LossLogCallback,
    SamplesCallback,
)
from gpt_neox_japanese.training.report.mfu import MfuMeter, flops_per_token
from gpt_neox_japanese.training.report.page import read_log, write_report
from gpt_neox_japanese.training.report.samples import write_samples
from gpt_neox_japanese.training.settings import (
    RECORD,
    Architecture,
    Settings,
    check_same_run,
    record_settings,
    settings_to_dict,
)
from gpt_neox_japanese.training.trainer import RunTrainer

__all__ = ["train"]

_DTYPES = {"bf16": torch.bfloat16, "fp32": torch.float32}


def train(
    data_path: str | Path,
    output: Path,
    settings: Settings,
    init_from: Architecture | str | Path,
    *,
    tokenizer: str | Path | None = None,
    held_out: str | Path | None = None,
    resume: bool = False,
) -> bool:
    """Train, and leave a finished model in `output`.

    Args:
        data_path: A prepared corpus or an indexed dataset, a path or a URL, see `open_data`.
        output: The run's directory: the finished model, `train.json`, `loss.jsonl`, `loss.svg`,
            `report.md`, and the `checkpoint-<step>` directories the run can be resumed from.
        settings: How to train.
        init_from: A new model's shape; or the directory or Hub id of a model to train on.
        tokenizer: Directory or Hub id of the vocabulary of an indexed dataset; that of the model
            if there is one.
        held_out: The held-out part of an indexed dataset.
        resume: Continue the run in `output` from its newest complete checkpoint.

    Returns:
        Whether the run reached its end; False when Ctrl-C stopped it early.

    Raises:
        DataError: The data does not fit the model, the run in `output` was another, or there is
            nothing to resume.
        OutputError: `output` is not empty or cannot be written.
        TrainingError: A loss is not finite, or nothing more can be saved.
        CheckpointError: There is no such model.
        RemoteError: A URL cannot be read.
        ArgumentError: A step does not fit into the memory, or an option cannot be used here.
    """
    with InterruptCallback() as interrupt:
        checkpoint = _checkpoint_to_resume(output, resume)
        output = target(output)
        start = init_from if isinstance(init_from, Architecture) else find_model(init_from)
        model_directory = start if isinstance(start, Path) else None
        data = open_data(data_path, tokenizer or model_directory, held_out)
        arguments = _arguments(
            output, settings, evaluates=len(data.held_out) > settings.sequence_length
        )
        identity = {"settings": settings_to_dict(settings, init_from), "data": data.fingerprint}
        if checkpoint is not None:
            _check_same(checkpoint, data, settings, init_from)
        barrier()  # before anyone writes what the others look for
        model = make_model(start, data, settings)
        if settings.lora_rank and str(init_from) not in (str(start), DEFAULT):
            # The Hub's name goes with the adapters anywhere, its cache on this machine does not.
            model.peft_config["default"].base_model_name_or_path = str(init_from)
        if not torch.cuda.is_available():
            keep_freed_memory()
        if arguments.process_index == 0:
            if checkpoint is None and isinstance(start, Architecture):
                size = sum(parameter.numel() for parameter in model.parameters())
                print(
                    f"a new model of {size:,} parameters is made; --init-from would train one on",
                    file=sys.stderr,
                )
            output.mkdir(parents=True, exist_ok=True)
            record_settings(output, as_path(data_path), settings, init_from)
        run = _Run(model, data, output, settings, arguments)
        trainer = run.trainer(identity, interrupt)
        trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)
        finished = bool(trainer.state.global_step >= settings.steps)
        if arguments.process_index == 0:
            run.conclude()
            if finished and settings.merge and isinstance(start, Path):
                merged = merged_model(start, output)
                weights = dict(merged.named_parameters())
                dtype = _DTYPES[settings.save_dtype]
                export(merged, weights, data.tokenizer, output / "merged", dtype)
    return finished


class _Run:
    """What the parts of a run share."""

    def __init__(
        self,
        model: Any,
        data: RunData,
        output: Path,
        settings: Settings,
        arguments: TrainingArguments,
    ) -> None:
        self._model, self._data, self._output = model, data, output
        self._settings, self._arguments = settings, arguments
        self._first = arguments.process_index == 0
        self._samples = SamplesCallback(output if self._first else None, self._write_samples)

    def trainer(self, identity: Mapping[str, Any], interrupt: InterruptCallback) -> Trainer:
        """Put the trainer together.

        Args:
            identity: What a resumed run must have in common with this one, as JSON values.
            interrupt: The callback that ends the run on Ctrl-C.
        """
        settings, data = self._settings, self._data
        windows_per_step = (
            settings.batch_size
            * settings.gradient_accumulation
            * max(self._arguments.n_gpu, 1)
            * self._arguments.world_size
        )
        stream = data.train
        epochs = (
            SubwordDropoutEpochs(
                stream, data.codec, data.eos_token_id, settings.subword_dropout, settings.seed
            )
            if settings.subword_dropout
            else stream
        )
        callbacks: list[Any] = [interrupt]
        if self._first:
            callbacks.append(self._report(windows_per_step * settings.sequence_length))
        if settings.sample_prompt:
            callbacks.append(self._samples)
        trainer = RunTrainer(
            use_muon=settings.uses_muon,
            identity=identity,
            export=self._export,
            model=self._model,
            args=self._arguments,
            train_dataset=TrainingWindows(
                epochs,
                settings.sequence_length,
                settings.steps * windows_per_step,
                settings.seed,
                data.eos_token_id if settings.document_masking else None,
            ),
            eval_dataset=HeldOutWindows(
                data.held_out, settings.sequence_length, settings.eval_tokens
            ),
            callbacks=callbacks,
        )
        trainer.remove_callback(PrinterCallback)
        trainer.remove_callback(ProgressCallback)
        return trainer

    def conclude(self) -> None:
        """Write the run's page."""
        parameters = sum(p.numel() for p in self._model.parameters())
        settings = json.loads((self._output / RECORD).read_text(encoding="utf-8"))
        log = read_log(self._output / LOSS_LOG)
        write_report(self._output, log, settings, parameters, self._samples.texts)

    def _report(self, tokens_per_step: int) -> LossLogCallback:
        config = self._model.config
        operations = flops_per_token(
            self._model,
            config.hidden_size,
            config.num_hidden_layers,
            self._settings.sequence_length,
        )
        dtype = _DTYPES[self._settings.dtype]
        world = self._arguments.world_size
        mfu_meter = MfuMeter(operations / world, self._arguments.device, dtype)
        density = self._data.tokens_per_character
        return LossLogCallback(self._output, tokens_per_step, density, mfu_meter)

    def _export(self, weights: Mapping[str, Tensor]) -> None:
        dtype = _DTYPES[self._settings.save_dtype]
        export(self._model, weights, self._data.tokenizer, self._output, dtype)

    def _write_samples(self) -> list[str]:
        settings, data = self._settings, self._data
        return write_samples(
            self._model,
            data.codec,
            data.eos_token_id,
            settings.sample_prompt,
            settings.sample_tokens,
        )


def _checkpoint_to_resume(output: Path, resume: bool) -> Path | None:
    if not resume:
        check_output(output, "continue its run with --resume, or choose another")
        return None
    check_writable(output)
    _check_own_files(output)
    checkpoint, problems = CheckpointManager(output).newest()
    for problem in problems:
        print(f"passed over: {problem}", file=sys.stderr)
    if checkpoint is None:
        raise DataError(f"{output} holds no checkpoint to resume from; run without --resume")
    return checkpoint


def _check_own_files(output: Path) -> None:
    """Make sure that what a run writes there stays there, and that no write waits for a reader."""
    for path in output.iterdir() if output.is_dir() else ():
        if path.name.startswith("checkpoint-"):  # these are only read
            continue
        is_own = path.is_file() or (path.is_dir() and not path.suffix)
        if path.is_symlink() or not is_own:
            raise DataError(
                f"{path} is a link or no regular file, and a run is not written through it; put "
                "what it leads to in its place, or remove it"
            )


def _check_same(
    checkpoint: Path, data: RunData, settings: Settings, init_from: Architecture | str | Path
) -> None:
    progress = load_progress(checkpoint)
    check_same_run(progress.settings, settings, init_from)
    if progress.data != data.fingerprint:
        raise DataError(
            f"the run in {checkpoint.parent} was started on other data; give the same --data, or "
            "start a new run with --init-from"
        )


def _arguments(output: Path, settings: Settings, *, evaluates: bool) -> TrainingArguments:
    if settings.shard and not torch.cuda.is_available():
        # accelerate would copy the model into every process, and say nothing.
        raise ArgumentError("--shard needs GPUs; on CPUs leave it out: each process has a copy")
    wsd = settings.schedule == "wsd"
    options: dict[str, Any] = _checkpointing(settings)
    if not settings.shard:  # every parameter has a gradient in every pass, and no buffer changes
        options |= {"ddp_find_unused_parameters": False, "ddp_broadcast_buffers": False}
    if settings.shard:
        options |= {"fsdp": True, "fsdp_config": {"version": 2}}
    return TrainingArguments(
        output_dir=str(output),
        per_device_train_batch_size=settings.batch_size,
        per_device_eval_batch_size=settings.batch_size,
        gradient_accumulation_steps=settings.gradient_accumulation,
        max_steps=settings.steps,
        learning_rate=settings.learning_rate,
        weight_decay=settings.weight_decay,
        max_grad_norm=settings.max_grad_norm,
        lr_scheduler_type="warmup_stable_decay" if wsd else "cosine",
        warmup_steps=round(settings.warmup * settings.steps),
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
        logging_nan_inf_filter=False,
        eval_strategy="steps" if evaluates else "no",
        eval_steps=settings.eval_every,
        prediction_loss_only=True,
        save_strategy="steps",
        save_steps=settings.save_every,
        disable_tqdm=True,
        report_to=_tensorboard() if settings.tensorboard else "none",
        **options,
    )


def _checkpointing(settings: Settings) -> dict[str, Any]:
    # The argument was renamed; versions before 5.23 know only the old name, later ones warn of it.
    known = TrainingArguments.__dataclass_fields__
    new, old = "activation_checkpointing", "gradient_checkpointing"
    if not settings.gradient_checkpointing:
        return {}
    return {new if new in known else old: True}


def _tensorboard() -> str:
    if importlib.util.find_spec("tensorboard") is None:
        raise ArgumentError(
            "--tensorboard needs TensorBoard: pip install 'gpt-neox-japanese[tensorboard]'"
        )
    return "tensorboard"
