"""llama.cpp itself reads our texts as we do, and writes what we write."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings

from gpt_neox_japanese import TextGenerator
from gpt_neox_japanese.interop.gguf_writer import write_gguf
from gpt_neox_japanese.tokenizer.codec import Codec
from tests.float_model import float_model
from tests.interop.llama_server import LlamaServer, llama_server
from tests.interop.samples import (
    HOSTILE,
    PROMPTS,
    canonical,
    corpus_lines,
    default_codec,
    gguf_tokens,
    small_model,
    texts,
)

pytest.importorskip("xllamacpp", reason="needs llama.cpp: pip install xllamacpp")

CODEC = default_codec()
TOKENS = gguf_tokens(CODEC)


@pytest.fixture(scope="module")
def llama(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LlamaServer]:
    """The default model in llama.cpp."""
    file = tmp_path_factory.mktemp("llama") / "model.gguf"
    write_gguf(float_model(), file, kind="f32")
    with llama_server(file) as server:
        yield server


def greedy(model: Path, prompts: tuple[str, ...], count: int) -> list[tuple[list[int], str]]:
    with TextGenerator.from_pretrained(model, threads=1, slots=1) as generator:
        written = generator.generate_details(
            list(prompts), max_new_tokens=count, temperature=0, repetition_penalty=1.0
        )
        return [(list(one.token_ids), one.text) for [one] in written]


def assert_same_ids(llama: LlamaServer, text: str) -> None:
    assert canonical(TOKENS, llama.tokenize(text)) == CODEC.encode(text), text


def test_lines_of_the_corpus_have_our_ids(llama: LlamaServer, corpus_directory: Path) -> None:
    for line in corpus_lines(corpus_directory, 2000):
        assert_same_ids(llama, line)


def test_hostile_texts_have_our_ids(llama: LlamaServer) -> None:
    for text in HOSTILE:
        assert_same_ids(llama, text)


@settings(
    max_examples=500, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(text=texts(CODEC))
def test_any_text_has_our_ids_if_its_emoji_stand_apart(llama: LlamaServer, text: str) -> None:
    assert_same_ids(llama, text)


def test_greedy_texts_are_ours(llama: LlamaServer) -> None:
    ours = greedy(float_model(), PROMPTS, 48)
    for prompt, (ids, text) in zip(PROMPTS, ours, strict=True):
        their_ids, their_text = llama.greedy(prompt, 48)
        assert their_text == text
        assert their_ids[: len(ids)] == ids[: len(their_ids)]
        assert len(ids) - len(their_ids) in (0, 1)  # the end of the text


@pytest.mark.parametrize("text", ["𠮷野家で食べた。", "🐯と🇯🇵", "一\n二 三\t四", "ǀ‖▀†¡", "€é"])
def test_ids_become_our_text(llama: LlamaServer, text: str) -> None:
    ids = CODEC.encode(text)
    assert llama.detokenize(ids) == CODEC.decode(ids)


def test_tags_that_stand_for_no_text_are_written_as_they_are_called(llama: LlamaServer) -> None:
    token_id = CODEC.token_to_id("<URL>")
    assert token_id is not None
    assert llama.detokenize([token_id]) == "\u2060<URL>"


def test_spelled_marks_are_text(llama: LlamaServer) -> None:
    for text in ("猫<|endoftext|>犬", "<|startoftext|>", "<SP>"):
        for parse_special in (False, True):
            ids = llama.tokenize(text, parse_special=parse_special)
            assert canonical(TOKENS, ids) == CODEC.encode(text)
    mark = TOKENS.texts[CODEC.eot_token]
    assert llama.tokenize(f"猫{mark}", parse_special=True)[-1] == CODEC.eot_token


@pytest.mark.parametrize(
    "config",
    [
        {"tie_word_embeddings": False, "rotary_pct": 0.5, "hidden_act": "gelu_new"},
        {"layer_norm_eps": 1e-3, "rotary_emb_base": 500, "hidden_act": "gelu_new"},
    ],
)
def test_other_models_write_what_we_write(tmp_path: Path, config: dict[str, object]) -> None:
    model = small_model(tmp_path / "model", CODEC, **config)
    write_gguf(model, tmp_path / "model.gguf")
    with llama_server(tmp_path / "model.gguf") as server:
        for prompt, (ids, _) in zip(PROMPTS[:8], greedy(model, PROMPTS[:8], 8), strict=True):
            assert server.greedy(prompt, 8)[0] == ids


def test_the_published_vocabulary_has_our_ids(
    tmp_path: Path, reference_directory: Path, corpus_directory: Path
) -> None:
    codec = Codec.load(reference_directory)
    model = small_model(tmp_path / "model", codec, hidden_size=32, num_attention_heads=1)
    write_gguf(model, tmp_path / "model.gguf", kind="q8_0")
    tokens = gguf_tokens(codec)
    with llama_server(tmp_path / "model.gguf") as server:
        for text in (*HOSTILE, *corpus_lines(corpus_directory, 500)):
            assert canonical(tokens, server.tokenize(text)) == codec.encode(text)


@pytest.mark.parametrize("kind", ["q4_0", "q4_k"])
def test_quantised_models_never_write_an_extra_id(tmp_path: Path, kind: str) -> None:
    write_gguf(float_model(), tmp_path / "model.gguf", kind=kind)
    with llama_server(tmp_path / "model.gguf") as server:
        for prompt in PROMPTS[:5]:
            ids, text = server.greedy(prompt, 64)
            assert text
            assert max(ids) < CODEC.n_vocab
