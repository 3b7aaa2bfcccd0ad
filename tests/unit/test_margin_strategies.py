"""Strategies made of margins, losses and boundaries, each against an oracle."""

from collections import deque
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
from scipy.cluster.hierarchy import fcluster, linkage
from scipy.special import softmax
from sklearn.preprocessing import normalize
from sklearn.svm import SVC

from cache.errors import InputError
from stages.al.heads import HEADS
from stages.al.hinge import solve_hinge
from stages.al.pool import Pool
from stages.al.readings import read
from stages.al.strategies import STRATEGIES
from stages.al.strategies import cluster_margin as module
from stages.al.strategies.alfa_mix import changing_first, class_means, flipping_caps
from stages.al.strategies.cluster_margin import pool_clusters, round_robin
from stages.al.strategies.galaxy import bisection, confidence
from stages.al.strategies.true_loss import cross_entropy
from tests.conftest import blobs, make_view


def hinge(X: np.ndarray, signs: np.ndarray, cost: float, weights: np.ndarray) -> tuple[np.ndarray, float]:
    gram = X @ X.T
    constant = solve_hinge(gram, signs, cost, weights)
    return weights @ X, constant


@pytest.mark.parametrize("spread", [0.3, 3.0])
def test_the_svm_is_scikit_learns(rng: np.random.Generator, spread: float) -> None:
    signs = np.where(rng.random(80) < 0.4, 1.0, -1.0)
    X = rng.normal(size=(80, 5)) + signs[:, None] * spread
    fitted = SVC(kernel="linear", C=5, tol=1e-8).fit(X, signs)
    direction, constant = hinge(X, signs, 5.0, np.zeros(80))
    np.testing.assert_allclose(direction, fitted.coef_[0], atol=1e-5)
    np.testing.assert_allclose(constant, fitted.intercept_[0], atol=1e-5)


def test_where_the_svm_starts_does_not_matter(rng: np.random.Generator) -> None:
    signs, X = np.where(rng.random(60) < 0.5, 1.0, -1.0), rng.normal(size=(60, 4))
    cold = hinge(X, signs, 5.0, np.zeros(60))
    stood = np.zeros(40)
    hinge(X[:40], signs[:40], 5.0, stood)
    warm = hinge(X, signs, 5.0, np.pad(stood, (0, 20)))
    np.testing.assert_allclose(cold[0], warm[0], atol=1e-8)
    np.testing.assert_allclose(cold[1], warm[1], atol=1e-8)


def test_svm_min_margin_is_the_least_decision_value(tiny_pool: Pool) -> None:
    labeled = np.arange(14)
    view = make_view(tiny_pool, labeled)
    y = tiny_pool.labels[labeled]
    machines = [SVC(kernel="linear", C=5, tol=1e-8).fit(tiny_pool.features[labeled], y == c) for c in np.unique(y)]
    expected = [-min(abs(m.decision_function(x[None])[0]) for m in machines) for x in view.features]
    np.testing.assert_allclose(STRATEGIES.build("svm_min_margin").score(view), expected, atol=1e-5)


def test_svm_min_margin_leaves_out_classes_without_a_label(tiny_pool: Pool) -> None:
    labeled = np.flatnonzero(tiny_pool.labels < 2)[:8]
    strategy, view = STRATEGIES.build("svm_min_margin"), make_view(tiny_pool, labeled)
    assert strategy.score(view).min() < -1  # the constant -1 of a class without labels is no boundary
    one = np.flatnonzero(tiny_pool.labels == 2)[:4]
    assert (strategy.score(make_view(tiny_pool, one)) == 0).all()


def test_svm_min_margin_asks_an_svm_head_of_the_same_cost(tiny_pool: Pool) -> None:
    labeled = np.arange(14)
    view = make_view(tiny_pool, labeled)
    head = HEADS.build("svm", n_classes=4).fit(tiny_pool.features[labeled], tiny_pool.labels[labeled])
    head.weights_[-1] += 1
    asked = STRATEGIES.build("svm_min_margin").score(replace(view, fitted_head=head, followers={}))
    np.testing.assert_allclose(asked, -np.abs(head._decide(view.features)).min(axis=1), atol=1e-4)
    own = STRATEGIES.build("svm_min_margin:C=4").score(replace(view, fitted_head=head, followers={}))
    assert np.abs(own - asked).max() > 0.1


def test_true_loss_keeps_its_digits_where_probabilities_saturate() -> None:
    logits = np.array([[0.0, -50.0, -60.0], [0.0, -2000.0, -1000.0], [1.0, 1.0, 1.0]])
    np.testing.assert_allclose(cross_entropy(logits, np.array([0, 1, 2])), [1.9287e-22, 2000, np.log(3)], rtol=1e-4)


