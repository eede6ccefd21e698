from __future__ import annotations

from gpt_neox_japanese.tokenizer.build.piece_selection import measure_usage, select_pieces

KANA = frozenset("あいうえお")


def test_the_longest_piece_that_fits_is_used() -> None:
    usage = measure_usage({"あいう": 5}, KANA | {"あい", "あいう"})
    assert usage.used == {"あいう": 5}
    assert usage.tokens == 5


def test_a_missing_character_costs_its_bytes() -> None:
    assert measure_usage({"あん": 2, "é": 1}, KANA).tokens == 2 * (1 + 3) + 2


def test_neighbours_are_reported_up_to_three_kana_or_two_kanji() -> None:
    assert measure_usage({"あいう": 1}, KANA | {"あい"}).joined == {"あいう": 1}
    assert measure_usage({"漱石枕": 1}, frozenset("漱石枕")).joined == {"漱石": 1, "石枕": 1}
    assert measure_usage({"あいうえ": 1}, KANA | {"あい", "うえ"}).joined == {}


def test_a_piece_that_longer_ones_make_idle_is_not_chosen() -> None:
    # あい is the most frequent pair, but never occurs without う.
    chosen = select_pieces({"あいう": 100, "えお": 10}, KANA, 2)
    assert chosen == KANA | {"あいう", "えお"}


def test_places_go_to_characters_where_those_save_more() -> None:
    assert select_pieces({"あい": 5, "鬱": 4}, KANA, 1) == KANA | {"鬱"}
    assert select_pieces({"あい": 9, "鬱": 4}, KANA, 1) == KANA | {"あい"}


def test_nothing_is_chosen_that_saves_nothing() -> None:
    assert select_pieces({"あい": 2, "う": 1}, KANA, 10) == KANA | {"あい"}


def test_a_piece_is_used_twice_and_a_character_once() -> None:
    assert select_pieces({"あい": 1, "鬱": 1}, KANA, 10) == KANA | {"鬱"}
