"""The report: its numbers, its seeds rule, its page, and what it says about damaged or missing runs."""

import json
import os
import re
import subprocess
import sys

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from cache.errors import CacheMissError, InputError
from cache.files import digest_json
from cache.runs import RunStore
from pipeline.config import ReportConfig
from pipeline.curves import curves_figure, line_styles, named
from pipeline.report import make_report, readable_runs
from pipeline.results import group_runs, seed_ranges, strategy_labels
from tests.files import tree

LEVELS = {"random": 0.80, "margin": 0.86, "coreset": 0.82, "surrogate": 0.88}
SURROGATE = {"name": "surrogate", "model_digest": "5a3c" * 16, "train_seeds": [0, 1, 2]}
N_POOL, INITIAL, BUDGET = 100, 10, 30


def put_run(data_root, strategy, seed, dataset="digits", backbone="simclr", **changes):
    """A finished run whose accuracy rises from a half; returns its folder."""
    level = LEVELS.get(strategy["name"], 0.7)
    rounds = BUDGET - INITIAL + 1
    digest = digest_json([strategy, seed, dataset, changes])
    noise = np.random.default_rng(int(digest[:8], 16)).normal(0, 0.01, rounds)
    accuracy = 0.5 + (level - 0.5) * np.linspace(0, 1, rounds) ** 0.4 + noise
    table = pa.table(
        {
            "round": np.arange(rounds),
            "budget_spent": INITIAL + np.arange(rounds),
            "queried": [["a"]] * rounds,
            "test_accuracy": accuracy,
        }
    )
    full_name = changes.pop("full_name", f"{backbone}-net.w1")
    record = {
        "run": {
            "dataset": dataset,
            "backbone": backbone,
            "full_name": full_name,
            "features": "0123456789abcdef",
            "pca": 50,
            "head": {"name": "ridge", "penalty": 10.0},
            "strategy": strategy,
            "protocol": {"initial_size": INITIAL, "batch_size": 1, "budget": BUDGET, "candidates": 10_000},
            "validation_size": 20,
            "seed": seed,
        },
        "summary": {"aubc": accuracy.mean(), "final_accuracy": accuracy[-1], "seconds": 0.25 + seed / 100},
        "n_pool": N_POOL,
        "n_validation": 20,
        "n_test": 40,
        "classes": ["0", "1"],
        "versions": {"numpy": "2.0"},
        "commit": None,
        "command": "alcove al --seeds 5",
    } | changes
    run_id = f"{dataset}/{full_name}/ridge-{strategy['name']}-s{seed}-{digest[:10]}"
    return RunStore(data_root / "runs").put(run_id, record, table).path


def put_grid(data_root, **changes):
    """Three strategies on seeds 0 to 4, the surrogate on 3 and 4, which its training never saw."""
    for seed in range(5):
        for name in ("random", "margin", "coreset"):
            put_run(data_root, {"name": name}, seed, **changes)
    for seed in (3, 4):
        put_run(data_root, SURROGATE, seed, **changes)


DRAWN = {"png": b"\x89PNG", "pdf": b"%PDF", "svg": b'<svg viewBox="0 0 1 1"></svg>'}


@pytest.fixture(autouse=True)
def undrawn(monkeypatch):
    """These tests are not about figures, which take a second each; those of test_page.py are."""
    monkeypatch.setattr("pipeline.curves.all_rendered", lambda figure: DRAWN)


@pytest.fixture
def data_root(tmp_path):
    put_grid(tmp_path)
    return tmp_path


def page_of(report):
    return report.page.read_text()


def runs_frame(data_root, dataset=""):
    """Every run's strategy, seed and accuracies, read without the code under test."""
    rows = []
    for path in sorted((data_root / "runs" / dataset).rglob("run.json")):
        run = json.loads(path.read_text())["run"]
        accuracy = pd.read_parquet(path.parent / "rounds.parquet")["test_accuracy"]
        rows.append((run["strategy"]["name"], run["seed"], accuracy.mean(), accuracy.iloc[-1]))
    return pd.DataFrame(rows, columns=["strategy", "seed", "aubc", "final"])


