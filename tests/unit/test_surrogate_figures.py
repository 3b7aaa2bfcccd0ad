"""The numbers behind the surrogate's pictures: against loops and by hand, and that they are drawn whatever there is."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from cache.runs import RunStore
from pipeline.reading import read_runs
from pipeline.results import Group, group_runs
from pipeline.surrogate_figures import (
    comparable,
    draw_gains,
    draw_importance,
    lines_of,
    lowest,
    mean_and_error,
    over_random,
    running_mean,
    styles_of,
    window_of,
    write_figures,
)

INITIAL, BUDGET = 10, 60
RANDOM = {"name": "random"}
SURROGATE = {"name": "surrogate", "model_digest": "5a3c" * 16, "train_seeds": [1000]}
CEILINGS = [{"name": "true_gain", "candidates": 500, "posterior": p, "target": "accuracy"} for p in ("known", "head")]
LEVELS = {"random": 0.7, "surrogate": 0.8, "true_gain": 0.9, "margin": 0.78, "coreset": 0.76, "bald": 0.74, "clue": 0.6}
MANIFEST = {
    "rows": 1234,
    "importance": {"norm_rank": 0.1, "coverage_rank": 0.6, "unevenness": 0.3},
    "shap": {"norm_rank": 0.3, "coverage_rank": 0.3, "unevenness": 0.4},
    "about": {"pools": [{"dataset": "digits"}, {"dataset": "photos", "pool": "subset:50"}]},
}


def put_run(store: RunStore, strategy: dict, seed: int, budget: int = BUDGET) -> None:
    """A finished run whose accuracy rises to its strategy's level, with noise of its own."""
    rounds = budget - INITIAL + 1
    rng = np.random.default_rng([seed, len(str(strategy)), sum(map(ord, str(strategy)))])
    level = LEVELS.get(strategy["name"], 0.7) - 0.8 * (strategy.get("posterior") == "head")
    accuracy = 0.5 + (level - 0.5) * np.linspace(0, 1, rounds) ** 0.4 + rng.normal(0, 0.01, rounds)
    table = pa.table(
        {"round": range(rounds), "budget_spent": INITIAL + np.arange(rounds), "test_accuracy": np.clip(accuracy, 0, 1)}
    )
    protocol = {"initial_size": INITIAL, "batch_size": 1, "budget": budget, "candidates": 10_000}
    about = {"dataset": "digits", "backbone": "simclr", "full_name": "simclr-net.w1", "features": "0123456789abcdef"}
    run = about | {"head": {"name": "ridge"}, "strategy": strategy, "protocol": protocol, "seed": seed}
    record = {"run": run, "summary": {"seconds": 1.0}, "n_pool": 100, "n_validation": 20, "n_test": 40}
    variant = strategy.get("posterior", "")
    store.put(f"digits/simclr-net.w1/ridge-{strategy['name']}{variant}-s{seed}-{budget}", record, table)


def group_of(root: Path, strategies: list[dict], seeds: range = range(4), budget: int = BUDGET) -> Group:
    store = RunStore(root)
    for strategy in strategies:
        for seed in seeds:
            put_run(store, strategy, seed, budget)
    (group,) = group_runs(read_runs(store)[0])
    return group


def everything(root: Path, budget: int = BUDGET) -> Group:
    others = [{"name": name} for name in LEVELS if name not in ("surrogate", "true_gain")]
    return group_of(root, [*others, SURROGATE, *CEILINGS], budget=budget)


def result(group: Group, label: str):
    return next(result for result in group.results if result.label == label)


def test_a_difference_is_between_runs_of_the_same_seed(tmp_path: Path) -> None:
    """Against a loop, where a strategy has other seeds than random: no two are shared by all."""
    store = RunStore(tmp_path)
    put_run(store, {"name": "margin"}, 9)
    put_run(store, SURROGATE, 4)
    group = group_of(tmp_path, [RANDOM], range(5))
    for seed in (1, 3, 7):
        put_run(store, SURROGATE, seed)
    (group,) = group_runs(read_runs(store)[0])
    assert not group.shared
    accuracy = {
        (run.record["run"]["strategy"]["name"], run.record["run"]["seed"]): run.rounds()["test_accuracy"].to_list()
        for run in store
    }
    rows = [
        [accuracy["surrogate", s][k] - accuracy["random", s][k] for k in range(BUDGET - INITIAL + 1)] for s in (1, 3, 4)
    ]
    found = over_random(result(group, "surrogate"), result(group, "random"))
    np.testing.assert_allclose(found, rows, atol=1e-12)
    mean, error = mean_and_error(found)
    for k in (0, 20, 50):
        column = [row[k] for row in rows]
        middle = sum(column) / 3
        assert mean[k] == pytest.approx(middle)
        assert error[k] == pytest.approx((sum((value - middle) ** 2 for value in column) / 2) ** 0.5 / 3**0.5)
    assert mean.mean() == pytest.approx(result(group, "surrogate").gain.mean)
    assert [line.label for line in lines_of(group)] == ["surrogate", "random"]
    assert comparable(group)


