"""`alcove reproduce` of the two papers on self-supervised features, on small images made here."""

import json
import re
from collections.abc import Sequence
from html import unescape
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from pipeline.cli import main
from pipeline.curves import rendered
from pipeline.efficiency import Law, Threshold
from pipeline.papers import RECIPES, ssl_law, ssl_meets_al, ssl_places, supclust
from pipeline.papers import page as page_module
from pipeline.papers.claims import Claim
from pipeline.papers.ssl_meets_al import most_saved
from pipeline.results import Estimate, Group, Result
from tests.files import photos, tree

SEEDS = Path(__file__).resolve().parents[3] / "shared" / "seeds"
TEXTS = {"supclust": "001_3cd8a277433e811e.txt", "ssl_meets_al": "003_e4e706e7cde68f59.txt"}


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data root after both recipes, with short trainings and nothing drawn."""
    root = tmp_path_factory.mktemp("data")
    photos(root / "photos", 60)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(supclust, "CIFAR_HEAD", f"{supclust.CIFAR_HEAD}:epochs=2")
        patch.setattr(ssl_places, "HEAD", f"{ssl_places.HEAD}:epochs=2")
        patch.setattr(supclust, "ROUNDS", 2)
        patch.setattr(page_module, "rendered", lambda figure, kind: kind.encode())
        for recipe in TEXTS:
            assert reproduce(root, recipe) == 0
    return root


def reproduce(root: Path, recipe: str, *more: str) -> int:
    where = ["--dataset", f"folder:{root / 'photos'}", "--backbone", "simclr:steps=1:width=4"]
    return main(
        ["reproduce", "--recipe", recipe, *where, "--data-root", str(root), "--seeds", "2", "--workers", "1", *more]
    )


def page(root: Path, recipe: str) -> Path:
    return root / "reports" / f"reproduce-{recipe}-small"


def runs(root: Path) -> pd.DataFrame:
    """Every run, read without the code under test."""
    rows = []
    for path in root.glob("reproduced/*/*/*/run.json"):
        run = json.loads(path.read_text())["run"]
        accuracy = pd.read_parquet(path.parent / "rounds.parquet")["test_accuracy"]
        head = run["head"]["recipe"]
        rows.append(
            {"recipe": head, **run["protocol"], **run["strategy"], "seed": run["seed"], "aubc": accuracy.mean()}
            | {"last": accuracy.iloc[-1], "pool": run.get("pool", "")}
        )
    return pd.DataFrame(rows)


@pytest.mark.parametrize("recipe", TEXTS)
def test_every_exhibit_is_on_the_page_with_its_files(root: Path, recipe: str) -> None:
    text = unescape((page(root, recipe) / "index.html").read_text())
    assert all(f"<h2>{name}:" in text for name in RECIPES[recipe].exhibits)
    links = re.findall(r'href="([^"#]+)"', text)
    assert links and {*links, "index.html", "index.md"} == set(tree(page(root, recipe)))
    assert all(name in text for name in RECIPES[recipe].left_out)


def test_accuracies_of_supclust_are_those_of_the_runs(root: Path) -> None:
    found = pd.read_csv(page(root, "supclust") / "figure-6.csv").set_index(["row", "column"])
    tiny = runs(root).query("recipe == 'supclust' and initial_size == 3")
    for name, spec in supclust.STRATEGIES.items():
        chosen = tiny[(tiny["name"] == spec) & (tiny["without"].isna() | (tiny["without"] == "nothing"))]
        assert len(chosen) == 2
        assert chosen["initial"].unique().tolist() == [spec if name in supclust.OWN else "random"]
        ours = found.loc[name, "photos, tiny"]
        assert (ours["ours"], ours["ours_spread"]) == pytest.approx((chosen["aubc"].mean(), chosen["aubc"].sem()))


def test_a_long_tail_that_cannot_be_is_left_out_and_said_so(root: Path) -> None:
    text = (page(root, "supclust") / "index.md").read_text()
    assert "photos-LT50 is left out: a long tail of factor 50 leaves the smallest class no image" in text


def test_half_of_the_pool_is_table_1(root: Path) -> None:
    found = pd.read_csv(page(root, "ssl_meets_al") / "table-1.csv").set_index(["part", "row", "column"]).sort_index()
    half = runs(root).query("recipe == 'ssl_meets_al'")
    half = half[half["batch_size"] == half["batch_size"].max()]
    for name in ssl_places.AL:
        last = half[half["name"] == ssl_places.STRATEGIES[name]]["last"]
        ours = found.loc["AL + Self-training", name, "photos (CIFAR10)"]
        assert (ours["ours"], ours["ours_spread"]) == pytest.approx((last.mean(), last.sem()))
    assert found.loc["AL + Self-training", "VAAL"]["ours"].isna().all()


@pytest.mark.parametrize("recipe", TEXTS)
def test_what_the_papers_say_is_word_for_word(recipe: str) -> None:
    """Published numbers and every quote."""
    if not (SEEDS / TEXTS[recipe]).exists():
        pytest.skip("the papers' texts are not here")
    text = re.sub(r"\s+", " ", (SEEDS / TEXTS[recipe]).read_text().replace("*", ""))
    if recipe == "supclust":
        claims = [*supclust.FIGURE_5, *supclust.EVERYWHERE, supclust.IMBALANCED, supclust.LONG_TAILED]
        quotes = [claim.quote for claim in claims]
    else:
        quotes = [claim.quote for place in ssl_places.PLACES for claim in place.claims]
        quotes += [quote for place in ssl_places.PLACES for quote in place.quotes] + [ssl_law.LAW]
        table = ssl_meets_al.PUBLISHED["Table 1"]
        for row in table.rows:
            quotes.append(" ".join([row[1], *(table.cells[row, column] for column in table.columns)]))
    assert [quote for quote in quotes if quote not in text] == []


def result(label: str, budget: Sequence[int], accuracy: Sequence[Sequence[float]]) -> Result:
    curves = np.array(accuracy)
    return Result(
        label=label,
        strategy={"name": label.lower()},
        seeds=tuple(range(len(curves))),
        left_out=(),
        budget=np.array(budget),
        accuracy=curves,
        aubc=Estimate.of(curves.mean(axis=1).tolist()),
        final=Estimate.of(curves[:, -1].tolist()),
        gain=None,
        seconds=1.0,
    )


def test_the_most_that_is_saved() -> None:
    """Entropy has after 20 labels what Random has after 35 of 100: 15% saved with 20% labeled."""
    budget = [10, 20, 30, 40]
    accuracy = {name: [[0.2, 0.3, 0.4, 0.6]] for name in ssl_places.STRATEGIES} | {"Entropy": [[0.2, 0.5, 0.55, 0.7]]}
    results = tuple(result(name, budget, curve) for name, curve in accuracy.items())
    group = Group(settings={"n_pool": 100}, runs=(), results=results, shared=True)
    assert most_saved(group) == pytest.approx((0.15, 0.2))


def test_the_law_is_drawn_also_without_a_threshold() -> None:
    group = Group(settings={"dataset": "photos"}, runs=(), results=(), shared=True)
    found = [Threshold(group=group, n_classes=3, budget=budget) for budget in (None, 30)]
    laws = [Law(label=label, thresholds=tuple(found), slope=None, intercept=None, correlation=None) for label in "ab"]
    axes = (figure := ssl_law.draw_law(laws)).axes[0]
    assert [line.get_offsets().tolist() for line in axes.collections] == [[[3, 10]], [[3, 10]], [[10, 50]]]
    assert rendered(figure, "png").startswith(b"\x89PNG")


def test_a_claim_holds_only_beyond_noise() -> None:
    claim = Claim(quote="", ahead=("a",), behind=("b",), above=False)
    assert claim.verdict([-0.02, -0.021, -0.019]) == "yes"
    assert claim.verdict([0.02, 0.021, 0.019]) == "no"
    assert claim.verdict([-0.02, 0.01, -0.03]) == claim.verdict([-0.5]) == "open"


@pytest.mark.parametrize(
    ("more", "sentence"),
    [
        (["--recipe", "supclust", "--dataset", "a,b,c,d"], "give at most 3 data sets"),
        (["--recipe", "supclust", "--dataset", "digits,digits"], "each once"),
        (["--recipe", "supclust", "--backbone", "simclr,simsiam"], "1 data sets and 2 backbones"),
        (["--recipe", "ssl_meets_al", "--budget", "100"], "leave BUDGET= out"),
        (["--recipe", "supclus"], "did you mean 'supclust'"),
    ],
)
def test_bad_input_is_one_sentence(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], more: list[str], sentence: str
) -> None:
    assert main(["reproduce", "--data-root", str(tmp_path), *more]) == 2
    said = capsys.readouterr().err
    assert sentence in said and said.count("\n") == 1
    assert not list(tmp_path.iterdir())