def test_of_many_strategies_the_best_are_named_and_every_line_differs(tmp_path):
    for place in range(20):
        put_run(tmp_path, {"name": f"strategy_{place}"}, 0)
    for strategy in ({"name": "random"}, SURROGATE):
        put_run(tmp_path, strategy, 0)
    (group,) = group_runs(readable_runs(tmp_path))
    labels = [result.label for result in named(group)]
    assert len(labels) == 12 and {"random", "surrogate"} < set(labels)
    best = [result.label for result in group.results if result.name.startswith("strategy")][:10]
    assert [label for label in labels if label.startswith("strategy")] == best
    assert len(set(line_styles(group, sorted(labels)).values())) == 12
    crowd = [name for label in sorted(labels) for name in (label, label + "'", label + "''")]
    assert len(set(line_styles(group, crowd).values())) == 12


def test_the_summary_has_every_strategy_beside_every_group(data_root):
    put_run(data_root, {"name": "bald"}, 0, dataset="photos")
    lines = make_report(ReportConfig(data_root=data_root)).summary.read_text().splitlines()
    cells = {line.split(" | ")[0].strip("| "): [cell.strip("| ") for cell in line.split(" | ")[1:]] for line in lines}
    assert list(cells)[2:] == ["surrogate", "margin", "coreset", "random", "bald"]
    assert cells["AUBC"][0].startswith("digits · simclr · ridge")
    assert cells["margin"][0].startswith("0.75")
    assert cells["margin"][1:] == ["0.3", "–", "–"]
    assert cells["bald"][:2] == ["–", "–"]


def test_the_table_agrees_with_a_recomputation(data_root):
    table = pd.read_csv(make_report(ReportConfig(data_root=data_root)).table).set_index("strategy")
    runs = runs_frame(data_root).query("seed >= 3")
    by_strategy = runs.groupby("strategy")
    for column, name in (("aubc", "aubc"), ("final", "final_accuracy")):
        np.testing.assert_allclose(table[f"{name}_mean"], by_strategy[column].mean()[table.index], atol=1e-12)
        np.testing.assert_allclose(table[f"{name}_error"], by_strategy[column].sem()[table.index], atol=1e-12)
    wide = runs.pivot(index="seed", columns="strategy", values="aubc")
    gain = wide.sub(wide["random"], axis=0)[[name for name in table.index if name != "random"]]
    np.testing.assert_allclose(table["gain_mean"].drop("random"), gain.mean(), atol=1e-12)
    np.testing.assert_allclose(table["gain_error"].drop("random"), gain.sem(), atol=1e-12)
    assert np.isnan(table.loc["random", "gain_mean"])
    assert list(table["aubc_mean"]) == sorted(table["aubc_mean"], reverse=True)
    assert list(table["place"]) == [1, 2, 3, 4]
    np.testing.assert_allclose(table["seconds"], 0.285)


def test_the_page_shows_the_table_s_numbers(data_root):
    report = make_report(ReportConfig(data_root=data_root))
    page = page_of(report)
    for row in pd.read_csv(report.table).itertuples():
        assert f"{row.aubc_mean:.3f} ± {row.aubc_error:.3f}" in page
        assert f"{row.final_accuracy_mean:.3f} ± {row.final_accuracy_error:.3f}" in page
        if row.strategy != "random":
            assert f"{row.gain_mean:+.3f} ± {row.gain_error:.3f}" in page
    assert page.count(">best<") == 1


def test_shared_seeds_count_and_the_rest_is_named(data_root):
    report = make_report(ReportConfig(data_root=data_root))
    assert set(pd.read_csv(report.table)["seeds"]) == {"3 4"}
    page = page_of(report)
    assert "Only seeds 3–4 count, which all strategies share." in page
    assert "Not counted: seeds 0–2 of margin, coreset, random." in page
    assert "was trained on the logs of seeds 0–2" in page
    assert "not fair" not in page


