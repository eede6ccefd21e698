"""What runs the server for real names what is there."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[1]
DEPLOY = ROOT / "deploy"


def test_the_image_has_what_the_server_imports_and_no_torch() -> None:
    text = (DEPLOY / "Dockerfile").read_text(encoding="utf-8")
    found = re.search(r'python -c "(import tomllib.*?)"', text, re.DOTALL)
    assert found is not None
    code = found[1].replace("\\\n", "")
    listed = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    names = {re.split(r"[\[>=<]", line)[0] for line in listed.stdout.split()}
    assert {"click", "numba", "numpy", "safetensors", "starlette", "uvicorn"} <= names
    assert names.isdisjoint({"torch", "transformers", "tokenizers"})


def test_serving_loads_neither_torch_nor_transformers() -> None:
    pytest.importorskip("uvicorn")
    code = """
import sys
import gpt_neox_japanese.server.lifecycle
from gpt_neox_japanese import TextGenerator
TextGenerator.from_pretrained(threads=1).generate("猫", max_new_tokens=1)
print(*(name for name in ("torch", "transformers") if name in sys.modules))
"""
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (loaded.returncode, loaded.stdout.strip()) == (0, ""), loaded.stderr


def test_the_graphs_that_the_guide_names_are_measured() -> None:
    pytest.importorskip("prometheus_client")
    from gpt_neox_japanese.server.metrics import Metrics

    guide = (ROOT / "docs" / "guide" / "serve.md").read_text(encoding="utf-8")
    measured = Metrics().render().decode()
    names = set(re.findall(r"neox_ja_\w+", guide))
    assert len(names) > 4
    for name in names:
        assert re.search(rf"(?m)^(# \w+ )?{name}\b", measured), name


def test_every_option_that_is_used_exists() -> None:
    from gpt_neox_japanese.cli.serve import command

    options = {option for parameter in command.params for option in parameter.opts}
    for file in (*DEPLOY.iterdir(), ROOT / "docs" / "guide" / "serve.md"):
        text = file.read_text(encoding="utf-8")
        used = set(
            re.findall(
                r"(?<![\w-])--(?:allow|api|chat|dtype|host|max|model|port|request|slots)[\w-]*",
                text,
            )
        )
        assert used <= options | {"--model_args"}, file.name


def test_nginx_takes_what_the_server_takes_and_waits_longer_than_it() -> None:
    from gpt_neox_japanese.cli.serve import command

    defaults: dict[str | None, Any] = {each.name: each.default for each in command.params}
    text = (DEPLOY / "nginx.conf").read_text(encoding="utf-8")
    sizes = [int(size) << 20 for size in re.findall(r"client_max_body_size (\d+)m;", text)]
    assert sizes == [defaults["max_body_size"]]
    waits = [int(seconds) for seconds in re.findall(r"proxy_read_timeout (\d+)s;", text)]
    assert waits
    assert min(waits) > defaults["request_timeout"]
