"""lm-eval's own backend for Hugging Face models runs ours, on a task of four questions."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import gpt_neox_japanese

TASK = """\
task: four_questions
dataset_path: json
dataset_kwargs: {{data_files: {{validation: {file}}}}}
output_type: multiple_choice
validation_split: validation
doc_to_text: "{{{{context}}}}"
doc_to_choice: choices
doc_to_target: answer
metric_list: [{{metric: acc}}]
"""


@pytest.mark.filterwarnings("ignore")  # lm-eval's and its dependencies' own
def test_lm_eval_scores_our_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lm_eval = pytest.importorskip("lm_eval")
    tasks = pytest.importorskip("lm_eval.tasks")
    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path / "cache"))
    rows = [
        {"context": "吾輩は猫で", "choices": ["ある。", "のをへ。"], "answer": 0},
        {"context": "名前はまだ", "choices": ["がにぬ、", "ない。"], "answer": 1},
        {"context": "何でも薄暗いじめじめした", "choices": ["所で", "るんを"], "answer": 0},
        {"context": "ニャーニャー泣いて", "choices": ["ぬねの", "いた。"], "answer": 1},
    ]
    lines = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    (tmp_path / "rows.jsonl").write_text(lines, encoding="utf-8")
    task = TASK.format(file=tmp_path / "rows.jsonl")
    (tmp_path / "four_questions.yaml").write_text(task, encoding="utf-8")
    gpt_neox_japanese.register()
    results = lm_eval.simple_evaluate(
        model="hf",
        model_args={
            "pretrained": str(gpt_neox_japanese.default_model_directory()),
            "dtype": "float32",
        },
        tasks=["four_questions"],
        task_manager=tasks.TaskManager(include_path=str(tmp_path)),
        device="cpu",
        batch_size=2,
        bootstrap_iters=0,
    )
    assert results["results"]["four_questions"]["acc,none"] == 1.0
