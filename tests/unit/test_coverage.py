"""The strategies that cover the pool, against brute force and scikit-activeml."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
from scipy.spatial.distance import cdist
from skactiveml.pool import MaxHerding as TheirMaxHerding
from skactiveml.pool import ProbCover as TheirProbCover
from sklearn.preprocessing import normalize

from cache.errors import InputError
from stages.al import kernel_coverage
from stages.al import pool as pool_module
from stages.al.heads import HEADS
from stages.al.pool import Pool
from stages.al.readings import read
from stages.al.strategies import STRATEGIES
from stages.al.strategies.dcom import Balls, competence, purest_radius
from stages.al.strategies.probcover import purity_radius
from stages.al.uncertainty import closeness
from stages.al.view import PoolView
from tests.conftest import blobs, make_view

NOTHING = np.array([], dtype=np.int64)


def unit_distances(features: np.ndarray) -> np.ndarray:
    unit = normalize(features.astype(np.float64))
    return np.sqrt(((unit[:, None] - unit) ** 2).sum(axis=2))


def brute_force_gains(distances: np.ndarray, delta: float, labeled: list[int]) -> list[int]:
    """ProbCover's graph in plain loops: uncovered images in the ball of each."""
    n = len(distances)
    covered = [any(distances[x, y] <= delta for x in labeled) for y in range(n)]
    return [sum(not covered[y] and distances[x, y] <= delta for y in range(n)) for x in range(n)]


@pytest.mark.parametrize("kept", [True, False])
@pytest.mark.parametrize("n_labeled", [0, 1, 9])
def test_probcover_is_greedy_coverage(
    n_labeled: int, kept: bool, tiny_pool: Pool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pool_module, "MOST_PAIRS", 2**27 if kept else 50)
    distances = unit_distances(tiny_pool.features)
    view = make_view(tiny_pool, np.arange(n_labeled))
    queried = STRATEGIES.build("probcover:delta=0.4").query(view, 12, np.random.default_rng(0))
    labeled = view.labeled.tolist()
    for index in queried:
        gains = brute_force_gains(distances, 0.4, labeled)
        assert index in view.candidates and index not in labeled
        assert gains[index] == max(gains[candidate] for candidate in view.candidates if candidate not in labeled)
        labeled.append(int(index))


def test_probcover_follows_a_run_one_label_at_a_time(tiny_pool: Pool) -> None:
    """Among random candidates, as the protocol has them; the rows past the last full block of 500 count too."""
    rng, strategy, followers = np.random.default_rng(1), STRATEGIES.build("probcover:delta=0.5"), {}
    distances, labeled = unit_distances(tiny_pool.features), [3, 119]
    for _ in range(15):
        candidates = np.sort(rng.choice(np.setdiff1d(np.arange(120), labeled), 60, replace=False))
        view = make_view(tiny_pool, np.array(labeled), candidates=candidates, followers=followers)
        (index,) = strategy.query(view, 1, rng)
        gains = np.array(brute_force_gains(distances, 0.5, labeled))
        assert gains[index] == gains[candidates].max()
        labeled.append(int(index))


def test_once_all_is_covered_probcover_queries_at_random(tiny_pool: Pool) -> None:
    strategy, view = STRATEGIES.build("probcover:delta=2"), make_view(tiny_pool, np.arange(3))
    queries = [strategy.query(view, 30, np.random.default_rng(seed)) for seed in (0, 1)]
    assert all(len(set(query.tolist())) == 30 and query.min() >= 3 for query in queries)
    assert queries[0].tolist() != queries[1].tolist()


@pytest.mark.filterwarnings("ignore:The maximum purity")
def test_probcover_reaches_the_coverage_of_scikit_activeml(
    make_pool: Callable[..., Pool], rng: np.random.Generator
) -> None:
    features, labels = blobs(rng, n=300)
    pool, labeled = make_pool(features, labels, 4), np.arange(4)
    y = np.full(300, np.nan)
    y[labeled] = labels[labeled]
    theirs = TheirProbCover(n_classes=4, deltas=[0.3], random_state=0).query(normalize(features), y, batch_size=20)
    ours = STRATEGIES.build("probcover:delta=0.3").query(make_view(pool, labeled), 20, rng)
    distances = unit_distances(features)
    reached = [(distances[np.concatenate([labeled, q])].min(axis=0) <= 0.3).sum() for q in (ours, theirs)]
    assert reached[0] >= reached[1] - 2


