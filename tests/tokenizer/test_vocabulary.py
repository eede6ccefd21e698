from __future__ import annotations

import json
import os
import random
import shutil
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpt_neox_japanese.errors import VocabularyError
from gpt_neox_japanese.tokenizer.codec import Codec
from gpt_neox_japanese.tokenizer.vocabulary import Vocabulary
from tests.tokenizer.small import EMOJI, EMOJI_INV, TAGS, vocabulary


def write(directory: Path, vocab: bytes, emoji: str | None = None) -> Path:
    (directory / "vocab.txt").write_bytes(vocab)
    tables = json.dumps({"emoji": EMOJI, "emoji_inv": EMOJI_INV})
    (directory / "emoji.json").write_text(tables if emoji is None else emoji, encoding="utf-8")
    return directory


def lines(*pieces: str, end: str = "\n") -> bytes:
    return "".join(line + end for line in (*pieces, *TAGS)).encode()


def test_published_vocabulary_has_every_id_and_every_form(reference_directory: Path) -> None:
    published = Vocabulary.load(reference_directory)
    assert len(published) == 32000
    assert len(published.ids) == 155_781
    assert len(published.emoji) == 4314


def test_saving_and_loading_gives_the_same_vocabulary(
    reference_directory: Path, tmp_path: Path
) -> None:
    published = Vocabulary.load(reference_directory)
    published.save(tmp_path)
    assert Vocabulary.load(tmp_path) == published
    assert Vocabulary.load(tmp_path).fingerprint == published.fingerprint


def test_fingerprint_tells_vocabularies_apart() -> None:
    assert vocabulary(["猫"]).fingerprint != vocabulary(["犬"]).fingerprint
    assert vocabulary(["猫"]).fingerprint != vocabulary(["猫"], emoji={}).fingerprint


def test_byte_order_mark_is_no_part_of_the_first_entry(tmp_path: Path) -> None:
    loaded = Vocabulary.load(write(tmp_path, b"\xef\xbb\xbf" + lines("猫")))
    assert loaded.surfaces[0] == ("猫",)


@pytest.mark.parametrize("end", ["\r\n", "\r"])
def test_line_ends_of_other_systems_are_read(tmp_path: Path, end: str) -> None:
    assert Vocabulary.load(write(tmp_path, lines("猫", "犬", end=end))).ids["犬"] == 1


def test_last_line_may_lack_its_line_end(tmp_path: Path) -> None:
    assert Vocabulary.load(write(tmp_path, lines("猫").rstrip(b"\n"))) == vocabulary(["猫"])


def test_line_that_is_a_comma_is_the_comma(tmp_path: Path) -> None:
    assert Vocabulary.load(write(tmp_path, lines("猫", ","))).surfaces[1] == (",",)


def test_form_on_two_lines_has_the_last_id() -> None:
    assert vocabulary(["い,ゐ", "ゐ"]).ids["ゐ"] == 1


@pytest.mark.parametrize(
    ("vocab", "said"),
    [
        (lines("猫", ""), "line 2"),
        (lines("猫", "犬", "慶応,"), "line 3"),
        (lines("慶応,,慶應"), "line 1"),
        ("猫\n".encode() + b"\xff\n", "line 2"),
        (b"", "line 1"),
    ],
)
def test_broken_line_is_named(tmp_path: Path, vocab: bytes, said: str) -> None:
    with pytest.raises(VocabularyError, match=said):
        Vocabulary.load(write(tmp_path, vocab))


@pytest.mark.parametrize(
    ("emoji", "said"),
    [
        ('{"emoji": {},\n oops', "line 2"),
        ("[]", "emoji"),
        ('{"emoji": {}}', "emoji_inv"),
        ('{"emoji": {"😀": 1}, "emoji_inv": {}}', "emoji"),
        ('{"emoji": {"": "<|emoji1|>"}, "emoji_inv": {}}', "empty key"),
        ('{"emoji": {"😀": "<|emoji1|>"}, "emoji_inv": {}}', "<|emoji1|>"),
        ('{"emoji": {"😀": "<|emoji99|>"}, "emoji_inv": {}}', "<|emoji99|>"),
        ("[" * 100_000, "nested"),
        ('{"emoji": {},\n "emoji_inv": {"<SP>": "\\ud83d"}}', "line 2: not JSON (Half"),
        ('{"emoji": ' + "9" * 5000 + "}", "huge number"),
        (json.dumps({"emoji": {"😀" * 65: "<SP>"}, "emoji_inv": {}}), "at most 64"),
        (json.dumps({"emoji": {}, "emoji_inv": {"<SP>": "😀" * 65}}), "at most 64"),
        (json.dumps({"emoji": {}, "emoji_inv": {"x" * 65: "😀"}}), "at most 64"),
    ],
)
def test_broken_emoji_table_is_a_vocabulary_error(tmp_path: Path, emoji: str, said: str) -> None:
    with pytest.raises(VocabularyError) as caught:
        Vocabulary.load(write(tmp_path, lines("猫"), emoji))
    assert said in str(caught.value)


