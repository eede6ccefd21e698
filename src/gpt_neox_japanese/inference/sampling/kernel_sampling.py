"""Scores to ids, compiled, for all rows of a step at once.

What every text needs of it is done by NumPy, for all rows together (`sampler.BatchSampler`). Here
is the rest, and each entry is compiled when a text first asks for it: `process_rows` applies what
changes scores, `keep_top_k_rows` narrows them, and from weights `draw_rows` narrows the choice once
more and draws; `sum_rows` is for log-probabilities. Whatever computes them, a seed gives the same
ids: sums are taken in the order of NumPy's.

What changes a text's scores is told by its record, int64 words. Floats among them are float64 by
their bits, and arrays are given by their addresses, 0 where there is none.
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
from gpt_neox_japanese.kernels.references import by_reference

__all__ = [
    "NUM_FIELDS",
    "SamplingBuffers",
    "draw_rows",
    "keep_top_k_rows",
    "process_rows",
    "sum_rows",
]

# Words of a record.
(
    LAST,  # the id that was chosen last and is not counted yet, or -1
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
) = range(20)

_INT32, _INT64 = np.empty(1, np.int32), np.empty(1, np.int64)
_FLOAT32, _FLOAT64 = np.empty(1, np.float32), np.empty(1, np.float64)

_SIGN = np.uint32(0x80000000)

# What share of the likeliest's weight is tried first in `_keep_top_p`.
_LIKELY = 1e-3

# A running sum depends on itself at every step and is the slowest pass over a row. Longer rows are
# summed in blocks of this size first, and then only one block step by step.
_BLOCK = 128

DIGITS = 2048  # that numbers are counted by in `_nth_highest`


class SamplingBuffers(NamedTuple):
    """Room for what is computed of some rows.

    Attributes:
        weights: float32 [rows, vocabulary]: scores, then weights.
        ids: int32 [rows, vocabulary]: which ids the weights are of.
        counts: int64 [rows]: how many weights and ids there are.
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
    sums: Floats
    chosen: Longs
    keys: NDArray[np.uint32]
    places: Ints
    numbers: Ints
    blocks: Floats


@entry
def process_rows(scores: Floats, rows: Longs, records: Longs) -> None:
    """Apply bias, penalties and what is forbidden to some rows, whose samplers count their ids.

    Args:
        scores: float32 [any number, vocabulary], changed in place.
        rows: int64 [rows], which of them.
        records: int64 [rows], the address of each row's record.
    """
    for index in range(len(rows)):
        words = matrix_at(records[index], 1, NUM_FIELDS, _INT64)[0]
        floats = matrix_at(records[index], 1, NUM_FIELDS, _FLOAT64)[0]
        if words[LAST] >= 0:
            _remember(words, words[LAST], scores.shape[1])
            words[LAST] = -1  # once, also where nothing can be chosen now
        _process(scores[rows[index]], words, floats)


@entry
def keep_top_k_rows(top_k: Longs, buffers: SamplingBuffers) -> None:
    """Move the highest scores of rows, and their ids, to the beginning; the others are gone.

    Args:
        top_k: int64 [rows], how many; 0 for all.
        buffers: Their first rows hold scores and ids; `counts` is written where scores go.
    """
    shared, vocab_size = by_reference(buffers), buffers.weights.shape[1]
    for row in range(len(top_k)):
        if 0 < top_k[row] < vocab_size:
            scores, ids = shared.weights[row], shared.ids[row]
            count = _keep_from(_nth_highest(top_k[row], scores, shared), scores, ids)
            for i in range(count, vocab_size):
                scores[i] = -np.inf
            shared.counts[row] = count


@entry
def draw_rows(
    top_p: NDArray[np.float64],
    min_p: NDArray[np.float64],
    uniforms: NDArray[np.float64],
    buffers: SamplingBuffers,
) -> None:
    """Draw an id from each of some rows.

    Args:
        top_p: float64 [rows].
        min_p: float64 [rows].
        uniforms: float64 [rows], from 0 up to, but not including, 1.
        buffers: Their first rows hold weights; `chosen` is written.
    """
    shared = by_reference(buffers)
    for row in range(len(uniforms)):
        count = shared.counts[row]
        weights, ids = shared.weights[row, :count], shared.ids[row, :count]
        if top_p[row] < 1:
            weights = weights[: _keep_top_p(top_p[row], weights, ids, shared)]
        if min_p[row] > 0:
            # Relative to the likeliest, whose weight is exp(0) = 1.
            weights = weights[: _keep_from(np.float32(min_p[row]), weights, ids)]
        target = uniforms[row] * np.float64(_sum(weights))
        shared.chosen[row] = ids[_first_beyond(target, weights, shared.blocks[1])]


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
    shared, vocab_size = by_reference(buffers), logits.shape[1]
    for row in range(len(logits)):
        shared.sums[row] = _sum(shared.weights[row])
        if num_top[row] > 0:
            least, count = _nth_highest(num_top[row], logits[row], shared), 0
            for i in range(vocab_size):
                if logits[row, i] >= least:
                    shared.keys[0, count] = ~_key_of(logits[row, i])
                    shared.places[0, count] = i
                    count += 1
            _sort(count, shared)
            for i in range(num_top[row]):
                top[row, i] = shared.places[0, i]


# ---- What changes scores, and what is remembered -------------------------------------------------


@arithmetic
def _process(scores: Floats, words: Longs, floats: NDArray[np.float64]) -> None:
    """Apply bias, penalties and what is forbidden to the scores of a row."""
    vocab_size, forbidden = len(scores), np.float32(-np.inf)
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
    if count <= _BLOCK:
        return _sum_of_block(values)
    half = count // 2 - count // 2 % 8
    return _sum(values[:half]) + _sum(values[half:])


@arithmetic
def _sum_of_block(values: Floats) -> Number:
    """The sum of at most 128 values, in NumPy's order."""
    count = len(values)
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
