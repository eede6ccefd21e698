from __future__ import annotations

import json
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
import tokenizers
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import AutoTokenizer
from transformers.utils import chat_template_utils

from gpt_neox_japanese import Codec, GPTNeoXJapaneseTokenizer, default_model_directory
from gpt_neox_japanese.assets import default_chat_template
from gpt_neox_japanese.errors import ArgumentError, CheckpointError
from gpt_neox_japanese.tokenizer import chat_template, template_worker
from gpt_neox_japanese.tokenizer.added_tokens import AddedToken, AddedTokens
from gpt_neox_japanese.tokenizer.chat_template import ChatTemplate, find_chat_template
from gpt_neox_japanese.tokenizer.vocabulary import Vocabulary

CODEC = Codec.from_pretrained(default_model_directory())
DEFAULT = ChatTemplate(default_chat_template(), CODEC)
TALK = [
    {"role": "system", "content": "短く答える。"},
    {"role": "user", "content": "今日は。"},
    {"role": "assistant", "content": "はい、今日は。"},
    {"role": "user", "content": "君は誰？"},
    {"role": "assistant", "content": "猫です。\n"},
]


def learned(template: ChatTemplate, messages: list[dict[str, str]]) -> str:
    turns = template.encode_turns(messages)
    return CODEC.decode([i for i, learn in zip(*turns, strict=True) if learn])


def test_answers_and_their_ends_are_learned_and_nothing_else() -> None:
    assert learned(DEFAULT, TALK) == "はい、今日は。<|endoftext|>猫です。\n<|endoftext|>"


def test_what_is_asked_is_how_a_conversation_begins() -> None:
    ids, is_answer = DEFAULT.encode_turns(TALK)
    for number in (2, 4):
        prompt = DEFAULT.encode(TALK[:number])
        assert ids[: len(prompt)] == prompt
        assert is_answer[len(prompt) - 1 : len(prompt) + 1] == [False, True]


said = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=12)
spelled = st.sampled_from(["<|endoftext|>", "<|separator|>", "アシスタント<|separator|>", "\ufdd0"])


@given(st.lists(st.tuples(said | spelled, said | spelled), min_size=1, max_size=4))
def test_whatever_is_said_the_marks_are_the_templates(pairs: list[tuple[str, str]]) -> None:
    messages = [
        {"role": role, "content": content}
        for pair in pairs
        for role, content in zip(("user", "assistant"), pair, strict=True)
    ]
    ids, is_answer = DEFAULT.encode_turns(messages)
    ends = [i for i, token in enumerate(ids) if token == CODEC.eot_token]
    assert len(ends) == len(pairs)
    assert all(is_answer[end] for end in ends)
    assert ids.count(CODEC.encode("<|separator|>", allowed_special="all")[0]) == 3 * len(pairs)


class InThisProcess:
    """Renders as the worker does, without a process for each template."""

    def __init__(self, source: str) -> None:
        self._template = template_worker._compile(source)

    def render(self, variables: dict[str, Any]) -> str:
        return template_worker._render(self._template, json.loads(json.dumps(variables)))


pieces = st.text("#$<>/猫", min_size=1, max_size=3)
PRINTED = (
    "{% for m in messages %}、{{ m.content }}、{{ m.said }}、{{ m.said | tojson }}、"
    "{% endfor %}(end)"
)


@settings(max_examples=25)
@given(st.data(), st.lists(pieces, min_size=1, max_size=4, unique=True))
def test_however_tags_overlap_a_message_spells_none(data: st.DataObject, tags: list[str]) -> None:
    first = len(CODEC)
    added = {first + i: AddedToken(tag, special=True) for i, tag in enumerate([*tags, "(end)"])}
    codec = CODEC.with_added(AddedTokens(added))
    spelled = st.lists(st.sampled_from(tags) | pieces, max_size=6).map("".join)
    said = st.lists(spelled, max_size=2) | st.dictionaries(spelled, spelled, max_size=2)
    content, value = data.draw(spelled), data.draw(said)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(chat_template, "TemplateRenderer", InThisProcess)
        template = ChatTemplate(PRINTED, codec)
    ids = template.encode([{"role": "user", "content": content, "said": value}])
    assert [i for i in ids if i >= first] == [first + len(tags)]
    written = f"、{content}、{value}、{json.dumps(value, ensure_ascii=False)}、"
    assert codec.decode(ids).startswith(written)