def test_missing_directory_is_told_with_its_remedy(tmp_path: Path) -> None:
    with pytest.raises(VocabularyError, match=r"vocab\.txt and emoji\.json"):
        Vocabulary.load(tmp_path / "nowhere")


@pytest.mark.parametrize("name", ["vocab.txt", "emoji.json"])
def test_a_missing_file_is_named(tmp_path: Path, name: str) -> None:
    write(tmp_path, lines("猫"))
    (tmp_path / name).unlink()
    with pytest.raises(VocabularyError, match=rf"has no {name}.*put both there"):
        Vocabulary.load(tmp_path)


@pytest.mark.parametrize("name", ["vocab.txt", "emoji.json", "tokenizer_config.json"])
def test_a_pipe_or_device_is_refused_at_once(
    tmp_path: Path, reference_directory: Path, name: str
) -> None:
    shutil.copytree(reference_directory, tmp_path / "v")
    (tmp_path / "v" / name).unlink(missing_ok=True)
    for make in (os.mkfifo, lambda path: os.symlink("/dev/zero", path)):
        make(tmp_path / "v" / name)
        with pytest.raises(VocabularyError, match=f"{name}' is not a regular file"):
            Codec.load(tmp_path / "v")
        (tmp_path / "v" / name).unlink()


def test_links_to_ordinary_files_are_followed(tmp_path: Path, reference_directory: Path) -> None:
    for name in ("vocab.txt", "emoji.json"):
        (tmp_path / name).symlink_to(reference_directory / name)
    assert Codec.load(tmp_path).fingerprint == Codec.load(reference_directory).fingerprint


def test_a_vocabulary_that_was_cut_short_says_so(tmp_path: Path, reference_directory: Path) -> None:
    shutil.copytree(reference_directory, tmp_path / "v")
    file = tmp_path / "v" / "vocab.txt"
    file.write_bytes(file.read_bytes().rpartition(b"\n<|endoftext|>")[0])
    with pytest.raises(VocabularyError, match=r"no entry '<\|endoftext\|>'.*copy it again"):
        Codec.load(tmp_path / "v")


def test_a_form_that_would_slow_down_every_text_is_refused(tmp_path: Path) -> None:
    write(tmp_path, lines("猫", "あ" * 256, "x," + "い" * 257))
    with pytest.raises(VocabularyError, match="a form of 257 characters; at most 256"):
        Vocabulary.load(tmp_path)


def test_vocabulary_without_a_needed_tag_is_refused() -> None:
    with pytest.raises(VocabularyError, match="<SP>"):
        Vocabulary((("猫",), ("<BR>",)), {}, {})


@given(st.binary(max_size=60))
def test_random_files_give_a_vocabulary_or_a_vocabulary_error(
    tmp_path_factory: pytest.TempPathFactory, noise: bytes
) -> None:
    directory = tmp_path_factory.mktemp("noise")
    write(directory, lines("猫") + noise)
    try:
        Vocabulary.load(directory)
    except VocabularyError as error:
        message = str(error)
    else:
        return
    assert "line" in message


# What a file may suffer: something is put in the place of something else.
_DAMAGE = (
    *(b"", b",", b",,", b"\n", b"\r\n", b"\n\n", b"\0", b"\xff", b"\xe3\x81", b"\xef\xbb\xbf"),
    *(b'"', b"{", b"}", b"[", b":", b"null", b"1", b"\\ud83d", b"\\u0000", "猫".encode(), b"<"),
)


def damaged(data: bytes, draw: random.Random) -> bytes:
    for _ in range(draw.randint(1, 4)):
        start = draw.randrange(len(data) + 1)
        end = min(len(data), start + draw.choice((0, 1, 1, 2, 5, 50)))
        data = data[:start] + draw.choice((*_DAMAGE, data[start:end] * 2)) + data[end:]
    return data if draw.random() < 0.9 else data[: draw.randrange(len(data) + 1)]


@pytest.mark.parametrize("count", [1000, pytest.param(20_000, marks=pytest.mark.slow)])
def test_damaged_files_load_and_work_or_are_vocabulary_errors(tmp_path: Path, count: int) -> None:
    draw = random.Random(5)
    vocab = lines("慶応,慶應", "です", "で", ",", "<", "a")
    emoji = json.dumps({"emoji": EMOJI, "emoji_inv": EMOJI_INV}, ensure_ascii=False).encode()
    survivors = 0
    for number in range(count):
        files = {
            "vocab.txt": damaged(vocab, draw) if number % 2 else vocab,
            "emoji.json": emoji if number % 2 else damaged(emoji, draw),
        }
        for name, data in files.items():
            (tmp_path / name).write_bytes(data)
        try:
            codec = Codec.load(tmp_path)
        except VocabularyError:
            continue
        survivors += 1
        ids = codec.encode("慶應です、a,<BR>👍🏽한 \n")
        assert codec.decode(ids)
        if survivors % 100 == 0:  # making tables takes longer than all the rest
            compiled = Codec.from_pretrained(tmp_path, jit_threshold=0)
            assert compiled.encode("慶應です、a,<BR>👍🏽한 \n") == ids
    assert 0 < survivors < count
