from __future__ import annotations

from gpt_neox_japanese.inference.scheduler.prompt_lookup import PromptLookup


def test_what_followed_before_is_guessed() -> None:
    lookup = PromptLookup([1, 2, 3, 4, 5, 6, 1, 2, 3])
    assert lookup.draft(7) == [4]
    lookup.learn(1, 1)
    assert lookup.draft(7) == [4, 5]
    assert lookup.draft(1) == [4]


def test_the_latest_occurrence_counts() -> None:
    lookup = PromptLookup([1, 2, 3, 4, 1, 2, 3, 5, 1, 2, 3])
    assert lookup.draft(7) == [5]


def test_new_ids_are_followed_by_no_guess() -> None:
    assert PromptLookup([1, 2, 3, 4]).draft(7) == []
    assert PromptLookup([1, 2]).draft(7) == []


def test_wrong_guesses_become_shorter() -> None:
    lookup = PromptLookup([1, 2, 3, 4, 5, 6, 7, 8, 9, 1, 2, 3])
    for _ in range(5):
        lookup.learn(7, 7)
    assert lookup.draft(9) == [4, 5, 6, 7, 8, 9, 1]
    lookup.learn(7, 1)
    assert lookup.draft(9) == [4, 5, 6]
