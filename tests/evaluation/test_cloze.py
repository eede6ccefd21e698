from __future__ import annotations

import pytest
import torch

from gpt_neox_japanese.errors import CheckpointError, DataError
from gpt_neox_japanese.evaluation.cloze import Question, _interval, cloze, make_questions
from gpt_neox_japanese.tokenizer.codec import Codec
from tests.model.small import small_model
from tests.tokenizer.small import vocabulary

NUMBERS = "一二三四五六七八九十百千万"
TEXTS = [
    "".join(f"{a}の猫は{b}の名前を{c}日に持つ事にした。" for b in NUMBERS for c in NUMBERS)
    for a in NUMBERS[:3]
]


def test_questions_are_the_same_every_time_and_the_answer_is_what_follows() -> None:
    questions = make_questions(TEXTS, 20)
    assert questions == make_questions(list(TEXTS), 20)
    assert len(questions) == 20
    for question in questions:
        assert len(set(question.choices)) == 4
        true = question.choices[question.answer]
        assert any(question.context + true in text for text in TEXTS)
        assert {len(choice) for choice in question.choices} == {len(true)}
    assert {question.answer for question in questions} == {0, 1, 2, 3}


def test_too_little_text_is_refused() -> None:
    with pytest.raises(DataError, match="too few for a cloze"):
        make_questions(["短い。"], 5)


@pytest.fixture(scope="module")
def codec() -> Codec:
    return Codec(vocabulary([*"猫犬鳥魚馬"]), legacy=False)


def test_a_model_that_expects_one_token_takes_the_continuation_that_has_it(codec: Codec) -> None:
    model = small_model(codec, tie_word_embeddings=False)
    with torch.no_grad():  # whatever it has read, it expects 鳥
        model.gpt_neox_japanese.final_layer_norm.weight.zero_()
        model.gpt_neox_japanese.final_layer_norm.bias.fill_(1.0)
        model.embed_out.weight.zero_()
        model.embed_out.weight[codec.vocabulary.ids["鳥"]] = 1.0
    question = Question("猫" * 30, ("猫猫", "犬鳥鳥鳥", "鳥鳥鳥魚", "鳥鳥鳥"), 3)
    assert cloze(model, codec, [question]).accuracy == 1.0
    assert cloze(model, codec, [question, question]).questions == 2
    other = Question("猫", ("鳥鳥", "犬", "魚", "馬"), 1)
    assert cloze(model, codec, [question, other]).accuracy == 0.5


def test_scores_that_are_not_finite_answer_nothing(codec: Codec) -> None:
    model = small_model(codec, tie_word_embeddings=False)
    with torch.no_grad():
        model.embed_out.weight.fill_(float("nan"))
    with pytest.raises(CheckpointError, match="scores are not finite"):
        cloze(model, codec, [Question("猫", ("鳥鳥", "犬", "魚", "馬"), 0)])


def test_a_cloze_without_questions_is_refused(codec: Codec) -> None:
    with pytest.raises(DataError, match="no question"):
        cloze(small_model(codec), codec, [])
    with pytest.raises(DataError, match="number is -1"):
        make_questions(TEXTS, -1)


@pytest.mark.parametrize(("right", "low", "high"), [(0, 0.0, 0.278), (5, 0.237, 0.763)])
def test_few_questions_leave_a_wide_interval(right: int, low: float, high: float) -> None:
    """The figures are of tables of Wilson's interval for ten trials."""
    assert _interval(right, 10) == pytest.approx((low, high), abs=1e-3)
    assert _interval(right * 100, 1000)[1] < high