def test_true_loss_queries_the_highest_cross_entropy(make_pool: Callable, rng: np.random.Generator) -> None:
    features, labels = blobs(rng)
    view = make_view(make_pool(features, labels, 4), np.arange(10))
    losses = [-np.log(p[y]) for p, y in zip(view.proba, labels[view.candidates], strict=True)]
    queried = STRATEGIES.build("true_loss").query(view, 6, np.random.default_rng(0))
    assert queried.tolist() == view.candidates[np.argsort(losses)[::-1][:6]].tolist()


@pytest.mark.parametrize("temperature", [1.0, 0.1])
def test_clue_weighs_by_the_entropy_at_a_temperature(tiny_pool: Pool, temperature: float) -> None:
    view = make_view(tiny_pool, np.arange(10))
    proba = softmax(view.head.logits(view.features.astype(np.float64)) / temperature, axis=1)
    strategy = STRATEGIES.build(f"clue:temperature={temperature}")
    np.testing.assert_allclose(strategy.weights(view), -(proba * np.log(proba)).sum(axis=1), rtol=1e-3, atol=1e-6)


def test_clue_of_one_label_is_nearest_to_the_weighted_mean(tiny_pool: Pool) -> None:
    strategy, view = STRATEGIES.build("clue"), make_view(tiny_pool, np.arange(10))
    mean = np.average(view.features, axis=0, weights=strategy.weights(view))
    nearest = view.candidates[((view.features - mean) ** 2).sum(axis=1).argmin()]
    assert strategy.query(view, 1, np.random.default_rng(0)).tolist() == [nearest]


def weighted_inertia(features: np.ndarray, weights: np.ndarray, queried: np.ndarray) -> float:
    squared = ((features[:, None] - features[queried][None]) ** 2).sum(axis=2)
    return float(weights @ squared.min(axis=1))


def test_clue_represents_the_uncertain_better_than_chance(tiny_pool: Pool) -> None:
    strategy, view = STRATEGIES.build("clue"), make_view(tiny_pool, np.arange(10))
    weights = strategy.weights(view)
    inertia = [
        weighted_inertia(view.features, weights, strategy.query(view, 8, np.random.default_rng(seed)) - 10)
        for seed in range(5)
    ]
    rng = np.random.default_rng(0)
    random = [weighted_inertia(view.features, weights, rng.choice(110, 8, replace=False)) for _ in range(200)]
    assert max(inertia) < min(random)


def authors_changing(z: np.ndarray, W: np.ndarray, b: np.ndarray, anchors: np.ndarray, cap: float) -> np.ndarray:
    """Whether mixing at a cap changes an image's prediction: alpha_mix_sampling.py, from its description."""
    predicted = (z @ W + b).argmax(axis=1)
    gradient = (softmax(z @ W + b, axis=1) - np.eye(W.shape[1])[predicted]) @ W.T
    changed = np.zeros(len(z), dtype=bool)
    for anchor in anchors:
        way = anchor - z
        length = cap / np.sqrt(z.shape[1]) * np.linalg.norm(way, axis=1) / np.linalg.norm(gradient, axis=1)
        alpha = length[:, None] * gradient / way
        changed |= (((1 - alpha) * z + alpha * anchor) @ W + b).argmax(axis=1) != predicted
    return changed


@pytest.mark.parametrize("n_labeled", [3, 12])
def test_alfa_mix_finds_what_the_authors_loop_finds(tiny_pool: Pool, n_labeled: int) -> None:
    view = make_view(tiny_pool, np.arange(n_labeled))
    weights, constants = view.head.affine()
    z, labeled = view.features.astype(np.float64), tiny_pool.features[:n_labeled].astype(np.float64)
    of_class = [labeled[view.labels == c] for c in range(4)]
    anchors = np.stack([(group if len(group) else labeled).mean(axis=0) for group in of_class])
    caps = STRATEGIES.build("alfa_mix").caps(view)
    for batch_size in (1, 10, 40):
        changed, cap = np.zeros(len(z), dtype=bool), 0.0
        while cap < 1 and changed.sum() <= batch_size:
            cap += 0.03125
            changed |= authors_changing(z, weights, constants, anchors, cap)
        assert changing_first(caps, 0.03125, batch_size).tolist() == np.flatnonzero(changed).tolist()


