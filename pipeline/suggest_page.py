"""The images to label next, as a list and as a page that shows them in that order."""

import csv
import shlex
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path

from jinja2 import Environment, StrictUndefined
from markupsafe import Markup


@dataclass(frozen=True, kw_only=True)
class Row:
    """One suggested image. guess, probability : of the head, empty and None where there is none"""

    rank: int
    image: str
    guess: str
    probability: float | None

    @property
    def said(self) -> str:
        """What the head says of it."""
        return "" if self.probability is None else f"{self.guess} {self.probability:.0%}"


def write_list(path: Path, suggested: Sequence[Row]) -> None:
    """A CSV file, one row per image."""
    with path.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.writer(stream)
        writer.writerow(["rank", "image", "guess", "probability"])
        for row in suggested:
            writer.writerow(
                [row.rank, row.image, row.guess, "" if row.probability is None else f"{row.probability:.4f}"]
            )


def page(lines: Sequence[str], todo: Sequence[str], counts: Mapping[str, int], shown: Sequence[tuple[Row, str]]) -> str:
    """One file that loads nothing; everything is escaped. shown : each image with its data URI"""
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    folder = resources.files("pipeline")
    style, source = (folder.joinpath(name).read_text("utf-8") for name in ("report.css", "suggest.html.j2"))
    command = shlex.join(["alcove", *sys.argv[1:]])
    return environment.from_string(source).render(
        style=Markup(style), lines=lines, todo=todo, counts=counts, shown=shown, command=command
    )