@pytest.mark.parametrize("window", [1, 3, 9])
@pytest.mark.parametrize("rounds", [1, 2, 5, 30])
def test_the_running_mean_against_a_loop(window: int, rounds: int, rng: np.random.Generator) -> None:
    values = rng.normal(size=(2, rounds))
    found = running_mean(values, window)
    for k in range(rounds):
        half = min(window // 2, k, rounds - 1 - k)
        np.testing.assert_allclose(found[:, k], values[:, k - half : k + half + 1].mean(axis=1))


def test_the_window_is_odd_and_at_most_about_a_tenth_of_the_rounds() -> None:
    assert [window_of(n) for n in (1, 5, 21, 51, 201, 301)] == [1, 1, 3, 5, 9, 9]


def test_the_best_three_the_surrogate_and_all_that_see_labels_are_drawn(tmp_path: Path) -> None:
    group = everything(tmp_path)
    shown = lines_of(group)
    ceilings = ["true_gain (posterior=known)", "true_gain (posterior=head)"]
    assert [line.label for line in shown] == [
        ceilings[0],
        "surrogate",
        "margin",
        "coreset",
        "bald",
        "random",
        ceilings[1],
    ]
    styles = styles_of(group, shown)
    assert len(set(styles.values())) == len(shown) == len(styles)
    assert all(len({*colour[1:3], *colour[3:5], *colour[5:7]}) <= 2 for colour, _ in map(styles.get, ceilings))


def test_the_picture_s_end_below_by_hand() -> None:
    """A ceiling far under random is cut, another line never."""
    flat, none = np.zeros(3), np.zeros(3)
    curves = {"random": (flat, none), "up": (flat + 0.2, none), "down": (flat - 0.9, none)}
    assert lowest(curves, ["down"]) == pytest.approx(-0.1 - 0.015)
    assert lowest(curves, []) < -0.9
    assert lowest(curves | {"down": (flat - 0.04, flat + 0.01)}, ["down"]) == pytest.approx(-0.05 - 0.0125)
    assert lowest({"random": (flat, none)}, []) < 0


def test_without_random_on_a_surrogate_s_seed_nothing_is_comparable(tmp_path: Path) -> None:
    assert not comparable(group_of(tmp_path / "no random", [SURROGATE, {"name": "margin"}]))
    assert not comparable(group_of(tmp_path / "no surrogate", [RANDOM, {"name": "margin"}]))
    put_run(RunStore(tmp_path / "apart"), SURROGATE, 9)
    assert not comparable(group_of(tmp_path / "apart", [RANDOM]))


@pytest.mark.parametrize("budget", [INITIAL, INITIAL + 1, BUDGET])
def test_they_are_drawn_the_same_to_the_byte(budget: int, tmp_path: Path) -> None:
    group = everything(tmp_path, budget)
    assert draw_gains(group) == draw_gains(group)
    assert draw_importance(MANIFEST) == draw_importance(MANIFEST)


def test_shares_are_drawn_even_where_nothing_was_learned() -> None:
    none = dict.fromkeys(MANIFEST["importance"], 0.0)
    assert draw_importance(MANIFEST | {"importance": none, "shap": none}).startswith(b"\x89PNG")
    assert draw_importance(MANIFEST | {"shap": none}) != draw_importance(MANIFEST)


def test_files_and_what_is_said_of_those_that_are_not_drawn(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Of two protocols one has no random; one run is damaged."""
    store = RunStore(tmp_path / "runs")
    group = everything(tmp_path / "runs")
    put_run(store, SURROGATE, 0, BUDGET + 5)
    runs = list(store)
    damaged = next(run for run in runs if run.record["run"]["strategy"]["name"] == "bald")
    (damaged.path / "rounds.parquet").write_bytes(b"")
    files = write_figures(MANIFEST, store, runs, tmp_path / "reports")
    assert [file.name for file in files] == ["surrogate-importance.png", f"surrogate-{group.stem}.png"]
    assert all(file.read_bytes().startswith(b"\x89PNG") for file in files)
    said = capsys.readouterr()
    assert said.out.count("no picture of digits · simclr · ridge") == 1
    assert str(damaged.path) in said.err
