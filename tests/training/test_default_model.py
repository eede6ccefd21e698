"""The scripts by which the model in the package is made, at a small size."""

from __future__ import annotations

import importlib.util
import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from hashlib import sha256
from itertools import count
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from gpt_neox_japanese import GPTNeoXJapaneseForCausalLM
from gpt_neox_japanese.corpus import held_out, is_held_out

SCRIPTS = Path(__file__).parents[2] / "scripts" / "default_model"


def script(name: str) -> Any:
    spec = importlib.util.spec_from_file_location(name, SCRIPTS / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def pretrain() -> Iterator[Any]:
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    yield script("pretrain")
    for number, handler in handlers.items():
        signal.signal(number, handler)


def sentences(kanji: str, count: int) -> str:
    """Paragraphs of a sentence, none like another, in eight kanji and a few more."""
    return "\n".join(
        f"　{''.join(kanji[int(digit)] for digit in f'{number:08o}')}也、と彼は書いた。"
        for number in range(count)
    )


def select(directory: Path, works: dict[str, str]) -> dict[str, str]:
    corpus, output = directory / "corpus.jsonl", directory / "selected"
    rows = [json.dumps({"id": name, "text": text}) for name, text in works.items()]
    corpus.write_text("\n".join(rows) + "\n", encoding="utf-8")
    script("select_texts").main([str(corpus), str(output)])
    lines = (output / "texts.jsonl").read_text(encoding="utf-8").splitlines()
    return {row["id"]: row["text"] for row in map(json.loads, lines)}


@pytest.fixture
def as_if_large(monkeypatch: pytest.MonkeyPatch) -> None:
    """Works are held out by their hashes alone."""
    monkeypatch.setattr(held_out, "_BYTES_TO_LOOK_AT", 0)


def test_a_corpus_of_which_prepare_holds_out_others_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SystemExit):
        select(tmp_path, {"a": "こんなに小さい。"})


