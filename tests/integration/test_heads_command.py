"""`alcove heads` on small images made here: its numbers against plain formulas, its files, and bad input."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from sklearn.decomposition import PCA

from pipeline.cli import main
from pipeline.heads import automatic_sizes
from pipeline.task import find_features, load_data, prepare_task
from tests.files import photos, tree

BACKBONE = "simclr:width=4"
HEADS = "listing,solve,pinv,truncated_pinv,ridge:penalty=gcv,solve:dims_per_label=0.5"
DIM, SIZES, SEEDS = 16, (6, 14, 40), (2, 3)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return photos(tmp_path_factory.mktemp("photos"))


@pytest.fixture(scope="module")
def root(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data root after `embed` and `heads`."""
    root = tmp_path_factory.mktemp("data")
    where = ["--dataset", f"folder:{folder}", "--backbone", BACKBONE, "--data-root", str(root)]
    assert main(["embed", *where, "--weights", "random"]) == 0
    assert heads(folder, root) == 0
    return root


def heads(folder: Path, root: Path, *more: str) -> int:
    where = ["--dataset", f"folder:{folder}", "--data-root", str(root), "--workers", "1"]
    return main(["heads", *where, "--head", HEADS, "--seeds", "2-3", "--sizes", ",".join(map(str, SIZES)), *more])


def table(root: Path) -> pd.DataFrame:
    return pd.read_csv(next(root.glob("reports/heads-*.csv")))


def split(folder: Path, root: Path) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Features without PCA, and labels, of pool and test; in the axes of the cache, which `heads` rotates."""
    task = prepare_task(find_features(f"folder:{folder}", BACKBONE, "", root), 0, None, root)
    pool, _, test = load_data(task.derived, task.n_classes, task.sizes)
    return np.float64(pool.features), pool.labels, np.float64(test.features), test.labels


def accuracy(X: np.ndarray, y: np.ndarray, test: np.ndarray, test_labels: np.ndarray) -> float:
    """Of the weights that the Penrose inverse gives."""
    weights = np.linalg.pinv(X) @ np.log(np.eye(3)[y] + 1e-32)
    return ((test @ weights).argmax(axis=1) == test_labels).mean()


def test_the_penrose_inverse_agrees_with_its_formula(folder: Path, root: Path) -> None:
    pool, labels, test, test_labels = split(folder, root)
    assert pool.shape[1] == DIM
    found = table(root).query("head == 'pinv'").set_index(["labeled", "seed"])["test_accuracy"]
    assert len(found) == len(SIZES) * len(SEEDS)
    for (size, seed), value in found.items():
        drawn = np.random.default_rng(int(seed)).permutation(len(pool))[:size]
        assert value == accuracy(pool[drawn], labels[drawn], test, test_labels), (size, seed)


def test_growing_dimensions_are_those_of_a_pca(folder: Path, root: Path) -> None:
    pool, labels, test, test_labels = split(folder, root)
    pca = PCA(3).fit(pool)
    X, T = pca.transform(pool), pca.transform(test)
    drawn = np.random.default_rng(2).permutation(len(pool))[:6]
    found = table(root).query("head == 'solve:dims_per_label=0.5' and labeled == 6 and seed == 2")["test_accuracy"]
    assert found.tolist() == [accuracy(X[drawn], labels[drawn], T, test_labels)]


def test_the_whole_pool_agrees_with_a_pca_of_its_own(folder: Path, root: Path) -> None:
    pool, labels, test, test_labels = split(folder, root)
    found = table(root).query("seed.isna()").set_index("dims")
    assert found.index.tolist() == [1, 2, 3, 5, 7, 10, 15, DIM]
    assert set(found["head"]) == {"solve"}
    assert set(found["labeled"]) == {len(pool)}
    for dims in (2, 7, 15):
        pca = PCA(dims).fit(pool)
        value = accuracy(pca.transform(pool), labels, pca.transform(test), test_labels)
        assert found["test_accuracy"][dims] == value, dims


def test_files_are_printed_and_every_time_the_same(
    folder: Path, root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = tree(root / "reports")
    assert sorted(Path(name).suffix for name in before) == [".csv", *3 * [".pdf"], *3 * [".png"]]
    assert heads(folder, root, "--workers", "2") == 0
    said = capsys.readouterr().out.splitlines()
    assert sorted(line for line in said if line.startswith(str(root))) == [
        str(root / "reports" / name) for name in before
    ]
    assert tree(root / "reports") == before
    shown = next(line for line in said if line.startswith("pinv ")).split()[1:]
    means = table(root).query("head == 'pinv'").groupby("labeled")["test_accuracy"].mean()
    assert shown == [f"{means[size]:.3f}" for size in SIZES]


def test_another_pool_has_files_of_its_own(folder: Path, root: Path) -> None:
    before = tree(root / "reports")
    assert heads(folder, root, "--seeds", "1", "--sizes", "", "--head", "ridge", "--pool", "subset:50%") == 0
    after = tree(root / "reports")
    (made,) = (name for name in after.keys() - before.keys() if name.endswith(".csv"))
    drawn = pd.read_csv(root / "reports" / made).query("seed == 0")
    assert set(drawn["head"]) == {"ridge", "solve", "solve:dims_per_label=0.5"}
    assert before.items() <= after.items()
    for name in after.keys() - before.keys():
        (root / "reports" / name).unlink()


def test_automatic_sizes_lie_close_about_every_number_of_dimensions() -> None:
    sizes = automatic_sizes(512, 49_000)
    assert sizes == sorted(set(sizes))
    assert (sizes[0], sizes[-1]) == (10, 4096)
    assert {20, 50, 150, 256, 512, 1024} <= set(sizes)
    assert len([size for size in sizes if 0.9 * 512 <= size <= 1.1 * 512]) >= 5
    assert automatic_sizes(16, 7) == [7]
    assert automatic_sizes(64, 300)[-1] == 300


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (["--head", ""], "HEAD="),
        (["--head", "rigde"], "did you mean 'ridge'"),
        (["--head", "solve:dims_per_label=-1"], "must be positive"),
        (["--seeds", "x"], "seeds='x'"),
        (["--workers", "-1"], "workers=-1"),
        (["--sizes", "few"], "SIZES='few'"),
        (["--sizes", "0"], "SIZES=0 of the pool's"),
        (["--sizes", "5,9999"], "SIZES=9999 of the pool's"),
        (["--backbone", "dinov2"], "make embed"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_bad_input_is_one_sentence_and_exit_code_2(
    options: list[str], expected: str, folder: Path, root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert heads(folder, root, *options) == 2
    said = capsys.readouterr().err
    assert said.startswith("alcove: ")
    assert said.count("\n") == 1
    assert expected in said