@pytest.mark.parametrize(
    ("tags", "text"),
    [
        (["###"], "####"),
        (["[INST]", "[[INST]]"], "[[INST]]"),
        (["</s>", "<s></s>"], "<s></s>"),
        (["#"], "##"),
        (["##", "###"], "###"),
    ],
)
def test_tags_that_hold_each_other_stay_text(tags: list[str], text: str) -> None:
    first = len(CODEC)
    added = {first + i: AddedToken(tag, special=True) for i, tag in enumerate(tags)}
    codec = CODEC.with_added(AddedTokens(added))
    source = (
        "{{ messages[0].content }}、{{ messages[0].said }}、{{ messages[0].content }}" + tags[0]
    )
    with closing(ChatTemplate(source, codec)) as template:
        ids = template.encode([{"role": "user", "content": text, "said": {text: 1}}])
    assert ids == [*codec.encode(f"{text}、{ {text: 1} }、{text}"), first]


def test_tags_of_the_template_stay_between_those_that_are_spelled() -> None:
    first = len(CODEC)
    added = {first: AddedToken("#", special=True), first + 1: AddedToken("##", special=True)}
    codec = CODEC.with_added(AddedTokens(added))
    source = "{{ messages[0].content }}#{{ messages[0].content }}##{{ messages[0].content }}"
    with closing(ChatTemplate(source, codec)) as template:
        ids = template.encode([{"role": "user", "content": "##"}])
    text = codec.encode("##")
    assert ids == [*text, first, *text, first + 1, *text]


def test_fields_are_found_whatever_the_tags() -> None:
    codec = CODEC.with_added(AddedTokens({len(CODEC): AddedToken("content", special=True)}))
    with closing(ChatTemplate("{{ messages[0].content }}", codec)) as template:
        assert template.encode([{"role": "user", "content": "猫"}]) == codec.encode("猫")


def test_roles_that_are_unknown_are_refused() -> None:
    with pytest.raises(ArgumentError, match="the role tool is unknown"):
        DEFAULT.encode([{"role": "tool", "content": "5"}])


def test_transformers_writes_the_same_with_the_default_template(tmp_path: Path) -> None:
    tokenizer = GPTNeoXJapaneseTokenizer.from_pretrained(default_model_directory())
    tokenizer.chat_template = default_chat_template()
    tokenizer.save_pretrained(tmp_path)
    loaded = AutoTokenizer.from_pretrained(tmp_path)
    assert find_chat_template(tmp_path, None) == default_chat_template()
    for messages, asks in ((TALK, False), (TALK[:2], True)):
        text = loaded.apply_chat_template(messages, tokenize=False, add_generation_prompt=asks)
        ours = DEFAULT.encode(messages) if asks else DEFAULT.encode_turns(messages).ids
        assert loaded(text)["input_ids"] == ours


TEMPLATES = [
    "{% if tools is not none %}道具{% endif %}{{ messages[0].content }}",
    "{% if documents is none %}無{% endif %}{{ messages[0].content }}",
    "{{ messages | tojson }}{{ messages | tojson(indent=2) }}{{ messages | tojson(true, none) }}",
    "{{ messages | tojson(separators=(',', ':'), sort_keys=true) }}",
    "{% for m in messages %}{% generation %}{{ m.role }}{% endgeneration %}\n、{% endfor %}",
    "{% generation %}{% set x = 1 %}{{ x }}{% endgeneration %}{{ x }}",
    "{% for m in messages %}{{ m.content }}{% break %}{% endfor %}",
    "{% for m in messages %}{% if loop.first %}{% continue %}{% endif %}{{ m.role }}{% endfor %}",
    "{{ strftime_now(format='%Y年') }}{{ messages[0].content }}",
]


@pytest.mark.parametrize("source", TEMPLATES)
def test_templates_that_transformers_takes_give_its_ids(source: str) -> None:
    tokenizer = GPTNeoXJapaneseTokenizer.from_pretrained(default_model_directory())
    expected = tokenizer.apply_chat_template(
        TALK, chat_template=source, add_generation_prompt=True, return_dict=False
    )
    with closing(ChatTemplate(source, CODEC)) as template:
        assert template.encode(TALK) == expected


