"""`alcove strategies`: the list, and one in full."""

import pytest

from pipeline.cli import main
from pipeline.strategies import WORDS, list_strategies
from stages.al.strategies import STRATEGIES
from stages.al.view import Needs


def test_the_list_names_every_strategy_and_fits_a_window(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["strategies"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert {line.split()[0] for line in lines[1 : lines.index("")] if not line.startswith(" ")} == set(STRATEGIES)
    assert max(map(len, lines)) <= 120


def test_the_list_says_idea_needs_settings_and_cost() -> None:
    lines = list_strategies()
    start = next(i for i, line in enumerate(lines) if line.startswith("cluster_margin "))
    assert lines[start].split("  ")[-1].strip() == "labels, proba, clusters, batches"
    assert [line.strip() for line in lines[start + 1 : start + 4]] == [
        "Query candidates of small margin from many clusters of the pool, the smallest clusters first.",
        "settings: pool_factor=10:clusters=500",
        "cost: n C; N d times 1000 for the clusters, once for all seeds",
    ]
    assert any(line.endswith(" nothing") and line.startswith("random ") for line in lines)


def test_whatever_a_strategy_may_need_has_a_word() -> None:
    assert set(WORDS) == set(Needs)


@pytest.mark.parametrize("name", list(STRATEGIES))
def test_each_is_shown_in_full(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["strategies", name]) == 0
    said = capsys.readouterr().out
    text = " ".join((STRATEGIES.get(name).__doc__ or "").split())
    assert text in " ".join(said.split())
    assert f"make al STRATEGY={name}" in said


def test_an_unknown_name_is_a_sentence(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["strategies", "galxy"]) == 2
    assert "did you mean 'galaxy'" in capsys.readouterr().err
