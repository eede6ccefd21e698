from __future__ import annotations

from typing import Any

from gpt_neox_japanese.inference.network import CHUNK
from gpt_neox_japanese.inference.scheduler.kv_slots import KVSlots

A = list(range(3 * CHUNK))
B = A[: 2 * CHUNK] + [7] * CHUNK


class Recorded:
    """A network that notes down what is copied, and what a slot kept when it was given out."""

    slots = 3
    kept: tuple[int, int]

    def __init__(self) -> None:
        self.copies: list[tuple[int, int, int]] = []

    def copy(self, source: int, target: int, length: int) -> None:
        self.copies.append((source, target, length))

    def truncate(self, slot: int, length: int) -> None:
        self.kept = slot, length


def read(slots: KVSlots, ids: list[int]) -> int:
    """Take a slot and read a text's chunks into it; returns the slot."""
    slot = slots.acquire(ids)
    done = slots.reuse_prefix(slot, ids)
    slots.record(slot, ids[done : (len(ids) - 1) // CHUNK * CHUNK])
    return slot


def made() -> tuple[KVSlots, Any]:
    network = Recorded()
    return KVSlots(network), network  # type: ignore[arg-type]


def test_whole_chunks_are_copied_from_a_text_that_begins_alike() -> None:
    slots, network = made()
    first = read(slots, A)
    second = read(slots, B)
    assert network.copies == [(first, second, 2 * CHUNK)]


def test_a_free_slot_that_holds_the_beginning_is_used_where_it_is() -> None:
    slots, network = made()
    first = read(slots, A)
    slots.release(first, A)
    assert read(slots, B) == first
    assert network.copies == []


def test_the_last_id_is_always_left_to_be_read() -> None:
    slots, _ = made()
    read(slots, [*A, 1])
    slot = slots.acquire(A)
    assert slots.reuse_prefix(slot, A) == 2 * CHUNK


def test_a_short_prompt_takes_its_slot_from_a_longer_text() -> None:
    slots, network = made()
    for _ in range(3):
        slots.release(read(slots, A), A[: 2 * CHUNK])
    for _ in range(3):
        slots.acquire([1, 2, 3])
    slots.release(0, [1, 2, 3])
    read(slots, A)
    assert network.copies == []


def test_a_slot_is_cleared_behind_what_its_new_text_keeps() -> None:
    slots, network = made()
    first = read(slots, A)
    assert network.kept == (first, 0)
    second = read(slots, B)
    assert network.kept == (second, 2 * CHUNK)
    slots.release(first, A)
    read(slots, B)
    assert network.kept == (first, 2 * CHUNK)
    slots.release(first, B)
    short = slots.acquire([1, 2, 3])
    assert network.kept == (short, 0)


def test_forgotten_texts_are_not_shared() -> None:
    slots, network = made()
    read(slots, A)
    slots.clear()
    assert len(slots) == 3
    read(slots, A)
    assert network.copies == []


def test_a_prompt_that_was_there_before_is_taken_but_for_its_last_id() -> None:
    slots, network = made()
    prompt = [*A, *range(20)]
    first = read(slots, prompt)
    slots.release(first, [*prompt, 40, 41])
    again = slots.acquire(prompt)
    assert (again, slots.reuse_prefix(again, prompt)) == (first, len(prompt) - 1)
    other = slots.acquire([*prompt, 40, 7])
    assert slots.reuse_prefix(other, [*prompt, 40, 7]) == 3 * CHUNK  # the first runs again
    slots.release(again, [*prompt, 40, 41])
    third = slots.acquire([*prompt, 40, 7])
    assert slots.reuse_prefix(third, [*prompt, 40, 7]) == len(prompt) + 1
    assert network.copies == [(first, other, 3 * CHUNK)]


def test_what_would_be_a_chunk_of_a_longer_prompt_is_not_taken_from_a_tail() -> None:
    slots, _ = made()
    prompt = [*A[:CHUNK], *range(100)]
    slots.release(read(slots, prompt), [*prompt, *range(60)])
    longer = [*prompt, *range(60), 1]
    slot = slots.acquire(longer)
    assert slots.reuse_prefix(slot, longer) == CHUNK
    shorter = longer[: CHUNK - 5]
    slot = slots.acquire(shorter)
    assert slot != 0 or slots.reuse_prefix(slot, shorter) == 0
