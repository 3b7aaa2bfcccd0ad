"""The active-learning loop: fit, evaluate, query, label, until the budget is spent (thesis seed 002, algorithm 2)."""

import time
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import numpy as np
import sklearn
from jaxtyping import Float, Int
from sklearn.base import clone

from stages.al.acquisition import acquisition_table
from stages.al.initial import initial_set
from stages.al.lookahead import lookahead
from stages.al.metrics import classification_metrics
from stages.al.pool import Needs, Pool, PoolView
from stages.al.protocol import CandidateLog, Protocol
from stages.al.strategies.base import Strategy

INITIAL, CANDIDATES, QUERY, LOG = 0, 1, 2, 3
"""Streams of randomness within a seed; the initial set's does not depend on the strategy."""


@dataclass(frozen=True)
class Evaluation:
    """Labeled images outside the pool."""

    features: Float[np.ndarray, "n dim"]
    labels: Int[np.ndarray, "n"]


@dataclass
class RunLog:
    """What a run leaves behind. rounds : one row each. candidates : column blocks, one per logged round."""

    rounds: list[dict[str, Any]] = field(default_factory=list)
    candidates: list[dict[str, np.ndarray]] = field(default_factory=list)


class DistanceToLabeled:
    """Squared distance of every pool image to its nearest labeled one, brought up to date when asked for."""

    def __init__(self, features: Float[np.ndarray, "pool dim"]) -> None:
        self._features, self._seen = features, 0
        self._distance = np.full(len(features), np.inf, dtype=np.float32)

    def update(self, labeled: Int[np.ndarray, "labeled"]) -> Float[np.ndarray, "pool"]:
        for index in labeled[self._seen :]:
            difference = self._features - self._features[index]
            np.minimum(self._distance, np.einsum("nd,nd->n", difference, difference), out=self._distance)
        self._seen = len(labeled)
        return self._distance


def run_active_learning(
    pool: Pool,
    validation: Evaluation,
    test: Evaluation,
    head: Any,
    strategy: Strategy,
    protocol: Protocol,
    seed: int,
    candidate_log: CandidateLog | None = None,
) -> RunLog:
    """One run. Deterministic: the same arguments give the same queries, wherever and beside whatever it runs.

    head : unfitted, cloned every round; candidate_log : None logs no candidates
    """
    log = RunLog()
    labeled = initial_set(protocol, pool, np.random.default_rng([seed, INITIAL]))
    distances = DistanceToLabeled(pool.features)
    queried = labeled
    offered = {"validation": (validation.features, validation.labels)} if _uses_validation(head) else {}
    with sklearn.config_context(assume_finite=True):
        for round_ in range(protocol.n_rounds(len(pool))):
            started = time.perf_counter()
            fitted = clone(head).fit(pool.features[labeled], pool.labels[labeled], **offered)
            seconds_fit = time.perf_counter() - started
            row: dict[str, Any] = {
                "round": round_,
                "budget_spent": len(labeled),
                "queried": queried,
                "seconds_fit": seconds_fit,
            }
            row |= _evaluate(fitted, validation, test)
            log.rounds.append(row)
            if round_ == protocol.n_rounds(len(pool)) - 1:
                row["seconds_query"] = 0.0
                break

            state = {
                "step": len(labeled) / protocol.budget,
                "val_accuracy": row["val_accuracy"],
                "val_cross_entropy": row["val_cross_entropy"],
            }
            started = time.perf_counter()
            view = PoolView(
                pool=pool,
                candidates=_candidates(protocol, len(pool), labeled, np.random.default_rng([seed, CANDIDATES, round_])),
                labeled=labeled,
                labels=pool.labels[labeled],
                fitted_head=fitted,
                squared_distance=partial(distances.update, labeled),
                state=state,
                allowed=strategy.requires,
            )
            batch = min(protocol.batch_size, protocol.budget - len(labeled), len(view.candidates))
            queried = strategy.query(view, batch, np.random.default_rng([seed, QUERY, round_]))
            row["seconds_query"] = time.perf_counter() - started
            if candidate_log and round_ % candidate_log.log_every == 0:
                logged = _logged(view, queried, candidate_log, np.random.default_rng([seed, LOG, round_]))
                log.candidates.append(_candidate_rows(logged, validation, round_, queried))
            labeled = np.concatenate([labeled, queried])
    return log


def _uses_validation(head: Any) -> bool:
    return getattr(head, "uses_validation", False)


def _candidates(
    protocol: Protocol, n_pool: int, labeled: Int[np.ndarray, "labeled"], rng: np.random.Generator
) -> Int[np.ndarray, "candidates"]:
    """Unlabeled pool indices in order, or a random subset of them (thesis seed 002, 4.6)."""
    unlabeled = np.setdiff1d(np.arange(n_pool), labeled, assume_unique=True)
    if len(unlabeled) <= protocol.candidates:
        return unlabeled
    return np.sort(rng.choice(unlabeled, protocol.candidates, replace=False))


def _evaluate(head: Any, validation: Evaluation, test: Evaluation) -> dict[str, float]:
    started = time.perf_counter()
    row: dict[str, float] = {}
    for name, data in (("test", test), ("val", validation)):
        metrics = classification_metrics(head.predict_proba(data.features), data.labels)
        row |= {f"{name}_{metric}": value for metric, value in metrics.items()}
    return row | {"seconds_evaluate": time.perf_counter() - started}


def _logged(
    view: PoolView, queried: Int[np.ndarray, "batch"], candidate_log: CandidateLog, rng: np.random.Generator
) -> PoolView:
    """The round with everything allowed, and the candidates cut down to those that are logged."""
    if len(view.candidates) <= candidate_log.log_candidates:
        return replace(view, allowed=frozenset(Needs))
    drawn = rng.choice(view.candidates, candidate_log.log_candidates, replace=False)
    return replace(view, allowed=frozenset(Needs), candidates=np.union1d(drawn, queried), memo={})


def _candidate_rows(
    view: PoolView, validation: Evaluation, round_: int, queried: Int[np.ndarray, "batch"]
) -> dict[str, np.ndarray]:
    """Every acquisition metric of every candidate, and what labeling it would change on the validation set."""
    accuracy, loss = lookahead(
        view.head, view.features, view.pool.labels[view.candidates], validation.features, validation.labels
    )
    return {
        "round": np.full(len(view.candidates), round_, dtype=np.int32),
        "candidate": view.candidates.astype(np.int32),
        "queried": np.isin(view.candidates, queried),
        **acquisition_table(view),
        "accuracy_change": accuracy.astype(np.float32),
        "cross_entropy_change": loss.astype(np.float32),
    }
