"""Characters per token on held-out text: our builder, the published vocabulary, SentencePiece.

    python benchmarks/bench_vocabulary.py CORPUS... --reference DIR
        [--sizes 8000 16000 32000] [--train-megabytes 40] [--held-out 0.01] [--only NAME...]

Builds a vocabulary of each size with the builder of `neox-ja vocab build` and with SentencePiece
(unigram and BPE; `pip install sentencepiece`), all from the same training text, and encodes the
held-out works with each. For SentencePiece to finish in minutes the training text is a sample:
every n-th work that is not held out, about `--train-megabytes` of UTF-8 together. What our builder
makes of all works is told besides. SentencePiece gets the text as it is (identity normalization),
may fall back to bytes, as ours, and its pieces may have up to 16 characters, ours have at most
three. `--only` makes some of the vocabularies and keeps the others' rows in the result file, so
that the work can be done in parts. `--small` tries the program on very little text.
"""

from __future__ import annotations

import argparse
import io
import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import sentencepiece
from harness import RESULTS, write_result

from gpt_neox_japanese.corpus import is_held_out, read_documents
from gpt_neox_japanese.tokenizer.build.builder import build_vocabulary
from gpt_neox_japanese.tokenizer.build.statistics import text_statistics
from gpt_neox_japanese.tokenizer.codec import Codec

NAMES = ("published", "ours", "ours, all", "SentencePiece unigram", "SentencePiece bpe")
LONGEST_LINE = 16_384  # bytes; SentencePiece leaves out longer ones


def main() -> None:
    """Build, measure, print and write the results."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("corpus", nargs="+", type=Path)
    parser.add_argument("--reference", type=Path, help="directory of the published vocabulary")
    parser.add_argument("--sizes", nargs="+", type=int, default=[8000, 16_000, 32_000])
    parser.add_argument("--train-megabytes", type=float, default=40)
    parser.add_argument("--held-out", type=float, default=0.01)
    parser.add_argument("--only", nargs="+", choices=NAMES, default=NAMES)
    parser.add_argument("--small", action="store_true")
    options = parser.parse_args()
    if options.small:
        options.sizes, options.train_megabytes = [5000], 2.0

    held = [d.text for d in read_documents(options.corpus) if is_held_out(d.id, options.held_out)]
    sample, all_bytes = training_sample(options)
    sample_bytes = sum(len(text.encode()) for text in sample)
    print(f"{len(held)} held-out works; training on {sample_bytes:,} of {all_bytes:,} bytes")

    rows: list[dict[str, Any]] = []

    def note(**row: Any) -> None:
        print(json.dumps(row))
        rows.append(row)

    if options.reference and "published" in options.only:
        note(vocabulary="published", size=32_000, **of_codec(Codec.load(options.reference), held))
    for size in options.sizes:
        for text, name in ((lambda: iter(sample), "ours"), (training_texts(options), "ours, all")):
            if name not in options.only or (options.small and name != "ours"):
                continue
            seconds, vocabulary = timed(build_vocabulary, text(), size)  # type: ignore[no-untyped-call]
            found = of_codec(Codec(vocabulary, legacy=False), held)
            note(vocabulary=name, size=size, seconds_to_build=seconds, **found)
        for kind in ("unigram", "bpe"):
            if f"SentencePiece {kind}" not in options.only:
                continue
            seconds, pieces = timed(train_sentencepiece, kind, size, sample)
            found = of_sentencepiece(pieces, held)
            note(vocabulary=f"SentencePiece {kind}", size=size, seconds_to_build=seconds, **found)
    name = "vocabulary-small" if options.small else "vocabulary"
    texts = {
        "held_out": {"works": len(held), "characters": sum(map(len, held))},
        "training_bytes": sample_bytes,
        "training_bytes_of_ours_all": all_bytes,
    }
    rows = with_earlier(rows, texts, RESULTS / f"{name}.json")
    print(write_result(name, ["sentencepiece", "numpy"], **texts, rows=rows))


def with_earlier(rows: list[dict[str, Any]], texts: dict[str, Any], path: Path) -> list[Any]:
    """The rows and those of an earlier run with the same texts for other vocabularies."""
    earlier = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    made = {(row["vocabulary"], row["size"]) for row in rows}
    if texts.items() <= earlier.items():
        rows = rows + [r for r in earlier["rows"] if (r["vocabulary"], r["size"]) not in made]
    return sorted(rows, key=lambda row: (row["size"], NAMES.index(row["vocabulary"])))


def training_texts(options: argparse.Namespace) -> Callable[[], Iterator[str]]:
    """What gives the works that are not held out, each time anew."""

    def texts() -> Iterator[str]:
        for document in read_documents(options.corpus):
            if not is_held_out(document.id, options.held_out):
                yield document.text

    return texts


def training_sample(options: argparse.Namespace) -> tuple[list[str], int]:
    """Every n-th training work, and how many bytes all of them have."""
    sizes = [len(text.encode()) for text in training_texts(options)()]
    every = max(1, round(sum(sizes) / (options.train_megabytes * 1e6)))
    works = enumerate(training_texts(options)())
    return [text for number, text in works if number % every == 0], sum(sizes)


def of_codec(codec: Codec, texts: list[str]) -> dict[str, float]:
    """Characters per token, and the share of byte tokens."""
    found = text_statistics(codec, texts)
    return {"characters_per_token": found.characters_per_token, "byte_share": found.byte_share}


def train_sentencepiece(
    kind: str, size: int, texts: list[str]
) -> sentencepiece.SentencePieceProcessor:
    """A SentencePiece model of `size` ids from the lines of `texts`."""
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=(line for text in texts for line in text.split("\n") if line),
        model_writer=model,
        model_type=kind,
        vocab_size=size,
        byte_fallback=True,
        character_coverage=0.9995,
        normalization_rule_name="identity",
        add_dummy_prefix=False,
        remove_extra_whitespaces=False,
        user_defined_symbols=["\n"],
        max_sentence_length=LONGEST_LINE,
        minloglevel=2,
    )
    return sentencepiece.SentencePieceProcessor(model_proto=model.getvalue())


def of_sentencepiece(
    pieces: sentencepiece.SentencePieceProcessor, texts: list[str]
) -> dict[str, float]:
    """Characters per token, and the share of byte tokens."""
    tokens = byte_tokens = 0
    for text in texts:
        ids = pieces.encode(text)
        tokens += len(ids)
        byte_tokens += sum(map(pieces.is_byte, ids))
    return {
        "characters_per_token": sum(map(len, texts)) / tokens,
        "byte_share": byte_tokens / tokens,
    }


def timed(function: Callable[..., Any], *arguments: object) -> tuple[float, Any]:
    """Seconds that a call takes, and what it gives."""
    start = time.perf_counter()
    value = function(*arguments)
    return round(time.perf_counter() - start, 1), value


if __name__ == "__main__":
    main()
