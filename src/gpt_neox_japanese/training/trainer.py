"""transformers' Trainer with our optimizer, our checkpoints, and a check of every loss."""
# transformers' methods carry no annotations.
# mypy: disallow-untyped-calls=False

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from transformers import Trainer

from gpt_neox_japanese.errors import CheckpointError, TrainingError
from gpt_neox_japanese.training.checkpoints import reader
from gpt_neox_japanese.training.checkpoints.gather import (
    gather_optimizer,
    gather_parameters,
    restore_optimizer,
    restore_parameters,
)
from gpt_neox_japanese.training.checkpoints.manager import CheckpointManager, TrainingState
from gpt_neox_japanese.training.distributed import barrier
from gpt_neox_japanese.training.optim.optimizer import MuonAndAdamW, adamw, state_layout

__all__ = ["RunTrainer"]


class RunTrainer(Trainer):
    """Trainer of one run.

    Args:
        use_muon: Whether the hidden matrices are Muon's.
        identity: What a resumed run must have in common with this one, as JSON values.
        export: Called on the first process with the whole weights after every save.
        **kwargs: Trainer's own.
    """

    def __init__(
        self,
        *,
        use_muon: bool,
        identity: Mapping[str, Any],
        export: Callable[[Mapping[str, Tensor]], None],
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
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

    def prediction_step(
        self, model: nn.Module, inputs: dict[str, Any], *args: Any, **kwargs: Any
    ) -> tuple[Tensor, None, None]:
        """Compute the loss without ever holding the scores of all positions.

        Args:
            model: The model, maybe wrapped for several processes.
            inputs: A batch.
            *args: Not used.
            **kwargs: Not used.

        Returns:
            The loss; no scores and no labels.
        """
        inputs = self._prepare_inputs(inputs)
        with torch.no_grad(), self.compute_loss_context_manager():
            loss = model(**inputs, skip_logits=True, use_cache=False).loss
        return loss.detach(), None, None

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
        tensors, groups = gather_optimizer(self._optimizer(), parameters)
        step = self.state.global_step
        self.store_flos()  # a collective, as what is above
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
            # What the next line of the log will average over.
            "running_loss": self._tr_loss.item(),
            "last_logged": self._globalstep_last_logged,
        }
        self._checkpoints.finish(
            TrainingState(step, weights, tensors, values),
            lambda directory: self.state.save_to_json(str(directory / reader.TRAINER_STATE)),
        )
        self._export(weights)

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: Any = None) -> None:
        restore_parameters(self._parameters(), self._saved_weights(Path(resume_from_checkpoint)))

    def _saved_weights(self, checkpoint: Path) -> dict[str, Tensor]:
        layout = {
            name: (tuple(parameter.shape), parameter.dtype)
            for name, parameter in self._parameters()
            if parameter.requires_grad
        }
        return reader.load_tensors(checkpoint / reader.MODEL, layout)

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
        if self.args.should_save:  # a kill may have come between the checkpoint and the model
            self._export(self._saved_weights(directory))

    def _load_rng_state(self, checkpoint: str | None) -> None:
        """Restore what the first resumed step starts from; Trainer calls this just before it."""
        if checkpoint is None:
            return
        reader.load_rng_state(Path(checkpoint), self.args.process_index)
        progress = reader.load_progress(Path(checkpoint))
        self._tr_loss.fill_(progress.running_loss)
        self._globalstep_last_logged = progress.last_logged

    def _parameters(self) -> list[tuple[str, nn.Parameter]]:
        whole = self.accelerator.unwrap_model(self.model)
        return list(cast(nn.Module, whole).named_parameters())

    def _optimizer(self) -> Optimizer:
        return cast(Optimizer, getattr(self.optimizer, "optimizer", self.optimizer))
