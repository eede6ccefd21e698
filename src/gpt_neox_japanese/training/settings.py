"""What decides a training run's result, besides its data."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from gpt_neox_japanese.errors import NeoXJapaneseError

__all__ = ["Architecture", "Settings"]

Precision = Literal["bf16", "fp32"]


@dataclass(frozen=True)
class Architecture:
    """The shape of a model that is trained from scratch."""

    hidden_size: int = 256
    layers: int = 6
    heads: int = 4


@dataclass(frozen=True)
class Settings:
    """Everything that decides a run's result besides its data and its starting point.

    Attributes:
        sequence_length: tokens of a window, and a new model's `max_position_embeddings`.
        batch_size: windows per device in one forward pass.
        gradient_accumulation: forward passes per step.
        steps: optimizer steps.
        learning_rate: the peak, for both optimizers.
        warmup: the fraction of the steps over which the learning rate rises.
        decay: the fraction of the steps over which it falls to zero at the end.
        weight_decay: of all matrices.
        max_grad_norm: gradients are clipped to this norm.
        seed: of the weights and of the order of the windows.
        dtype: precision of the forward and backward pass; weights and state are always fp32.
        save_dtype: precision of the finished model.
        compile: whether to run the model through `torch.compile`.
        log_every: steps between lines of the loss log.
        eval_every: steps between measurements on the held-out text.
        eval_tokens: about how many held-out tokens such a measurement takes.
        save_every: steps between saves.

    Raises:
        NeoXJapaneseError: warm-up and decay together are longer than the run.
    """

    sequence_length: int = 512
    batch_size: int = 16
    gradient_accumulation: int = 1
    steps: int = 1000
    learning_rate: float = 3e-3
    warmup: float = 0.02
    decay: float = 0.2
    weight_decay: float = 0.1
    max_grad_norm: float = 1.0
    seed: int = 0
    dtype: Precision = "bf16"
    save_dtype: Precision = "bf16"
    compile: bool = False
    log_every: int = 10
    eval_every: int = 500
    eval_tokens: int = 2**18
    save_every: int = 500

    def __post_init__(self) -> None:
        if self.warmup + self.decay > 1:
            raise NeoXJapaneseError(
                f"warmup {self.warmup} and decay {self.decay} are more than the whole run; "
                "their sum must not exceed 1"
            )