@pytest.mark.skipif(
    not hasattr(chat_template_utils, "_alias_reasoning_fields"), reason="needs transformers 5.24"
)
@pytest.mark.parametrize(
    "message",
    [
        {"content": "猫", "name": None},
        {"content": None, "tool_calls": [{"id": None}]},
        {"content": "猫", "reasoning": "犬"},
        {"content": "猫", "thinking": "犬", "reasoning": "鳥"},
        {"content": "猫", "thinking": "犬", "reasoning_content": None},
        {"content": "猫", "thinking": "犬", "reasoning_content": "鳥"},
    ],
)
def test_a_template_sees_of_a_message_what_transformers_shows_it(message: dict[str, Any]) -> None:
    source, messages = "{{ messages | tojson }}", [{"role": "assistant", **message}]
    tokenizer = GPTNeoXJapaneseTokenizer.from_pretrained(default_model_directory())
    expected = tokenizer.apply_chat_template(messages, chat_template=source, return_dict=False)
    with closing(ChatTemplate(source, CODEC)) as template:
        assert template.encode(messages) == expected


def test_a_message_without_a_role_is_no_answer() -> None:
    with (
        closing(ChatTemplate("{{ messages | length }}", CODEC)) as template,
        pytest.raises(ArgumentError, match="no message is the assistant's"),
    ):
        template.encode_turns([{"content": "猫"}])


NAMES = ["bos", "eos", "unk", "sep", "pad", "cls", "mask", "image"]


@pytest.mark.parametrize(
    "config",
    [
        {},
        {"eos_token": "<|separator|>", "bos_token": "<|nottoken|>", "sep_token": "<|nottoken|>"},
        {"bos_token": None, "pad_token": None, "cls_token": "", "mask_token": "<mask>"},
        {"eos_token": {"__type": "AddedToken", "content": "<end>"}, "image_token": "<image>"},
        {"extra_special_tokens": {"image_token": "<image>"}, "unk_token": "<|separator|>"},
    ],
)
def test_tokens_that_a_file_names_reach_the_template(config: Any, tmp_path: Path) -> None:
    CODEC.vocabulary.save(tmp_path)
    config |= {"legacy": False, "tokenizer_class": "GPTNeoXJapaneseTokenizer"}
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(config), encoding="utf-8")
    theirs = GPTNeoXJapaneseTokenizer.from_pretrained(tmp_path)
    source = "、".join(f"{{{{ {name}_token }}}}{{{{ {name}_token is defined }}}}" for name in NAMES)
    expected = theirs.apply_chat_template(TALK, chat_template=source, return_dict=False)
    Codec.from_pretrained(tmp_path).save(tmp_path / "saved")
    for directory in (tmp_path, tmp_path / "saved"):
        codec = Codec.from_pretrained(directory)
        with closing(ChatTemplate(source, codec)) as template:
            assert template.encode(TALK) == expected


@pytest.mark.parametrize("flag", ["lstrip", "rstrip", "single_word"])
def test_a_tag_takes_the_whitespace_that_is_its_own(flag: str, tmp_path: Path) -> None:
    CODEC.save(tmp_path)
    theirs = GPTNeoXJapaneseTokenizer.from_pretrained(tmp_path)
    flags: Any = {flag: True}
    theirs.add_special_tokens({"sep_token": tokenizers.AddedToken("<x>", **flags)})
    theirs.save_pretrained(tmp_path)
    source = "{{ messages[1].content }} {{ sep_token }} {{ messages[1].content }}{{ sep_token }}猫"
    expected = theirs.apply_chat_template(TALK, chat_template=source, return_dict=False)
    with closing(ChatTemplate(source, Codec.from_pretrained(tmp_path))) as template:
        assert template.encode(TALK) == expected


def test_a_default_that_no_file_knows_is_no_token() -> None:
    forms = tuple(form for form in CODEC.vocabulary.surfaces if form != ("<|startoftext|>",))
    vocabulary = Vocabulary(forms, CODEC.vocabulary.emoji, CODEC.vocabulary.emoji_inv)
    codec = Codec(vocabulary, legacy=False)
    with closing(ChatTemplate("{{ bos_token + messages[1].content }}", codec)) as template:
        assert template.encode(TALK) == codec.encode("今日は。")


@pytest.mark.parametrize(
    "source",
    [
        "{{ messages[-1].content }}",
        "{{ messages | length }}",
        "{% for m in messages | reverse %}{{ m.content }}{% endfor %}",
    ],
)
def test_templates_that_do_not_add_to_a_prompt_are_refused(source: str) -> None:
    with pytest.raises(ArgumentError, match="right behind its prompt"):
        ChatTemplate(source, CODEC).encode_turns(TALK)


