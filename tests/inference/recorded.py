"""An engine that writes what it was told to, for tests of what becomes of its ids."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Literal

from gpt_neox_japanese.inference.sampling.sampler import Choice, SamplingParams


class RecordedStream:
    context_is_full = False
    stop_choice = None
    prompt_choices: Sequence[Choice] = ()

    def __init__(self, ids: Sequence[int], logprobs: int | None) -> None:
        self.ids = ids
        self.logprobs = logprobs
        self.taken = 0
        self.cancelled = False
        self.finish_reason: Literal["stop", "length"] | None = None

    def __iter__(self) -> Iterator[Choice]:
        return self

    def __next__(self) -> Choice:
        if self.cancelled:
            raise StopIteration
        if self.taken == len(self.ids):
            self.finish_reason = "length"
            raise StopIteration
        token_id = self.ids[self.taken]
        self.taken += 1
        asked = self.logprobs is not None
        return Choice(token_id, -0.5 if asked else None, ((token_id, -0.5),) * asked)

    def check_process(self) -> None:
        """It is always of this process."""

    def wait_for_many(self) -> None:
        """Nobody has to be woken."""

    def cancel(self) -> None:
        self.cancelled = True


class Recorded:
    """An engine that writes ids given beforehand, and remembers what it was asked."""

    description = "recorded"

    def __init__(self, ids: Sequence[int]) -> None:
        self.ids = ids
        self.prompts: list[Sequence[int]] = []
        self.asked: list[dict[str, Any]] = []
        self.streams: list[RecordedStream] = []

    def check_prompt(self, prompt_ids: Sequence[int], max_new_tokens: int) -> list[int]:
        return list(prompt_ids)

    def submit(
        self,
        prompt_ids: Sequence[int],
        *,
        max_new_tokens: int,
        params: SamplingParams,
        seed: int | None = None,
        prompt_logprobs: int | None = None,
    ) -> RecordedStream:
        self.prompts.append(prompt_ids)
        self.asked.append({"max_new_tokens": max_new_tokens, "params": params, "seed": seed})
        self.streams.append(RecordedStream(self.ids, params.logprobs))
        return self.streams[-1]