@pytest.mark.parametrize("purity", [0.5, 0.9, 0.95, 1.0])
def test_the_purity_radius_is_the_largest(purity: float, tiny_pool: Pool) -> None:
    clusters, distances = tiny_pool.clusters(4), unit_distances(tiny_pool.features)
    other = np.where(clusters[:, None] == clusters, np.inf, distances)

    def share(radius: float) -> float:
        return float((other > radius).all(axis=1).mean())

    radius = purity_radius(tiny_pool.distance_to_other_cluster(4), purity)
    assert share(radius) >= purity
    assert share(radius * (1 + 1e-6)) < purity


def test_one_cluster_is_pure_at_every_radius() -> None:
    assert purity_radius(np.full(9, np.inf), 0.95) == pytest.approx(2)


def test_the_heuristic_is_the_default_radius(tiny_pool: Pool) -> None:
    radius = purity_radius(tiny_pool.distance_to_other_cluster(4), 0.95)
    view = make_view(tiny_pool, NOTHING)
    default, given = (
        STRATEGIES.build(spec).query(replace(view, followers={}), 9, np.random.default_rng(0))
        for spec in ("probcover", f"probcover:delta={radius!r}")
    )
    assert default.tolist() == given.tolist()


@pytest.mark.parametrize(
    "spec",
    [
        "probcover:delta=0",
        "probcover:delta=2.1",
        "probcover:purity=0",
        "maxherding:sigma=0",
        "uherding:images=0",
        "dcom:resolution=0",
    ],
)
def test_impossible_settings_are_refused(spec: str) -> None:
    with pytest.raises(InputError, match="must be"):
        STRATEGIES.build(spec)


def brute_force_kernel_gains(
    distances: np.ndarray, sigma: float, labeled: list[int], weight: np.ndarray
) -> list[float]:
    """MaxHerding's gains, weighted, in plain loops."""
    n = len(distances)
    kernel = np.exp(-((distances / sigma) ** 2))
    covered = [max((kernel[i, x] for x in labeled), default=0.0) for i in range(n)]
    return [sum(weight[i] * max(0.0, kernel[i, x] - covered[i]) for i in range(n)) for x in range(n)]


def assert_greedy(
    queried: np.ndarray, distances: np.ndarray, sigma: float, labeled: list[int], weight: np.ndarray
) -> None:
    for index in queried:
        gains = brute_force_kernel_gains(distances, sigma, labeled, weight)
        assert gains[index] == pytest.approx(max(gains), abs=1e-4)
        labeled.append(int(index))


@pytest.mark.parametrize("sigma", [0.2, 1.0])
@pytest.mark.parametrize("n_labeled", [0, 1, 9])
def test_maxherding_is_greedy_kernel_coverage(n_labeled: int, sigma: float, tiny_pool: Pool) -> None:
    view = make_view(tiny_pool, np.arange(n_labeled))
    queried = STRATEGIES.build(f"maxherding:sigma={sigma}").query(view, 8, np.random.default_rng(0))
    assert_greedy(queried, unit_distances(tiny_pool.features), sigma, view.labeled.tolist(), np.ones(120))


def test_maxherding_one_at_a_time_is_a_batch(tiny_pool: Pool) -> None:
    strategy, followers, labeled = STRATEGIES.build("maxherding"), {}, np.arange(4)
    batch = strategy.query(make_view(tiny_pool, labeled), 20, np.random.default_rng(0))
    for index in batch:
        view = make_view(tiny_pool, labeled, followers=followers)
        assert strategy.query(view, 1, np.random.default_rng(0)) == [index]
        labeled = np.append(labeled, index)


def test_maxherding_agrees_with_scikit_activeml(make_pool: Callable[..., Pool], rng: np.random.Generator) -> None:
    """Theirs covers candidates only, so nothing is labeled."""
    features, labels = blobs(rng, n=200)
    theirs = TheirMaxHerding(metric_dict={"gamma": 1 / 0.7**2}, random_state=0).query(
        features.astype(np.float64), np.full(200, np.nan), batch_size=20
    )
    view = make_view(make_pool(features, labels, 4), NOTHING)
    ours = STRATEGIES.build("maxherding:sigma=0.7").query(view, 20, rng)
    assert ours.tolist() == theirs.tolist()


