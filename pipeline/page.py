"""The HTML page of a report: one file that loads nothing. Everything is escaped; pictures are inlined."""

import base64
import re
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import resources
from importlib.metadata import version
from typing import Any

import numpy as np
from jinja2 import Environment, StrictUndefined
from markupsafe import Markup, escape
from matplotlib.figure import Figure

from pipeline.curves import OTHER, Picture, Style, named, short
from pipeline.queried import Panels
from pipeline.report_tables import MARK, said_estimate
from pipeline.results import Group, seed_ranges
from pipeline.statistics import Comparison
from pipeline.surrogate_notes import SurrogateNote
from pipeline.tables import Table

DASHES = {"-": "", "--": "6 3", "-.": "8 3 2 3", ":": "2 3"}
"""Of lines in the page's legend, by matplotlib's names."""
DECIMALS = 4
"""Of the accuracies that the page says of a round, and which it rounds to three."""


@dataclass(frozen=True, kw_only=True)
class Section:
    """What the page says of one group. pairs : None where strategies share no seeds"""

    group: Group
    comparison: Comparison
    curves: Picture
    results: Table
    pairs: Table | None
    pictures: Sequence[Picture]
    notes: Sequence[SurrogateNote]
    queried: Panels

    @property
    def marks(self) -> dict[str, str]:
        """What stands behind a strategy's name in the table of results."""
        said = self.comparison
        if said.winner:
            return {said.winner: "winner"}
        first = said.best or self.group.results[0].label
        decided = said.claims is not None and said.claims.decided and not said.warning
        return dict.fromkeys(said.level if decided else (), "level") | {first: "best"}

    @property
    def parts(self) -> list[Any]:
        """All of it that is also written beside the page."""
        quality = [note.quality for note in self.notes]
        return [
            self.curves,
            self.results,
            self.pairs,
            *self.pictures,
            *quality,
            *self.queried.figures,
            *self.queried.tables,
        ]


@dataclass(frozen=True, kw_only=True)
class Origin:
    """Where a page comes from. problems : one sentence for each file that was left out"""

    records: Sequence[Mapping[str, Any]]
    problems: Sequence[str]

    @property
    def command(self) -> str:
        """That made the page."""
        return " ".join(["alcove", *sys.argv[1:]])

    @property
    def versions(self) -> str:
        """Of what computed and drew the page."""
        return ", ".join(f"{name} {version(name)}" for name in ("numpy", "scipy", "pandas", "matplotlib"))

    def of_runs(self, name: str) -> list[str]:
        """The commits or commands of all runs, each once."""
        return sorted({record.get(name) or "not recorded" for record in self.records})

    @property
    def features(self) -> list[str]:
        """Keys of the feature caches: digests of images, weights and preprocessing."""
        return sorted({f"{record['run']['dataset']}: {record['run']['features']}" for record in self.records})

    @property
    def run_versions(self) -> list[str]:
        """`numpy 2.3.1`, sorted; all versions of a package where runs were made with several."""
        found: dict[str, set[str]] = {}
        for record in self.records:
            for name, used in record.get("versions", {}).items():
                found.setdefault(name, set()).add(str(used))
        return [f"{name} {' and '.join(sorted(versions))}" for name, versions in sorted(found.items())]


def page(
    sections: Sequence[Section],
    over_all: Sequence[Picture | Table | str],
    summary: Table,
    origin: Origin,
    drawn: Mapping[str, Mapping[str, bytes]],
) -> str:
    """The page. over_all : parts that compare the groups; drawn : the files of each picture by stem and kind"""
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    environment.filters |= {"seeds": seed_ranges, "parameters": _parameters, "significance": _significance}
    environment.filters |= {"sentence": _sentence, "short": short}
    environment.tests |= {kind.__name__.lower(): _is(kind) for kind in (Picture, Table)}
    parts = [part for section in sections for part in section.parts] + list(over_all)
    pictures = [part for part in parts if isinstance(part, Picture)]
    inlined = {picture.stem: _inlined(picture, drawn[picture.stem], f"f{n}-") for n, picture in enumerate(pictures)}
    folder = resources.files("pipeline")
    read = {kind: folder.joinpath(f"report.{kind}").read_text("utf-8") for kind in ("css", "js", "html.j2")}
    return environment.from_string(read["html.j2"]).render(
        sections=sections,
        over_all=over_all,
        summary=summary,
        origin=origin,
        inlined=inlined,
        style=Markup(read["css"]),
        script=Markup(read["js"]),
    )


