"""transformers' Trainer with our optimizer, our checkpoints, and a check of every loss."""
# transformers' methods carry no annotations.
# mypy: disallow-untyped-calls=False

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from pathlib import Path
from typing import Any, cast

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.optim import Optimizer
from transformers import Trainer, TrainerCallback, TrainerState

from gpt_neox_japanese.errors import CheckpointError, TrainingError
from gpt_neox_japanese.training.checkpoints import reader
from gpt_neox_japanese.training.checkpoints.gather import (
    gather_optimizer,
    gather_parameters,
    restore_optimizer,
    restore_parameters,
    shard_again,
)
from gpt_neox_japanese.training.checkpoints.manager import CheckpointManager, TrainingState
from gpt_neox_japanese.training.data.dataset import IGNORED, collate
from gpt_neox_japanese.training.data.run_data import HeldOut
from gpt_neox_japanese.training.distributed import barrier
from gpt_neox_japanese.training.optim.optimizer import MuonAndAdamW, adamw, state_layout
from gpt_neox_japanese.training.optim.weight_average import WeightAverage

__all__ = ["RunTrainer"]


class RunTrainer(Trainer):
    """Trainer of one run.

    Args:
        use_muon: Whether the hidden matrices are Muon's.
        identity: What a resumed run must have in common with this one, as JSON values.
        export: Called on the first process with the whole weights: after every save, or of the
            best model.
        ema: Decay of the running average of the weights that is measured and exported in their
            place; 0 for none.
        keep_best: Whether the model that is exported is the one with the best measurement.
        num_ids: Ids of the vocabulary; further rows of the head are no token's, and not measured.
        patience: End the run after so many measurements without a better one; 0 for never.
        **kwargs: Trainer's own.

    Attributes:
        stopped_early: Whether that ended it.
    """

    def __init__(
        self,
        *,
        use_muon: bool,
        identity: Mapping[str, Any],
        export: Callable[[Mapping[str, Tensor]], None],
        ema: float = 0.0,
        keep_best: bool = False,
        num_ids: int | None = None,
        patience: int = 0,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.add_callback(_IntervalCallback)
        self._ema = ema
        self._average: WeightAverage | None = None
        if ema:
            self.add_callback(_AverageCallback(self._begun_average))
        self._keep_best, self._num_ids, self._patience = keep_best, num_ids, patience
        self.stopped_early = False
        self._measured_tokens: int | None = None  # of the best measurement so far
        self._use_muon = use_muon
        self._identity = identity
        self._export = export
        self._checkpoints = CheckpointManager(Path(cast(str, self.args.output_dir)))
        # The forward passes of the step: their losses, and which windows they saw.
        self._passes: list[tuple[Tensor, Tensor]] = []

    def create_optimizer(self, model: Any = None) -> Optimizer:
        """Make Muon with AdamW, or AdamW alone, where Trainer would make its own.

        Args:
            model: Whose parameters are trained; None for the trainer's own model.

        Returns:
            The optimizer; the same one at each call.
        """
        if self.optimizer is None:
            make = MuonAndAdamW if self._use_muon else adamw
            of = cast(nn.Module, model or self.model)
            self.optimizer = make(of, self.args.learning_rate, self.args.weight_decay)
        return self.optimizer

    def training_step(
        self, model: nn.Module, inputs: dict[str, Any], num_items_in_batch: Any = None
    ) -> Tensor:
        """Run a forward and a backward pass, and remember what they saw.

        Args:
            model: The model, maybe wrapped for several processes.
            inputs: A batch; its `window` is taken out of it.
            num_items_in_batch: How many labels the whole step has; None if it is not known.

        Returns:
            The loss, detached.
        """
        windows = inputs.pop("window")
        loss: Tensor = super().training_step(model, inputs, num_items_in_batch)
        self._passes.append((loss, windows))
        return loss

    def evaluate(self, *args: Any, **kwargs: Any) -> dict[str, float]:
        """Measure the model on the held-out windows, as `neox-ja evaluate` does.

        Every process takes its share of the windows, and all get the same result.

        Args:
            *args: Not used.
            **kwargs: Not used.

        Returns:
            `eval_loss`, in nats per token, `eval_tokens`, of how many, and `eval_runtime`, in
            seconds.
        """
        start = time.perf_counter()
        with self._average.in_place() if self._average else nullcontext():
            windows = cast(HeldOut, self.eval_dataset)
            nats, tokens = self._score(windows)
            metrics = {
                "eval_loss": nats / tokens,
                "eval_tokens": windows.num_tokens,
                "eval_runtime": time.perf_counter() - start,
            }
            self.log(metrics)
            self.control = self.callback_handler.on_evaluate(
                self.args, self.state, self.control, metrics
            )
            shard_again(self._whole_model())  # before other weights take the place of these
        if self.state.global_step == 0:  # the model that the run starts with may stay the best
            self._determine_best_metric(metrics, None)
        return metrics

    def _score(self, windows: HeldOut) -> tuple[float, float]:
        """The nats of all tokens that the windows predict, and how many these are."""
        model = self._wrap_model(cast(nn.Module, self.model), training=False)
        options = {"num_ids": self._num_ids, "skip_logits": True, "use_cache": False}
        size, world = self.args.eval_batch_size, self.args.world_size
        sums = torch.zeros(2, dtype=torch.float64, device=self.args.device)
        model.eval()
        # A sharded model is gathered in each pass, so every process makes as many: the last
        # ones may have nothing new, which then does not count.
        for first in range(0, len(windows), size * world):
            mine = range(first + size * self.args.process_index, len(windows))[:size]
            batch = collate([windows[index] for index in mine or range(1)])
            inputs = cast(dict[str, Any], self._prepare_inputs(batch))
            with torch.no_grad(), self.compute_loss_context_manager():
                loss = model(**inputs, **options).loss
            count = (inputs["shift_labels"] != IGNORED).sum()
            if mine:
                sums += torch.stack([loss.detach().double() * count, count.double()])
        model.train()
        if world > 1:
            dist.all_reduce(sums)
        nats, tokens = sums.tolist()
        return nats, tokens

    def _determine_best_metric(self, metrics: dict[str, float], trial: Any) -> bool:
        """Keep the best model, and end the run when it has not become better for long."""
        tokens = int(metrics["eval_tokens"])
        if self._measured_tokens not in (None, tokens):  # a figure of other text is no measure
            self.state.best_metric = self.state.best_global_step = None
        self._measured_tokens = tokens
        is_best = super()._determine_best_metric(metrics, trial)
        if is_best and self._keep_best:
            weights = self._gather_finished()
            if self.args.should_save:
                self._export(weights)
        waited = self.state.global_step - (self.state.best_global_step or 0)
        if self._patience and waited >= self._patience * cast(int, self.args.eval_steps):
            self.stopped_early = True
            self.control.should_save = self.control.should_training_stop = True
        return is_best

    def _begun_average(self) -> WeightAverage:
        """The running average of the weights, which begins with those of the first call."""
        if self._average is None:
            self._average = WeightAverage(self._parameters(), self._ema)
        return self._average

    def _gather_finished(self) -> dict[str, Tensor]:
        """The weights that the run would leave now."""
        if self._average is not None:
            return self._average.gather()
        return gather_parameters(self._parameters())

    def _get_grad_norm(self, model: nn.Module, grad_norm: Any = None) -> Any:
        """Stop before the optimizer takes a step that would spoil the weights."""
        norm = super()._get_grad_norm(model, grad_norm)
        passes, self._passes = self._passes, []
        losses = torch.stack([loss for loss, _ in passes])
        # One comparison, so that the GPU is synchronised once a step.
        if not torch.isfinite(losses.sum() + torch.as_tensor(norm, device=losses.device)):
            raise TrainingError(self._describe_failure(passes))
        return norm

    def _describe_failure(self, passes: list[tuple[Tensor, Tensor]]) -> str:
        step = self.state.global_step + 1
        bad = [(loss.item(), seen) for loss, seen in passes if not torch.isfinite(loss)]
        found = f"the loss is {bad[0][0]}" if bad else "the gradient is not finite"
        seen = torch.cat([seen for _, seen in bad or passes]).tolist()
        newest, _ = self._checkpoints.newest()
        rest = f"{newest.name} was saved before it" if newest else "nothing was saved before it"
        return (
            f"step {step}: {found}; its batch was windows {', '.join(map(str, seen))} of the run "
            f"(--seed {self.args.seed}); {rest}. Look at that text, or lower --learning-rate, or "
            "use --dtype fp32"
        )

    def _save_checkpoint(self, model: nn.Module, trial: Any) -> None:
        parameters = self._parameters()
        weights = gather_parameters(parameters)
        averages = self._average.gather() if self._average is not None else None
        tensors, groups = gather_optimizer(self._optimizer(), parameters)
        step = self.state.global_step
        self.store_flos()
        running_loss = self._running_loss()  # a collective, as what is above
        if self.args.should_save:
            self._checkpoints.begin(step)
        barrier()
        self._checkpoints.save_rng_state(step, self.args.process_index)
        barrier()
        if not self.args.should_save:
            return
        values = {
            **self._identity,
            "groups": groups,
            "schedule": cast(Any, self.lr_scheduler).state_dict(),
            "running_loss": running_loss,
            "last_logged": self._globalstep_last_logged,
            "measured_tokens": self._measured_tokens,
        }
        self._checkpoints.finish(
            TrainingState(step, weights, tensors, values, averages),
            lambda directory: self.state.save_to_json(str(directory / reader.TRAINER_STATE)),
        )
        self._export_last(weights if averages is None else averages)

    def _running_loss(self) -> float:
        """What the next line of the log will average over, the mean of all processes."""
        loss, world = self._tr_loss.detach().clone(), self.args.world_size
        if world > 1:
            dist.all_reduce(loss)
        return float(loss.item() / world)

    def _export_last(self, weights: Mapping[str, Tensor]) -> None:
        """Export the weights of a checkpoint, unless there were better ones before it."""
        if not self._keep_best or self.state.best_global_step in (None, self.state.global_step):
            self._export(weights)

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: Any = None) -> None:
        weights = self._saved_weights(Path(resume_from_checkpoint), reader.MODEL)
        restore_parameters(self._parameters(), weights)

    def _saved_weights(self, checkpoint: Path, file: str) -> dict[str, Tensor]:
        layout = {
            name: (tuple(parameter.shape), parameter.dtype)
            for name, parameter in self._parameters()
            if parameter.requires_grad
        }
        return reader.load_tensors(checkpoint / file, layout)

    def _load_optimizer_and_scheduler(self, checkpoint: str | None) -> None:
        if checkpoint is None:
            return
        directory, parameters = Path(checkpoint), self._parameters()
        optimizer, progress = self._optimizer(), reader.load_progress(directory)
        if len(progress.groups) != len(optimizer.param_groups):
            raise CheckpointError(
                f"{directory / reader.STATE} has {len(progress.groups)} parameter groups, and this"
                f" run {len(optimizer.param_groups)}; it is of another model"
            )
        layout = state_layout(optimizer, parameters)
        tensors = reader.load_tensors(directory / reader.OPTIMIZER, layout)
        restore_optimizer(optimizer, parameters, tensors, progress.groups)
        # All else of a schedule follows from the settings.
        scheduler = cast(Any, self.lr_scheduler)
        rates = [group["lr"] for group in progress.groups]
        scheduler.load_state_dict(
            {
                **scheduler.state_dict(),
                "last_epoch": progress.schedule_step,
                "_step_count": progress.schedule_step + 1,
                "_last_lr": rates,
            }
        )
        finished = self._saved_weights(directory, reader.AVERAGE if self._ema else reader.MODEL)
        if self._ema:
            self._begun_average().restore(finished)
        if self.args.should_save:  # a kill may have come between the checkpoint and the model
            self._export_last(finished)

    def _load_rng_state(self, checkpoint: str | None) -> None:
        """Restore what the first resumed step starts from; Trainer calls this just before it."""
        if checkpoint is None:
            return
        reader.load_rng_state(Path(checkpoint), self.args.process_index)
        progress = reader.load_progress(Path(checkpoint))
        self._tr_loss.fill_(progress.running_loss)
        self._globalstep_last_logged = progress.last_logged
        self._measured_tokens = progress.measured_tokens

    def _parameters(self) -> list[tuple[str, nn.Parameter]]:
        return list(self._whole_model().named_parameters())

    def _whole_model(self) -> nn.Module:
        return cast(nn.Module, self.accelerator.unwrap_model(self.model))

    def _optimizer(self) -> Optimizer:
        return cast(Optimizer, getattr(self.optimizer, "optimizer", self.optimizer))


class _IntervalCallback(TrainerCallback):
    """Lets a resumed run log, measure and save as often as it is told to, not as it was before."""

    def on_train_begin(self, args: Any, state: TrainerState, control: Any, **_: Any) -> None:
        """See `TrainerCallback`."""
        state.compute_steps(args, state.max_steps)


class _AverageCallback(TrainerCallback):
    """Begins a running average when a run begins, and takes the weights of each step into it."""

    def __init__(self, average: Callable[[], WeightAverage]) -> None:
        self._average = average

    def on_train_begin(self, args: Any, state: TrainerState, control: Any, **_: Any) -> None:
        """See `TrainerCallback`."""
        self._average()

    def on_step_end(self, args: Any, state: TrainerState, control: Any, **_: Any) -> None:
        """See `TrainerCallback`."""
        self._average().update(state.global_step)
