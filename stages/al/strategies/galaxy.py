from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int

from stages.al.logits import BLOCK
from stages.al.readings import Reading, read
from stages.al.strategies.base import STRATEGIES, Strategy, require_enough
from stages.al.view import Needs, PoolView


def confidence(reading: Reading, logits: Float[np.ndarray, "n"], label: int) -> Float[np.ndarray, "n"]:
    """Orders images by p_label - max p, and those predicted as that class, which come above the others, by max p.

    logits : those of that class
    With e = exp(logit - largest) and `rest` the sum of all e but the largest, it is (rest + e_label) / (1 + rest) <= 1,
    which is 1 - (max p - p_label), and where that class is predicted (1 + rest) / rest, which is 1 / (1 - max p). Both
    keep their digits where probabilities are 0 or 1.
    """
    own = np.exp(logits - reading.largest)
    with np.errstate(divide="ignore"):
        inside, outside = (1 + reading.rest) / reading.rest, (reading.rest + own) / (1 + reading.rest)
    return np.where(reading.place == label, inside, outside)


def bisection(is_labeled: Bool[np.ndarray, "n"], inside: Bool[np.ndarray, "n"], rng: np.random.Generator) -> int:
    """The place to label next in a row of images, some of them labeled as inside a class or outside it.

    The middle of the fewest unlabeled images between a labeled one inside and one outside; where those all touch, the
    image from which both are within the fewest steps; where all labels are alike, any image. Ties at random.
    """
    places = np.flatnonzero(is_labeled)
    unlabeled = np.flatnonzero(~is_labeled)
    changes = np.flatnonzero(np.diff(inside[places]))
    if len(changes) == 0:
        return int(rng.choice(unlabeled))
    left, between = places[changes], places[changes + 1] - places[changes] - 1
    if between.any():
        shortest = between[between > 0].min()
        start = int(rng.choice(left[between == shortest]))
        return start + int(rng.choice([(shortest + 1) // 2, shortest // 2 + 1]))
    order = np.maximum(_steps(unlabeled, places[inside[places]]), _steps(unlabeled, places[~inside[places]]))
    return int(rng.choice(unlabeled[order == order.min()]))


def _steps(places: Int[np.ndarray, "n"], among: Int[np.ndarray, "m"]) -> Int[np.ndarray, "n"]:
    """How far each place is from the nearest among others, in order."""
    after = np.searchsorted(among, places)
    right = np.abs(among[np.minimum(after, len(among) - 1)] - places)
    return np.minimum(right, np.abs(places - among[np.maximum(after - 1, 0)]))


@STRATEGIES.register("galaxy")
@dataclass(frozen=True, kw_only=True)
class Galaxy(Strategy):
    """Query by bisection where labels change along the candidates ordered by how sure a class is.

    Zhang, Katz-Samuels and Nowak 2022, algorithm 2 and their code: for each class a row of all labeled images and
    candidates by their one-vs-rest confidence; the middle of the shortest path between two labels, of which one is that
    class; where no path is left, images are joined with those two, three, ... steps away until there is one; where the
    class has no label, or no other has, a random candidate. With two classes both rows are one. Deviations: classes
    take turns in a random order, drawn anew each round (their code begins with class 0 in every round); a batch's
    labels are not known until it is complete, so that its images count as labeled with the head's prediction (with one
    label a round it is the paper's); the confidences keep their digits where probabilities saturate, equal ones are in
    random order.
    """

    paper = "Zhang et al. 2022"
    cost = "n (d C + log n), for each image of a batch n"
    requires = frozenset({Needs.HEAD})

    def query(self, view: PoolView, batch_size: int, rng: np.random.Generator) -> Int[np.ndarray, "batch"]:
        require_enough(view, batch_size)
        images = np.concatenate([view.candidates, view.labeled])
        logits = _logits(view, images)
        reading = read(logits)
        labels = np.concatenate([reading.place[: len(view.candidates)], view.labels])
        is_labeled = np.arange(len(images)) >= len(view.candidates)
        turns = rng.permutation(view.n_classes) if view.n_classes > 2 else np.zeros(1, dtype=np.int64)
        shuffled = rng.permutation(len(images))
        rows: dict[int, np.ndarray] = {}
        chosen = []
        for turn in range(batch_size):
            label = int(turns[turn % len(turns)])
            if label not in rows:
                order = np.argsort(-confidence(reading, logits[:, label], label)[shuffled], kind="stable")
                rows[label] = shuffled[order]
            row = rows[label]
            chosen.append(row[bisection(is_labeled[row], labels[row] == label, rng)])
            is_labeled[chosen[-1]] = True
        return images[chosen]


def _logits(view: PoolView, images: Int[np.ndarray, "n"]) -> Float[np.ndarray, "n classes"]:
    head, parts = view.head, np.array_split(images, 1 + len(images) // BLOCK)
    return np.concatenate([head.logits(view.pool_features[part].astype(np.float64)) for part in parts])
