"""The active-learning loop: fit, evaluate, query, label, until the budget is spent (thesis seed 002, algorithm 2)."""

import time
from collections.abc import Hashable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import sklearn
from jaxtyping import Bool, Float, Int
from sklearn.base import clone

from stages.al.acquisition import acquisition_table
from stages.al.initial import initial_set
from stages.al.logits import TrackedLogits
from stages.al.lookahead import label_effects, later_lookahead, lookahead
from stages.al.metrics import classification_metrics
from stages.al.pool import Evaluation, Pool
from stages.al.protocol import CandidateLog, Protocol
from stages.al.signals import RANKS, ROUND, signals_of
from stages.al.strategies.base import Strategy, drawn
from stages.al.view import Needs, PoolView, unmet

INITIAL, CANDIDATES, QUERY, LOG, HEAD = 0, 1, 2, 3, 4
"""Streams of randomness within a seed; the initial set's does not depend on the strategy."""


@dataclass
class RunLog:
    """What a run leaves behind. rounds : one row each. candidates : column blocks, one per logged round."""

    rounds: list[dict[str, Any]] = field(default_factory=list)
    candidates: list[dict[str, np.ndarray]] = field(default_factory=list)


@dataclass(frozen=True, kw_only=True)
class Cell:
    """What tells runs apart that share images, head and protocol.

    candidate_log : None logs no candidates
    """

    strategy: Strategy
    seed: int
    candidate_log: CandidateLog | None = None


def run_active_learning(
    pool: Pool, validation: Evaluation, test: Evaluation, head: Any, protocol: Protocol, cells: Sequence[Cell]
) -> list[RunLog]:
    """Runs that advance together, one log each. A run's queries do not depend on where and beside what it runs.

    head : unfitted. One that can train many runs at once (`fit_many`) does; the others fit one run after the other
    """
    runs = [_Run(pool, validation, test, head, protocol, cell) for cell in cells]
    with sklearn.config_context(assume_finite=True):
        for round_ in range(protocol.n_rounds(len(pool))):
            _fit(runs, validation)
            for run in runs:
                run.evaluate(round_)
            if round_ < protocol.n_rounds(len(pool)) - 1:
                for run in runs:
                    run.query(round_)
    return [run.log for run in runs]


class _Run:
    """One run between two rounds."""

    def __init__(
        self, pool: Pool, validation: Evaluation, test: Evaluation, head: Any, protocol: Protocol, cell: Cell
    ) -> None:
        self.log = RunLog()
        self.head = seeded(head, cell.seed)
        if protocol.train_views == "all" and hasattr(self.head, "rows_per_label"):
            self.head.rows_per_label = len(pool.views)
        self.queried = self._labeled = initial_set(protocol, pool, np.random.default_rng([cell.seed, INITIAL]))
        self.seconds_fit = 0.0
        self._pool, self._protocol, self._cell, self._validation = pool, protocol, cell, validation
        self._waiting = np.ones(len(pool), dtype=bool)
        self._waiting[self._labeled] = False
        self._followers: dict[Hashable, Any] = {}
        self._tracked = TrackedLogits(pool.features)
        self._evaluated = [
            ("test", test, TrackedLogits(test.features)),
            ("val", validation, TrackedLogits(validation.features)),
        ]

    def images(self, new: bool) -> tuple[Float[np.ndarray, "n dim"], Int[np.ndarray, "n"]]:
        """The labeled images, or only the new ones, with their labels; every view of them where all are trained on."""
        indices = self.queried if new else self._labeled
        views = self._pool.views if self._protocol.train_views == "all" else self._pool.views[:1]
        return np.concatenate([view[indices] for view in views]), np.tile(self._pool.labels[indices], len(views))

    def evaluate(self, round_: int) -> None:
        """Write down a round."""
        started = time.perf_counter()
        row: dict[str, Any] = {
            "round": round_,
            "budget_spent": len(self._labeled),
            "queried": self.queried,
            "seconds_fit": self.seconds_fit,
        }
        for name, images, tracked in self._evaluated:
            metrics = classification_metrics(*tracked.read(self.head), images.labels)
            row |= {f"{name}_{metric}": value for metric, value in metrics.items()}
        self.log.rounds.append(row | {"seconds_evaluate": time.perf_counter() - started, "seconds_query": 0.0})

    def query(self, round_: int) -> None:
        """Choose the next images and label them."""
        row, cell, protocol = self.log.rounds[-1], self._cell, self._protocol
        started = time.perf_counter()
        view = PoolView(
            pool=self._pool,
            candidates=_candidates(protocol, self._waiting, [cell.seed, CANDIDATES, round_]),
            labeled=self._labeled,
            labels=self._pool.labels[self._labeled],
            fitted_head=self.head,
            followers=self._followers,
            tracked=self._tracked,
            held_out=self._validation,
            state={
                "step": len(self._labeled) / protocol.budget,
                "val_accuracy": row["val_accuracy"],
                "val_cross_entropy": row["val_cross_entropy"],
            },
            allowed=cell.strategy.requires,
        )
        batch = min(protocol.batch_size, protocol.budget - len(self._labeled), len(view.candidates))
        self.queried = cell.strategy.query(view, batch, np.random.default_rng([cell.seed, QUERY, round_]))
        row["seconds_query"] = time.perf_counter() - started
        if cell.candidate_log and round_ % cell.candidate_log.log_every == 0:
            rng, log = np.random.default_rng([cell.seed, LOG, round_]), cell.candidate_log
            open_view = replace(view, allowed=frozenset(Needs))
            if log.log_candidates:
                rows = candidate_rows(_logged(open_view, self.queried, log, rng), self._waiting, self.queried, log, rng)
            else:
                rows = queried_rows(open_view, self.queried, rng)
            self.log.candidates.append({"round": np.full(len(rows["candidate"]), round_, dtype=np.int32)} | rows)
        self._labeled = np.concatenate([self._labeled, self.queried])
        self._waiting[self.queried] = False


