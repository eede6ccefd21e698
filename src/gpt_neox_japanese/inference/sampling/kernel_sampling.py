"""Scores to ids, compiled, for all rows of a step at once.

An id is chosen in two halves, and NumPy takes `exp` of all rows between them: `weigh_rows` applies
what changes scores, and leaves the logarithms of weights; `draw_rows` narrows the choice and draws.
Whatever computes them, a seed gives the same ids: sums are taken in the order of NumPy's.

What a sampler knows is its record, int64 words. Floats among them are float64 by their bits, and
arrays are given by their addresses, 0 where there is none.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from gpt_neox_japanese.kernels.bfloat16 import bits_of, float_of, matrix_at
from gpt_neox_japanese.kernels.compile import (
    Floats,
    Ints,
    Longs,
    Number,
    arithmetic,
    entry,
)

__all__ = ["NUM_FIELDS", "SamplingBuffers", "draw_rows", "shift_rows", "sum_rows", "weigh_rows"]

# Words of a record.
(
    SHARPEN,  # float, 1 / temperature; 0 takes the likeliest id
    TOP_K,
    TOP_P,  # float
    MIN_P,  # float
    REPETITION,  # float
    FREQUENCY,  # float
    PRESENCE,  # float
    MIN_NEW_TOKENS,
    NUM_NEW_TOKENS,
    STOP_IDS,  # int32 [its size]
    STOP_IDS_SIZE,
    BIASED,  # int32 [its size], ids
    BIASED_SIZE,
    BIAS,  # float32 [BIASED_SIZE]
    SEEN,  # int32 [2, vocabulary], of prompt and text; see `_count`
    SEEN_SIZE,
    WRITTEN,  # as SEEN, of the text
    WRITTEN_SIZE,
    BAD_WORDS,  # int32 [its size]: the length of each sequence and its ids, one after the other
    BAD_WORDS_SIZE,
    TAIL,  # int32 [its size]: the last ids of prompt and text, -1 before their beginning
    TAIL_SIZE,
    NUM_FIELDS,
) = range(23)

_INT32, _INT64 = np.empty(1, np.int32), np.empty(1, np.int64)
_FLOAT32, _FLOAT64 = np.empty(1, np.float32), np.empty(1, np.float64)

_SIGN = np.uint32(0x80000000)
_KEY_OF_INFINITY, _KEY_OF_MINUS_INFINITY = np.uint32(0xFF800000), np.uint32(0x007FFFFF)

# What share of the likeliest's weight is tried first in `_keep_top_p`.
_LIKELY = 1e-3

# A running sum depends on itself at every step and is the slowest pass over a row. Longer rows are
# summed in blocks of this size first, and then only one block step by step.
_BLOCK = 128

DIGITS = 2048  # that numbers are counted by in `_nth_highest`


class SamplingBuffers(NamedTuple):
    """Room for what is computed of some rows.

    Attributes:
        weights: float32 [rows, vocabulary].
        ids: int32 [rows, vocabulary]: which ids the weights are of.
        counts: int64 [rows]: how many weights and ids there are.
        rows: int64 [rows]: of which of the rows to choose from.
        highest: float32 [rows]: the highest score; if it is not finite, nothing can be chosen.
        sums: float32 [rows], of the weights.
        chosen: int64 [rows].
        keys: uint32 [2, vocabulary], for `_sort`; and so are:
        places: int32 [2, vocabulary].
        numbers: int32 [DIGITS].
        blocks: float32 [2, vocabulary].
    """

    weights: Floats
    ids: Ints
    counts: Longs
    rows: Longs
    highest: Floats
    sums: Floats
    chosen: Longs
    keys: NDArray[np.uint32]
    places: Ints
    numbers: Ints
    blocks: Floats


@entry
def weigh_rows(logits: Floats, rows: Longs, records: Longs, buffers: SamplingBuffers) -> int:
    """Apply to rows of scores all that comes before weights are computed.

    Rows that are drawn from fill the buffers one after the other. `chosen` of the others is the
    likeliest id.

    Args:
        logits: float32 [any number, vocabulary].
        rows: int64 [rows], which rows of the scores to choose from.
        records: int64 [rows], the address of each row's record.
        buffers: Of as many rows or more.

    Returns:
        How many rows are drawn from.
    """
    drawn, vocab_size = 0, logits.shape[1]
    for row in range(len(rows)):
        words = matrix_at(records[row], 1, NUM_FIELDS, _INT64)[0]
        floats = matrix_at(records[row], 1, NUM_FIELDS, _FLOAT64)[0]
        scores, ids = buffers.weights[drawn], buffers.ids[drawn]
        _process(logits[rows[row]], words, floats, scores)
        highest = _highest(scores)
        buffers.highest[row] = highest
        if not np.isfinite(highest):
            continue
        if floats[SHARPEN] == 0:
            likeliest = _position_of(highest, scores)
            buffers.chosen[row] = likeliest
            _remember(words, likeliest, vocab_size)
            continue
        count = vocab_size
        for i in range(vocab_size):
            ids[i] = i
        if 0 < words[TOP_K] < vocab_size:
            least = _nth_highest(words[TOP_K], scores, buffers)
            count = _keep_from(least, scores, ids)
        sharpen = np.float32(floats[SHARPEN])
        for i in range(count):
            scores[i] = (scores[i] - highest) * sharpen
        scores[count:] = -np.inf
        buffers.counts[drawn], buffers.rows[drawn] = count, row
        drawn += 1
    return drawn


@entry
def draw_rows(records: Longs, uniforms: NDArray[np.float64], buffers: SamplingBuffers) -> None:
    """Draw an id from each of some rows, and let its sampler remember it.

    Args:
        records: int64 [rows], the address of each row's record.
        uniforms: float64 [rows], from 0 up to, but not including, 1.
        buffers: Their first rows hold weights; `chosen` is written.
    """
    for row in range(len(records)):
        words = matrix_at(records[row], 1, NUM_FIELDS, _INT64)[0]
        floats = matrix_at(records[row], 1, NUM_FIELDS, _FLOAT64)[0]
        count = buffers.counts[row]
        weights, ids = buffers.weights[row, :count], buffers.ids[row, :count]
        if floats[TOP_P] < 1:
            weights = weights[: _keep_top_p(floats[TOP_P], weights, ids, buffers)]
        if floats[MIN_P] > 0:
            # Relative to the likeliest, whose weight is exp(0) = 1.
            weights = weights[: _keep_from(np.float32(floats[MIN_P]), weights, ids)]
        target = uniforms[row] * np.float64(_sum(weights))
        token_id = np.int64(ids[_first_beyond(target, weights, buffers.blocks[1])])
        buffers.chosen[row] = token_id
        _remember(words, token_id, buffers.weights.shape[1])


@entry
def shift_rows(logits: Floats, buffers: SamplingBuffers) -> None:
    """Write scores relative to the highest of their row.

    Args:
        logits: float32 [rows, vocabulary].
        buffers: Of as many rows or more; `weights` and `highest` are written.
    """
    vocab_size = logits.shape[1]
    for row in range(len(logits)):
        highest = _highest(logits[row])
        buffers.highest[row] = highest
        for i in range(vocab_size):
            buffers.weights[row, i] = logits[row, i] - highest


@entry
def sum_rows(logits: Floats, num_top: Longs, top: Ints, buffers: SamplingBuffers) -> None:
    """Sum the weights of rows, and find the likeliest ids.

    Args:
        logits: float32 [rows, vocabulary].
        num_top: int64 [rows], how many of the likeliest.
        top: int32 [rows, the largest of them], is written: likeliest first, of equal ones the
            smaller id first.
        buffers: Their first rows hold weights; `sums` is written.
    """
    vocab_size = logits.shape[1]
    for row in range(len(logits)):
        buffers.sums[row] = _sum(buffers.weights[row])
        if num_top[row] > 0:
            least, count = _nth_highest(num_top[row], logits[row], buffers), 0
            for i in range(vocab_size):
                if logits[row, i] >= least:
                    buffers.keys[0, count] = ~_key_of(logits[row, i])
                    buffers.places[0, count] = i
                    count += 1
            _sort(count, buffers)
            for i in range(num_top[row]):
                top[row, i] = buffers.places[0, i]


# ---- What changes scores, and what is remembered -------------------------------------------------


@arithmetic
def _process(logits: Floats, words: Longs, floats: NDArray[np.float64], scores: Floats) -> None:
    """Write the scores of a row after bias, penalties and what is forbidden."""
    vocab_size, forbidden = len(logits), np.float32(-np.inf)
    for i in range(vocab_size):
        scores[i] = logits[i]
    biased = matrix_at(words[BIASED], 1, words[BIASED_SIZE], _INT32)
    bias = matrix_at(words[BIAS], 1, words[BIASED_SIZE], _FLOAT32)
    for i in range(words[BIASED_SIZE]):
        scores[biased[0, i]] += bias[0, i]
    seen, repetition = matrix_at(words[SEEN], 2, vocab_size, _INT32), np.float32(floats[REPETITION])
    for i in range(words[SEEN_SIZE]):
        score = scores[seen[0, i]]
        scores[seen[0, i]] = score / repetition if score > 0 else score * repetition
    written = matrix_at(words[WRITTEN], 2, vocab_size, _INT32)
    frequency, presence = np.float32(floats[FREQUENCY]), np.float32(floats[PRESENCE])
    for i in range(words[WRITTEN_SIZE]):
        token_id = written[0, i]
        scores[token_id] -= np.float32(written[1, token_id]) * frequency + presence
    _forbid_bad_words(words, scores)
    if words[NUM_NEW_TOKENS] < words[MIN_NEW_TOKENS]:
        stop_ids = matrix_at(words[STOP_IDS], 1, words[STOP_IDS_SIZE], _INT32)
        for i in range(words[STOP_IDS_SIZE]):
            scores[stop_ids[0, i]] = forbidden


@arithmetic
def _forbid_bad_words(words: Longs, scores: Floats) -> None:
    """Take away the score of every id that would complete a sequence."""
    bad_words = matrix_at(words[BAD_WORDS], 1, words[BAD_WORDS_SIZE], _INT32)[0]
    tail = matrix_at(words[TAIL], 1, words[TAIL_SIZE], _INT32)[0]
    at = 0
    while at < len(bad_words):
        last, equal = at + bad_words[at], 0
        at += 1
        while at + equal < last and tail[len(tail) - 1 - equal] == bad_words[last - 1 - equal]:
            equal += 1
        if at + equal == last:
            scores[bad_words[last]] = np.float32(-np.inf)
        at = last + 1


@arithmetic
def _remember(words: Longs, token_id: Number, vocab_size: Number) -> None:
    """Count an id as written."""
    words[NUM_NEW_TOKENS] += 1
    _count(words[SEEN:], token_id, vocab_size)
    _count(words[WRITTEN:], token_id, vocab_size)
    tail = matrix_at(words[TAIL], 1, words[TAIL_SIZE], _INT32)[0]
    for i in range(len(tail)):
        tail[i] = tail[i + 1] if i + 1 < len(tail) else token_id


@arithmetic
def _count(table_and_size: Longs, token_id: Number, vocab_size: Number) -> None:
    """Count an id in a table: each id once in the order of its first coming, and how often it came.

    The second row is in the order of ids.
    """
    if table_and_size[0] != 0:
        table = matrix_at(table_and_size[0], 2, vocab_size, _INT32)
        if table[1, token_id] == 0:
            table[0, table_and_size[1]] = token_id
            table_and_size[1] += 1
        table[1, token_id] += 1


# ---- Which ids may be chosen, and the draw among them --------------------------------------------


@arithmetic
def _keep_from(least: Number, weights: Floats, ids: Ints) -> Number:
    """Move weights from `least` up, and their ids, to the beginning; return how many."""
    kept = 0
    for i in range(len(weights)):
        if weights[i] >= least:
            weights[kept], ids[kept] = weights[i], ids[i]
            kept += 1
    return kept


@arithmetic
def _keep_top_p(top_p: Number, weights: Floats, ids: Ints, buffers: SamplingBuffers) -> Number:
    """Move the likeliest until their share reaches `top_p` to the beginning; return how many.

    Their order stays. Of equal weights the earlier ones are kept first.
    """
    total = np.float64(_sum(weights))
    surplus = (1.0 - top_p) * total
    # Only what may be kept is sorted: few likely ids if they make up the share, as they mostly do;
    # otherwise all but weights up to surplus / count, which together weigh no more than it.
    near = buffers.blocks[0]
    places = buffers.places[0]
    near = near[: _copy_above(_LIKELY, weights, near, places)]
    share = np.float64(_sum(near))
    if share <= total - surplus:
        near = buffers.blocks[0]
        near = near[: _copy_above(surplus / len(weights), weights, near, places)]
        share = np.float64(_sum(near))
    for i in range(len(near)):
        weights[i], ids[i] = near[i], ids[places[i]]
        buffers.keys[0, i] = _key_of(near[i])
    _sort(len(near), buffers)
    for i in range(len(near)):
        near[i] = _float_of_key(buffers.keys[0, i])
    dropped = _first_beyond(surplus - (total - share), near, buffers.blocks[1])
    lowest, num_lowest = near[dropped], 0  # how many of the lowest stay
    while dropped + num_lowest < len(near) and near[dropped + num_lowest] == lowest:
        num_lowest += 1
    kept = 0
    for i in range(len(near)):
        if weights[i] >= lowest:
            if weights[i] == lowest:
                num_lowest -= 1
                if num_lowest < 0:
                    continue
            weights[kept], ids[kept] = weights[i], ids[i]
            kept += 1
    return kept


@arithmetic
def _copy_above(least: Number, weights: Floats, out: Floats, places: Ints) -> Number:
    """Copy the weights above `least`, rounded as NumPy does, and their places; return how many."""
    rounded, count = np.float32(least), 0
    for i in range(len(weights)):
        out[count], places[count] = weights[i], i
        count += weights[i] > rounded  # no branch, which would be guessed wrong
    return count


@arithmetic
def _first_beyond(target: Number, weights: Floats, blocks: Floats) -> Number:
    """The first position at which the running sum of weights exceeds `target`.

    Where rounding leaves none, it is the last position that has a weight. `blocks` is room.
    """
    if len(weights) <= 4 * _BLOCK:
        return _search(target, weights)[0]
    num_blocks = 0
    for begin in range(0, len(weights), _BLOCK):
        blocks[num_blocks] = weights[begin] + _sum(weights[begin + 1 : begin + _BLOCK])
        num_blocks += 1
    block, before = _search(target, blocks[:num_blocks])
    begin = block * _BLOCK
    return begin + _search(target - before, weights[begin : begin + _BLOCK])[0]


@arithmetic
def _search(target: Number, values: Floats) -> tuple[Number, Number]:
    """The first position at which the running sum exceeds `target`, and the sum before it.

    Where there is none, it is the first at which the sum is what it is in the end.
    """
    running = 0.0
    for i in range(len(values)):
        after = running + np.float64(values[i])
        if after > target:
            return i, running
        running = after
    total, running = running, 0.0
    for i in range(len(values)):
        after = running + np.float64(values[i])
        if after >= total:
            return i, running
        running = after
    return 0, running


@arithmetic
def _sum(values: Floats) -> Number:
    """The sum in NumPy's order: by halves down to blocks of 128, each with eight sums."""
    count = len(values)
    if count > _BLOCK:
        half = count // 2 - count // 2 % 8
        return _sum(values[:half]) + _sum(values[half:])
    result, whole = np.float32(0), count - count % 8
    if whole:
        a, b, c, d = values[0], values[1], values[2], values[3]
        e, f, g, h = values[4], values[5], values[6], values[7]
        for i in range(8, whole, 8):
            a, b, c, d = a + values[i], b + values[i + 1], c + values[i + 2], d + values[i + 3]
            e, f, g, h = (
                e + values[i + 4],
                f + values[i + 5],
                g + values[i + 6],
                h + values[i + 7],
            )
        result = ((a + b) + (c + d)) + ((e + f) + (g + h))
    for i in range(whole, count):
        result += values[i]
    return result


