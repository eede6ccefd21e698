"""lm-eval's client of servers finds the scores that its own backend for transformers finds."""

from __future__ import annotations

import pytest

import gpt_neox_japanese
from tests.float_model import float_model
from tests.server.serving import serving

PAIRS = [
    ("吾輩は猫で", "ある。"),
    ("吾輩は猫で", "のをへ。"),
    ("何でも薄暗いじめじめした", "所で"),
    ("ニャーニャー", "泣いて① 한국😀\nいた"),
    ("雨が降る。" * 60, "風が吹く。"),
    ("", "名前はまだない。"),
]


@pytest.mark.filterwarnings("ignore")  # lm-eval's and its dependencies' own
def test_scores_are_those_of_transformers() -> None:
    pytest.importorskip("lm_eval")
    pytest.importorskip("tenacity")
    from lm_eval.api.instance import Instance
    from lm_eval.models.huggingface import HFLM
    from lm_eval.models.openai_completions import LocalCompletionsAPI

    gpt_neox_japanese.register()
    directory = str(float_model())  # in int8 each of the two rounds on its own
    requests = [
        Instance(request_type="loglikelihood", doc={}, arguments=pair, idx=number)
        for number, pair in enumerate(PAIRS)
    ]
    hf = HFLM(pretrained=directory, dtype="float32", device="cpu", batch_size=1)
    expected = hf.loglikelihood(requests)
    with serving("--model", directory, "--served-model-name", "default") as server:
        for options in ({"batch_size": 1}, {"batch_size": 4}):
            ours = LocalCompletionsAPI(
                base_url=server.address + "v1/completions",
                model="default",
                tokenizer=directory,
                tokenizer_backend="huggingface",
                max_length=512,
                **options,
            )
            found = ours.loglikelihood(requests)
            assert [greedy for _, greedy in found] == [greedy for _, greedy in expected]
            assert [score for score, _ in found] == pytest.approx(
                [score for score, _ in expected], abs=2e-3
            )