def test_copies_of_labeled_images_add_nothing(make_pool: Callable[..., Pool], rng: np.random.Generator) -> None:
    features, labels = blobs(rng, n=40)
    pool = make_pool(np.concatenate([features, features]), np.tile(labels, 2), 4)
    queried = STRATEGIES.build("maxherding").query(make_view(pool, np.arange(20)), 20, rng)
    assert sorted(queried % 40) == list(range(20, 40))


@pytest.mark.parametrize("strategy", ["maxherding", "uherding:sigma=1"])
def test_a_sample_of_the_pool_finds_nearly_as_good_a_query(
    strategy: str, make_pool: Callable[..., Pool], rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    features, labels = blobs(rng, n=600, dim=10)
    view = make_view(make_pool(features, labels, 4), np.arange(8))
    distances = unit_distances(features)
    weight = 1 - margins(view) if strategy.startswith("u") else np.ones(600)
    gains = np.array(brute_force_kernel_gains(distances, 1.0, list(range(8)), weight))
    assert gains[STRATEGIES.build(f"{strategy}:images=300").query(view, 1, rng)] > 0.8 * gains.max()
    monkeypatch.setattr(kernel_coverage, "MOST_LISTED", 10_000)
    assert gains[STRATEGIES.build(strategy).query(replace(view, followers={}), 1, rng)] > 0.8 * gains.max()


def margins(view: PoolView) -> np.ndarray:
    proba = np.sort(view.fitted_head.predict_proba(view.pool_features), axis=1)
    return proba[:, -1] - proba[:, -2]


@pytest.mark.parametrize("sigma", [None, 0.5])
def test_uherding_weighs_by_uncertainty(sigma: float | None, tiny_pool: Pool) -> None:
    view = make_view(tiny_pool, np.arange(6))
    distances = unit_distances(tiny_pool.features)
    spec = "uherding" if sigma is None else f"uherding:sigma={sigma}"
    queried = STRATEGIES.build(spec).query(view, 8, np.random.default_rng(0))
    if sigma is None:
        sigma = distances[:6, :6][~np.eye(6, dtype=bool)].min()
    assert_greedy(queried, distances, sigma, list(range(6)), 1 - margins(view))


def test_uherding_with_nothing_labeled_is_maxherding(tiny_pool: Pool) -> None:
    view = make_view(tiny_pool, NOTHING)
    queries = [STRATEGIES.build(name).query(view, 9, np.random.default_rng(0)) for name in ("uherding", "maxherding")]
    assert queries[0].tolist() == queries[1].tolist()


@pytest.mark.parametrize("strategy", ["maxherding", "uherding"])
def test_lists_that_grow_and_close_up_are_those_made_anew(
    strategy: str, make_pool: Callable[..., Pool], rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kernel_coverage, "MOST_LISTED", 20_000)
    monkeypatch.setattr(kernel_coverage, "BLOCK", 9_000)
    pool, followers, rows = make_pool(*blobs(rng, n=600), 4), {}, set()
    for n_labeled in range(1, 40):
        view = make_view(pool, np.arange(n_labeled), followers=followers)
        kept = STRATEGIES.build(strategy).query(view, 2, np.random.default_rng(0))
        anew = STRATEGIES.build(strategy).query(replace(view, followers={}, memo={}), 2, np.random.default_rng(0))
        assert kept.tolist() == anew.tolist()
        (follower,) = followers.values()
        rows.add(len(follower.lists.image))
    assert len(rows) > 5 and max(rows) == 600


def test_competence_is_logistic_in_coverage() -> None:
    assert competence(1.0, 30.0, 0.9) == pytest.approx(1)
    assert competence(0.9, 30.0, 0.9) == pytest.approx((1 + np.exp(-3)) / 2)
    assert competence(0.0, 30.0, 0.9) < 1e-10


def test_the_purest_radius_by_hand() -> None:
    rings, same = np.array([0, 1, 1, 2, 3, 4, 9]), np.array([True, True, False, True, False, False, True])
    assert [purest_radius(rings, same, 5, share) for share in (0.5, 0.6, 0.7, 0.8, 1.0)] == [4, 3, 2, 0, 0]
    assert purest_radius(rings, ~same, 5, 0.9) == 0


@pytest.mark.parametrize("batch_size", [1, 6])
def test_dcom_by_its_formula(batch_size: int, tiny_pool: Pool) -> None:
    """Two rounds in plain loops: the labels of the second get their radii by the second's head."""
    followers: dict = {}
    distances, covered, radii = unit_distances(tiny_pool.features), np.zeros(120, dtype=bool), []
    labeled = np.arange(5)
    for _ in range(2):
        view = make_view(tiny_pool, labeled, followers=followers)
        queried = STRATEGIES.build("dcom").query(view, batch_size, np.random.default_rng(0))
        same_class = view.fitted_head.predict(tiny_pool.features)
        purity = 0.4 + 0.2 * covered.mean()
        for index in labeled[len(radii) :]:
            pure = [0.05]
            for radius in 0.05 * np.arange(1, 23):
                ball = distances[index] < radius
                if (same_class[ball] == tiny_pool.labels[index]).mean() >= purity:
                    pure.append(radius)
            radii.append(max(pure))
            covered = covered | (distances[index] < radii[-1])
        mean = 0.05 * round(np.mean(radii) / 0.05)
        s = competence(covered.mean(), 30.0, 0.9)
        certain, reached = margins(view)[view.candidates], covered.copy()
        waiting = view.candidates.tolist()
        unsure = dict(zip(waiting, (certain.max() - certain) / np.ptp(certain), strict=True))
        for index in queried:
            degree = np.array([(~reached & (distances[x] < mean)).sum() for x in waiting], dtype=float)
            degree = (degree - degree.min()) / max(np.ptp(degree), 1e-9)
            scores = s * np.array([unsure[x] for x in waiting]) + (1 - s) * degree
            assert scores[waiting.index(index)] == pytest.approx(scores.max(), abs=1e-5)
            reached |= distances[index] < mean
            waiting.remove(index)
        labeled = np.concatenate([labeled, queried])


def test_dcom_estimates_degrees_from_a_sample(make_pool: Callable[..., Pool], rng: np.random.Generator) -> None:
    pool = make_pool(*blobs(rng, n=600), 4)
    balls = [Balls(pool, 0.05, 22, images) for images in (600, 300)]
    for each in balls:
        each.cover(each.rings_around(0), 3)
    exact, estimated = (each.uncovered_within(15, np.arange(600)) for each in balls)
    assert 0 < balls[0].covered.sum() < 300
    assert np.array_equal(balls[0].covered, balls[1].covered)
    assert np.corrcoef(exact, estimated)[0, 1] > 0.98


def test_dcom_with_nothing_labeled_is_probcover(tiny_pool: Pool) -> None:
    view = make_view(tiny_pool, NOTHING)
    queries = [STRATEGIES.build(name).query(view, 9, np.random.default_rng(0)) for name in ("dcom", "probcover")]
    assert queries[0].tolist() == queries[1].tolist()


def test_dcom_is_margin_once_all_is_covered(tiny_pool: Pool) -> None:
    view = make_view(tiny_pool, np.arange(10))
    queries = [
        STRATEGIES.build(name).query(view, 1, np.random.default_rng(0))
        for name in ("dcom:centre=0:steepness=1000", "margin")
    ]
    assert queries[0].tolist() == queries[1].tolist()


def test_uherding_weighs_tiny_uncertainties_too(make_pool: Callable[..., Pool]) -> None:
    features, labels = blobs(np.random.default_rng(5), n=150, dim=5, n_classes=2)
    pool, labeled = make_pool(3 * features, labels, 2), np.arange(20)
    head = HEADS.build("ridge:temperature=0.1", n_classes=2).fit(pool.features[:20], labels[:20])
    view = make_view(pool, labeled, fitted_head=head)
    reading = read(head.logits(pool.features.astype(np.float64)))
    similarity = np.exp(-(cdist(pool.unit, pool.unit) ** 2).astype(np.float64))
    added = np.maximum(similarity - similarity[:, labeled].max(axis=1)[:, None], 0)
    gains = closeness(reading) @ added[:, view.candidates]
    (queried,) = STRATEGIES.build("uherding:sigma=1").query(view, 1, np.random.default_rng(0))
    assert closeness(reading).max() < 1e-4
    assert gains[view.candidates == queried] >= 0.999 * gains.max()
