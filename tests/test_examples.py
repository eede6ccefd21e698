"""Every script of examples/ runs as its docstring says, and prints what it promises."""

from __future__ import annotations

import importlib.util
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parents[1] / "examples"

# Of each script what its output looks like, and a library that it needs of an extra.
EXPECTED = {
    "async_stream": (r"(?s)海は … '.+山は … '.+\n海は.+\n山は.+", None),
    "ctranslate2_model": (
        r"\Aその協調の中に、その協調の中に、その協調の中に\n\Z",
        "ctranslate2",
    ),
    "lora": (r"(?s)step 10: loss .+after: 吾輩は計算機である。電源はまだ無い。", "peft"),
    "onnx_model": (
        r"\A人とAIが協調するためには、その協調の中に、その協調の中に、その協調の中に",
        "onnxscript",
    ),
    "openai_client": (
        r"(?s).{10,}\n吾輩は猫である。  -\d+\.\d\n吾輩を猫である。  -\d+\.\d\n",
        "openai",
    ),
    "quantize": (r"(?s)58\.6 MB → 29\.5 MB\n吾輩は猫である。.{10,}", None),
    "score_text": (
        r"(?s)、 3\d%.+吾輩は猫である。  -2[34]\.\d\n吾輩を猫である。  -3[01]\.\d",
        None,
    ),
    "stop_strings": (
        r"朝起きると、[^。]+。\n「あなたは誰ですか」と聞くと、男は「[^」\n]+」  \(stop\)",
        None,
    ),
    "stream_text": (r"(?s)吾輩は猫である。.{30,}", None),
    "tokenize_corpus": (r"(?s)documents=2.+吾輩は猫である。名前はまだ無い。\n", "tqdm"),
    "transformers_pipeline": (r"雨の降る晩に、.+(\n.+)*\n山の上から.+", None),
    "trl_chat": (r"(?s)SFT: 青です。\n.*DPO: 赤です。\n", "trl"),
    "write_many": (r"\A((stop  |length)  [春夏秋冬].+\n){8}\Z", None),
}


def test_every_example_is_here() -> None:
    assert {file.stem for file in EXAMPLES.iterdir() if file.suffix == ".py"} == set(EXPECTED)


@pytest.mark.parametrize("name", EXPECTED)
def test_example_prints_what_it_promises(name: str, tmp_path: Path) -> None:
    pattern, library = EXPECTED[name]
    if library and importlib.util.find_spec(library) is None:
        pytest.skip(f"needs {library}")
    result = subprocess.run(
        [sys.executable, "-X", "utf8", str(EXAMPLES / f"{name}.py")],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        capture_output=True,
        encoding="utf-8",
        check=False,
    )
    assert result.returncode == 0, result.stderr
    assert re.search(pattern, result.stdout), result.stdout
    assert not any(tmp_path.iterdir())  # what it makes it takes away


@pytest.mark.parametrize("name", EXPECTED)
def test_example_fits_a_screen_and_says_how_it_is_run(name: str) -> None:
    source = (EXAMPLES / f"{name}.py").read_text(encoding="utf-8")
    assert 10 < source.count("\n") <= 60
    assert f"    python examples/{name}.py\n" in source