def hover_of(group: Group, styles: Mapping[str, Style], figure: Figure) -> dict[str, Any]:
    """What the script must know of `curves_figure`: mean and standard error by round, and which parts are whose."""
    lines = []
    for place, result in enumerate(named(group)):
        mean, n = result.accuracy.mean(axis=0), len(result.seeds)
        error = result.accuracy.std(axis=0, ddof=1) / np.sqrt(n) if n > 1 else None
        lines.append(
            {
                **_entry(result.label, *styles[result.label]),
                "aubc": said_estimate(result.aubc),
                "mean": mean.round(DECIMALS).tolist(),
                "error": None if error is None else error.round(DECIMALS).tolist(),
                "ids": [f"line-{place}"] + [f"band-{place}"] * (n > 1),
            }
        )
    if n_others := len(group.results) - len(lines):
        ids = [f"other-{place}" for place in range(n_others)]
        lines.append({**_entry(f"{n_others} others", OTHER, "-"), "mean": None, "ids": ids})
    limits = [float(limit) for limit in figure.axes[0].get_xlim()]
    return {"budget": group.results[0].budget.tolist(), "limits": limits, "lines": lines}


def _entry(label: str, colour: str, dashes: object) -> dict[str, Any]:
    named_dash = DASHES.get(dashes) if isinstance(dashes, str) else None
    dash = named_dash if named_dash is not None else " ".join(str(2 * length) for length in dashes[1])  # type: ignore[index]
    return {"label": label, "colour": colour, "dash": dash}


def _inlined(picture: Picture, files: Mapping[str, bytes], prefix: str) -> dict[str, Any]:
    """Markup of a picture, and its hover data with ids as they are on the page."""
    if picture.small is not None:
        data = base64.b64encode(picture.small).decode()
        markup = Markup('<img src="data:image/png;base64,{}" alt="{}">').format(data, picture.alt)
        return {"markup": markup, "hover": None}
    hover = dict(picture.hover) if picture.hover else None
    if hover:
        hover["lines"] = [line | {"ids": [prefix + name for name in line["ids"]]} for line in hover["lines"]]
        hover |= {"frame": f"{prefix}frame", "legend": f"{prefix}legend"}
    return {"markup": inline_svg(files["svg"].decode(), prefix, picture.alt), "hover": hover}


def inline_svg(svg: str, prefix: str, alt: str) -> Markup:
    """An SVG of matplotlib as a part of a page: ids of its own, points to a hundredth, nothing that names a host."""
    body = svg[svg.index(">", svg.index("<svg")) + 1 :]
    view_box = re.search(r'viewBox="([^"]*)"', svg)
    assert view_box
    body = re.sub(r"<style.*?</style>|<!--.*?-->", "", body, flags=re.DOTALL)
    body = re.sub(r'\bid="', f'id="{prefix}', body)
    body = re.sub(r'href="#', f'href="#{prefix}', body)
    body = re.sub(r"url\(#", f"url(#{prefix}", body)
    body = re.sub(r' d="[^"]*"', lambda path: re.sub(r"\d+\.\d{3,}", _hundredth, path[0].replace("\n", "")), body)
    head = Markup('<svg viewBox="{}" role="img" aria-label="{}">').format(view_box[1], alt)
    return head + Markup(body)


def _hundredth(number: re.Match[str]) -> str:
    return f"{float(number[0]):.2f}"


def _is(kind: type) -> Any:
    return lambda part: isinstance(part, kind)


def _significance(cell: str) -> str:
    """The class of a matrix's cell: above or below where it is marked significant."""
    if not cell.endswith(MARK):
        return ""
    return "above" if cell.startswith("+") else "below"


def _sentence(text: str, capital: bool = True) -> Markup:
    """With a full stop; commands between backticks are set as code."""
    whole = f"{text[:1].upper() if capital else text[:1]}{text[1:]}{'' if text.endswith('.') else '.'}"
    return Markup(re.sub(r"`([^`]*)`", r"<code>\1</code>", str(escape(whole))))


def _parameters(component: Mapping[str, Any]) -> str:
    """`ridge (penalty 10)`: a component's record in words."""
    parts = [f"{name} {value}" for name, value in component.items() if name != "name"]
    return f"{component['name']} ({', '.join(parts)})" if parts else str(component["name"])