def test_alfa_mix_has_a_direction_where_probabilities_are_exactly_1() -> None:
    weights, anchors = np.array([[2000.0, -2000.0]]), np.array([[-1.0]])
    caps = flipping_caps(np.array([[1.0], [0.5]]), weights, np.zeros(2), anchors)
    np.testing.assert_allclose(caps, [1 / 2, 0.5 / 1.5])  # how far 0 is, in units of the way to the anchor


def test_alfa_mix_mixes_with_the_mean_of_all_for_classes_without_labels() -> None:
    features, labels = np.array([[0.0], [2.0], [7.0]]), np.array([0, 0, 2])
    assert class_means(features, labels, 3).tolist() == [[1.0], [7.0], [3.0]]
    assert class_means(features[:2], labels[:2], 1).tolist() == [[1.0]]


def test_alfa_mix_queries_only_what_changes_then_at_random(tiny_pool: Pool) -> None:
    view = make_view(tiny_pool, np.arange(12))
    strategy = STRATEGIES.build("alfa_mix")
    caps = strategy.caps(view)
    changing = view.candidates[changing_first(caps, strategy.step, 5)]
    assert len(changing) > 5
    assert np.isin(strategy.query(view, 5, np.random.default_rng(0)), changing).all()
    changing = view.candidates[caps < 1]
    assert len(changing) < 100
    queried = strategy.query(view, 100, np.random.default_rng(0))
    assert sorted(queried[: len(changing)]) == changing.tolist()


def test_alfa_mix_of_one_is_nearest_to_the_mean_direction(tiny_pool: Pool) -> None:
    strategy, view = STRATEGIES.build("alfa_mix"), make_view(tiny_pool, np.arange(12))
    changing = changing_first(strategy.caps(view), strategy.step, 1)
    unit = normalize(view.features[changing])
    nearest = ((unit - unit.mean(axis=0)) ** 2).sum(axis=1).argmin()
    assert strategy.query(view, 1, np.random.default_rng(0)).tolist() == [view.candidates[changing[nearest]]]


def test_alfa_mix_needs_linear_logits(tiny_pool: Pool) -> None:
    view = make_view(tiny_pool, np.arange(12), fitted_head=HEADS.build("mlp", n_classes=4))
    with pytest.raises(InputError, match="'mlp' is not linear in the features, as this strategy needs it"):
        STRATEGIES.build("alfa_mix").query(view, 1, np.random.default_rng(0))


def same_clusters(one: np.ndarray, two: np.ndarray) -> bool:
    return np.array_equal(one[:, None] == one[None], two[:, None] == two[None])


def test_where_no_image_is_between_its_bounds_the_plane_is_in_the_middle(rng: np.random.Generator) -> None:
    X, y = blobs(rng, n=30, dim=6, n_classes=3)
    X, signs = 0.01 * X.astype(np.float64), np.where(y == 0, 1.0, -1.0)
    weights = np.zeros(0)
    for n in range(6, 31):
        weights = np.pad(weights, (0, n - len(weights)))
        _, warm = hinge(X[:n], signs[:n], 5.0, weights)
        _, cold = hinge(X[:n], signs[:n], 5.0, np.zeros(n))
        assert warm == pytest.approx(cold, abs=1e-5)


def test_a_tree_of_equal_distances_is_cut_all_the_same(make_pool: Callable[..., Pool]) -> None:
    features = np.concatenate([np.eye(30, dtype=np.float32)] * 2)
    view = make_view(make_pool(features, np.arange(60) % 3, 3), np.arange(6))
    assert len(set(pool_clusters(view, 20).tolist())) == 20


@pytest.mark.parametrize("k", [1, 7, 60])
def test_the_pools_clusters_are_average_linkage(tiny_pool: Pool, k: int) -> None:
    expected = fcluster(linkage(normalize(tiny_pool.features), "average"), k, criterion="maxclust")
    assert same_clusters(pool_clusters(make_view(tiny_pool, np.arange(10)), k), expected)


def test_round_robin_takes_turns_from_the_smallest_cluster() -> None:
    clusters = np.array([5, 3, 3, 5, 5, 9])
    for seed in range(20):
        turns = clusters[round_robin(clusters, 6, np.random.default_rng(seed))]
        assert turns.tolist() == [9, 3, 5, 3, 5, 5]
    first = {int(round_robin(clusters, 3, np.random.default_rng(seed))[2]) for seed in range(50)}
    assert first == {0, 3, 4}


