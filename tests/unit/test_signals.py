"""The surrogate's signals beside plain computations: loops, explicit inverses, heads fitted again."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
from scipy.optimize import minimize_scalar
from scipy.special import log_softmax, softmax

from cache.errors import InputError
from stages.al import signals
from stages.al.heads import HEADS
from stages.al.pool import Pool
from stages.al.signals import RANKS, ROUND, SIGNALS, Signals, compared, ranks, signal_table, signals_of
from stages.al.strategies import STRATEGIES
from stages.al.view import PoolView
from tests.conftest import blobs, make_view

CASES = (*("n>d", "n<d", "unseen_class", "one_class_labeled", "one_class", "duplicates", "one_candidate"), "float64")


class Plain:
    """The head and the signals by their definitions, in double precision."""

    def __init__(self, view: PoolView, spec: str) -> None:
        self.view, self.classes = view, view.n_classes
        self.penalty, self.temperature = (10.0, 10.0) if spec == "ridge" else (0.0, 1.0)
        self.pool = view.pool.features.astype(np.float64)
        self.X, self.y = self.pool[view.labeled], view.labels
        self.candidates = self.pool[view.candidates]
        self.weights = self.fit(self.X, self.targets(self.y))
        self.logits = self.candidates @ self.weights
        self.proba = softmax(self.logits / self.temperature, axis=1)
        self.unit = self.pool / np.maximum(np.linalg.norm(self.pool, axis=1), 1e-300)[:, None]
        self.of_labeled = ((self.unit[:, None] - self.unit[view.labeled]) ** 2).sum(axis=2)
        self.sample = np.sort(np.random.default_rng(0).permutation(len(self.pool))[: signals.REFERENCES])
        step = max(len(self.sample) // signals.AHEAD, 1)
        self.ahead = self.sample[::step][: signals.AHEAD]

    def fit(self, X: np.ndarray, T: np.ndarray) -> np.ndarray:
        if self.penalty:
            return np.linalg.inv(X.T @ X + self.penalty * np.eye(X.shape[1])) @ X.T @ T
        return np.linalg.pinv(X, rcond=1e-6) @ T

    def targets(self, y: np.ndarray) -> np.ndarray:
        return np.log(np.eye(self.classes)[y] + 1e-32)

    def closeness_of(self, proba: np.ndarray) -> np.ndarray:
        return np.array([1 - sorted(p)[-1] + (sorted(p)[-2] if len(p) > 1 else 0) for p in proba])

    def closeness(self) -> np.ndarray:
        return self.closeness_of(self.proba)

    def least_confidence(self) -> np.ndarray:
        return np.array([1 - max(p) for p in self.proba])

    def boundary(self) -> np.ndarray:
        """By the part of the image that is across the hyperplane."""
        found = np.zeros(len(self.candidates))
        for i, x in enumerate(self.candidates):
            if self.classes > 1:
                second, first = np.argsort(self.logits[i], kind="stable")[-2:]
                normal = self.weights[:, first] - self.weights[:, second]
                if (length := np.linalg.norm(normal)) > 1e-9:
                    across = normal * (normal @ x) / length**2
                    found[i] = -np.linalg.norm(across) / np.linalg.norm(x)
        return found

    def rarity(self) -> np.ndarray:
        counts = np.array([(self.y == c).sum() + 1 for c in range(self.classes)])
        return np.array([-sum(p * np.log(counts / counts.sum())) for p in self.proba])

    def leverage(self) -> np.ndarray:
        gram = self.X.T @ self.X
        inverse = np.linalg.inv(gram + 10 * np.eye(len(gram))) if self.penalty else np.linalg.pinv(gram, rcond=1e-10)
        return np.array([x @ inverse @ x for x in self.candidates])

    def influence(self) -> np.ndarray:
        """By fits of a surprise of 1."""
        T = np.zeros((len(self.X) + 1, 1))
        T[-1] = 1
        return np.array([((self.pool @ self.fit(np.vstack([self.X, x]), T)) ** 2).mean() for x in self.candidates])

    def expected_influence(self) -> np.ndarray:
        expected = np.zeros(len(self.candidates))
        for i, z in enumerate(self.logits):
            for c in range(self.classes):
                expected[i] += self.proba[i, c] * ((self.targets(np.array([c]))[0] - z) ** 2).sum()
        return self.influence() * expected

    def norm(self) -> np.ndarray:
        return np.array([np.sqrt((x**2).sum()) for x in self.candidates])

    def cover(self, sigma: float, weight: np.ndarray) -> np.ndarray:
        found = np.zeros(len(self.candidates))
        for i, candidate in enumerate(self.view.candidates):
            for e, image in enumerate(self.sample):
                now = np.exp(-min(self.of_labeled[image]) / sigma**2)
                alike = np.exp(-((self.unit[candidate] - self.unit[image]) ** 2).sum() / sigma**2)
                found[i] += weight[e] * max(alike - now, 0)
        return found

    def doubt(self) -> np.ndarray:
        doubt = self.closeness_of(softmax(self.pool[self.sample] @ self.weights / self.temperature, axis=1))
        return doubt / max(doubt.max(), 1e-30)

    def coverage(self) -> np.ndarray:
        return self.cover(1, np.ones(len(self.sample)))

    def doubtful_coverage(self) -> np.ndarray:
        return self.cover(1, self.doubt())

    def adaptive_coverage(self) -> np.ndarray:
        pairs = self.of_labeled[self.view.labeled]
        return self.cover(max(np.sqrt(min(pairs[pairs > 1e-5], default=4.0)), 0.03), self.doubt())

    def narrow_coverage(self) -> np.ndarray:
        return self.cover(0.5, np.ones(len(self.sample)))

    def density(self) -> np.ndarray:
        unit = self.unit[self.sample]
        return np.array([np.exp(-5 * ((unit - x) ** 2).sum(axis=1)).sum() for x in self.unit[self.view.candidates]])

    def cluster_need(self) -> np.ndarray:
        clusters = self.view.pool.clusters(len(self.pool) // 20)
        inside = [clusters == clusters[candidate] for candidate in self.view.candidates]
        return np.array([mine.sum() / (1 + mine[self.view.labeled].sum()) for mine in inside])

    def votes(self, images: np.ndarray) -> np.ndarray:
        votes = np.zeros((len(images), self.classes))
        for i, image in enumerate(images):
            for squared, c in zip(self.of_labeled[image], self.y, strict=True):
                votes[i, c] += np.exp(-5 * squared)
        votes += 0.1 * votes.sum(axis=1).mean() / self.classes
        return votes / votes.sum(axis=1, keepdims=True)

    def distance(self) -> np.ndarray:
        return np.array([min(self.of_labeled[candidate]) for candidate in self.view.candidates])

    def disagreement(self) -> np.ndarray:
        return 0.5 * np.abs(self.votes(self.view.candidates) - self.proba).sum(axis=1)

    def neighbour_disagreement(self) -> np.ndarray:
        near = [self.y[np.argmin(self.of_labeled[candidate])] for candidate in self.view.candidates]
        return np.array([1 - p[c] for p, c in zip(self.proba, near, strict=True)])

    def look_ahead(self, of_candidates: np.ndarray, of_ahead: np.ndarray) -> np.ndarray:
        """By a fit for every candidate and label."""
        images = self.pool[self.ahead]

        def loss(weights: np.ndarray) -> float:
            return -(of_ahead * log_softmax(images @ weights / self.temperature, axis=1)).sum(axis=1).mean()

        before, found = loss(self.weights), np.zeros(len(self.candidates))
        for i, x in enumerate(self.candidates):
            for c in range(self.classes):
                after = self.fit(np.vstack([self.X, x]), self.targets(np.append(self.y, c)))
                found[i] += of_candidates[i, c] * (before - loss(after))
        return found

    def calibrated(self) -> float:
        """The temperature of least cross-entropy on labeled images, each predicted by a fit to the others."""
        rows = np.arange(len(self.y))
        known = [i for i in rows if (self.y == self.y[i]).sum() > 1]
        if not known:
            return self.temperature
        if len(set(self.y.tolist())) == 1:  # any low temperature does, and rounding says which is found
            return float(self.view.fitted_head.calibrated_temperature(self.X, self.y))
        logits = np.array(
            [self.X[i] @ self.fit(self.X[rows != i], self.targets(self.y[rows != i])) for i in known]
        ).reshape(len(known), self.classes)

        def loss(log_t: float) -> float:
            return -log_softmax(logits / np.exp(log_t), axis=1)[np.arange(len(known)), self.y[known]].mean()

        return float(np.exp(minimize_scalar(loss, bounds=np.log([1e-2, 1e4]), method="bounded").x))

    def head_look_ahead(self) -> np.ndarray:
        t = self.calibrated()
        ahead = self.pool[self.ahead] @ self.weights
        return self.look_ahead(softmax(self.logits / t, axis=1), softmax(ahead / t, axis=1))

    def neighbour_look_ahead(self) -> np.ndarray:
        return self.look_ahead(self.votes(self.view.candidates), self.votes(self.ahead))

    def above(self, right: float, usual: float) -> float:
        return (right - usual) / max(1 - usual, 1 / len(self.y))

    def head_left_out(self) -> float:
        """By a fit to the others for every labeled image; the usual is its commonest class."""
        rows = np.arange(len(self.y))
        right = 0
        for i in rows:
            if (self.y == self.y[i]).sum() > 1 and (
                self.penalty or np.linalg.matrix_rank(self.X[rows != i]) == np.linalg.matrix_rank(self.X)
            ):
                logits = self.X[i] @ self.fit(self.X[rows != i], self.targets(self.y[rows != i]))
                right += logits.argmax() == self.y[i]
        return self.above(right / len(rows), np.bincount(self.y).max() / len(rows))

    def neighbours_left_out(self) -> float:
        """The usual is how often two random ones are alike."""
        n, agree, alike = len(self.y), 0, 0
        for i in range(n):
            others = [j for j in range(n) if j != i]
            agree += self.y[min(others, key=lambda j: self.of_labeled[self.view.labeled[i], j])] == self.y[i]
            alike += sum(self.y[j] == self.y[i] for j in others)
        return self.above(agree / n, alike / (n * (n - 1)))


@pytest.fixture
def small_sample(monkeypatch: pytest.MonkeyPatch) -> None:
    """So that a small pool has more images than stand for it."""
    monkeypatch.setattr(signals, "REFERENCES", 50)
    monkeypatch.setattr(signals, "AHEAD", 16)


def view_of(case: str, spec: str, make_pool: Callable[..., Pool], rng: np.random.Generator) -> PoolView:
    features, labels = blobs(rng, n=80)
    features += 2 * rng.normal(size=features.shape).astype(np.float32)
    n_classes, labeled = 4, np.arange(17)
    match case:
        case "n<d":
            labeled = np.array([3, 4, 9, 30])
        case "unseen_class":
            labeled = np.flatnonzero(labels < 2)[:9]
        case "one_class_labeled":
            labeled = np.flatnonzero(labels == 2)[:8]
        case "one_class":
            labels, n_classes = np.zeros(80, dtype=labels.dtype), 1
        case "duplicates":
            features[17:30], labels[17:30] = features[:13], labels[:13]
            features[1], labels[1] = features[0], labels[0]
        case "float64":
            features = features.astype(np.float64)
    pool = make_pool(features, labels, n_classes, case)
    head = HEADS.build(spec, n_classes=n_classes).fit(features[labeled], labels[labeled])
    view = make_view(pool, labeled, fitted_head=head)
    return replace(view, candidates=view.candidates[:1] if case == "one_candidate" else view.candidates[:25])


@pytest.mark.parametrize("spec", ["ridge", "pinv"])
@pytest.mark.parametrize("case", CASES)
@pytest.mark.usefixtures("small_sample")
def test_every_signal_is_what_it_says(
    case: str, spec: str, make_pool: Callable[..., Pool], rng: np.random.Generator
) -> None:
    view = view_of(case, spec, make_pool, rng)
    found, plain = Signals(view), Plain(view, spec)
    for name in SIGNALS:
        expected = getattr(plain, name)()
        np.testing.assert_allclose(
            getattr(found, name), expected, rtol=2e-4, atol=2e-5 * max(1, np.abs(expected).max()), err_msg=name
        )
    assert found.round()["head_left_out"] == pytest.approx(plain.head_left_out(), abs=1e-9)
    assert found.round()["neighbours_left_out"] == pytest.approx(plain.neighbours_left_out(), abs=1e-9)
    counted = {
        "labels_per_dimension": len(view.labeled) / 6,
        "mean_closeness": plain.closeness().mean(),
        "mean_least_confidence": plain.least_confidence().mean(),
    }
    assert {name: found.round()[name] for name in counted} == pytest.approx(counted, abs=1e-9)
    columns = [getattr(found, name.removesuffix("_rank")) for name in RANKS]
    lower = [[(column < one).mean() + (column == one).mean() / 2 for one in column] for column in columns]
    table = signal_table(view)
    np.testing.assert_allclose(table[:, : len(RANKS)], np.transpose(lower), rtol=1e-6)
    np.testing.assert_allclose(table[:, len(RANKS) :], np.tile(list(found.round().values()), (len(table), 1)))
    assert tuple(found.round()) == ROUND


@pytest.mark.parametrize("spec", ["ridge:intercept=true", "truncated_pinv", "ridge:dims_per_label=0.2:intercept=true"])
def test_influence_of_heads_that_solve_in_another_space(spec: str, tiny_pool: Pool) -> None:
    head = HEADS.build(spec, n_classes=4).fit(tiny_pool.features[:11], tiny_pool.labels[:11])
    view = make_view(tiny_pool, np.arange(11), fitted_head=head)
    moves = head.influence(tiny_pool.features, view.features)
    np.testing.assert_allclose(Signals(view).influence, (moves**2).mean(axis=0), rtol=1e-9)


def test_ranks_by_hand() -> None:
    columns = np.array([[5.0, 1.0], [7.0, 1.0], [5.0, 1.0], [-2.0, 1.0]])
    assert ranks(columns).tolist() == [[0.5, 0.5], [0.875, 0.5], [0.5, 0.5], [0.125, 0.5]]
    assert ranks(columns[:1]).tolist() == [[0.5, 0.5]]


def test_the_numbers_of_a_round_by_hand(tiny_pool: Pool) -> None:
    """Labels 0 0 1 2: of the 12 ordered pairs 2 are of one class, of even classes 3 would be."""
    labeled = np.array([0, 4, 1, 2])
    assert tiny_pool.labels[labeled].tolist() == [0, 0, 1, 2]
    of_round = Signals(make_view(tiny_pool, labeled)).round()
    assert of_round["labels_per_dimension"] == pytest.approx(4 / 6)
    assert of_round["unevenness"] == pytest.approx(4 * 2 / 12)
    assert of_round["classes_seen"] == 0.75
    alone = Signals(make_view(tiny_pool, labeled[:1])).round()
    assert alone["unevenness"] == alone["neighbours_left_out"] == 0


@pytest.mark.parametrize("spec", ["ridge:class_weight=balanced", "ridge:intercept=true"])
def test_left_out_images_are_predicted_by_heads_fitted_to_the_others(spec: str, tiny_pool: Pool) -> None:
    """With the weights of classes and the constant as they were; balanced ones are those of all labels."""
    labeled = np.arange(40)
    X, y = tiny_pool.features[labeled].astype(np.float64), tiny_pool.labels[labeled].copy()
    y[::3] = (y[::3] + 1) % 4
    pool = replace(tiny_pool, labels=np.concatenate([y, tiny_pool.labels[40:]]))
    head = HEADS.build(spec, n_classes=4).fit(X, y)
    right = 0
    for i in labeled:
        rest = labeled != i
        other = HEADS.build(spec.replace(":class_weight=balanced", ""), n_classes=4)
        weight = head.class_weight_[y[rest]]
        right += other.fit(X[rest], y[rest], sample_weight=weight).predict(X[i : i + 1])[0] == y[i]
    found = Signals(make_view(pool, labeled, fitted_head=head)).round()["head_left_out"]
    commonest = np.bincount(y).max() / 40
    assert found == pytest.approx((right / 40 - commonest) / (1 - commonest))


def test_named_inputs_come_in_their_order(tiny_pool: Pool) -> None:
    view = make_view(tiny_pool, np.arange(9))
    names = ("classes_seen", "norm_rank", "mean_closeness", "closeness_rank")
    whole = signal_table(view)
    np.testing.assert_array_equal(signal_table(view, names), whole[:, [(RANKS + ROUND).index(name) for name in names]])


def test_a_run_followed_label_by_label_has_the_table_of_one_that_began_late(tiny_pool: Pool) -> None:
    """And after views of other candidates."""
    followers: dict = {}
    for n in range(1, 31):
        view = make_view(tiny_pool, np.arange(n), followers=followers)
        some = replace(view, candidates=np.random.default_rng(n).choice(view.candidates, 7, replace=False), memo={})
        signal_table(some, ("coverage_rank", "adaptive_coverage_rank", "distance_rank", "classes_seen"))
    np.testing.assert_array_equal(signal_table(view), signal_table(make_view(tiny_pool, np.arange(30))))


def test_a_head_without_a_closed_form_is_refused(tiny_pool: Pool) -> None:
    with pytest.raises(InputError, match="'linear' has no closed form"):
        signal_table(make_view(tiny_pool, np.arange(9), fitted_head=HEADS.build("linear", n_classes=4)))


@pytest.fixture
def large_pool(make_pool: Callable[..., Pool], rng: np.random.Generator) -> Pool:
    return make_pool(*blobs(rng, n=700), 4, "large")


def test_what_is_compared_is_500_candidates_or_the_batch(large_pool: Pool) -> None:
    view = make_view(large_pool, np.arange(12))
    for least, size in ((1, 500), (520, 520), (688, 688)):
        some = compared(view, np.random.default_rng(0), least)
        assert len(some.candidates) == size
        assert (np.diff(some.candidates) > 0).all()
        assert set(some.candidates) <= set(view.candidates)
        assert len(some.features) == size
    assert len(compared(view, np.random.default_rng(1)).candidates) == 500
    few = replace(view, candidates=view.candidates[:40], memo={})
    assert compared(few, np.random.default_rng(0)) is few


@pytest.mark.parametrize("batch_size", [1, 3, 520])
def test_the_log_has_the_rows_that_the_query_was_chosen_by(batch_size: int, large_pool: Pool) -> None:
    view = make_view(large_pool, np.arange(12))
    queried = STRATEGIES.build("explore:draw=3").query(view, batch_size, np.random.default_rng(5))
    assert len(set(queried)) == batch_size
    some = compared(make_view(large_pool, np.arange(12)), np.random.default_rng(5), batch_size)
    rows = signals_of(view, queried, np.random.default_rng(6))
    np.testing.assert_array_equal(rows, signal_table(some)[[some.candidates.tolist().index(i) for i in queried]])


@pytest.mark.parametrize("batch_size", [1, 4, 600])
def test_what_another_strategy_queried_is_compared_with_random_candidates(batch_size: int, large_pool: Pool) -> None:
    view = make_view(large_pool, np.arange(12))
    queried = np.random.default_rng(2).permutation(view.candidates)[:batch_size]
    rows = signals_of(view, queried, np.random.default_rng(6))
    others = compared(make_view(large_pool, np.arange(12)), np.random.default_rng(6))
    candidates = np.unique([*others.candidates, *queried])
    table = signal_table(make_view(large_pool, np.arange(12), candidates=candidates))
    np.testing.assert_array_equal(rows, table[[candidates.tolist().index(i) for i in queried]])
