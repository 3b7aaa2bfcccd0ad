"""The page of a report: every number again from the Parquet, its files, its pictures, what it loads, what it names."""

import json
import re
from html.parser import HTMLParser

import numpy as np
import pandas as pd
import pytest
from scipy.stats import norm, rankdata, wilcoxon

from pipeline.config import ReportConfig
from pipeline.report import make_report
from tests.unit.test_report import DRAWN, put_run, runs_frame

NAMES = ("random", "margin", "coreset", "typiclust")
N_SEEDS = 10


class Tables(HTMLParser):
    """Every table of a page: a list of rows of texts; and the texts of JSON scripts."""

    def __init__(self, page):
        super().__init__()
        self.tables, self.scripts, self.inside = [], [], None
        self.feed(page)

    def handle_starttag(self, tag, attrs):
        if tag == "table":
            self.tables.append([])
        elif tag == "tr":
            self.tables[-1].append([])
        elif tag in ("th", "td"):
            self.tables[-1][-1].append("")
            self.inside = tag
        elif tag == "span" or (tag == "script" and ("type", "application/json") in attrs):
            self.inside = tag

    def handle_endtag(self, tag):
        self.inside = None if tag in ("th", "td", "span", "script") else self.inside

    def handle_data(self, data):
        if self.inside in ("th", "td"):
            self.tables[-1][-1][-1] += data
        elif self.inside == "script":
            self.scripts.append(json.loads(data))

    def frame(self, corner, place=0):
        """The table whose first heading is `corner`, of several the one at `place`."""
        rows = [rows for rows in self.tables if rows[0][0] == corner][place]
        return pd.DataFrame([row[1:] for row in rows[1:]], index=[row[0] for row in rows[1:]], columns=rows[0][1:])


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A report of four strategies on ten seeds, with its figures; there is a second data set."""
    root = tmp_path_factory.mktemp("page")
    for dataset in ("digits", "photos"):
        for seed in range(N_SEEDS):
            for name in NAMES:
                put_run(root, {"name": name}, seed, dataset=dataset)
    return root, make_report(ReportConfig(data_root=root, dataset="digits"))


@pytest.fixture
def undrawn(monkeypatch):
    monkeypatch.setattr("pipeline.curves.all_rendered", lambda figure: DRAWN)


@pytest.fixture(scope="module")
def page(made):
    return made[1].page.read_text()


@pytest.fixture(scope="module")
def read(page):
    return Tables(page)


@pytest.fixture(scope="module")
def wide(made):
    """AUBC of digits, seeds x strategies, read without the code under test."""
    runs = runs_frame(made[0], "digits")
    return runs.pivot(index="seed", columns="strategy", values="aubc")


def curves_of(root, name, dataset="digits"):
    """(seeds, rounds), read without the code under test."""
    paths = sorted((root / "runs" / dataset).rglob(f"ridge-{name}-*/rounds.parquet"))
    return np.stack([pd.read_parquet(path)["test_accuracy"] for path in paths])


def number(text):
    return float(text.replace("−", "-").replace("<", "").strip(" *"))


def mean_and_error(column):
    return [[number(part) for part in cell.split(" ± ")] for cell in column]


def holm_by_hand(p):
    adjusted, largest = {}, 0
    for place, (name, value) in enumerate(sorted(p.items(), key=lambda item: item[1])):
        largest = max(largest, min(1, value * (len(p) - place)))
        adjusted[name] = largest
    return adjusted


def test_means_errors_and_ranks_are_those_of_the_parquet(made, read, wide):
    shown = read.frame("Strategy")
    final = runs_frame(made[0], "digits").groupby("strategy")["final"]
    for column, mean, error in (
        ("AUBC", wide.mean(), wide.sem()),
        ("Final accuracy", final.mean(), final.sem()),
        ("AUBC over random", wide.sub(wide["random"], axis=0).mean(), wide.sub(wide["random"], axis=0).sem()),
    ):
        names = [name for name in shown.index if shown.loc[name, column] != "–"]
        expected = np.stack([mean[names], error[names]], axis=1)
        np.testing.assert_allclose(mean_and_error(shown.loc[names, column]), expected, atol=5.001e-4)
    ranks = pd.Series(rankdata(-wide, axis=1).mean(axis=0), wide.columns)[shown.index]
    np.testing.assert_allclose([number(cell) for cell in shown["Mean rank"]], ranks, atol=5.001e-3)
    assert list(shown.index) == list(wide.mean().sort_values(ascending=False).index)
    assert shown["Seconds per run"].map(number).sub(0.25 + np.arange(N_SEEDS).mean() / 100).abs().max() < 5.001e-3


def test_p_effect_and_interval_are_scipy_s(read, wide):
    shown = read.frame("Strategy").drop("random")
    differences = wide[shown.index].sub(wide["random"], axis=0)
    adjusted = holm_by_hand({name: wilcoxon(differences[name]).pvalue for name in shown.index})
    best = shown.index[0]
    to_best = {name: wilcoxon(wide[name], wide[best]).pvalue for name in wide if name != best}
    adjusted[best] = max(adjusted[best], min(1, 2 * holm_by_hand(to_best)["random"]))
    for name in shown.index:
        assert number(shown.loc[name, "p (Holm)"]) == pytest.approx(adjusted[name], rel=5e-3)
        effect = differences[name].mean() / differences[name].std()
        assert number(shown.loc[name, "Effect size"]) == pytest.approx(effect, abs=5.001e-3)
        low, high = map(number, shown.loc[name, "95% interval"].split(" to "))
        around = norm.ppf(0.975) * differences[name].sem()
        assert low == pytest.approx(differences[name].mean() - around, abs=around / 2 + 1e-3)
        assert high == pytest.approx(differences[name].mean() + around, abs=around / 2 + 1e-3)


def test_labeling_efficiency_by_hand(made, read):
    shown = read.frame("Strategy")["Labeling efficiency"]
    random = curves_of(made[0], "random").mean(axis=0)
    budget = 10 + np.arange(len(random))

    def needed(curve):
        best = np.maximum.accumulate(curve)
        after = next(place for place, value in enumerate(best) if value >= random[-1])
        if after == 0:
            return budget[0]
        return budget[after - 1] + (random[-1] - best[after - 1]) / (best[after] - best[after - 1])

    for name in ("margin", "coreset"):
        expected = needed(random) / needed(curves_of(made[0], name).mean(axis=0))
        assert number(shown[name].split(" ± ")[0]) == pytest.approx(expected, abs=5.001e-3)
    assert shown["random"] == "–"


def test_the_matrix_of_pairs(read, wide):
    shown = read.frame("AUBC, row less column")
    pairs = {(a, b): wilcoxon(wide[a], wide[b]).pvalue for a in wide for b in wide if a < b}
    adjusted = holm_by_hand(pairs)
    for (a, b), p in adjusted.items():
        for row, column in ((a, b), (b, a)):
            cell = shown.loc[row, column]
            assert number(cell) == pytest.approx((wide[row] - wide[column]).mean(), abs=5.001e-4)
            assert cell.endswith("*") == (p < 0.05)
    assert any(p < 0.05 for p in adjusted.values())
    assert {shown.loc[name, name] for name in shown.index} == {""}


def test_significant_cells_have_a_colour_and_a_sign(page):
    cells = re.findall(r'<td data-label="[^"]*" class="(above|below)">(.)[\d.]+ \*</td>', page)
    assert {("above", "+"), ("below", "−")} == set(cells)


def test_ranks_over_all_groups(made, undrawn, tmp_path):
    report = make_report(ReportConfig(data_root=made[0], out=tmp_path))
    tables = [rows for rows in Tables(report.page.read_text()).tables if rows[0][1] == "Mean rank"]
    ((heading, *rows),) = tables
    shown = pd.DataFrame([row[1:] for row in rows], index=[row[0] for row in rows], columns=heading[1:])
    runs = pd.concat([runs_frame(made[0], name).assign(dataset=name) for name in ("digits", "photos")])
    means = runs.groupby(["dataset", "strategy"])["aubc"].mean().unstack()
    ranks = pd.Series(rankdata(-means, axis=1).mean(axis=0), means.columns)[shown.index]
    np.testing.assert_allclose([number(cell) for cell in shown["Mean rank"]], ranks)
    column = next(name for name in shown.columns if name.startswith("photos"))
    np.testing.assert_allclose(shown[column].map(number), means.loc["photos", shown.index], atol=5.001e-4)


def test_hover_values_are_means_and_standard_errors(made, read):
    hover = read.scripts[0]
    assert hover["budget"] == list(range(10, 31))
    for line in hover["lines"]:
        curves = curves_of(made[0], line["label"])
        np.testing.assert_allclose(line["mean"], curves.mean(axis=0), atol=5.001e-5)
        np.testing.assert_allclose(line["error"], pd.DataFrame(curves).sem(), atol=5.001e-5)


def test_bands_are_one_standard_error(made, page, read):
    """The drawn band, read back from the SVG: above and below the mean by as much as the error, on one scale."""
    for line in read.scripts[0]["lines"]:
        drawn = re.search(rf'<g id="{line["ids"][1]}">.*?<path id="[^"]*" d="([^"]*)"', page, flags=re.DOTALL)[1]
        points = np.array(re.findall(r"[ML] (-?[\d.]+) (-?[\d.]+)", drawn), dtype=float)
        height = pd.DataFrame(points).groupby(0)[1].agg(["min", "max"])
        error = pd.DataFrame(curves_of(made[0], line["label"])).sem().to_numpy()
        ratio = (height["max"] - height["min"]).to_numpy() / (2 * error)
        np.testing.assert_allclose(ratio, ratio.mean(), rtol=0.03)


def test_files_beside_the_page_say_the_same(made, page, read):
    folder = made[1].page.parent
    links = set(re.findall(r'href="([^"#]*)"', page))
    assert links == {path.relative_to(folder).as_posix() for path in made[1].files} - {"report.html"}
    heads = {"png": b"\x89PNG", "pdf": b"%PDF"}
    for link in links:
        content = (folder / link).read_bytes()
        assert content.startswith(heads.get(link.rpartition(".")[2], b""))
    stem = next(link for link in links if link.startswith("digits") and link.endswith("results.csv"))[:-4]
    shown = read.frame("Strategy")
    unrounded = pd.read_csv(folder / f"{stem}.csv").set_index("strategy")
    np.testing.assert_allclose(
        mean_and_error(shown["AUBC"]), unrounded.loc[shown.index, ["aubc_mean", "aubc_error"]], atol=5.001e-4
    )
    latex, markdown = (folder / f"{stem}.tex").read_text(), (folder / f"{stem}.md").read_text()
    for name, row in shown.iterrows():
        line = next(line for line in markdown.splitlines() if line.startswith(f"| {name} "))
        assert [cell.strip() for cell in line[1:-1].split("|")] == [name, *row]
        assert row["AUBC"].replace("±", r"$\pm$") in latex


def test_the_page_loads_nothing_and_is_small(page):
    loads = re.findall(r"""\bsrc\s*=\s*["']([^"']*)""", page) + re.findall(r"url\(([^)]*)", page)
    loads += re.findall(r"""xlink:href\s*=\s*["']([^"']*)""", page)
    assert loads and all(load.startswith(("data:", "#")) for load in loads)
    assert not re.search(r"https?:|<link|@import|<iframe|fetch\(", page)
    assert len(page) < 1_000_000
    ids = re.findall(r'\bid="([^"]*)"', page)
    assert len(ids) == len(set(ids)) and set(re.findall(r'href="#([^"]*)"', page)) <= {*ids}


def test_the_page_says_where_it_comes_from(page):
    for text in ("alcove al --seeds 5", "numpy 2.0", "digits: 0123456789abcdef", "AUBC: area under", "<dt>This page"):
        assert text in page


def test_foreign_and_half_written_files_are_named_and_the_rest_is_shown(tmp_path, capsys, undrawn):
    for seed in range(2):
        put_run(tmp_path, {"name": "random"}, seed)
        put_run(tmp_path, {"name": "margin"}, seed)
    half = put_run(tmp_path, {"name": "entropy"}, 0)
    (half / "run.json").unlink()
    short = put_run(tmp_path, {"name": "coreset"}, 0)
    (short / "rounds.parquet").write_bytes((short / "rounds.parquet").read_bytes()[:200])
    broken = put_run(tmp_path, {"name": "typiclust"}, 0)
    (broken / "run.json").write_text('{"run": ')
    foreign = tmp_path / "runs" / "digits" / "net" / "model"
    foreign.mkdir(parents=True)
    (foreign / "run.json").write_text('{"run": {"lr": 0.1}}')
    notes = tmp_path / "runs" / "no<te>s.txt"
    notes.write_text("to do")
    partial = short.parent / ".run.json.0123.partial"
    partial.write_text("{")
    page = make_report(ReportConfig(data_root=tmp_path)).page.read_text()
    said = capsys.readouterr().err
    for path in (half, short, broken, foreign, notes, partial):
        name = str(path.relative_to(tmp_path / "runs"))
        assert sum(name in line for line in said.splitlines()) == 1
        assert name.replace("<", "&lt;").replace(">", "&gt;") in page
    assert list(Tables(page).frame("Strategy").index) == ["margin", "random"]


def test_long_labels_and_many_strategies_break_nothing(tmp_path, undrawn):
    for seed in range(2):
        for place in range(14):
            put_run(tmp_path, {"name": f"strategy_{'x' * 60}_{place}"}, seed)
        put_run(tmp_path, {"name": "random"}, seed)
    page = make_report(ReportConfig(data_root=tmp_path)).page.read_text()
    read = Tables(page)
    assert len(read.frame("Strategy")) == 15
    assert len(read.frame("AUBC, row less column")) == 12
    assert read.scripts[0]["lines"][-1]["label"] == "3 others"
    assert "2 seeds are too few to claim anything" in page
