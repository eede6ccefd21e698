from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from gpt_neox_japanese.cli import generate
from gpt_neox_japanese.inference.outputs import OutputToken, TextChunk
from tests.cli.run import assert_refused, run
from tests.inference.conftest import checkpoint

__all__ = ["checkpoint"]


def test_text_follows_the_prompt(checkpoint: Path) -> None:
    result = run("generate", "吾輩は", "--model", checkpoint, "--seed", 1, "--max-new-tokens", 9)
    assert result.exit_code == 0, result.output
    assert result.stdout.startswith("吾輩は")
    assert len(result.stdout) > len("吾輩は\n")
    assert "\ufffd" not in result.stdout
    assert result.stderr == ""


def test_seed_reproduces_each_continuation(checkpoint: Path) -> None:
    arguments = ("generate", "猫", "--model", checkpoint, "--json", "--max-new-tokens", 9)
    first = run(*arguments, "--seed", 5, "--num-return-sequences", 2).stdout.splitlines()
    results = [json.loads(line) for line in first]
    assert [r["seed"] for r in results] == [5, 6]
    assert results[0]["text"] != results[1]["text"]
    alone = json.loads(run(*arguments, "--seed", 6).stdout)
    assert alone == results[1]
    assert json.loads(run(*arguments, "--seed", 0).stdout)["seed"] == 0


def test_an_unfinished_sentence_is_dropped_where_asked() -> None:
    arguments = ("generate", "ある朝、猫は", "--seed", 1, "--max-new-tokens", 90)
    text = run(*arguments).stdout.removesuffix("\n")
    whole = run(*arguments, "--end-at-sentence").stdout.removesuffix("\n")
    assert whole.endswith(("。", "」", "！", "？"))
    assert text.startswith(whole.removesuffix("」"))
    assert len(whole) < len(text)


def test_guesses_and_threads_change_no_character(checkpoint: Path) -> None:
    arguments = ("generate", "猫は猫は猫は", "--model", checkpoint, "--temperature", 0)
    plain = run(*arguments).stdout
    assert run(*arguments, "--prompt-lookup").stdout == plain
    assert run(*arguments, "--threads", 1).stdout == plain


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_every_number_format_of_a_processor_writes(checkpoint: Path, dtype: str) -> None:
    result = run("generate", "猫", "--model", checkpoint, "--dtype", dtype, "--max-new-tokens", 3)
    assert result.exit_code == 0, result.output


def test_float16_is_refused_on_a_processor_with_the_remedy(checkpoint: Path) -> None:
    assert_refused(run("generate", "猫", "--model", checkpoint, "--dtype", "float16"), "bfloat16")


def test_json_tells_tokens_offsets_and_reason(checkpoint: Path) -> None:
    arguments = ("generate", "猫", "--model", checkpoint, "--json", "--seed", 1)
    result = json.loads(run(*arguments, "--max-new-tokens", 5, "--logprobs", 2).stdout)
    assert result["finish_reason"] == "length"
    assert len(result["token_ids"]) == len(result["offsets"]) == len(result["logprobs"]) == 5
    assert [len(top) for top in result["top_logprobs"]] == [2] * 5
    plain = json.loads(run(*arguments, "--max-new-tokens", 5).stdout)
    assert plain == {**result, "logprobs": None, "top_logprobs": None}
    text = json.loads(run(*arguments, "--max-new-tokens", 30).stdout)["text"]
    stopped = json.loads(run(*arguments, "--max-new-tokens", 30, "--stop", text[0]).stdout)
    assert (stopped["text"], stopped["finish_reason"]) == ("", "stop")


def test_prompt_is_shown_where_it_is_wanted(checkpoint: Path) -> None:
    arguments = ("generate", "猫", "--model", checkpoint, "--seed", 1, "--max-new-tokens", 9)
    alone = run(*arguments, "--no-echo").stdout
    assert run(*arguments).stdout == f"猫{alone}"
    text = json.loads(run(*arguments, "--json").stdout)["text"]
    echoed = json.loads(run(*arguments, "--json", "--echo").stdout)
    assert echoed["text"] == f"猫{text}"
    assert text == alone.removesuffix("\n")


def test_prompt_is_shown_with_the_first_token(capsys: pytest.CaptureFixture[str]) -> None:
    def pieces() -> Iterator[TextChunk]:
        yield TextChunk("猫")
        assert capsys.readouterr().out == ""  # now something may be compiled, and told
        yield TextChunk("が", (OutputToken(7, 1, 2),))
        assert capsys.readouterr().out == "猫が"
        yield TextChunk("", (), "stop")

    generate._show(pieces())
    assert capsys.readouterr().out == "\n"


def test_texts_are_counted_on_standard_error(checkpoint: Path) -> None:
    arguments = ("generate", "猫", "--model", checkpoint, "--max-new-tokens", 9)
    texts = [run(*arguments, "--seed", seed).stdout for seed in (5, 6)]
    both = (*arguments, "--seed", 5, "--num-return-sequences", 2)
    told = run(*both)
    assert told.stdout == "".join(texts)
    shown = f"neox-ja: text 1 of 2\n{texts[0]}neox-ja: text 2 of 2\n{texts[1]}"
    assert told.output == shown, "where a terminal shows both"
    assert run(*both, "--json").stderr == ""


