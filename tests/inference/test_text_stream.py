"""Streams that are read with asyncio."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from pathlib import Path
from typing import Any

import pytest

from gpt_neox_japanese import TextGenerator
from gpt_neox_japanese.errors import GenerationError
from tests.inference.networks import Held, held
from tests.inference.test_generator import GREEDY


def test_a_second_task_is_told_that_a_text_is_being_read(checkpoint: Path) -> None:
    async def read_twice(stream: Any, hold: Held) -> tuple[Any, Any]:
        reading = asyncio.ensure_future(anext(stream))
        await asyncio.sleep(0)  # it waits now
        with pytest.raises(GenerationError, match="being read already"):
            await anext(stream)
        hold.released.set()
        return await reading, [chunk async for chunk in stream]

    given: dict[str, Any] = {"min_new_tokens": 15, "max_new_tokens": 15}
    with TextGenerator.from_pretrained(checkpoint) as ours, held(ours.engine.network) as hold:
        chunk, rest = asyncio.run(read_twice(ours.stream_details("猫", **given), hold))
        assert sum(len(each.tokens) for each in [chunk, *rest]) == 15


def test_a_stream_can_be_read_with_asyncio(checkpoint: Path) -> None:
    async def read(prompt: str, seed: int) -> str:
        given: dict[str, Any] = {"max_new_tokens": 15, "seed": seed}
        return "".join([text async for text in ours.astream(prompt, **given)])

    async def all_at_once() -> list[str]:
        return await asyncio.gather(*(read("猫は", seed) for seed in range(5)))

    with TextGenerator.from_pretrained(checkpoint) as ours:
        expected = [ours.generate("猫は", max_new_tokens=15, seed=seed) for seed in range(5)]
        assert asyncio.run(all_at_once()) == expected


def test_the_event_loop_goes_on_while_a_text_is_written(checkpoint: Path) -> None:
    async def count_beside(stream: Any) -> tuple[int, str]:
        ticks = 0

        async def tick() -> None:
            nonlocal ticks
            while True:
                ticks += 1
                await asyncio.sleep(0)

        ticking = asyncio.create_task(tick())
        text = "".join([chunk.text async for chunk in stream])
        ticking.cancel()
        return ticks, text

    with TextGenerator.from_pretrained(checkpoint) as ours:
        ticks, text = asyncio.run(count_beside(ours.stream_details("猫は", **GREEDY)))
        assert ticks > 12
        assert text == ours.generate("猫は", **GREEDY)


def test_a_stream_may_be_read_by_turns_with_and_without_asyncio(checkpoint: Path) -> None:
    async def one(stream: Any) -> Any:
        return await anext(stream)

    with TextGenerator.from_pretrained(checkpoint) as ours:
        stream = ours.stream_details("猫は", **GREEDY)
        read = [next(stream).text, asyncio.run(one(stream)).text, *(c.text for c in stream)]
        assert "".join(read) == ours.generate("猫は", **GREEDY)


def test_a_text_whose_task_is_cancelled_leaves_the_engine(checkpoint: Path) -> None:
    async def break_off() -> None:
        async def read() -> None:
            async for _ in ours.astream("猫は", max_new_tokens=40, min_new_tokens=40):
                await asyncio.sleep(0)

        task = asyncio.create_task(read())
        await asyncio.sleep(0.01)
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task

    with TextGenerator.from_pretrained(checkpoint, slots=1) as ours:
        for _ in range(5):
            asyncio.run(break_off())
        assert len(ours.generate_details("猫", **GREEDY)[0].token_ids) <= 12


def test_what_is_there_is_read_without_waiting(checkpoint: Path) -> None:
    with TextGenerator.from_pretrained(checkpoint, slots=1) as ours:
        arrived = threading.Event()
        stream = ours.stream_details("猫は", **GREEDY, echo=True)
        stream.notify_with(arrived.set)
        texts = []
        reason = None
        while reason is None:
            for chunk in stream.read_ready():
                texts.append(chunk.text)
                reason = chunk.finish_reason
            if reason is None:
                assert arrived.wait(timeout=20)
                arrived.clear()
        assert "".join(texts) == ours.generate("猫は", **GREEDY, echo=True)
        assert texts[0] == "猫は"
        assert stream.has_ended
        with pytest.raises(GenerationError, match="has ended"):
            stream.read_ready()


def test_what_came_before_a_failure_is_read_before_it_is_told(checkpoint: Path) -> None:
    with TextGenerator.from_pretrained(checkpoint) as ours, held(ours.engine.network) as hold:
        stream = ours.stream_details("猫は", echo=True, max_new_tokens=12)
        threading.Timer(0.05, hold.released.set).start()
        ours.close()
    assert "".join(chunk.text for chunk in stream.read_ready()).startswith("猫は")
    for _ in range(2):
        with pytest.raises(GenerationError, match="engine is closed"):
            stream.read_ready()
