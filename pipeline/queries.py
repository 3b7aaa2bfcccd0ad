"""Which images strategies query, and where they lie in the pool: SUPClust's figures 3 and 4 (seed 001)."""

import os
import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass

import numpy as np
from jaxtyping import Float, Int
from joblib import Parallel, delayed, parallel_config
from sklearn.decomposition import PCA
from sklearn.manifold import TSNE
from threadpoolctl import threadpool_limits

from cache.errors import InputError
from cache.files import digest_json
from pipeline.config import QueriesConfig
from pipeline.grid import check_grid, require_met, spec_of
from pipeline.task import Task, load_data
from stages.al.heads import build_head
from stages.al.initial import require_initial
from stages.al.loop import Cell, run_active_learning
from stages.al.pool import Pool
from stages.al.protocol import Protocol
from stages.al.strategies import STRATEGIES
from stages.al.strategies.supclust import SupClust, sup
from stages.al.strategies.typiclust import typicality_within

OWN = "own"
MOST_LAID_OUT = 3000
"""Images in a t-SNE, besides those queried; it takes some 5 ms for each."""
LEAST_LAID_OUT = 5
PERPLEXITY = 30
N_CLUSTERS, LEAST_MEMBERS = 4, 20
"""Clusters of figure 4, and the images that one has if there are enough of them."""


@dataclass(frozen=True, kw_only=True)
class ScoredCluster:
    """Typicality and SUP of all images of a cluster."""

    typicality: Float[np.ndarray, "m"]
    sup: Float[np.ndarray, "m"]


@dataclass(frozen=True, kw_only=True)
class PoolMap:
    """What strategies queried, where it lies in the pool.

    n_initial : labels that the strategies did not choose, first in `queried`
    queried : pool indices by strategy, in order
    shown, plane : pool indices of the images laid out, and their places, those queried among them
    """

    title: str
    layout: str
    seed: int
    class_names: Sequence[str]
    labels: Int[np.ndarray, "pool"]
    n_initial: int
    queried: dict[str, Int[np.ndarray, "queried"]]
    shown: Int[np.ndarray, "shown"]
    plane: Float[np.ndarray, "shown 2"]


@dataclass(frozen=True, kw_only=True)
class Queries(PoolMap):
    """What the figures show.

    stem : beginning of the files' names
    n_clusters, clusters : of figure 4, empty where there is but one
    """

    stem: str
    temperature: float
    n_clusters: int
    clusters: Sequence[ScoredCluster]


def check_queries(config: QueriesConfig) -> None:
    """Raises InputError for what no data could make right, before anything is read."""
    if "all" in config.strategy:
        raise InputError("queries takes strategies by name, a panel for each: all are too many")
    check_grid([config.head], config.strategy, config.workers)
    config.protocol.check()
    if config.seed < 0 or not config.temperature > 0:
        raise InputError(f"seed={config.seed} must be at least 0, temperature={config.temperature} above 0")
    if config.protocol.initial != OWN:
        require_initial(config.protocol.initial)
        return
    for spec in config.strategy:
        if not STRATEGIES.get(spec.partition(":")[0]).cold_start:  # type: ignore[attr-defined]
            raise InputError(f"strategy {spec!r} needs labels to begin with: give them by INITIAL_SET=random")


