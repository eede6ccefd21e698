"""Texts and models that a GGUF file is tried with."""

from __future__ import annotations

import json
import random
from functools import cache
from itertools import islice
from pathlib import Path
from typing import Any

from hypothesis import strategies as st

from gpt_neox_japanese.assets import default_model_directory
from gpt_neox_japanese.corpus import read_documents
from gpt_neox_japanese.interop.gguf_tokenizer import GGUFTokens, tokens_of
from gpt_neox_japanese.tokenizer.codec import Codec
from tests.tokenizer.small import vocabulary

PROMPTS = (
    *("吾輩は猫である。名前は", "人とAIが協調するためには、", "ある日の暮方の事である。"),
    *("国境の長いトンネルを抜けると", "山路を登りながら、こう考えた。", "メロスは激怒した。"),
    *("親譲りの無鉄砲で小供の時から", "木曾路はすべて山の中である。", "春はあけぼの。"),
    *("私はその人を常に先生と呼んでいた。", "「おい、地獄さ行ぐんだで！」", "東京は🐯の街。"),
    *("　全角空白で始まる文。", "改行\nを含む文\n", "ｶﾀｶﾅと半角", "1924年3月の", "彼女は"),
    *("「そうですか」と", "それから", "幽霊のように青白い顔をした男が"),
)

# What a tokenizer may stumble over.
HOSTILE = (
    *("", "\0", "a\0b", "\0猫", "\r\n\r\r\n\n", "\t \u3000", "—ラ—ン−ター", "コ—ヒ−", "\\n\\x00\\"),
    *("<|endoftext|>", "<|startoftext|>猫", "<SP>", "<|byte227|>", "<URL>", "<|emoji4|>", "<"),
    *("\u2060", "\u2060猫", "\u2060<|endoftext|>", "\u2060\u2060", "a\u200bb", "ǀ‖▀", "¡¿ǃʹ"),
    *("𠮷野家", "e\u0301", "\U0010ffff\ue000", "한국어 العربية", "\ufe0f猫\ufe0f", "\u200d"),
    *("🐯", "🐯。🇯🇵。(>_<)。", "1️⃣２⃣", "第1️⃣回", "\\(^o^)/", "(—_—)", "←→※①㈱", ",，、"),
)


def corpus_lines(directory: Path, count: int) -> list[str]:
    """Lines of the corpus, the same ones each time."""
    texts = (document.text for document in islice(read_documents([directory]), 400))
    lines = [line for text in texts for line in text.split("\n") if line]
    return random.Random(15).sample(lines, count)


def gguf_tokens(codec: Codec) -> GGUFTokens:
    """The tokens of a codec whose texts end as usual."""
    return tokens_of(codec, unknown_id=codec.eot_token, stop_ids=[codec.eot_token])


def canonical(tokens: GGUFTokens, ids: list[int]) -> list[int]:
    """Ids of llama.cpp without extra ones."""
    size = len(tokens.texts) - len(tokens.extra)
    return [i if i < size else tokens.extra[i - size] for i in ids]


@cache
def texts(codec: Codec) -> st.SearchStrategy[str]:
    """Anything, but emoji stand apart: where they overlap or are joined freely, ids may differ."""
    vocabulary = codec.vocabulary
    pieces = sorted({f for f in vocabulary.ids if len(f) < 4 and not f.isascii()})
    emoji = sorted(vocabulary.emoji)
    apart = st.sampled_from(emoji).map(lambda e: f"。{e}。")
    tags = st.sampled_from(sorted(f for f in vocabulary.ids if f[0] == "<" and len(f) > 2))
    characters = st.characters(exclude_categories=("Cs", "Sk", "So", "Mn"))
    return st.lists(
        st.one_of(
            st.sampled_from(pieces),
            apart,
            tags,
            st.text(characters, max_size=4),
            st.sampled_from([*"ー—− \u3000\r\n\t\0\u2060", "\r\n"]),
            st.integers(0x2000, 0x2C00).map(chr).filter(lambda c: c not in "\u200d\u20e3"),
            st.integers(0xA1, 0x363).map(chr),
        ),
        max_size=12,
    ).map("".join)


def small_model(directory: Path, codec: Codec, *, bias: float = 0.2, **config: object) -> Path:
    """A model with random weights in a new directory."""
    import torch

    from gpt_neox_japanese import GPTNeoXJapaneseConfig, GPTNeoXJapaneseForCausalLM

    torch.manual_seed(0)
    sizes: dict[str, Any] = {
        "vocab_size": codec.n_vocab,
        "hidden_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "intermediate_multiple_size": 2,
        "max_position_embeddings": 128,
        "initializer_range": 0.2,
        "bos_token_id": codec.eot_token - 3,
        "eos_token_id": codec.eot_token,
    }
    model = GPTNeoXJapaneseForCausalLM(GPTNeoXJapaneseConfig(**(sizes | config)))
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim == 1:
                parameter.add_(torch.randn_like(parameter) * bias)
    model.save_pretrained(directory)
    codec.save(directory)
    return directory


def with_config(directory: Path, **changes: object) -> Path:
    """The same model directory with another config.json."""
    path = directory / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))
    return directory


def default_codec() -> Codec:
    """The tokenizer of the model in the package."""
    return Codec.from_pretrained(default_model_directory())


def small_codec() -> Codec:
    """A tokenizer of few characters."""
    return Codec(vocabulary(["ー", "猫", "カー,カ"]), legacy=False)
