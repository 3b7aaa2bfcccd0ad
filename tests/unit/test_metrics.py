import numpy as np
import pytest
from sklearn import metrics as sk

from stages.al.metrics import aubc, classification_metrics
from stages.al.readings import read


def test_aubc_is_the_mean_accuracy() -> None:
    assert aubc(np.array([0.2, 0.4, 0.9])) == pytest.approx(0.5)


@pytest.mark.parametrize("bad", [[], [0.5, 1.2], [-0.1], [np.nan]])
def test_aubc_refuses_what_is_no_accuracy(bad: list[float]) -> None:
    with pytest.raises(ValueError, match="fraction"):
        aubc(np.array(bad))


@pytest.mark.parametrize("n_present", [5, 3])
def test_metrics_are_scikit_learns(n_present: int, rng: np.random.Generator) -> None:
    proba, y = rng.dirichlet(np.ones(5), size=200), rng.integers(0, n_present, 200)
    logits = np.log(proba) + 3
    found, predicted = classification_metrics(read(logits), logits.T, y), proba.argmax(axis=1)
    present = np.unique(y)
    assert found["accuracy"] == pytest.approx(sk.accuracy_score(y, predicted))
    assert found["cross_entropy"] == pytest.approx(sk.log_loss(y, proba, labels=range(5)))
    assert found["balanced_accuracy"] == pytest.approx(sk.recall_score(y, predicted, labels=present, average="macro"))
    assert found["macro_f1"] == pytest.approx(sk.f1_score(y, predicted, labels=present, average="macro"))


def test_a_probability_that_underflows_has_its_cross_entropy() -> None:
    logits = np.array([[2000.0, 0.0]])
    assert classification_metrics(read(logits), logits.T, np.array([1]))["cross_entropy"] == 2000
