"""One training run: from scratch or onward from a checkpoint, on Hugging Face's Trainer."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import PrinterCallback, TrainingArguments
from transformers.trainer_callback import ProgressCallback

from gpt_neox_japanese.errors import ArgumentError, DataError, OutputError
from gpt_neox_japanese.files.model_directory import DEFAULT, find_model
from gpt_neox_japanese.files.outputs import check_output, check_writable, locked, target
from gpt_neox_japanese.files.remote import as_path
from gpt_neox_japanese.files.run_records import LOSS_LOG, RECORD, REPORT, SAMPLES
from gpt_neox_japanese.model.config import GPTNeoXJapaneseConfig
from gpt_neox_japanese.quantization.hf_modules import parameter_sizes
from gpt_neox_japanese.training.arguments import DTYPES, scoring_window, training_arguments
from gpt_neox_japanese.training.checkpoints.export import export
from gpt_neox_japanese.training.checkpoints.manager import CheckpointManager
from gpt_neox_japanese.training.checkpoints.reader import Progress, load_progress
from gpt_neox_japanese.training.data.dataset import collate
from gpt_neox_japanese.training.data.run_data import RunData, open_data, record_data
from gpt_neox_japanese.training.defaults import RunFacts, complete_settings, mode_of
from gpt_neox_japanese.training.distributed import agree, barrier, rank, world_size
from gpt_neox_japanese.training.machine.estimate import estimate_run
from gpt_neox_japanese.training.machine.malloc import keep_freed_memory
from gpt_neox_japanese.training.machine.memory_estimate import free_memory, peak_memory
from gpt_neox_japanese.training.machine.precision import training_device
from gpt_neox_japanese.training.model_setup import (
    base_digest,
    make_model,
    merged_model,
    model_config,
)
from gpt_neox_japanese.training.report.callbacks import (
    InterruptCallback,
    LossLogCallback,
    SamplesCallback,
)
from gpt_neox_japanese.training.report.mfu import MfuMeter, flops_per_token
from gpt_neox_japanese.training.report.page import (
    RunSummary,
    measurements,
    read_log,
    read_samples,
    write_report,
)
from gpt_neox_japanese.training.report.samples import write_samples
from gpt_neox_japanese.training.settings import (
    Architecture,
    RunSettings,
    Settings,
    check_same_run,
    record_settings,
    settings_to_dict,
    whole_name,
)
from gpt_neox_japanese.training.trainer import RunTrainer

__all__ = ["train"]


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
        output: The run's directory: the finished model, `train.json`, `data.json`,
            `loss.jsonl`, `loss.svg`, `report.md`, and the `checkpoint-<step>` directories the run
            can be resumed from.
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
        OutputError: `output` is not empty, cannot be written, or another run is writing it.
        TrainingError: A loss is not finite, or nothing more can be saved.
        CheckpointError: There is no such model.
        RemoteError: A URL cannot be read.
        ArgumentError: A step does not fit into the memory, or an option cannot be used here.
    """
    with InterruptCallback() as interrupt, ExitStack() as lock:
        checkpoint = _checkpoint_to_resume(output, resume)
        output = target(output)
        start = init_from if isinstance(init_from, Architecture) else find_model(init_from)
        model_directory = start if isinstance(start, Path) else None
        data = open_data(data_path, tokenizer, held_out, model=model_directory)
        if not data.num_held_out_tokens and (settings.keep_best or settings.early_stopping):
            option = "--keep-best" if settings.keep_best else "--early-stopping"
            raise ArgumentError(
                f"{option} goes by measurements, and {as_path(data_path)} has no held-out text; "
                "prepare it with --held-out or --held-out-files, or leave the option out"
            )
        progress = load_progress(checkpoint) if checkpoint is not None else None
        config = model_config(start, data, settings.sequence_length)
        decided = _decide(settings, start, data, config, progress)
        arguments = training_arguments(
            output, decided, config, measures=data.num_held_out_tokens > 0, starts=not resume
        )
        identity = {
            "settings": settings_to_dict(decided, init_from),
            "data": data.fingerprint,
            "held_out": data.held_out_fingerprint,
            "windows_per_step": _windows_per_step(decided, arguments),
            "base": base_digest(start) if decided.lora_rank and isinstance(start, Path) else None,
        }
        if checkpoint is not None and progress is not None:
            check_same_run(progress.settings, decided, init_from)
            _check_same(checkpoint, progress, identity)
        barrier()  # before anyone writes what the others look for
        if not torch.cuda.is_available():
            keep_freed_memory()
        model = make_model(start, data, decided)
        if decided.lora_rank and not isinstance(init_from, Architecture) and init_from != DEFAULT:
            # What is found from anywhere goes with the adapters, and not the Hub's cache.
            model.peft_config["default"].base_model_name_or_path = whole_name(init_from)
        run = _Run(model, data, output, decided, arguments)
        lock.enter_context(_alone_in(output))
        if arguments.process_index == 0:
            record_settings(
                *(output, as_path(data_path), decided, init_from),
                tokenizer=tokenizer,
                held_out_data=None if held_out is None else as_path(held_out),
            )
            record_data(output, data)
        run.announce(progress)
        trainer = run.trainer(identity, interrupt)
        trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)
        finished = trainer.stopped_early or trainer.state.global_step >= decided.steps
        if arguments.process_index == 0:
            run.conclude()
            if finished and decided.merge and isinstance(start, Path):
                merged = merged_model(start, output)
                weights = dict(merged.named_parameters())
                dtype = DTYPES[decided.save_dtype]
                export(merged, weights, data.tokenizer, output / "merged", dtype)
    return finished


