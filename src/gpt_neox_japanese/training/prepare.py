"""Corpus → token shards, on all cores, with the same result whatever their number."""

from __future__ import annotations

import json
import os
import shutil
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from contextlib import contextmanager
from multiprocessing import get_context
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from gpt_neox_japanese.corpus import Document, corpus_files, is_held_out, read_documents
from gpt_neox_japanese.errors import DataError
from gpt_neox_japanese.tokenizer.codec import Codec
from gpt_neox_japanese.training.shards import (
    FORMAT_VERSION,
    HELD_OUT_TEXT,
    Manifest,
    ShardWriter,
    token_dtype,
)

__all__ = ["TOKENIZER_FILES", "prepare"]

TOKENIZER_FILES = ("vocab.txt", "emoji.json", "tokenizer_config.json")
END_OF_TEXT = "<|endoftext|>"

# Large enough that passing a batch between processes costs little beside encoding it.
_CHARACTERS_PER_BATCH = 2**18

Batch = list[Document]
Encoded = list[NDArray[np.int32]]


def prepare(
    corpus: Iterable[str | Path],
    model: Path,
    output: Path,
    *,
    held_out: float = 0.01,
    workers: int | None = None,
) -> Manifest:
    """Tokenize a corpus into `output` (see `shards`), which appears only when it is complete.

    Args:
        corpus: files and directories, as `read_documents` takes them.
        model: a directory with `vocab.txt` and `emoji.json`.
        output: the directory to make; it must not exist, or be empty.
        held_out: the fraction of the documents kept out of training.
        workers: number of processes; as many as there are CPUs when None.

    Raises:
        DataError: `output` is not empty, nothing is left to train on, or the vocabulary has no
            end-of-text id.
        CorpusError: the corpus cannot be read.
    """
    files = corpus_files(corpus)
    codec = Codec.load(model)
    vocabulary = codec.vocabulary
    eos_token_id = vocabulary.ids.get(END_OF_TEXT)
    if eos_token_id is None:
        raise DataError(f"the vocabulary of {model} has no {END_OF_TEXT} to end documents with")
    with _new_directory(output) as directory:
        dtype = token_dtype(len(vocabulary))
        train = ShardWriter(directory, "train-{:05d}.bin", dtype, eos_token_id)
        held = ShardWriter(directory, "held-out.bin", dtype, eos_token_id)
        with (directory / HELD_OUT_TEXT).open("w", encoding="utf-8") as texts:
            for document, ids in _encode_all(read_documents(files), model, workers):
                is_held = is_held_out(document.id, held_out)
                (held if is_held else train).write(ids, len(document.text))
                if is_held:
                    line = {"id": document.id, "text": document.text}
                    texts.write(json.dumps(line, ensure_ascii=False) + "\n")
        manifest = Manifest(
            version=FORMAT_VERSION,
            dtype=dtype.name,
            vocabulary_fingerprint=vocabulary.fingerprint,
            vocabulary_size=len(vocabulary),
            eos_token_id=eos_token_id,
            held_out_fraction=held_out,
            sources=tuple(file.name for file in files),
            train=train.close(),
            held_out=held.close(),
        )
        if not manifest.train.documents:
            raise DataError(
                f"no document is left to train on ({manifest.held_out.documents} held out); "
                "give more text or a smaller --held-out"
            )
        _copy_tokenizer(codec, model, directory)
        manifest.save(directory)
    return manifest


def _copy_tokenizer(codec: Codec, model: Path, directory: Path) -> None:
    codec.save(directory)
    # The original may say more than the codec knows, to transformers for one.
    config = model / "tokenizer_config.json"
    if config.is_file():
        shutil.copyfile(config, directory / config.name)


@contextmanager
def _new_directory(output: Path) -> Iterator[Path]:
    """A directory beside `output` that takes its name when the block ends well, else vanishes."""
    if output.exists() and (not output.is_dir() or any(output.iterdir())):
        raise DataError(f"{output} exists and is not empty; choose another --output or remove it")
    partial = output.with_name(f".{output.name}.partial-{os.getpid()}")
    partial.mkdir(parents=True)
    try:
        yield partial
        if output.exists():
            output.rmdir()
        partial.rename(output)
    except BaseException:
        shutil.rmtree(partial)
        raise


def _encode_all(
    documents: Iterator[Document], model: Path, workers: int | None
) -> Iterator[tuple[Document, NDArray[np.int32]]]:
    """Every document with its ids, int32 [tokens], in the corpus's order."""
    workers = workers or os.cpu_count() or 1
    with tqdm(unit=" characters", unit_scale=True, desc="prepare") as progress:
        for batch, encoded in _map_batches(_batches(documents), model, workers):
            yield from zip(batch, encoded, strict=True)
            progress.update(sum(len(document.text) for document in batch))


def _batches(documents: Iterator[Document]) -> Iterator[Batch]:
    batch: Batch = []
    characters = 0
    for document in documents:
        batch.append(document)
        characters += len(document.text)
        if characters >= _CHARACTERS_PER_BATCH:
            yield batch
            batch, characters = [], 0
    if batch:
        yield batch


def _map_batches(
    batches: Iterator[Batch], model: Path, workers: int
) -> Iterator[tuple[Batch, Encoded]]:
    if workers == 1:
        encode = _batch_encoder(model)
        yield from ((batch, encode([d.text for d in batch])) for batch in batches)
        return
    # spawn, because the numeric libraries' threads do not survive a fork.
    with ProcessPoolExecutor(
        workers, get_context("spawn"), initializer=_start_worker, initargs=(model,)
    ) as pool:
        # A window over the batches keeps all workers busy without reading the whole corpus ahead.
        pending: deque[tuple[Batch, Future[Encoded]]] = deque()
        try:
            for batch in batches:
                pending.append((batch, pool.submit(_encode_in_worker, [d.text for d in batch])))
                if len(pending) > 3 * workers:
                    batch, future = pending.popleft()
                    yield batch, future.result()
            while pending:
                batch, future = pending.popleft()
                yield batch, future.result()
        finally:
            pool.shutdown(cancel_futures=True)


def _batch_encoder(model: Path) -> Callable[[list[str]], Encoded]:
    codec = Codec.load(model)
    return lambda texts: [codec.encode(text) for text in texts]


_encode: Callable[[list[str]], Encoded]


def _start_worker(model: Path) -> None:
    global _encode
    _encode = _batch_encoder(model)


def _encode_in_worker(texts: list[str]) -> Encoded:
    return _encode(texts)