@pytest.mark.usefixtures("as_if_large")
def test_texts_are_passages_that_end_and_held_out_works_stay(tmp_path: Path) -> None:
    [kept] = [name for name in map(str, range(300)) if is_held_out(name, 0.01)][:1]
    novel, other = sentences("山川草木鳥獣虫魚", 90), sentences("東西南北春夏秋冬", 40)
    works = {
        kept: sentences("日月火水木金土星", 40) + "\n（昭和十年三月）",
        "novel": novel + "\n\n（「改造」昭和十年三月号）",
        "edition": novel[: len(novel) // 2],
        "edition of what is held out": sentences("日月火水木金土星", 30),
        "date": other + "（大正二年十月）\n終",
        "open": "\n".join("「さあ行こう、と彼は言った。" for _ in range(40)),
        "english": "It was a dark and stormy night. " * 30,
    }
    texts = select(tmp_path, works)
    assert texts[kept] == works[kept]
    rest = {name: text for name, text in texts.items() if name != kept}
    assert {name.split("/")[0] for name in rest} == {"novel", "date"}
    assert not any(is_held_out(name, 0.01) for name in rest)
    assert all(text.endswith("彼は書いた。") for text in rest.values())
    assert max(map(len, rest.values())) < 2100
    assert "\n".join(text for name, text in rest.items() if name[0] == "n") == novel
    assert "\n".join(text for name, text in rest.items() if name[0] == "d") == other
    assert select(tmp_path, works) == texts


@pytest.mark.usefixtures("as_if_large")
def test_a_long_work_is_cut_short(tmp_path: Path) -> None:
    texts = select(tmp_path, {"long": sentences("山川草木鳥獣虫魚", 7000)})
    assert 90_000 < sum(map(len, texts.values())) <= 100_000
    assert all(text.endswith("。") for text in texts.values())


def test_packed_data_are_unpacked_as_they_were(prepared: Path, tmp_path: Path) -> None:
    pack_data = script("pack_data")
    size = 900
    pack_data.CHUNK = 4_000
    pack_data.main(["pack", str(prepared), str(tmp_path / "parts"), "--part-bytes", str(size)])
    parts = list((tmp_path / "parts").iterdir())
    assert len(parts) > 1
    for part in parts:
        assert sum(file.stat().st_size for file in part.iterdir()) <= size
    pack_data.main(["unpack", str(tmp_path / "parts"), str(tmp_path / "data")])
    for file in prepared.iterdir():
        if file.suffix != ".jsonl":
            assert (tmp_path / "data" / file.name).read_bytes() == file.read_bytes()


def arguments(data: Path, run: Path, *more: str) -> list[str]:
    small = ["--shape", "32x1x1", "--sequence-length", "32", "--batch", "4", "--micro-batch", "2"]
    pace = ["--log-steps", "1", "--warmup-steps", "2", "--held-out-tokens", "64"]
    return [str(data), str(run), *small, *pace, *more]


def log(run: Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]


def test_a_run_that_was_stopped_ends_as_one_that_was_not(
    prepared: Path, tmp_path: Path, pretrain: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, parted = tmp_path / "whole", tmp_path / "parted"
    finish = ("--finish-tokens", str(8 * 4 * 32))
    pretrain.main(arguments(prepared, whole, *finish))
    rates = [line["rate"] for line in log(whole) if "rate" in line]
    assert rates == pytest.approx([1.5e-3, *(3e-3 * (1 - step / 8) for step in range(1, 8))])

    take_step = pretrain.Run._take_step

    def interrupted(run: Any, *given: Any) -> float:
        if run._step == 3:
            os.kill(os.getpid(), signal.SIGTERM)
        loss: float = take_step(run, *given)
        return loss

    with monkeypatch.context() as patch:
        patch.setattr(pretrain.Run, "_take_step", interrupted)
        pretrain.main(arguments(prepared, parted, *finish))
    assert log(parted)[-1]["step"] == 4
    pretrain.main(arguments(prepared, parted, *finish))
    assert log(parted)[-1]["step"] == 8
    for name in ("model", "average"):
        models = [GPTNeoXJapaneseForCausalLM.from_pretrained(run / name) for run in (whole, parted)]
        for one, other in zip(*(model.parameters() for model in models), strict=True):
            torch.testing.assert_close(one, other)


@pytest.mark.parametrize(("saved", "expected"), [({"best": "model"}, "model"), ({}, "average")])
def test_a_run_that_goes_on_knows_whether_the_average_was_better(
    prepared: Path,
    tmp_path: Path,
    pretrain: Any,
    monkeypatch: pytest.MonkeyPatch,
    saved: dict[str, str],
    expected: str,
) -> None:
    pretrain.main(arguments(prepared, tmp_path, "--finish-tokens", "128"))
    path = tmp_path / "state.pt"
    state = torch.load(path, weights_only=True)
    assert state.pop("best") in ("average", "model")
    torch.save({**state, **saved}, path)
    known: list[str] = []
    monkeypatch.setattr(pretrain.Run, "train", lambda run: known.append(run._best))
    pretrain.main(arguments(prepared, tmp_path, "--finish-tokens", "128"))
    assert known == [expected]


def test_a_run_by_the_clock_ends_in_time_with_a_model_in_pieces(
    prepared: Path, tmp_path: Path, pretrain: Any
) -> None:
    pretrain.PIECE = 20_000
    pretrain.time = SimpleNamespace(monotonic=count().__next__)  # each look takes a second
    run, pieces = tmp_path / "run", tmp_path / "pieces"
    clock = ("--minutes", "1", "--save-minutes", "0.3", "--measure-minutes", "0.3")
    pretrain.main(arguments(prepared, run, *clock, "--pieces", str(pieces)))
    rates = [line["rate"] for line in log(run) if "rate" in line]
    assert rates[1:5] == [3e-3] * 4
    assert rates[5:] == sorted(rates[5:], reverse=True)
    assert rates[-1] < 1e-3
    assert log(run)[-1]["seconds"] <= 60
    parts = sorted(pieces.glob("model.safetensors.[0-9]*"), key=lambda path: int(path.suffix[1:]))
    weights = b"".join(part.read_bytes() for part in parts)
    assert weights in [
        (run / name / "model.safetensors").read_bytes() for name in ("model", "average")
    ]
    assert (pieces / "model.safetensors.sha256").read_text().split()[0] == sha256(
        weights
    ).hexdigest()


@pytest.mark.skipif(
    sys.platform == "win32", reason="gloo over localhost is tried on Linux and macOS"
)
def test_two_processes_have_the_losses_of_one(
    prepared: Path, tmp_path: Path, pretrain: Any
) -> None:
    finish = ("--finish-tokens", str(4 * 4 * 32))
    pretrain.main(arguments(prepared, tmp_path / "one", *finish))
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    at = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    command = [sys.executable, str(SCRIPTS / "pretrain.py")]
    command += arguments(prepared, tmp_path / "two", *finish)
    both = [
        subprocess.Popen(command, env={**os.environ, **at, "RANK": number}) for number in ("0", "1")
    ]
    assert [process.wait() for process in both] == [0, 0]
    losses = [[x["loss"] for x in log(tmp_path / n) if "loss" in x] for n in ("one", "two")]
    assert losses[1] == pytest.approx(losses[0], rel=1e-3)


def test_a_run_with_other_windows_is_not_gone_on_with(
    prepared: Path, tmp_path: Path, pretrain: Any
) -> None:
    finish = ("--finish-tokens", "128")
    pretrain.main(arguments(prepared, tmp_path / "run", *finish))
    with pytest.raises(SystemExit, match="--seed 3 --sequence-length 32 --batch 4"):
        pretrain.main(arguments(prepared, tmp_path / "run", *finish, "--seed", "4"))