def _decide(
    settings: Settings,
    start: Architecture | Path,
    data: RunData,
    config: GPTNeoXJapaneseConfig,
    progress: Progress | None,
) -> RunSettings:
    """The settings with nothing left open, the same in every process."""
    facts = RunFacts(
        mode=mode_of(settings, start),
        config=config,
        tokens_per_epoch=partial(data.tokens_per_epoch, settings=settings),
        processes=world_size(),
        device=training_device(),
        free_memory=free_memory(),
    )
    if progress is None:
        return agree(complete_settings(settings, facts))
    windows = progress.windows_per_step
    return agree(complete_settings(settings, facts, progress.settings, windows))


def _windows_per_step(settings: RunSettings, arguments: TrainingArguments) -> int:
    """The windows that all processes together take in a step."""
    return settings.batch_size * settings.gradient_accumulation * int(arguments.world_size)


class _Run:
    """What the parts of a run share."""

    def __init__(
        self,
        model: Any,
        data: RunData,
        output: Path,
        settings: RunSettings,
        arguments: TrainingArguments,
    ) -> None:
        self._model, self._data, self._output = model, data, output
        self._settings, self._arguments = settings, arguments
        self._first = arguments.process_index == 0
        windows_per_step = _windows_per_step(settings, arguments)
        self._tokens_per_step = windows_per_step * settings.sequence_length
        self._flops = flops_per_token(
            model,
            model.config.hidden_size,
            model.config.num_hidden_layers,
            settings.sequence_length,
        )
        self._meter = MfuMeter(
            self._flops / arguments.world_size, arguments.device, DTYPES[settings.dtype]
        )
        self._windows = data.training_windows(settings, settings.steps * windows_per_step)
        self._tokens_per_epoch = data.tokens_per_epoch(settings.sequence_length, settings)
        self._held_out = data.held_out_windows(
            scoring_window(model.config, settings), settings.eval_tokens
        )
        self._loss_log = LossLogCallback(
            output,
            settings.dtype,
            self._tokens_per_step,
            self._tokens_per_epoch,
            data.tokens_per_character,
            self._meter,
        )
        self._samples = SamplesCallback(
            output if self._first else None,
            self._write_samples,
            lambda lines: self._loss_log.progress.tell(lines),
        )

    def announce(self, progress: Progress | None) -> None:
        """Say what is trained, and what it will take; every process makes the same trial.

        Args:
            progress: Where an earlier part of the run ended, if there was one.
        """
        settings, data = self._settings, self._data
        done = progress.schedule_step if progress is not None else 0
        measured = progress.measured_tokens if progress is not None else None
        total, trained = self._count_parameters()
        what = (
            f"{trained:,} of {total:,} parameters are trained"
            if trained < total
            else f"a model of {total:,} parameters is trained"
        )
        steps = max(0, settings.steps - done)
        tokens = steps * self._tokens_per_step
        epochs = tokens / self._tokens_per_epoch
        passes = f"{epochs:.2g}" if epochs < 100 else f"{epochs:,.0f}"
        how_long = f"{steps:,} steps of {self._tokens_per_step:,} tokens, {passes} epochs"
        lines = [f"{what}: {how_long}; rate {settings.learning_rate:g}, {settings.dtype}"]
        estimate = estimate_run(
            self._model,
            settings,
            self._output,
            self._meter,
            self._flops,
            steps=steps,
            processes=self._arguments.world_size,
            held_out_tokens=self._held_out.num_tokens,
        )
        lines.append(f"it takes {estimate}")
        lines += data.notices(settings.sequence_length)
        if not data.num_held_out_tokens:
            lines.append("there is no held-out text, so nothing is measured on the way")
        if measured not in (None, self._held_out.num_tokens):
            lines.append(
                f"{self._held_out.num_tokens:,} held-out tokens are measured, and were {measured:,}"
                " before: the best figure until here is not compared with those to come"
            )
        if self._first:
            print("\n".join(lines), file=sys.stderr)

    def trainer(self, identity: Mapping[str, Any], interrupt: InterruptCallback) -> RunTrainer:
        """Put the trainer together.

        Args:
            identity: What a resumed run must have in common with this one, as JSON values.
            interrupt: The callback that ends the run on Ctrl-C.
        """
        settings = self._settings
        callbacks: list[Any] = [interrupt]
        if self._first:
            callbacks.append(self._loss_log)
        if settings.sample_prompt:
            callbacks.append(self._samples)
        trainer = RunTrainer(
            use_muon=settings.uses_muon,
            identity=identity,
            export=self._export,
            ema=settings.ema,
            keep_best=settings.keep_best,
            num_ids=len(self._data.codec),
            patience=settings.early_stopping,
            model=self._model,
            args=self._arguments,
            train_dataset=self._windows,
            eval_dataset=self._held_out,
            data_collator=collate,
            callbacks=callbacks,
        )
        trainer.remove_callback(PrinterCallback)
        trainer.remove_callback(ProgressCallback)
        return trainer

    def conclude(self) -> None:
        """Write the run's page, and say what became of it."""
        total, trained = self._count_parameters()
        log = read_log(self._output / LOSS_LOG)
        tokens = self._held_out.num_tokens
        for line in measurements(log)[-1:]:  # may be of others, if a resume has measured nothing
            tokens = line.get("held_out_tokens", tokens)
        read = self._data.describe_measured(tokens)
        window = scoring_window(self._model.config, self._settings)
        if window < self._model.config.max_position_embeddings:
            read += f"; on the way it reads at most {window:,} at once"
        summary = RunSummary(
            parameters=total,
            trained=trained,
            data=self._data.sizes,
            held_out=read,
            kept_best=self._settings.keep_best,
            peak_memory=peak_memory(),
        )
        settings = json.loads((self._output / RECORD).read_text(encoding="utf-8"))
        samples = read_samples(self._output / SAMPLES) if self._settings.sample_prompt else []
        measured = write_report(self._output, log, settings, summary, samples)
        print(f"held-out text: {measured}", file=sys.stderr)
        print(f"the curve is in {self._output / REPORT}", file=sys.stderr)

    def _count_parameters(self) -> tuple[int, int]:
        """All parameters, and those that are trained."""
        sizes = list(parameter_sizes(self._model))
        trained = sum(size for p, size in sizes if p.requires_grad)
        return sum(size for _, size in sizes), trained

    def _export(self, weights: Mapping[str, Tensor]) -> None:
        dtype = DTYPES[self._settings.save_dtype]
        export(self._model, weights, self._data.tokenizer, self._output, dtype)

    def _write_samples(self) -> list[str]:
        settings, data = self._settings, self._data
        return write_samples(
            self._model,
            data.codec,
            data.eos_token_id,
            [data.beginning(prompt) for prompt in settings.sample_prompt],
            settings.sample_tokens,
        )


