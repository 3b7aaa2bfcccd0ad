"""What `alcove strategies` says: every strategy in a few lines, or one in full."""

import inspect
import re
import textwrap
from dataclasses import MISSING, fields

from stages.al.strategies import STRATEGIES, Strategy
from stages.al.view import Needs

WIDTH = 110
COLUMNS = ("strategy", "paper", "budgets", "needs")
WORDS = {
    Needs.PROBA: "proba",
    Needs.VIEWS: "views",
    Needs.SEVERAL_VIEWS: "several views",
    Needs.DISTANCE: "distances",
    Needs.CLUSTERS: "clusters",
    Needs.TYPICALITY: "typicality",
    Needs.HEAD: "the head",
    Needs.PROGRESS: "progress",
    Needs.LINEAR: "a linear head",
    Needs.CLOSED_FORM: "a closed-form head",
    Needs.MEMBERS: "a committee of linear heads",
    Needs.ORACLE: "true labels",
    Needs.VALIDATION: "validation set",
}
"""What each is called in the list."""


def list_strategies() -> list[str]:
    """A table; below each row the idea, the settings and the cost of a query."""
    kinds: list[type[Strategy]] = [STRATEGIES.get(name) for name in STRATEGIES]
    rows = [(kind.name, kind.paper, kind.regime, needs_of(kind)) for kind in kinds]
    widths = [max(map(len, column)) for column in zip(COLUMNS, *rows, strict=True)]
    lines = [_line(COLUMNS, widths)]
    for kind, row in zip(kinds, rows, strict=True):
        said = [f"{idea_of(kind)}.", *_settings_line(kind), f"cost: {kind.cost}"]
        lines += [_line(row, widths), *(line for part in said for line in _indented(part))]
    return [
        *lines,
        "",
        "budgets: those that the paper recommends it for; cost: of one query, in n candidates, N pool images,",
        "d dimensions, C classes, b images queried, L labeled; batches: made for several labels a round.",
        "Those that need no labels may choose the initial set too: `make al INITIAL_SET=NAME`.",
        "`make strategies STRATEGY=NAME` shows one in full.",
    ]


def describe_strategy(name: str) -> list[str]:
    """Everything that there is to say of one. Raises UnknownNameError."""
    kind: type[Strategy] = STRATEGIES.get(name.partition(":")[0])
    said = {
        "paper": kind.paper,
        "needs": needs_of(kind),
        "budgets": kind.regime,
        "cost": kind.cost,
        "use": f"make al STRATEGY={':'.join([kind.name, *settings_of(kind)])}",
    }
    return [
        kind.name,
        "",
        inspect.cleandoc(kind.__doc__ or ""),
        "",
        *(f"{key:<8} {text}" for key, text in said.items()),
    ]


def idea_of(kind: type[Strategy]) -> str:
    """The first sentence of the docstring, without its full stop."""
    text = " ".join((kind.__doc__ or "").split())
    return re.split(r"\.(?:\s|$)", text, maxsplit=1)[0]


def needs_of(kind: type[Strategy]) -> str:
    """What a strategy asks for, in words."""
    asked = [] if kind.cold_start else ["labels"]
    asked += [WORDS.get(need, need.value) for need in Needs if need in kind.requires]
    return ", ".join([*asked, *["batches"] * kind.batches]) or "nothing"


def settings_of(kind: type[Strategy]) -> list[str]:
    """Its hyperparameters as a spec says them, with their defaults."""
    argument = getattr(kind, "argument", None)
    if argument is not None:
        return [argument.upper()]
    return [f"{field.name}={'?' if field.default is MISSING else field.default}" for field in fields(kind)]


def _settings_line(kind: type[Strategy]) -> list[str]:
    settings = settings_of(kind)
    return [f"settings: {':'.join(settings)}"] if settings else []


def _line(row: tuple[str, ...], widths: list[int]) -> str:
    return "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()


def _indented(text: str) -> list[str]:
    return textwrap.wrap(text, WIDTH, initial_indent="    ", subsequent_indent="      ")
