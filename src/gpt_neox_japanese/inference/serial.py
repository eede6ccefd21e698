"""Requests one at a time on `Network`, until `Engine` takes them itself; then this file goes."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from typing import Literal

import torch

from gpt_neox_japanese.errors import CheckpointError
from gpt_neox_japanese.inference.checkpoint import Checkpoint
from gpt_neox_japanese.inference.engine import Engine
from gpt_neox_japanese.inference.network import Network, Shape
from gpt_neox_japanese.inference.sampling import Choice, Sampler, SamplingOptions
from gpt_neox_japanese.inference.weights import read_weights

__all__ = ["SerialEngine", "SerialRequest", "load_engine"]


class SerialRequest:
    """One prompt, continued while somebody reads."""

    def __init__(
        self,
        network: Network,
        stop_ids: Collection[int],
        sampler: Sampler,
        prompt_ids: list[int],
        max_new_tokens: int,
    ) -> None:
        self.finish_reason: Literal["stop", "length"] | None = None
        self._network = network
        self._stop_ids = stop_ids
        self._sampler = sampler
        self._ids = prompt_ids
        limit = network.shape.max_position_embeddings
        self._capacity = min(len(prompt_ids) + max_new_tokens, limit)
        self._cancelled = False

    def __iter__(self) -> Iterator[Choice]:
        network, ids = self._network, self._ids
        cache = network.new_cache(self._capacity)
        position = 0
        while len(ids) < self._capacity and not self._cancelled:
            context = torch.tensor(ids[position:], device=network.device)
            logits = network.read(context, cache, position)
            position = len(ids)
            choice = self._sampler.choose(logits.float().cpu().numpy())
            if choice.id in self._stop_ids:
                self.finish_reason = "stop"
                return
            yield choice
            ids.append(choice.id)
        self.finish_reason = "length"

    def cancel(self) -> None:
        """Write no more."""
        self._cancelled = True


class SerialEngine(Engine):
    """The present engine with requests."""

    @property
    def description(self) -> str:
        """What runs, in one line."""
        dtype = str(self._network.dtype).removeprefix("torch.")
        threads = torch.get_num_threads()
        return f"torch, {dtype} on {self._network.device}, {threads} threads"

    def submit(
        self,
        prompt_ids: Sequence[int],
        *,
        max_new_tokens: int,
        options: SamplingOptions,
        seed: int | None = None,
    ) -> SerialRequest:
        """Check a prompt and begin to continue it."""
        self._check(prompt_ids, max_new_tokens)
        sampler = Sampler(
            options,
            vocab_size=self._network.shape.vocab_size,
            stop_ids=self._stop_ids,
            seed=seed,
            prompt_ids=prompt_ids,
        )
        return SerialRequest(
            self._network, self._stop_ids, sampler, list(prompt_ids), max_new_tokens
        )


def load_engine(
    checkpoint: Checkpoint,
    *,
    stop_ids: Collection[int],
    dtype: torch.dtype | None = None,
    device: str = "cpu",
) -> SerialEngine:
    """The engine of a checkpoint."""
    _check_device(device)
    network = Network(
        Shape.of(checkpoint.config),
        read_weights(checkpoint.directory),
        dtype=dtype or torch.float32,
        device=device,
    )
    return SerialEngine(network, stop_ids=stop_ids)


def _check_device(device: str) -> None:
    try:
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).partition("\n")[0]
        raise CheckpointError(f"device {device!r} cannot be used here: {reason}") from error