@contextmanager
def _alone_in(output: Path) -> Iterator[None]:
    """Make a run's directory and keep other runs from it, which the first process does for all."""
    with ExitStack() as lock:
        refusal: Exception | None = None
        if rank() == 0:
            try:
                lock.enter_context(locked(output / ".train", output))
            except (OutputError, OSError) as error:
                refusal = error
        if (refusal := agree(refusal)) is not None:  # or the others would wait for the first
            raise refusal
        yield


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
        raise DataError(
            f"{output} holds no checkpoint to resume from; remove it, and run without --resume"
        )
    return checkpoint


def _check_own_files(output: Path) -> None:
    """Make sure that what a run writes there stays there, and that no write waits for a reader."""
    for path in output.iterdir() if output.is_dir() else ():
        if path.name.startswith("checkpoint-"):  # these are only read
            continue
        # A kill leaves hidden directories, which the next checkpoint or model removes.
        hidden = path.name.startswith(".")
        is_own = path.is_file() or (path.is_dir() and (hidden or not path.suffix))
        if path.is_symlink() or not is_own:
            raise DataError(
                f"{path} is a link or no regular file, and a run is not written through it; put "
                "what it leads to in its place, or remove it"
            )


def _check_same(checkpoint: Path, progress: Progress, identity: Mapping[str, Any]) -> None:
    if progress.data != identity["data"]:
        raise DataError(
            f"the run in {checkpoint.parent} was started on other data; give the same --data, or "
            "start a new run with --init-from"
        )
    if progress.held_out not in (None, identity["held_out"]):
        raise DataError(
            f"the run in {checkpoint.parent} was started with other held-out text; give the same "
            "--held-out-data, or start a new run with --init-from"
        )
    if progress.base not in (None, identity["base"]):
        raise DataError(
            f"the adapters in {checkpoint.parent} were trained beside another model of that name, "
            "or it was changed; put theirs into a directory of the same name (a copy, if it is a "
            "snapshot of the Hub), and name that with --init-from"
        )