def test_verbose_tells_what_runs_on_standard_error(checkpoint: Path) -> None:
    arguments = ("generate", "猫", "--model", checkpoint, "--seed", 1, "--max-new-tokens", 9)
    told = run(*arguments, "--verbose")
    assert told.stdout == run(*arguments).stdout
    model, engine, speed = told.stderr.splitlines()
    assert str(checkpoint) in model
    assert "float32" in engine
    assert "9 tokens in" in speed


def test_penalties_reach_the_sampler(checkpoint: Path) -> None:
    arguments = ("generate", "猫", "--model", checkpoint, "--json", "--temperature", 0)
    arguments += ("--max-new-tokens", 40)
    free = json.loads(run(*arguments).stdout)["token_ids"]
    for option in ("--frequency-penalty", "--presence-penalty"):
        ids = json.loads(run(*arguments, option, 100).stdout)["token_ids"]
        assert len(set(ids)) == len(ids)
        assert ids != free


def test_a_text_that_ends_for_lack_of_room_says_so(checkpoint: Path) -> None:
    for more in ([], ["--json"]):
        arguments = ["generate", "猫", "--model", checkpoint, "--temperature", 0, *more]
        full = run(*arguments, "--max-new-tokens", 1500)
        assert full.exit_code == 0
        assert "context is full" in full.stderr
        assert run(*arguments, "--max-new-tokens", 5).stderr == ""
        assert run(*arguments, "--max-new-tokens", 47).stderr == ""  # just the room that there is


def test_help_is_in_sections() -> None:
    lines = run("generate", "--help").stdout.splitlines()
    sections = [line for line in lines if line and not line.startswith(" ") and line[-1] == ":"]
    assert sections == [
        "How much:",
        "Sampling:",
        "What is shown:",
        "What runs:",
        "Other options:",
    ]


def test_prompt_comes_from_standard_input(checkpoint: Path) -> None:
    arguments = ("--model", checkpoint, "--seed", 1, "--max-new-tokens", 5)
    piped = run("generate", "-", *arguments, stdin="吾輩は")
    assert piped.stdout == run("generate", "吾輩は", *arguments).stdout
    assert piped.stdout == run("generate", *arguments, stdin="吾輩は").stdout


def test_options_reach_the_sampler(checkpoint: Path) -> None:
    arguments = ("generate", "猫", "--model", checkpoint, "--max-new-tokens", 9)
    greedy = run(*arguments, "--temperature", 0).stdout
    assert greedy == run(*arguments, "--top-k", 1).stdout
    assert greedy == run(*arguments, "--top-p", 1e-9).stdout
    assert greedy == run(*arguments, "--min-p", 1).stdout


def test_text_ends_before_a_stop_string(checkpoint: Path) -> None:
    arguments = ("generate", "猫", "--model", checkpoint, "--max-new-tokens", 30, "--seed", 1)
    text = run(*arguments).stdout.removeprefix("猫").removesuffix("\n")
    stopped = run(*arguments, "--stop", text[-1]).stdout
    assert stopped == f"猫{text[: text.index(text[-1])]}\n"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([""], "prompt is empty"),
        (["猫", "--temperature", "-1"], "temperature is -1"),
        (["猫", "--top-p", "2"], "top_p is 2"),
        (["猫", "--max-new-tokens", "0"], "--max-new-tokens"),
        (["猫", "--dtype", "float8"], "float8"),
        (["猫", "--device", "abacus"], "abacus"),
        (["猫", "--stop", ""], "stop"),
        (["猫", "--logprobs", "2"], "--json"),
        (["猫", "--logprobs", "-2", "--json"], "logprobs is -2"),
        (["猫", "--logprobs", "99999", "--json"], "logprobs is 99999"),
        (["猫", "--min-new-tokens", "-1"], "min_new_tokens is -1"),
        (["猫", "--presence-penalty", "nan"], "not a finite number"),
        (["猫" * 100], "100 tokens"),
        (["\udcff"], "are not UTF-8"),
    ],
)
def test_misuse_is_refused_in_one_line(checkpoint: Path, arguments: list[str], said: str) -> None:
    assert_refused(run("generate", *arguments, "--model", checkpoint), said)


def test_missing_model_is_refused(tmp_path: Path) -> None:
    assert_refused(run("generate", "猫", "--model", tmp_path / "nowhere"), "nowhere")


def test_vocabulary_that_does_not_match_the_weights_is_refused(
    checkpoint: Path, tmp_path: Path
) -> None:
    copy = Path(shutil.copytree(checkpoint, tmp_path / "copy"))
    with (copy / "vocab.txt").open("a", encoding="utf-8") as file:
        file.write("余\n")
    assert_refused(run("generate", "猫", "--model", copy), "ids, its vocabulary")


def test_broken_config_is_refused(checkpoint: Path, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(checkpoint, tmp_path / "copy"))
    (copy / "config.json").write_text("{")
    assert_refused(run("generate", "猫", "--model", copy), "config.json")