def test_without_two_shared_seeds_each_strategy_has_its_own(tmp_path):
    for seed in range(3):
        put_run(tmp_path, {"name": "random"}, seed)
    for seed in (2, 3):
        put_run(tmp_path, {"name": "margin"}, seed)
    report = make_report(ReportConfig(data_root=tmp_path))
    table = pd.read_csv(report.table).set_index("strategy")
    assert table["seeds"].to_dict() == {"random": "0 1 2", "margin": "2 3"}
    wide = runs_frame(tmp_path).pivot(index="seed", columns="strategy", values="aubc")
    assert table.loc["margin", "gain_mean"] == pytest.approx(wide.loc[2, "margin"] - wide.loc[2, "random"])
    assert np.isnan(table.loc["margin", "gain_error"])
    assert "The strategies share fewer than two seeds" in page_of(report)
    assert "2 to 3 seeds" in report.headlines[-1]


def test_the_headline_names_random_the_best_and_the_surrogate(data_root):
    report = make_report(ReportConfig(data_root=data_root))
    mean = pd.read_csv(report.table).set_index("strategy")
    assert report.headlines[-1] == (
        f"AUBC on digits with simclr and ridge, 2 seeds: random {mean.aubc_mean['random']:.3f}, margin "
        f"{mean.aubc_mean['margin']:.3f} (best strategy), surrogate {mean.aubc_mean['surrogate']:.3f} "
        f"({mean.gain_mean['surrogate']:+.3f} over random)"
    )


def test_the_headline_without_a_surrogate_or_without_random(tmp_path):
    for seed in range(2):
        put_run(tmp_path / "a", {"name": "random"}, seed)
        put_run(tmp_path / "a", {"name": "margin"}, seed)
    put_run(tmp_path / "b", {"name": "margin"}, 0)
    assert re.search(
        r", 2 seeds: random 0\.\d{3}, margin 0\.\d{3} \(best strategy, \+0\.\d{3} over random\)$",
        make_report(ReportConfig(data_root=tmp_path / "a")).headlines[-1],
    )
    assert re.search(r", 1 seed: margin 0\.\d{3}$", make_report(ReportConfig(data_root=tmp_path / "b")).headlines[-1])


def test_the_headline_of_strategies_of_which_none_may_win(tmp_path):
    put_run(tmp_path, {"name": "true_gain"}, 0)
    put_run(tmp_path, SURROGATE | {"train_seeds": None}, 0, dataset="other")
    gain, surrogate = make_report(ReportConfig(data_root=tmp_path)).headlines
    assert re.search(r", 1 seed: true_gain 0\.\d{3}$", gain) and re.search(r": surrogate 0\.\d{3}$", surrogate)


def test_the_report_is_deterministic(data_root):
    def contents(name):
        files = make_report(ReportConfig(data_root=data_root, out=data_root / name)).files
        return {path.name: path.read_bytes() for path in files}

    assert contents("one") == contents("two")
    assert tree(data_root / "one") == {
        path.relative_to(data_root / "one").as_posix(): path.read_bytes()
        for path in make_report(ReportConfig(data_root=data_root, out=data_root / "one")).files
    }


def test_names_are_escaped(tmp_path):
    for seed in range(2):
        put_run(tmp_path, {"name": "random"}, seed, command="al '<script>alert(1)</script>' & more", full_name="<b>x")
    page = page_of(make_report(ReportConfig(data_root=tmp_path)))
    assert "<script>alert" not in page and "<b>" not in page and "&lt;b&gt;x" in page


@pytest.mark.parametrize("content", [b'{"run": ', b"[]", b"{}", b"\xff\xfe\x00", b'{"run": {"strategy": 3}}'])
def test_a_damaged_record_is_named_and_left_out(data_root, capsys, content):
    broken = put_run(data_root, {"name": "entropy"}, 0)
    (broken / "run.json").write_bytes(content)
    page = page_of(make_report(ReportConfig(data_root=data_root)))
    err = capsys.readouterr().err
    assert err.count("\n") == 1 and str(broken) in err and "damaged run" in err
    shown = page[: page.index('id="left-out"')]
    assert "entropy" not in shown and "margin" in shown and str(broken) in page