def find_queries(task: Task, config: QueriesConfig) -> Queries:
    """Run the strategies and lay out the pool. Raises InputError (protocol and pool do not fit, tiny t-SNE)."""
    protocol = config.protocol.resolve(task.sizes[0])
    strategies = list(dict.fromkeys(config.strategy))
    for strategy in strategies:
        require_met(strategy, [config.head], task.n_views)
    specs = [spec_of(strategy, task, config.head, config.data_root) for strategy in strategies]
    jobs = [delayed(run_one)(task, config.head, spec, config.seed, protocol) for spec in specs]
    with parallel_config(backend="loky", inner_max_num_threads=1):
        found = Parallel(n_jobs=min(config.workers or os.cpu_count() or 1, len(jobs)))(jobs)
    queried = dict(zip(strategies, found, strict=True))
    pool, _, _ = load_data(task.derived, task.n_classes, task.sizes)
    with threadpool_limits(1):
        shown, plane = lay_out(pool.unit, np.unique(np.concatenate(found)), config.layout, config.seed)
        n_clusters = min(protocol.budget, SupClust().max_clusters, len(pool))
        clusters = score_clusters(pool, n_clusters, config.temperature, np.random.default_rng(config.seed))
    about = task.about
    said_pool = [f"pool {about['pool']}"] if "pool" in about else []
    name = "-".join(re.sub(r"[^A-Za-z0-9._-]+", "-", about[part]) for part in ("dataset", "full_name"))
    said = [strategies, config.seed, config.head, asdict(protocol), config.layout, config.temperature]
    return Queries(
        title=" · ".join([about["dataset"], about["full_name"], *said_pool]),
        stem=f"queries-{name}-{digest_json([dict(about), said])[:8]}",
        layout=config.layout,
        seed=config.seed,
        temperature=config.temperature,
        class_names=task.class_names,
        labels=pool.labels,
        n_initial=0 if protocol.initial == OWN else protocol.initial_size,
        queried=queried,
        shown=shown,
        plane=plane,
        n_clusters=n_clusters,
        clusters=clusters,
    )


def run_one(task: Task, head: str, spec: str, seed: int, protocol: Protocol) -> Int[np.ndarray, "labeled"]:
    """Pool indices that a run labels, in order."""
    pool, validation, test = load_data(task.derived, task.n_classes, task.sizes)
    if protocol.initial == OWN:
        protocol = Protocol(**{**asdict(protocol), "initial": spec})
    cell = Cell(strategy=STRATEGIES.build(spec), seed=seed)
    (log,) = run_active_learning(pool, validation, test, build_head(head, task.n_classes), protocol, [cell])
    return np.concatenate([row["queried"] for row in log.rounds])


def lay_out(
    unit: Float[np.ndarray, "pool dim"], queried: Int[np.ndarray, "queried"], how: str, seed: int
) -> tuple[Int[np.ndarray, "shown"], Float[np.ndarray, "shown 2"]]:
    """Pool indices, ascending, and their places in a plane.

    how : pca lays out the whole pool, tsne those queried and a random sample of the rest
    Raises InputError where there are too few images for t-SNE.
    """
    if how == "pca":
        axes = min(2, *unit.shape)
        return np.arange(len(unit)), np.pad(PCA(axes).fit_transform(unit), ((0, 0), (0, 2 - axes)))
    others = np.setdiff1d(np.arange(len(unit)), queried)
    sample = np.random.default_rng(seed).choice(others, min(len(others), MOST_LAID_OUT), replace=False)
    shown = np.union1d(queried, sample)
    if len(shown) < LEAST_LAID_OUT or unit.shape[1] < 2:
        raise InputError(f"t-SNE of {len(shown)} images of {unit.shape[1]} dimensions is impossible: take --layout pca")
    print(f"laying out {len(shown):,} images by t-SNE, some {1 + len(shown) // 200} s", flush=True)
    model = TSNE(perplexity=min(PERPLEXITY, (len(shown) - 1) / 3), random_state=seed)
    return shown, model.fit_transform(unit[shown])


def score_clusters(pool: Pool, k: int, temperature: float, rng: np.random.Generator) -> list[ScoredCluster]:
    """Typicality and SUP in a few random clusters of the k, large ones as far as there are; none of a single one."""
    strategy = SupClust(temperature=temperature)
    clusters = pool.clusters(k)
    sizes = np.bincount(clusters)
    if len(sizes) < 2:
        return []
    centres = np.stack([pool.unit[clusters == cluster].mean(axis=0, dtype=np.float64) for cluster in range(len(sizes))])
    drawn = rng.permutation(len(sizes))
    drawn = drawn[np.argsort(-np.minimum(sizes[drawn], LEAST_MEMBERS), kind="stable")][:N_CLUSTERS]
    scored = []
    for cluster in drawn.tolist():
        members = pool.unit[clusters == cluster]
        typicality = typicality_within(members, strategy.n_neighbors)
        scored.append(ScoredCluster(typicality=typicality, sup=sup(members, centres, cluster, temperature)))
    return scored