def test_answers_of_which_nothing_is_written_are_refused() -> None:
    template = ChatTemplate("{% for m in messages %}{{ m.content | trim }}、{% endfor %}", CODEC)
    assert learned(template, TALK[1:3]) == "はい、今日は。、"
    silent = ChatTemplate("{% for m in messages %}{{ m.content | trim }}{% endfor %}", CODEC)
    with pytest.raises(ArgumentError, match="nothing for message 2"):
        silent.encode_turns([TALK[1], {"role": "assistant", "content": " "}])


def test_without_an_answer_there_is_nothing_to_learn() -> None:
    with pytest.raises(ArgumentError, match="nothing to learn"):
        DEFAULT.encode_turns(TALK[:2])


def test_template_is_found_where_models_keep_it(tmp_path: Path) -> None:
    assert find_chat_template(tmp_path, None) is None
    (tmp_path / "tokenizer_config.json").write_text('{"chat_template": "a"}', encoding="utf-8")
    assert find_chat_template(tmp_path, None) == "a"
    (tmp_path / "chat_template.jinja").write_text("b", encoding="utf-8")
    assert find_chat_template(tmp_path, None) == "b"
    (tmp_path / "mine").write_text("c", encoding="utf-8")
    assert find_chat_template(tmp_path, tmp_path / "mine") == "c"
    with pytest.raises(ArgumentError, match="missing"):
        find_chat_template(tmp_path, tmp_path / "missing")


def test_a_byte_order_mark_is_in_no_prompt_but_where_transformers_has_it(tmp_path: Path) -> None:
    Codec.from_pretrained(default_model_directory()).save(tmp_path)
    own = tmp_path / "chat_template.jinja"
    own.write_text("{{ messages[0].content }}", encoding="utf-8-sig")
    assert find_chat_template(tmp_path, own) == "{{ messages[0].content }}"
    theirs = AutoTokenizer.from_pretrained(tmp_path).chat_template
    assert find_chat_template(tmp_path, None) == theirs == "\ufeff{{ messages[0].content }}"


@pytest.mark.parametrize(
    ("value", "found"),
    [
        ([{"name": "tool_use", "template": "a"}, {"name": "default", "template": "b"}], "b"),
        ([{"name": "tool_use", "template": "a"}, 5], None),
        ([], None),
    ],
)
def test_of_several_templates_the_default_one_is_taken(
    tmp_path: Path, value: list[Any], found: str | None
) -> None:
    config = tmp_path / "tokenizer_config.json"
    config.write_text(json.dumps({"chat_template": value}), encoding="utf-8")
    assert find_chat_template(tmp_path, None) == found


@pytest.mark.parametrize("value", [5, {"default": "a"}, [{"name": "default", "template": 5}]])
def test_template_of_another_kind_is_refused(tmp_path: Path, value: Any) -> None:
    config = tmp_path / "tokenizer_config.json"
    config.write_text(json.dumps({"chat_template": value}), encoding="utf-8")
    with pytest.raises(CheckpointError, match="--chat-template FILE"):
        find_chat_template(tmp_path, None)


def test_messages_that_json_cannot_hold_are_refused() -> None:
    endless: list[Any] = []
    endless.append(endless)
    for content in ({1}, endless, b"a"):
        with pytest.raises(ArgumentError, match="not what JSON can hold"):
            DEFAULT.encode([{"role": "user", "content": content}])


@pytest.mark.parametrize(
    "messages", [None, "abc", ["x"], [1], [["role", "user"]], {"role": "user", "content": "a"}]
)
def test_messages_of_another_form_are_refused(messages: Any) -> None:
    with pytest.raises(ArgumentError, match="a list of objects with role and content"):
        DEFAULT.encode(messages)


def test_a_tag_that_takes_the_space_before_it_takes_that_of_the_answer_before_it() -> None:
    tags = [("<|user|>", True), ("<|assistant|>", False), ("<|end|>", False)]
    added = {
        len(CODEC.vocabulary) + i: AddedToken(tag, special=True, lstrip=lstrip)
        for i, (tag, lstrip) in enumerate(tags)
    }
    template = ChatTemplate(
        "{% for m in messages %}<|{{ m.role }}|>{{ m.content }}<|end|>\n{% endfor %}"
        "{% if add_generation_prompt %}<|assistant|>{% endif %}",
        CODEC.with_added(AddedTokens(added)),
    )
    talk = [
        {"role": "user", "content": "犬は？"},
        {"role": "assistant", "content": "わん。"},
        {"role": "user", "content": "猫は？"},
    ]
    answered = [*talk, {"role": "assistant", "content": "にゃあ。"}]
    ids = template.encode_turns(answered).ids
    assert ids[: len(template.encode(talk))] == template.encode(talk)