@pytest.mark.parametrize("damage", ["truncate", "remove", "shorten", "percent"])
def test_damaged_rounds_are_named_and_left_out(data_root, capsys, damage):
    broken = put_run(data_root, {"name": "entropy"}, 0)
    path = broken / "rounds.parquet"
    if damage == "truncate":
        path.write_bytes(path.read_bytes()[:100])
    elif damage == "remove":
        path.unlink()
    elif damage == "shorten":
        pd.read_parquet(path).head(3).to_parquet(path)
    else:
        pd.read_parquet(path).assign(test_accuracy=85.0).to_parquet(path)
    page = page_of(make_report(ReportConfig(data_root=data_root)))
    assert str(broken) in capsys.readouterr().err
    shown = page[: page.index('id="left-out"')]
    assert "entropy" not in shown and "margin" in shown and str(broken) in page


def test_long_labels_stay_within_the_legend(tmp_path):
    for place in range(2):
        put_run(tmp_path, SURROGATE | {"name": "surrogate:" + "a_long_folder_" * 9, "model_digest": f"{place}" * 64}, 0)
    (group,) = group_runs(readable_runs(tmp_path))
    figure = curves_figure(group, line_styles(group, []))
    figure.draw_without_rendering()
    (legend,) = figure.legends
    assert legend.get_window_extent().x0 > 0 and legend.get_window_extent().x1 < figure.bbox.width
    assert len({text.get_text()[7:] for text in legend.get_texts()}) == 2


def test_of_two_runs_of_one_configuration_the_newer_counts(tmp_path, capsys):
    older = [put_run(tmp_path, {"name": "random"}, seed) for seed in range(2)]
    for run in older:
        newer = run.with_name(f"another-{run.name}")
        newer.mkdir()
        for path in run.iterdir():
            (newer / path.name).write_bytes(path.read_bytes())
        rounds = pd.read_parquet(newer / "rounds.parquet").assign(test_accuracy=0.625)
        rounds.to_parquet(newer / "rounds.parquet")
        os.utime(run / "run.json", (0, 0))
    report = make_report(ReportConfig(data_root=tmp_path))
    said = f"alcove: left out {older[0]}, {older[1]}: each has a newer run of the same configuration\n"
    assert capsys.readouterr().err == said
    assert pd.read_csv(report.table)["aubc_mean"].tolist() == [0.625]


def test_no_runs(tmp_path):
    with pytest.raises(CacheMissError, match=r"^there are no runs in .*runs yet: run `make al` first$"):
        make_report(ReportConfig(data_root=tmp_path))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("wanted", [{"dataset": "cifar10"}, {"backbone": "dinov2"}])
def test_a_filter_that_matches_nothing_lists_what_there_is(data_root, wanted):
    with pytest.raises(InputError, match=r"there are runs of digits with simclr \(simclr-net\.w1\)$") as error:
        make_report(ReportConfig(data_root=data_root, **wanted))
    assert next(iter(wanted.values())) in str(error.value)
    assert not (data_root / "reports").exists()


def test_filters_choose_groups(data_root):
    for seed in range(2):
        put_run(data_root, {"name": "random"}, seed, dataset="cifar10", backbone="dinov2")
    everything = make_report(ReportConfig(data_root=data_root))
    assert len(list(everything.page.parent.glob("*/curves.png"))) == 2 and len(everything.headlines) == 2
    assert "on digits" in everything.headlines[-1]
    for wanted in ({"dataset": "cifar10"}, {"backbone": "dinov2"}, {"backbone": "dinov2-net.w1"}):
        report = make_report(ReportConfig(data_root=data_root, **wanted))
        assert len(report.headlines) == 1 and "on cifar10 with dinov2" in report.headlines[-1]


def test_a_data_set_filter_may_be_a_spec(tmp_path):
    from stages.embed.images import DATASETS

    spec = f"folder:{tmp_path / 'photos'}"
    put_run(tmp_path, {"name": "random"}, 0, dataset=DATASETS.build(spec).slug)
    assert "folder-photos" in make_report(ReportConfig(data_root=tmp_path, dataset=spec)).headlines[-1]


