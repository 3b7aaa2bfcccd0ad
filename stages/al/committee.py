"""What several softmaxes say together of every image: the members of a committee, or one head of several views."""

from typing import Any, NamedTuple, no_type_check

import numba
import numpy as np
from jaxtyping import Float, Int
from scipy.special import logsumexp

from stages.al.heads.members import Members
from stages.al.readings import LEAST, SMALLEST, fast_exp, fast_log, read
from stages.al.uncertainty import closeness, entropy, least_confidence

CACHED = 2**17
"""Logits worked on at once: what is made of them stays in the processor's second cache."""
FEWEST, MOST = 32, 512
"""Images of a block; products of fewer are slow."""


class Opinions(NamedTuple):
    """Of every image, where p_t is what softmax t says, in nats.

    joint_entropy : entropy of the mean of the p_t
    entropy, least_confidence, closeness : means of those of every p_t; see `uncertainty`
    """

    joint_entropy: Float[np.ndarray, "n"]
    entropy: Float[np.ndarray, "n"]
    least_confidence: Float[np.ndarray, "n"]
    closeness: Float[np.ndarray, "n"]


def opinions_of(logits: Float[np.ndarray, "members n classes"]) -> Opinions:
    """As plainly as can be, in the logits' precision."""
    log_proba = logits - logsumexp(logits, axis=2, keepdims=True)
    log_mean = logsumexp(log_proba, axis=0) - np.log(len(logits))
    readings = [read(each) for each in logits]
    means = (np.mean([measure(one) for one in readings], axis=0) for measure in (entropy, least_confidence, closeness))
    return Opinions(-(np.exp(log_mean) * log_mean).sum(axis=1), *means)


def members_opinions(members: Members, features: Float[np.ndarray, "pool dim"], rows: Int[np.ndarray, "n"]) -> Opinions:
    """Of some rows, in single precision, to about 1e-6, without ever holding the logits of all."""
    n_members, dim, n_classes = members.weights.shape
    weights = members.weights.transpose(0, 2, 1).reshape(-1, dim).astype(np.float32)
    constants = members.constants.reshape(-1, 1).astype(np.float32)
    opinions = _empty(len(rows))
    for block in _blocks(len(rows), n_members * n_classes):
        logits = weights @ features[rows[block]].T.astype(np.float32, copy=False)
        logits += constants
        _read_together(logits.reshape(n_members, n_classes, -1), *(part[block] for part in opinions))
    return opinions


def views_opinions(head: Any, views: Float[np.ndarray, "views pool dim"], rows: Int[np.ndarray, "n"]) -> Opinions:
    """What a head says of several views of some rows, as `members_opinions`."""
    opinions = _empty(len(rows))
    for block in _blocks(len(rows), len(views) * len(head.classes_)):
        logits = np.stack([head.logits(view[rows[block]]).T for view in views]).astype(np.float32, copy=False)
        _read_together(logits, *(part[block] for part in opinions))
    return opinions


def _empty(n: int) -> Opinions:
    return Opinions(*np.empty((4, n), np.float32))


def _blocks(n: int, numbers: int) -> list[slice]:
    """Of as many images as fit into the cache with that many numbers for each."""
    step = int(np.clip(CACHED // numbers, FEWEST, MOST))
    return [slice(start, start + step) for start in range(0, n, step)]


@numba.njit(cache=True, fastmath={"contract", "nsz"}, error_model="numpy")
@no_type_check
def _read_together(logits, joint_entropy, entropy, least_confidence, closeness):
    """`opinions_of` float32 logits (members, classes, images), which it overwrites."""
    members, classes, n = logits.shape
    mean = np.zeros((classes, n), np.float32)
    high, second, rest, spread = np.empty((4, n), np.float32)
    place = np.empty(n, np.int32)
    entropy[:], least_confidence[:], closeness[:] = 0, 0, 0
    share = np.float32(1 / members)
    for t in range(members):
        high[:], second[:], place[:], rest[:], spread[:] = logits[t, 0], SMALLEST, 0, 0, 0
        for c in range(1, classes):
            row = logits[t, c]
            for i in range(n):
                value, top = row[i], high[i]
                second[i] = max(second[i], min(top, value))
                place[i] = c if value > top else place[i]
                high[i] = max(top, value)
        for c in range(classes):
            row = logits[t, c]
            for i in range(n):
                below = max(row[i] - high[i], np.float32(LEAST))
                value = fast_exp(below)
                row[i] = value
                rest[i] += np.float32(0) if place[i] == c else value
                spread[i] -= below * value
        for i in range(n):
            total = np.float32(1) + rest[i]
            lost = (rest[i] - (total - np.float32(1))) / total
            part = share / total
            gap = max(second[i] - high[i], np.float32(LEAST))
            next_best = fast_exp(gap) if classes > 1 else np.float32(0)
            entropy[i] += share * (fast_log(total) + lost) + part * spread[i]
            least_confidence[i] += part * rest[i]
            closeness[i] += part * (rest[i] + next_best)
            rest[i] = part
        for c in range(classes):
            row, sum_ = logits[t, c], mean[c]
            for i in range(n):
                sum_[i] += row[i] * rest[i]
    joint_entropy[:] = 0
    for c in range(classes):
        row = mean[c]
        for i in range(n):
            joint_entropy[i] -= row[i] * fast_log(max(row[i], np.float32(1e-37)))
