"""Tables as CSV, LaTeX and Markdown."""

import io

import pandas as pd

from pipeline.tables import Table


def _table() -> Table:
    names = pd.Index(["least_confidence", "a|b"], name="Strategy")
    said = pd.DataFrame({"AUBC": ["0.5 ± 0.1", "−0.1"], "50% & more": ["{x}", "<\\"]}, index=names)
    numbers = pd.DataFrame({"strategy": list(names), "aubc": [0.5123456789, None]})
    return Table(stem="aubc", caption="10% of #1", said=said, numbers=numbers)


def test_the_csv_holds_the_numbers_unrounded() -> None:
    pd.testing.assert_frame_equal(pd.read_csv(io.StringIO(_table().csv())), _table().numbers)


def test_latex_escapes_every_special_character() -> None:
    latex = _table().latex()
    assert r"least\_confidence & 0.5 $\pm$ 0.1 & \{x\} \\" in latex
    assert r"a|b & $-$0.1 & $<$\textbackslash{} \\" in latex
    assert r"Strategy & AUBC & 50\% \& more \\" in latex
    assert r"\caption{10\% of \#1}" in latex and r"\label{tab:aubc}" in latex and r"\toprule" in latex


def test_markdown_has_a_line_per_row_and_aligned_columns() -> None:
    lines = _table().markdown().splitlines()
    assert lines[0].startswith("| Strategy         | AUBC      |") and r"a\|b" in lines[3]
    assert len(lines) == 4 and len({len(line) for line in lines}) == 1
