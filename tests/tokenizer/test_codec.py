from __future__ import annotations

import copy
import pickle
import subprocess
import sys
from pathlib import Path

import pytest

import gpt_neox_japanese
from gpt_neox_japanese.errors import VocabularyError
from gpt_neox_japanese.tokenizer.codec import Codec
from gpt_neox_japanese.tokenizer.vocabulary import Vocabulary
from tests.tokenizer.small import EMOJI_INV, TAGS, vocabulary

CODEC = Codec(vocabulary(["猫", "です", "ー"]))


def run(code: str, **environment: str) -> str:
    """What a fresh interpreter prints."""
    source = str(Path(gpt_neox_japanese.__file__).parents[1])
    return subprocess.run(
        [sys.executable, "-c", code],
        env={"PYTHONPATH": source, **environment},
        check=True,
        capture_output=True,
        text=True,
    ).stdout.strip()


def test_little_text_does_not_load_numba(tmp_path: Path) -> None:
    CODEC.save(tmp_path)
    code = f"""
import sys
from gpt_neox_japanese.tokenizer.codec import Codec
codec = Codec.load({str(tmp_path)!r})
assert codec.decode(codec.encode("猫です")) == "猫です"
print("numba" in sys.modules, "torch" in sys.modules, "transformers" in sys.modules)"""
    assert run(code) == "False False False"


def test_ids_do_not_change_when_the_kernel_takes_over() -> None:
    codec = Codec(CODEC.vocabulary)
    text = "猫です\n" * 200
    first = codec.encode(text).tolist()
    for _ in range(20):
        assert codec.encode(text).tolist() == first
        assert codec.encode_batch([text, text]).ids.tolist() == 2 * first


@pytest.mark.slow
def test_kernel_compiles_where_nothing_can_be_written(tmp_path: Path) -> None:
    package = tmp_path / "gpt_neox_japanese"
    source = Path(gpt_neox_japanese.__file__).parent
    for file in [*source.glob("*.py"), *source.glob("tokenizer/*.py")]:
        target = package / file.relative_to(source)
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(file.read_bytes())
        # A file where the cache's directory should be stops root as well, unlike permissions.
        (target.parent / "__pycache__").touch()
    CODEC.save(tmp_path)
    code = f"""
from gpt_neox_japanese.tokenizer.codec import Codec
codec = Codec.load({str(tmp_path)!r})
print(len(codec.encode("猫です" * 10_000)))"""
    assert run(code, PYTHONPATH=str(tmp_path), HOME="/dev/null") == "20000"


def test_codec_survives_pickling_and_copying() -> None:
    codec = Codec(vocabulary(["猫"]), legacy=False)
    ids = codec.encode("猫🐯" * 10_000).tolist()
    for twin in (pickle.loads(pickle.dumps(codec)), copy.deepcopy(codec)):
        assert (twin.legacy, twin.clean) == (False, False)
        assert twin.encode("猫🐯" * 10_000).tolist() == ids
    assert len(pickle.dumps(codec)) < 100_000


def test_class_of_an_emoji_must_be_a_tag() -> None:
    broken = Vocabulary((("猫",), *((tag,) for tag in TAGS)), {"🐯": "猫"}, {"猫": "🐯"})
    with pytest.raises(VocabularyError, match="'猫'; write a tag"):
        Codec(broken)


def test_cleaning_needs_its_tags() -> None:
    tags = tuple((tag,) for tag in TAGS if tag != "<URL>")
    with pytest.raises(VocabularyError, match="<URL>"):
        Codec(Vocabulary(tags, {}, {}), clean=True)


def test_half_a_surrogate_pair_cannot_be_decoded_to() -> None:
    broken = Vocabulary(CODEC.vocabulary.surfaces, {}, {**EMOJI_INV, "<|emoji1|>": "\ud83d"})
    with pytest.raises(VocabularyError, match="half of a surrogate pair"):
        Codec(broken)
