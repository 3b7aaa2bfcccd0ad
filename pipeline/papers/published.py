"""Published tables, transcribed into a text file beside their recipe."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib import resources
from typing import Any

from pipeline.papers.base import Beside, Row, Value


@dataclass(frozen=True, kw_only=True)
class Published:
    """A table as a paper prints it. cells : by row and column, none where the paper has none"""

    corner: str
    columns: Sequence[str]
    rows: Sequence[Row]
    cells: Mapping[tuple[Row, str], str]

    def beside(self, stem: str, caption: str, measure: Callable[[Row, str], Value | None], **settings: Any) -> Beside:
        """The same table with ours in every cell. settings : more of `Beside`: names, digits, best, along"""
        ours = {(row, column): measure(row, column) for row in self.rows for column in self.columns}
        return Beside(
            stem=stem,
            caption=caption,
            corner=self.corner,
            rows=self.rows,
            columns=self.columns,
            ours={where: value for where, value in ours.items() if value},
            published=self.cells,
            **settings,
        )


def read_tables(name: str) -> dict[str, Published]:
    """Tables by their numbers, `Table 5.6`, from a file of this package.

    Paragraphs: the number, the header, then a line per row, ` | ` between its cells; a single cell begins a part.
    """
    _, *paragraphs = resources.files("pipeline.papers").joinpath(name).read_text("utf-8").strip().split("\n\n")
    return {(lines := paragraph.split("\n"))[0]: _table(lines[1:]) for paragraph in paragraphs}


def _table(lines: Sequence[str]) -> Published:
    (corner, *columns), *body = [[cell.strip() for cell in line.split("|")] for line in lines]
    part = ""
    rows: list[Row] = []
    cells: dict[tuple[Row, str], str] = {}
    for name, *values in body:
        if not values:
            part = name
            continue
        rows.append((part, name))
        cells |= {((part, name), column): value for column, value in zip(columns, values, strict=True) if value}
    return Published(corner=corner, columns=columns, rows=rows, cells=cells)