def test_cluster_margin_queries_small_margins_of_different_clusters(tiny_pool: Pool) -> None:
    view = make_view(tiny_pool, np.arange(10))
    strategy = STRATEGIES.build("cluster_margin:pool_factor=4:clusters=12")
    unsure = STRATEGIES.build("margin").query(view, 20, np.random.default_rng(0))
    clusters = pool_clusters(view, 12)
    sizes = {c: (clusters[unsure] == c).sum() for c in clusters[unsure]}
    queried = strategy.query(view, 5, np.random.default_rng(0))
    assert np.isin(queried, unsure).all()
    assert sorted(sizes[clusters[q]] for q in queried) == sorted(sizes.values())[:5]
    assert len(set(clusters[queried].tolist())) == 5


def test_a_large_pools_clusters_are_made_of_k_means_clusters(tiny_pool: Pool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MOST_LINKED", 100)
    monkeypatch.setattr(module, "MICRO_CLUSTERS", 15)
    clusters, leaves = pool_clusters(make_view(tiny_pool, np.arange(10)), 4), tiny_pool.clusters(15)
    assert len(np.unique(clusters)) == 4
    assert all(len(np.unique(clusters[leaves == leaf])) == 1 for leaf in range(15))


def middles(is_labeled: np.ndarray, inside: np.ndarray) -> set[int]:
    """Middle nodes of the shortest paths between opposite labels, in the graph of the lowest order that has one."""
    n = len(inside)
    for order in range(1, n):
        found: dict[int, set[int]] = {}
        for start in np.flatnonzero(is_labeled & inside):
            paths = deque([[int(start)]])
            while paths:
                path = paths.popleft()
                if found and len(path) > min(found):
                    break
                if is_labeled[path[-1]] and not inside[path[-1]]:
                    middle = len(path) // 2
                    found.setdefault(len(path), set()).update({path[middle], path[-1 - middle]})
                    continue
                for step in range(max(0, path[-1] - order), min(n, path[-1] + order + 1)):
                    cut = is_labeled[step] and is_labeled[path[-1]] and inside[step] != inside[path[-1]]
                    if step not in path and not cut:
                        paths.append([*path, step])
        if found:
            return found[min(found)]
    return set(np.flatnonzero(~is_labeled).tolist())


def test_galaxy_bisects_the_shortest_shortest_path(rng: np.random.Generator) -> None:
    for _ in range(60):
        n = int(rng.integers(3, 9))
        is_labeled, inside = rng.random(n) < 0.5, rng.random(n) < 0.5
        is_labeled[rng.integers(n)] = False
        places = {bisection(is_labeled, inside, np.random.default_rng(seed)) for seed in range(40)}
        assert places == middles(is_labeled, inside)


def test_galaxy_finds_a_threshold_in_the_logarithm_of_the_images() -> None:
    inside, is_labeled = np.arange(1000) < 317, np.zeros(1000, dtype=bool)
    is_labeled[[0, 999]] = True
    for _ in range(10):
        is_labeled[bisection(is_labeled, inside, np.random.default_rng(0))] = True
    assert is_labeled[316]
    assert is_labeled[317]


def test_galaxy_orders_by_the_confidence_gap(rng: np.random.Generator) -> None:
    logits = rng.normal(size=(50, 4)) * 3
    proba = softmax(logits, axis=1)
    gap = proba[:, 2] - proba.max(axis=1) + 1e-8 * proba.max(axis=1) * (proba.argmax(axis=1) == 2)
    assert np.argsort(confidence(read(logits), logits[:, 2], 2)).tolist() == np.argsort(gap).tolist()
    sure = np.array([[900.0, 0, 0], [80.0, 0, 0], [60.0, 0, 0], [0, 60.0, 0], [0, 80.0, 0]])
    assert np.argsort(-confidence(read(sure), sure[:, 0], 0)).tolist() == [0, 1, 2, 3, 4]


def test_galaxy_queries_between_labels_of_different_classes(make_pool: Callable) -> None:
    features = np.linspace(-1, 1, 41, dtype=np.float32)[:, None]
    labels = (features[:, 0] > 0.3).astype(np.int64)
    view = make_view(make_pool(features, labels, 2), np.array([0, 30, 40]))
    logits = view.head.logits(features.astype(np.float64))
    order = np.argsort(confidence(read(logits), logits[:, 0], 0))
    assert abs(np.diff([order.tolist().index(0), order.tolist().index(30)])[0]) == 30
    assert STRATEGIES.build("galaxy").query(view, 1, np.random.default_rng(0)).tolist() == [15]


def test_galaxy_without_a_change_is_random(tiny_pool: Pool) -> None:
    view = make_view(tiny_pool, np.flatnonzero(tiny_pool.labels == 2)[:4])
    queried = {int(STRATEGIES.build("galaxy").query(view, 1, np.random.default_rng(seed))[0]) for seed in range(30)}
    assert len(queried) > 20
