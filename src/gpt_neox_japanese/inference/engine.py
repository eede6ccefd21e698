"""Writing ids: the prompt is read once, then one id follows the other. No strings here."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence

import torch

from gpt_neox_japanese.errors import GenerationError
from gpt_neox_japanese.inference.network import Network
from gpt_neox_japanese.inference.sampling import SamplingOptions, sample

__all__ = ["Engine"]


class Engine:
    """Continues sequences of ids with one network.

    Args:
        network: Scores the next id.
        stop_ids: Ids that end a sequence; they are not part of it.
    """

    def __init__(self, network: Network, *, stop_ids: Collection[int]) -> None:
        self._network = network
        self._stop_ids = frozenset(stop_ids)

    def generate(
        self,
        prompt_ids: Sequence[int],
        *,
        max_new_tokens: int,
        options: SamplingOptions,
        seed: int | None = None,
    ) -> Iterator[int]:
        """Yield ids that continue the prompt, each as soon as it is chosen.

        The sequence ends at a stop id, after `max_new_tokens`, or where the network's context is
        full.

        Args:
            prompt_ids: At least one id.
            max_new_tokens: How many ids to write at most.
            options: How each id is chosen.
            seed: The same seed gives the same ids; none gives new ones each time.

        Raises:
            GenerationError: The prompt is empty, too long, or holds an id that does not exist.
        """
        self._check(prompt_ids, max_new_tokens)
        return self._write(list(prompt_ids), max_new_tokens, options, seed)

    def _write(
        self, prompt_ids: list[int], max_new_tokens: int, options: SamplingOptions, seed: int | None
    ) -> Iterator[int]:
        network = self._network
        generator = torch.Generator(network.device)
        generator.seed() if seed is None else generator.manual_seed(seed)
        capacity = min(len(prompt_ids) + max_new_tokens, network.shape.max_position_embeddings)
        cache = network.new_cache(capacity)
        context = torch.tensor(prompt_ids, device=network.device)  # int64 (tokens,)
        position = 0
        while len(context) < capacity:
            logits = network.read(context[position:], cache, position)
            position = len(context)
            token_id = sample(logits, context, options, generator)
            if token_id in self._stop_ids:
                return
            yield token_id
            context = torch.cat([context, context.new_tensor([token_id])])

    def _check(self, prompt_ids: Sequence[int], max_new_tokens: int) -> None:
        shape = self._network.shape
        if max_new_tokens < 1:
            raise GenerationError(f"max_new_tokens is {max_new_tokens}; it must be 1 or more")
        if not prompt_ids:
            raise GenerationError("the prompt is empty; write at least one character")
        if len(prompt_ids) >= shape.max_position_embeddings:
            raise GenerationError(
                f"the prompt has {len(prompt_ids)} tokens, the model reads at most"
                f" {shape.max_position_embeddings - 1} before it writes; shorten the prompt"
            )
        for token_id in prompt_ids:
            if not 0 <= token_id < shape.vocab_size:
                raise GenerationError(
                    f"the prompt holds id {token_id}; ids are 0 to {shape.vocab_size - 1}"
                )
