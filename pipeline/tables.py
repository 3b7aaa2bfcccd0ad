"""Tables of reports: the numbers as they are, and as people read them."""

from dataclasses import dataclass

import pandas as pd

LATEX = str.maketrans(
    {character: f"\\{character}" for character in "&%$#_{}"}
    | {"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}"}
    | {"±": r"$\pm$", "−": "$-$", "–": "--", "×": r"$\times$", "·": r"$\cdot$", "→": r"$\rightarrow$", "…": r"\dots{}"}
    | {"<": "$<$", ">": "$>$", "≤": r"$\leq$", "≥": r"$\geq$", "Δ": r"$\Delta$", "≈": r"$\approx$", "∞": r"$\infty$"}
)
"""What LaTeX takes for a command, and what it does not know."""


@dataclass(frozen=True, kw_only=True)
class Table:
    """A table with a caption.

    stem : of its files' names
    said : text as on the page; its index is the first column, the index's name that column's header
    numbers : unrounded, for the CSV; its rows and columns need not be those of `said`
    """

    stem: str
    caption: str
    said: pd.DataFrame
    numbers: pd.DataFrame

    def csv(self) -> str:
        """The numbers; empty where one does not exist."""
        return str(self.numbers.to_csv(index=False, lineterminator="\n"))

    def latex(self) -> str:
        """A `table` with the rules of booktabs, which the document must load."""
        header, *rows = [[cell.translate(LATEX) for cell in line] for line in self._lines()]
        frame = pd.DataFrame(rows, columns=header)
        return str(
            frame.to_latex(
                index=False,
                caption=self.caption.translate(LATEX),
                label=f"tab:{self.stem}",
                column_format="l" + "r" * (len(header) - 1),
            )
        )

    def markdown(self) -> str:
        """Also readable as it stands; the caption is left to whoever writes it."""
        header, *rows = [[cell.replace("|", r"\|") for cell in line] for line in self._lines()]
        widths = [max(map(len, column)) for column in zip(header, *rows, strict=True)]
        ruled = [header, ["-" * max(3, width) for width in widths], *rows]
        lines = [[cell.ljust(width) for cell, width in zip(line, widths, strict=True)] for line in ruled]
        return "".join(f"| {' | '.join(line)} |\n" for line in lines)

    def _lines(self) -> list[list[str]]:
        """Header and rows, the index first."""
        header = [str(self.said.index.name or ""), *map(str, self.said.columns)]
        rows = [[str(name), *map(str, row)] for name, row in zip(self.said.index, self.said.to_numpy(), strict=True)]
        return [header, *rows]
