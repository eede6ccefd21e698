"""Some text is always held out, about as much as was asked for, and always the same."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from gpt_neox_japanese.corpus import (
    Layout,
    choose_held_out,
    corpus_files,
    held_out,
    is_held_out,
    read_documents,
    without,
)
from gpt_neox_japanese.files.remote import RemotePath
from tests.conftest import SENTENCE


def write(file: Path, lengths: list[int]) -> Path:
    """A corpus of so many sentences in each document."""
    texts = ({"id": f"d{n}", "text": SENTENCE * length} for n, length in enumerate(lengths))
    file.write_text("".join(json.dumps(text) + "\n" for text in texts), encoding="utf-8")
    return file


def held(file: Path, fraction: float) -> tuple[int, int]:
    """Characters that are held out, and all of them; nothing is lost or doubled."""
    choice = choose_held_out([file], Layout(), fraction)
    amount = total = 0
    for document in read_documents([file]):
        train, out = choice.split(document)
        assert train + out == document.text
        assert "" in (train, out) or train.endswith("。") or len(document.text) < 100
        amount, total = amount + len(out), total + len(document.text)
    return amount, total


@pytest.mark.parametrize(
    "lengths",
    [[10] * 10, [1] * 10, [50_000], [1], [100, 1, 1, 1], [1000] * 3, [3] * 5000, [2000] + [1] * 50],
    ids=lambda lengths: f"{len(lengths)} of {lengths[0]}",
)
@pytest.mark.parametrize("fraction", [0.001, 0.01, 0.1, 0.5])
def test_small_corpora_give_about_what_is_asked_for_or_what_is_needed(
    tmp_path: Path, lengths: list[int], fraction: float
) -> None:
    amount, total = held(write(tmp_path / "a.jsonl", lengths), fraction)
    wanted = max(fraction * total, min(20_000, total / 10))
    assert 0 < amount < total
    assert 0.4 * wanted <= amount <= 2.1 * wanted or total < 100


def test_none_is_held_out_of_what_is_to_give_none(tmp_path: Path) -> None:
    assert held(write(tmp_path / "a.jsonl", [10] * 10), 0)[0] == 0


def test_a_corpus_whose_hashes_give_enough_is_divided_by_them_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = write(tmp_path / "a.jsonl", [60] * 3000)
    choice = choose_held_out([file], Layout(), 0.02)
    for document in read_documents([file]):
        assert (choice.split(document)[1] != "") == is_held_out(document.id, 0.02)
    monkeypatch.setattr(held_out, "_BYTES_TO_LOOK_AT", 1)
    assert choose_held_out([file], Layout(), 0.02) == choice


def test_the_choice_does_not_depend_on_the_order_or_on_broken_lines(tmp_path: Path) -> None:
    file = write(tmp_path / "a.jsonl", list(range(1, 30)))
    expected = choose_held_out([file], Layout(), 0.05)
    lines = file.read_text(encoding="utf-8").splitlines(keepends=True)
    file.write_text("".join(["?\n", *lines[::-1]]), encoding="utf-8")
    assert choose_held_out([file], Layout(), 0.05) == expected


def test_documents_with_one_id_are_held_out_as_one(tmp_path: Path) -> None:
    for folder in "abcdefghij":
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "text.txt").write_text(SENTENCE * 40, encoding="utf-8")
    choice = choose_held_out(corpus_files([tmp_path]), Layout(), 0.01)
    split = [choice.split(document) for document in read_documents([tmp_path])]
    total = sum(len(train) + len(out) for train, out in split)
    assert 0.04 * total <= sum(len(out) for _, out in split) <= 0.2 * total
    assert all(train for train, _ in split)


@pytest.mark.parametrize("lengths", [[10] * 10, [1000] * 3, [100, 1, 1, 1], [50], [3] * 500])
@pytest.mark.parametrize("fraction", [0.01, 0.5, 0.999])
def test_conversations_are_held_out_whole_and_never_all(
    tmp_path: Path, lengths: list[int], fraction: float
) -> None:
    file = tmp_path / "talk.jsonl"
    lines = [
        {"id": f"{n}", "prompt": "猫", "completion": SENTENCE * length}
        for n, length in enumerate(lengths)
    ]
    file.write_text("\n".join(map(json.dumps, lines)), encoding="utf-8")
    layout = Layout(conversations=True)
    choice = choose_held_out([file], layout, fraction)
    splits = [choice.split(document) for document in read_documents([file], layout)]
    assert all("" in split for split in splits)
    sizes = [len(train + out) for train, out in splits]
    amount, total = sum(len(out) for _, out in splits), sum(sizes)
    assert amount < total
    wanted = max(fraction * total, min(20_000, total / 10))
    assert abs(amount - wanted) <= max(wanted, *sizes)


def test_files_at_urls_are_told_apart_by_their_whole_path() -> None:
    one, other = (
        RemotePath(f"https://host/f.txt?v={n}", f"https://host/f.txt?v={n}") for n in "12"
    )
    assert without([one, other], [one]) == [other]
    assert (
        without([RemotePath("s3://b/c", "b/c/a.txt", 5)], [RemotePath("s3://b", "b/c/a.txt")]) == []
    )


def test_files_are_taken_out_by_whatever_path_they_are_named(tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    files = [tmp_path / "a.txt", tmp_path / "b.txt"]
    assert without(files, [tmp_path / "sub" / ".." / "a.txt"]) == [tmp_path / "b.txt"]
