"""Writing ids: the prompt is read once, then one id follows the other. No strings here."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence

import torch
from transformers import PreTrainedModel
from transformers.cache_utils import DynamicCache

from gpt_neox_japanese.errors import GenerationError
from gpt_neox_japanese.inference.sampling import SamplingOptions, sample

__all__ = ["Engine"]


class Engine:
    """Continues sequences of ids with one model.

    Args:
        model: A causal LM whose `config` gives `vocab_size` and `max_position_embeddings`.
        stop_ids: Ids that end a sequence; they are not part of it.
    """

    def __init__(self, model: PreTrainedModel, *, stop_ids: Collection[int]) -> None:
        self._model = model
        self._stop_ids = frozenset(stop_ids)
        self._vocab_size = int(model.config.vocab_size)
        self._context = int(model.config.max_position_embeddings)

    def generate(
        self,
        prompt_ids: Sequence[int],
        *,
        max_new_tokens: int,
        options: SamplingOptions,
        seed: int | None = None,
    ) -> Iterator[int]:
        """Yield ids that continue the prompt, each as soon as it is chosen.

        The sequence ends at a stop id, after `max_new_tokens`, or where the model's context is
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

    @torch.inference_mode()
    def _write(
        self, prompt_ids: list[int], max_new_tokens: int, options: SamplingOptions, seed: int | None
    ) -> Iterator[int]:
        device = next(self._model.parameters()).device
        generator = torch.Generator(device)
        generator.seed() if seed is None else generator.manual_seed(seed)
        cache = DynamicCache(config=self._model.config)
        context = torch.tensor(prompt_ids, device=device)  # int64 (length,)
        unread = context
        for _ in range(min(max_new_tokens, self._context - len(prompt_ids))):
            output = self._model(
                input_ids=unread[None], past_key_values=cache, use_cache=True, logits_to_keep=1
            )
            token_id = sample(output.logits[0, -1], context, options, generator)
            if token_id in self._stop_ids:
                return
            yield token_id
            unread = context.new_tensor([token_id])
            context = torch.cat([context, unread])

    def _check(self, prompt_ids: Sequence[int], max_new_tokens: int) -> None:
        if max_new_tokens < 1:
            raise GenerationError(f"max_new_tokens is {max_new_tokens}; it must be 1 or more")
        if not prompt_ids:
            raise GenerationError("the prompt is empty; write at least one character")
        if len(prompt_ids) >= self._context:
            raise GenerationError(
                f"the prompt has {len(prompt_ids)} tokens, the model reads at most"
                f" {self._context - 1} before it writes; shorten the prompt"
            )
        for token_id in prompt_ids:
            if not 0 <= token_id < self._vocab_size:
                raise GenerationError(
                    f"the prompt holds id {token_id}; ids are 0 to {self._vocab_size - 1}"
                )
