"""Other tokenizers, with vocabularies of 32,000 entries trained on the same text as each other.

    python benchmarks/peers.py CORPUS... --output DIR [--megabytes 20]

trains them, which takes some minutes, for `bench_tokenizer.py --peers DIR`. A byte-level BPE with
the pattern of GPT-2 serves `tokenizers`, fastokens, tokie, splintr and tiktoken, which give the
same ids with it; SentencePiece has a unigram and a BPE model of its own. Needs
`pip install fastokens sentencepiece splintr-rs tiktoken tokie`.
"""

from __future__ import annotations

import argparse
import io
from collections.abc import Callable, Iterator
from pathlib import Path

from gpt_neox_japanese.corpus import read_documents

__all__ = ["PACKAGES", "load_peers", "paragraphs"]

PACKAGES = ["fastokens", "sentencepiece", "splintr-rs", "tiktoken", "tokenizers", "tokie"]
SIZE = 32_000
SHORTEST = 20  # characters; shorter lines are said again and again
GPT2_PATTERN = r"'(?:[sdmt]|ll|ve|re)| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"


def paragraphs(corpus: list[Path], megabytes: float) -> Iterator[list[str]]:
    """Slices of so many megabytes of UTF-8; in all of them together no paragraph stands twice."""
    seen: set[str] = set()
    lines: list[str] = []
    size = 0
    for document in read_documents(corpus):
        for line in document.text.split("\n"):
            if len(line) >= SHORTEST and line not in seen:
                seen.add(line)
                lines.append(line)
                size += len(line.encode()) + 1
        if size >= megabytes * 1e6:
            yield lines
            lines, size = [], 0


def load_peers(directory: Path) -> dict[str, Callable[[list[str], str], object]]:
    """Name → what encodes lines, or the same lines joined to one text, whichever is faster for it.

    Each is asked for ids in the form that it makes soonest, and works with one thread if
    `RAYON_NUM_THREADS` is 1.
    """
    import fastokens
    import sentencepiece
    import splintr
    import tiktoken
    import tokenizers
    import tokie

    bpe = str(directory / "tokenizer.json")
    hugging_face = tokenizers.Tokenizer.from_file(bpe)
    fast, tok, split = (
        fastokens.Tokenizer.from_file(bpe),
        tokie.Tokenizer.from_json(bpe),
        splintr.from_json(bpe),
    )
    ranks = tiktoken.Encoding(
        "peer",
        pat_str=GPT2_PATTERN,
        mergeable_ranks={_bytes_of(piece): i for piece, i in hugging_face.get_vocab().items()},
        special_tokens={},
    )
    unigram, merged = (
        sentencepiece.SentencePieceProcessor(model_file=str(directory / f"{kind}.model"))
        for kind in ("unigram", "bpe")
    )
    return {
        "fastokens": lambda _, text: fast.encode(text).ids,
        "splintr": lambda _, text: split.encode_flat(text),
        "tokie": lambda _, text: tok.encode_bytes(text.encode()),
        "SentencePiece unigram": lambda lines, _: unigram.encode(lines, num_threads=1),
        "SentencePiece BPE": lambda lines, _: merged.encode(lines, num_threads=1),
        "tiktoken": lambda _, text: ranks.encode_ordinary(text),
        "tokenizers": lambda lines, _: hugging_face.encode_batch_fast(lines),
    }


def _bytes_of(piece: str) -> bytes:
    """The bytes that a piece of a byte-level BPE stands for."""
    from transformers.convert_slow_tokenizer import bytes_to_unicode

    bytes_of = {character: byte for byte, character in bytes_to_unicode().items()}
    return bytes(bytes_of[character] for character in piece)


def main() -> None:
    """Train all vocabularies and write them."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("corpus", nargs="+", type=Path)
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--megabytes", type=float, default=20)
    options = parser.parse_args()
    lines = next(paragraphs(options.corpus, options.megabytes))
    options.output.mkdir(parents=True, exist_ok=True)
    train_bpe(lines, options.output / "tokenizer.json")
    for kind in ("unigram", "bpe"):
        train_sentencepiece(lines, kind, options.output / f"{kind}.model")


def train_bpe(lines: list[str], path: Path) -> None:
    """A byte-level BPE in the format of `tokenizers`."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=SIZE, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False
    )
    tokenizer.train_from_iterator(lines, trainer)
    tokenizer.save(str(path))


def train_sentencepiece(lines: list[str], kind: str, path: Path) -> None:
    """A model that takes the text as it is and may fall back to bytes."""
    import sentencepiece

    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(lines),
        model_writer=model,
        model_type=kind,
        vocab_size=SIZE,
        byte_fallback=True,
        character_coverage=0.9995,
        normalization_rule_name="identity",
        add_dummy_prefix=False,
        remove_extra_whitespaces=False,
        max_sentence_length=16_384,
        minloglevel=2,
    )
    path.write_bytes(model.getvalue())


if __name__ == "__main__":
    main()