# ---- Order ---------------------------------------------------------------------------------------


@arithmetic
def _key_of(score: Number) -> Number:
    """An unsigned integer in the order of floats; that of -0 is that of 0."""
    bits = bits_of(score + np.float32(0))
    return np.uint32(bits) ^ (np.uint32(bits >> np.int32(31)) | _SIGN)


@arithmetic
def _float_of_key(key: Number) -> Number:
    """The float of a key."""
    return float_of(np.int32(key ^ _SIGN if key & _SIGN else ~key))


@arithmetic
def _highest(scores: Floats) -> Number:
    """The highest score; NaN if one is no number."""
    high = _key_of(scores[0])
    low = high
    for i in range(len(scores)):
        key = _key_of(scores[i])
        high = key if key > high else high
        low = key if key < low else low
    if high > _KEY_OF_INFINITY or low < _KEY_OF_MINUS_INFINITY:
        return np.float32(np.nan)
    return _float_of_key(high)


@arithmetic
def _position_of(score: Number, scores: Floats) -> Number:
    """Where a score first stands."""
    position = 0
    while scores[position] != score:
        position += 1
    return position


@arithmetic
def _nth_highest(n: Number, scores: Floats, buffers: SamplingBuffers) -> Number:
    """The `n`-th highest of all scores, counted from 1."""
    keys, numbers = buffers.keys[0], buffers.numbers
    count, below = len(scores), len(scores) - n  # so many are below it
    for i in range(count):
        keys[i] = _key_of(scores[i])
    # By one digit after the other, the highest first, what has another one than it is left out.
    for shift in (21, 10, 0):
        numbers[:] = 0
        for i in range(count):
            numbers[(keys[i] >> shift) & (DIGITS - 1)] += 1
        digit = 0
        while below >= numbers[digit]:
            below -= numbers[digit]
            digit += 1
        kept = 0
        for i in range(count):
            if (keys[i] >> shift) & (DIGITS - 1) == digit:
                keys[kept] = keys[i]
                kept += 1
        count = kept
    return _float_of_key(keys[0])


@arithmetic
def _sort(count: Number, buffers: SamplingBuffers) -> None:
    """Sort the first keys and the places that belong to them; equal ones keep their order."""
    keys, places, numbers = buffers.keys, buffers.places, buffers.numbers
    here = 0
    for shift in (0, 8, 16, 24):
        numbers[:256] = 0
        for i in range(count):
            numbers[(keys[here, i] >> shift) & 255] += 1
        begin = 0
        for digit in range(256):
            number = numbers[digit]
            numbers[digit] = begin
            begin += number
        for i in range(count):
            digit = (keys[here, i] >> shift) & 255
            keys[1 - here, numbers[digit]] = keys[here, i]
            places[1 - here, numbers[digit]] = places[here, i]
            numbers[digit] += 1
        here = 1 - here
