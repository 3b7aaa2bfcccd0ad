"""What there is to read off the logits of an image: all that uncertainty and evaluation need, in one pass over them."""

from typing import NamedTuple, no_type_check

import numba
import numpy as np
from jaxtyping import Float, Int

SMALLEST = np.float32(-3e38)
LEAST = -87.0
"""Lowest logit below the largest that is told from lower ones: about where single precision's exponential is 0."""

BLOCK = 512
"""Images worked on at once: what is made of them stays in the processor's nearest cache."""


class Reading(NamedTuple):
    """Of every row of logits z, with d = z - max z:

    largest : max z; place : the first class that has it
    gap : how far the second largest is below it, 0 for a tie, inf where there is one class
    rest : sum exp(d), without one that is largest
    weighted : -sum d exp(d)
    """

    largest: Float[np.ndarray, "n"]
    place: Int[np.ndarray, "n"]
    gap: Float[np.ndarray, "n"]
    rest: Float[np.ndarray, "n"]
    weighted: Float[np.ndarray, "n"]


def read(logits: Float[np.ndarray, "n classes"]) -> Reading:
    """The reading of rows of logits, in their precision. `rest` keeps its digits where it is tiny."""
    place = logits.argmax(axis=1)
    rows = np.arange(len(logits))
    largest = logits[rows, place]
    below = logits - largest[:, None]
    below[rows, place] = -np.inf
    gap = -below.max(axis=1)
    np.maximum(below, LEAST if logits.dtype == np.float32 else 8 * LEAST, out=below)
    exponentials = np.exp(below)
    exponentials[rows, place] = 0
    return Reading(largest, place, gap, exponentials.sum(axis=1), -(below * exponentials).sum(axis=1))


def move_and_read(
    logits: Float[np.ndarray, "classes n"],
    influence: Float[np.ndarray, "m n"],
    surprise: Float[np.ndarray, "m classes"],
) -> Reading:
    """Add surprise'influence to the logits (float32, a row per class), in place, and read them.

    As `read`, to about 1e-6 relative.
    """
    n = logits.shape[1]
    reading = Reading(np.empty(n, np.float32), np.empty(n, np.int32), *(np.empty(n, np.float32) for _ in range(3)))
    _move_and_read(logits, influence, surprise, *reading)
    return reading


def influence_of(features: Float[np.ndarray, "n dim"], gain: Float[np.ndarray, "dim"]) -> Float[np.ndarray, "n"]:
    """features @ gain in float32; twice as fast as OpenBLAS, whose product of a tall matrix waits for memory."""
    influence = np.empty(len(features), np.float32)
    _influence_of(features, gain, influence)
    return influence


@numba.njit(inline="always")
@no_type_check
def fast_exp(x):
    """exp of a float32 of at least LEAST, to 4e-6 relative; within a kernel, where the compiler makes vectors of it."""
    exponent = x * np.float32(1.44269504)  # exp(x) = 2^(x log2 e), the fraction by a polynomial
    whole = np.floor(exponent + np.float32(0.5))
    part = exponent - whole
    value = np.float32(1.5353362e-4)
    value = value * part + np.float32(1.3398874e-3)
    value = value * part + np.float32(9.6184373e-3)
    value = value * part + np.float32(5.5503324e-2)
    value = value * part + np.float32(2.4022647e-1)
    value = value * part + np.float32(6.9314720e-1)
    power_of_two = np.int32((np.int32(whole) + np.int32(127)) << np.int32(23)).view(np.float32)
    return (value * part + np.float32(1)) * power_of_two


@numba.njit(inline="always")
@no_type_check
def fast_log(x):
    """log of a float32 that is positive and not denormal, to 1e-7 of the larger of it and 1."""
    # log(x) = k log 2 + log(f), f from sqrt(1/2) to sqrt(2); without the casts numba goes on in 64 bits, half as fast
    bits = np.int32(np.float32(x).view(np.int32) - np.int32(0x3F3504F3))
    power = np.float32(np.int32(bits >> np.int32(23)))
    part = np.int32((bits & np.int32(0x7FFFFF)) + np.int32(0x3F3504F3)).view(np.float32) - np.float32(1)
    value = np.float32(7.0376836e-2)
    value = value * part - np.float32(1.1514610e-1)
    value = value * part + np.float32(1.1676999e-1)
    value = value * part - np.float32(1.2420141e-1)
    value = value * part + np.float32(1.4249323e-1)
    value = value * part - np.float32(1.6668057e-1)
    value = value * part + np.float32(2.0000714e-1)
    value = value * part - np.float32(2.4999994e-1)
    value = value * part + np.float32(3.3333331e-1)
    squared = part * part
    return part + (squared * (part * value - np.float32(0.5)) + power * np.float32(0.6931472))


@numba.njit(cache=True, fastmath={"contract", "nsz", "reassoc"}, error_model="numpy")
@no_type_check  # numba compiles the function itself, not one that a test has wrapped
def _influence_of(features, gain, influence):
    for i in range(len(features)):
        total = np.float32(0)
        for j in range(len(gain)):
            total += features[i, j] * gain[j]
        influence[i] = total


@numba.njit(cache=True, fastmath={"contract", "nsz"}, error_model="numpy")
@no_type_check
def _move_and_read(logits, influence, surprise, largest, place, gap, rest, weighted):
    classes, n = logits.shape
    second = np.empty(BLOCK, np.float32)
    for start in range(0, n, BLOCK):
        size = min(BLOCK, n - start)
        block = slice(start, start + size)
        high, first_place, total, spread = largest[block], place[block], rest[block], weighted[block]
        for c in range(classes):
            row = logits[c, block]
            for j in range(len(surprise)):
                factor, column = surprise[j, c], influence[j, block]
                for i in range(size):
                    row[i] += factor * column[i]
            if c == 0:
                for i in range(size):
                    high[i], second[i], first_place[i] = row[i], SMALLEST, 0
                continue
            for i in range(size):
                value, top = row[i], high[i]
                second[i] = max(second[i], min(top, value))
                first_place[i] = c if value > top else first_place[i]
                high[i] = max(top, value)
        for i in range(size):
            gap[start + i] = high[i] - second[i] if classes > 1 else np.float32(np.inf)
            total[i], spread[i] = 0, 0
        for c in range(classes):
            row = logits[c, block]
            for i in range(size):
                below = max(row[i] - high[i], np.float32(LEAST))
                value = np.float32(0) if first_place[i] == c else fast_exp(below)
                total[i] += value
                spread[i] -= below * value
