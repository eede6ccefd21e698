"""Reading text corpora: plain text, JSON lines and Parquet, one block of documents at a time.

    novel.txt            a file is a document, its id the file's name
    works.jsonl          a line is a document: {"text": "…", "id": "…"}, the id may be missing
    works.jsonl.gz/.zst  the same, compressed; .txt too
    works.parquet        a row is a document: the columns text and id, which may be missing

A corpus is cut into blocks of a few megabytes of whole documents (`read_blocks`). A block can be
read by itself, by whatever process gets it, and a corpus always falls into the same blocks: work on
them can be shared out, stopped and continued. `read_documents` reads them one after the other.

Start with `blocks`, which says how a corpus is cut. `documents` says what a document is,
`corpus_files` which files there are, `decompression` what bytes they hold, `parts` and `parquet`
how a part of each kind is read; `held_out` chooses what is kept out of training; `parallel` applies
a function to all blocks with several processes.
"""

from __future__ import annotations

from gpt_neox_japanese.corpus.blocks import Block, read_blocks, read_documents
from gpt_neox_japanese.corpus.corpus_files import corpus_files
from gpt_neox_japanese.corpus.documents import Document, Layout, is_held_out, name_of
from gpt_neox_japanese.corpus.held_out import HeldOut, choose_held_out, without
from gpt_neox_japanese.corpus.parallel import map_blocks

__all__ = [
    "Block",
    "Document",
    "HeldOut",
    "Layout",
    "choose_held_out",
    "corpus_files",
    "is_held_out",
    "map_blocks",
    "name_of",
    "read_blocks",
    "read_documents",
    "without",
]
