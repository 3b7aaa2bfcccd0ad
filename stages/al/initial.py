"""What is labeled before the first query. A new initial set is one function and one line in INITIAL_SETS."""

import difflib
from collections.abc import Callable

import numpy as np
from jaxtyping import Int

from cache.errors import InputError, UnknownNameError
from stages.al.centres import k_center_greedy, k_means_plus_plus
from stages.al.clustering import SETTINGS
from stages.al.pool import Pool
from stages.al.protocol import Protocol
from stages.al.strategies.base import STRATEGIES, Strategy
from stages.al.strategies.typiclust import TypiClust
from stages.al.view import PoolView

InitialSet = Callable[[Pool, int, np.random.Generator], Int[np.ndarray, "initial"]]


def random(pool: Pool, size: int, rng: np.random.Generator) -> Int[np.ndarray, "initial"]:
    """Drawn at random without replacement."""
    return rng.choice(len(pool), size, replace=False)


def one_per_class(pool: Pool, size: int, rng: np.random.Generator) -> Int[np.ndarray, "initial"]:
    """One random image of every class, then a second of every class, and so on; classes with none left are passed over.

    The only one that looks at labels. SSL meets AL (seed 003), section 4: "uniformly selected from all classes at
    random". Raises InputError where `size` is less than the pool's classes.
    """
    n_classes = len(np.unique(pool.labels))
    if size < n_classes:
        raise InputError(
            f"initial_size={size} is less than the {n_classes} classes of the pool: raise INITIAL= for one_per_class"
        )
    shuffled = rng.permutation(len(pool))
    by_class = shuffled[np.argsort(pool.labels[shuffled], kind="stable")]
    counts = np.unique(pool.labels, return_counts=True)[1]
    turn = np.concatenate([np.arange(count) for count in counts])
    return by_class[np.lexsort((rng.permutation(len(pool)), turn))][:size]


def kmeans(pool: Pool, size: int, rng: np.random.Generator) -> Int[np.ndarray, "initial"]:
    """k-means++ centres: each drawn with probability proportional to its squared distance to those before it.

    Arthur and Vassilvitskii 2007, section 2.2; best-practices seed (000), section 7, which uses the features of an
    ImageNet network where these are the projected ones. Cost O(size n d).
    """
    return k_means_plus_plus(pool.features, size, rng)


def kcenter(pool: Pool, size: int, rng: np.random.Generator) -> Int[np.ndarray, "initial"]:
    """Greedy k-center: a random image, then always the one farthest from those before it. Cost O(size n d).

    Sener and Savarese 2018, algorithm 1; best-practices seed (000), section 7.
    """
    return k_center_greedy(pool.features, np.full(len(pool), np.inf), size, rng)


def typical(pool: Pool, size: int, rng: np.random.Generator) -> Int[np.ndarray, "initial"]:
    """The most typical image of each of `size` k-means clusters: TypiClust's first round, with nothing labeled yet.

    Hacohen et al. 2022, algorithm 1. It draws nothing, so it is the same for every seed, and is computed once per pool.
    """
    settings = {"size": size, **SETTINGS, **TypiClust().record()}
    return np.array(pool.derived.get("initial-typical", settings, lambda: _query(TypiClust(), pool, size, rng)))


def _query(strategy: Strategy, pool: Pool, size: int, rng: np.random.Generator) -> Int[np.ndarray, "initial"]:
    """What a strategy queries with nothing labeled."""
    nothing = np.empty(0, dtype=np.int64)
    view = PoolView(
        pool=pool,
        candidates=np.arange(len(pool)),
        labeled=nothing,
        labels=pool.labels[nothing],
        fitted_head=None,
        allowed=strategy.requires,
    )
    return strategy.query(view, size, rng)


INITIAL_SETS: dict[str, InitialSet] = {
    "random": random,
    "one_per_class": one_per_class,
    "kmeans": kmeans,
    "kcenter": kcenter,
    "typical": typical,
}


def require_initial(name: str) -> None:
    """Raises UnknownNameError, naming the nearest, and InputError for a strategy that cannot begin."""
    if name in INITIAL_SETS:
        return
    beginners = [strategy for strategy in STRATEGIES if STRATEGIES.get(strategy).cold_start]  # type: ignore[attr-defined]
    strategy = name.partition(":")[0]
    known = f"Known: {', '.join(INITIAL_SETS)}, and the strategies that need no labels: {', '.join(beginners)}"
    if strategy in beginners:
        STRATEGIES.build(name)
    elif strategy in STRATEGIES:
        raise InputError(f"the strategy {strategy!r} needs labels, it cannot choose the initial set. {known}")
    else:
        near = difflib.get_close_matches(name, [*INITIAL_SETS, *beginners], n=1, cutoff=0.5)
        hint = f"did you mean {near[0]!r}? " if near else ""
        raise UnknownNameError(f"there is no initial set named {name!r}: {hint}{known}")


def initial_set(protocol: Protocol, pool: Pool, rng: np.random.Generator) -> Int[np.ndarray, "initial"]:
    """Distinct pool indices, the same for every strategy and head of a seed. Raises InputError (small pool)."""
    protocol.require_pool(len(pool))
    require_initial(protocol.initial)
    if protocol.initial in INITIAL_SETS:
        return INITIAL_SETS[protocol.initial](pool, protocol.initial_size, rng)
    return _query(STRATEGIES.build(protocol.initial), pool, protocol.initial_size, rng)
