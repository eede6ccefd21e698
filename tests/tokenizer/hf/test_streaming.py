"""Text from ids that come one by one: nothing lost, nothing late."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
import torch
import transformers
from tokenizers.decoders import DecodeStream

from gpt_neox_japanese import GPTNeoXJapaneseTokenizer
from gpt_neox_japanese.errors import TokenizationError
from gpt_neox_japanese.tokenizer.hf import streamers
from tests.tokenizer.small import vocabulary

TEXT = "  ねこは いい\n\tñandú 한국어、 猫。🫠 にゃあ  "


@pytest.fixture
def tokenizer(tmp_path: Path) -> GPTNeoXJapaneseTokenizer:
    vocabulary(["ねこ", "猫", "は", "い", "にゃ", "あ", *"。、andu"]).save(tmp_path)
    tokenizer = GPTNeoXJapaneseTokenizer.from_pretrained(tmp_path)
    tokenizer.add_tokens(["<|user|>"], special_tokens=True)
    return tokenizer


@pytest.fixture
def ids(tokenizer: GPTNeoXJapaneseTokenizer) -> list[int]:
    ids: list[int] = tokenizer(f"<|user|>{TEXT}<|endoftext|>")["input_ids"]
    return ids


def test_stream_decoder_gives_each_character_with_its_last_token(
    tokenizer: GPTNeoXJapaneseTokenizer, ids: list[int]
) -> None:
    stream = tokenizer.stream_decoder()
    pieces = [stream.feed(token_id) for token_id in ids]
    assert stream.finish() == ""
    assert "".join(pieces) == f"<|user|>{TEXT}<|endoftext|>" == tokenizer.decode(ids)
    for count in range(len(ids)):
        assert "".join(pieces[:count]) == tokenizer.decode(ids[:count]).rstrip("\ufffd")


def test_streams_skip_special_tokens_and_show_broken_characters_at_the_end(
    tokenizer: GPTNeoXJapaneseTokenizer, ids: list[int]
) -> None:
    stream = tokenizer.stream_decoder(skip_special_tokens=True)
    assert "".join(map(stream.feed, ids)) == TEXT
    half = tokenizer("한")["input_ids"][:2]
    assert [stream.feed(token_id) for token_id in half] == ["", ""]
    assert stream.finish() == "\ufffd"


@pytest.mark.parametrize("skip", [False, True])
def test_decode_stream_of_the_tokenizers_library_gives_the_same_text(
    tokenizer: GPTNeoXJapaneseTokenizer, ids: list[int], skip: bool
) -> None:
    stream = DecodeStream(skip_special_tokens=skip)
    pieces = [stream.step(tokenizer.backend_tokenizer, token_id) or "" for token_id in ids]
    mine = tokenizer.stream_decoder(skip_special_tokens=skip)
    assert pieces == [mine.feed(token_id) for token_id in ids]
    decoded = tokenizer.backend_tokenizer.decode(ids, skip_special_tokens=skip)
    assert decoded == tokenizer.decode(ids, skip_special_tokens=skip)


def test_rust_half_decodes_each_published_id_alike(reference_directory: Path) -> None:
    published = GPTNeoXJapaneseTokenizer.from_pretrained(reference_directory)
    rows = [[i] for i in range(len(published))]
    texts = published.backend_tokenizer.decode_batch(rows, skip_special_tokens=False)
    assert texts == published.batch_decode(rows)


def test_rust_half_refuses_to_encode(tokenizer: GPTNeoXJapaneseTokenizer) -> None:
    with pytest.raises(Exception, match="Missing"):
        tokenizer.backend_tokenizer.encode("ねこは いい")


@pytest.mark.parametrize("family", [streamers, transformers])
def test_iterator_streamers_lose_nothing(
    tokenizer: GPTNeoXJapaneseTokenizer, ids: list[int], family: object
) -> None:
    streamer = family.TextIteratorStreamer(  # type: ignore[attr-defined]
        tokenizer, skip_prompt=True, skip_special_tokens=True
    )
    for _ in range(2):
        streamer.put(torch.tensor([[1, 2]]))
        for token_id in ids:
            streamer.put(torch.tensor([token_id]))
        streamer.end()
        assert "".join(streamer) == TEXT


def test_our_iterator_streamer_shows_kana_at_once(tokenizer: GPTNeoXJapaneseTokenizer) -> None:
    streamer = streamers.TextIteratorStreamer(tokenizer)
    ids = tokenizer("ねこはいい")["input_ids"]
    for count, token_id in enumerate(ids, start=1):
        streamer.put(torch.tensor([token_id]))
        assert streamer.text_queue.qsize() == count
    streamer.end()
    assert list(streamer) == ["ねこ", "は", "い", "い", ""]


def test_our_streamer_prints(
    tokenizer: GPTNeoXJapaneseTokenizer, ids: list[int], capsys: pytest.CaptureFixture[str]
) -> None:
    streamer = streamers.TextStreamer(tokenizer, skip_special_tokens=True)
    streamer.put(torch.tensor([ids]))
    streamer.end()
    assert capsys.readouterr().out == TEXT + "\n"
    with pytest.raises(TokenizationError, match="2 sequences"):
        streamer.put(torch.tensor([[1], [2]]))


def test_our_async_streamer_can_be_awaited(
    tokenizer: GPTNeoXJapaneseTokenizer, ids: list[int]
) -> None:
    async def stream() -> str:
        streamer = streamers.AsyncTextIteratorStreamer(tokenizer, skip_special_tokens=True)
        streamer.put(torch.tensor([ids]))
        streamer.end()
        return "".join([piece async for piece in streamer])

    assert asyncio.run(stream()) == TEXT


@pytest.mark.parametrize("family", ["TextStreamer", "TextIteratorStreamer"])
@pytest.mark.parametrize("option", ["skip_specal_tokens", "clean_up_tokenization_spaces"])
def test_options_that_no_streamer_heeds_are_refused(
    tokenizer: GPTNeoXJapaneseTokenizer, family: str, option: str
) -> None:
    streamer = getattr(streamers, family)
    with pytest.raises(TokenizationError, match=option):
        streamer(tokenizer, **{option: True})
    streamer(tokenizer, skip_special_tokens=True, clean_up_tokenization_spaces=False)