def test_an_unwritable_folder_is_one_sentence(data_root):
    (data_root / "file").write_text("")
    with pytest.raises(InputError, match=r"cannot be written .* choose another folder with --out PATH"):
        make_report(ReportConfig(data_root=data_root, out=data_root / "file"))


def manifest_of(data_root, **content):
    folder = data_root / "surrogates" / "digits" / "simclr-net.w1" / "ridge-1"
    folder.mkdir(parents=True)
    (folder / "manifest.json").write_text(json.dumps({"model_digest": SURROGATE["model_digest"], **content}))
    return folder / "manifest.json"


def test_the_surrogate_s_quality_table(data_root):
    quality = {"columns": ["ranked_by", "top"], "rows": [["margin <", 0.12345]], "caption": "How well & so on"}
    manifest_of(data_root, quality=quality)
    page = page_of(make_report(ReportConfig(data_root=data_root)))
    for text in (">ranked by<", ">margin &lt;<", ">0.123<", "How well &amp; so on"):
        assert text in page
    assert "No quality table" not in page


def test_runs_of_a_surrogate_trained_again_since_are_left_out(data_root, capsys):
    newer = SURROGATE | {"model_digest": "77" * 32}
    put_run(data_root, newer, 3)
    put_run(data_root, newer, 4)
    manifest_of(data_root, model_digest=newer["model_digest"])
    rows = make_report(ReportConfig(data_root=data_root)).table.read_text()
    assert rows.count(",surrogate,") == 1 and "model" not in rows
    assert "left out 2 runs of surrogates that were trained again since" in capsys.readouterr().out


def test_a_surrogate_whose_model_was_replaced_is_said_to_be(data_root):
    manifest_of(data_root, quality={"columns": ["a"], "rows": [["other"]]}, model_digest="another")
    page = page_of(make_report(ReportConfig(data_root=data_root)))
    assert "other<" not in page and "manifest has been replaced or removed" in page


@pytest.mark.parametrize("quality", [{"columns": ["a"], "rows": [[1, 2]]}, {"columns": ["a"]}, [1]])
def test_a_malformed_quality_table_is_named_and_left_out(data_root, capsys, quality):
    path = manifest_of(data_root, quality=quality)
    page = page_of(make_report(ReportConfig(data_root=data_root)))
    assert str(path) in capsys.readouterr().err
    assert "was trained on the logs of seeds 0–2" in page


def test_a_surrogate_on_seeds_of_its_training_is_called_unfair(data_root):
    for seed in (1, 2):
        put_run(data_root, SURROGATE, seed)
    report = make_report(ReportConfig(data_root=data_root))
    assert "Its training saw seeds 1–2" in page_of(report)
    assert report.headlines[-1].endswith("over random, not fair: trained on some of these seeds)")


def test_variants_are_labeled_by_what_differs():
    digests = ["ab" * 32, "ab" * 5 + "cd" * 27]
    strategies = [
        {"name": "random"},
        {"name": "typiclust", "k": 5, "metric": "l2"},
        {"name": "typiclust", "k": 20, "metric": "l2"},
        *({"name": "surrogate", "model_digest": digest, "train_seeds": [0, 1, 2]} for digest in digests),
    ]
    assert strategy_labels([*strategies, strategies[0]]) == [
        "random",
        "typiclust (k=5)",
        "typiclust (k=20)",
        "surrogate (model abababababa)",
        "surrogate (model abababababc)",
        "random",
    ]


def test_seed_ranges():
    assert seed_ranges([4, 0, 1, 2, 7]) == "0–2, 4, 7"
    assert seed_ranges([]) == "no seed"


def test_importing_the_configuration_is_light():
    heavy = "{'matplotlib', 'pandas', 'pyarrow', 'jinja2', 'sklearn', 'torch'}"
    code = f"import sys, pipeline.report; print({heavy} & set(sys.modules))"
    answer = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert answer.stdout.strip() == "set()"