def seeded(head: Any, seed: int) -> Any:
    """A copy of an unfitted head whose random draws, where it makes any, are those of a run's seed."""
    own = clone(head)
    if "seed" in head.get_params():
        own.set_params(seed=int(np.random.default_rng([seed, HEAD, head.seed]).integers(2**31)))
    return own


def _fit(runs: Sequence[_Run], validation: Evaluation) -> None:
    """Fit every run's head to what it has labeled: all at once, or each by what is new, or each to everything."""
    started = time.perf_counter()
    first = runs[0].head
    offered = (
        {"validation": (validation.features, validation.labels)} if getattr(first, "uses_validation", False) else {}
    )
    if hasattr(first, "fit_many"):
        type(first).fit_many([run.head for run in runs], [run.images(new=False) for run in runs], **offered)
        for run in runs:
            run.seconds_fit = (time.perf_counter() - started) / len(runs)
        return
    for run in runs:
        started = time.perf_counter()
        if hasattr(first, "add") and len(run.log.rounds):
            run.head.add(*run.images(new=True))
        else:
            run.head.fit(*run.images(new=False), **offered)
        run.seconds_fit = time.perf_counter() - started


def _candidates(
    protocol: Protocol, waiting: Bool[np.ndarray, "pool"], stream: list[int]
) -> Int[np.ndarray, "candidates"]:
    """Unlabeled pool indices in order, or a random subset of them (thesis seed 002, 4.6)."""
    unlabeled = np.flatnonzero(waiting)
    if len(unlabeled) <= protocol.candidates:
        return unlabeled
    return np.sort(np.random.default_rng(stream).choice(unlabeled, protocol.candidates, replace=False))


def _logged(
    view: PoolView, queried: Int[np.ndarray, "batch"], candidate_log: CandidateLog, rng: np.random.Generator
) -> PoolView:
    """The candidates cut down to those that are logged."""
    if len(view.candidates) <= candidate_log.log_candidates:
        return view
    some = rng.choice(view.candidates, candidate_log.log_candidates, replace=False)
    return replace(view, candidates=np.union1d(some, queried), memo={})


def queried_rows(view: PoolView, queried: Int[np.ndarray, "batch"], rng: np.random.Generator) -> dict[str, np.ndarray]:
    """Of the images that were queried, every acquisition metric, and every signal where the head has a closed form."""
    rows = metric_rows(replace(view, candidates=queried, memo={}))
    if unmet(frozenset({Needs.CLOSED_FORM}), view.head):
        return rows
    return rows | dict(zip(RANKS + ROUND, signals_of(view, queried, rng).T, strict=True))


def metric_rows(view: PoolView) -> dict[str, np.ndarray]:
    """Every acquisition metric of every candidate."""
    return {"candidate": view.candidates.astype(np.int32), **acquisition_table(view)}


def candidate_rows(
    view: PoolView,
    waiting: Bool[np.ndarray, "pool"],
    queried: Int[np.ndarray, "batch"],
    candidate_log: CandidateLog,
    rng: np.random.Generator,
) -> dict[str, np.ndarray]:
    """The dense look-ahead table of a round: every acquisition metric of every candidate, and what labeling it changes.

    Of its true label on validation images (see `Changes`), at once and after `log_later` more labels, of random images
    of those waiting; and, free of its label's noise, on pool images: the mean over the labels of both, as probable as
    all labels of the pool make them.
    """
    head, pool, chosen = view.head, view.pool, view.candidates
    half = -(-candidate_log.log_images // 2)
    images = view.validation.some(candidate_log.log_images, rng)
    changes = lookahead(head, view.features, pool.labels[chosen], images.features, images.labels)
    unlabeled = np.flatnonzero(waiting)
    order = rng.permutation(unlabeled)[: candidate_log.log_later + 1]
    fewer = images.some(half, rng)
    later = later_lookahead(head, pool.features, pool.labels, chosen, order, fewer.features, fewer.labels)
    others, posterior = drawn(len(pool), half, rng), view.oracle_proba
    effects = label_effects(head, view.features, pool.features[others], posterior[others], head.temperature_)
    targets = {
        "accuracy_change": changes.accuracy,
        "cross_entropy_change": changes.cross_entropy,
        "cross_entropy_change_half_t": changes.half_t,
        "cross_entropy_change_double_t": changes.double_t,
        "brier_change": changes.brier,
        "later_cross_entropy_change": later.cross_entropy,
        "expected_cross_entropy_change": (posterior[chosen] * effects).sum(axis=1),
    }
    return {
        **metric_rows(view),
        "queried": np.isin(chosen, queried),
        **{name: change.astype(np.float32) for name, change in targets.items()},
    }
