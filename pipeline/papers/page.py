"""The files of exhibits: one HTML page, Markdown, every table as CSV and LaTeX, every figure as PNG and PDF."""

from __future__ import annotations

import base64
import shlex
import sys
from collections.abc import Mapping, Sequence
from functools import partial
from importlib import resources
from pathlib import Path

from jinja2 import Environment, StrictUndefined
from markupsafe import Markup

from cache.files import write_whole
from pipeline.config import ReproduceConfig
from pipeline.curves import rendered
from pipeline.grid import code_versions
from pipeline.papers.base import Beside, Exhibit, Recipe
from pipeline.tables import Table

KINDS = ("png", "pdf")


def write_page(
    config: ReproduceConfig,
    recipe: Recipe,
    settings: Mapping[str, str],
    exhibits: Sequence[Exhibit],
    seconds: Sequence[float],
    out: Path,
) -> list[Path]:
    """Each file whole or not at all, the page last. seconds : that each exhibit took. Returns the files."""
    contents: dict[str, bytes] = {}
    for exhibit in exhibits:
        for table in map(plain, exhibit.tables):
            contents |= {f"{table.stem}.csv": table.csv().encode(), f"{table.stem}.tex": table.latex().encode()}
        for stem, figure in exhibit.figures.items():
            contents |= {f"{stem}.{kind}": rendered(figure, kind) for kind in KINDS}
    pictures = {name: content for name, content in contents.items() if name.endswith(".png")}
    contents["index.md"] = markdown(recipe, settings, exhibits).encode()
    contents["index.html"] = _html(config, recipe, settings, exhibits, seconds, pictures).encode()
    for name, content in contents.items():
        write_whole(out / name, partial(Path.write_bytes, data=content))
    return [out / name for name in contents]


def plain(table: Beside | Table) -> Table:
    """For the files."""
    return table.table() if isinstance(table, Beside) else table


def markdown(recipe: Recipe, settings: Mapping[str, str], exhibits: Sequence[Exhibit]) -> str:
    """The page without its pictures, which it points to."""
    parts = [f"# {recipe.paper}", "\n".join(f"- {word}: {value}" for word, value in settings.items())]
    for exhibit in exhibits:
        parts.append(f"## {exhibit.number}: {exhibit.title}")
        for table in map(plain, exhibit.tables):
            parts += [table.markdown().rstrip("\n"), table.caption]
        parts += [f"![{exhibit.captions.get(stem, exhibit.title)}]({stem}.png)" for stem in exhibit.figures]
        parts += [f"The paper: {quote}" for quote in exhibit.quotes]
        parts += [f"- {remark}" for remark in exhibit.remarks]
    if recipe.left_out:
        parts += ["## Left out", "\n".join(f"- {name}: {why}" for name, why in recipe.left_out.items())]
    return "\n\n".join(part for part in parts if part) + "\n"


def _html(
    config: ReproduceConfig,
    recipe: Recipe,
    settings: Mapping[str, str],
    exhibits: Sequence[Exhibit],
    seconds: Sequence[float],
    pictures: Mapping[str, bytes],
) -> str:
    """Self-contained: pictures are inlined, everything is escaped."""
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    environment.tests["beside"] = lambda table: isinstance(table, Beside)
    folder = resources.files("pipeline")
    return environment.from_string(folder.joinpath("papers", "page.html.j2").read_text("utf-8")).render(
        style=Markup(folder.joinpath("report.css").read_text("utf-8")),
        config=config,
        recipe=recipe,
        settings=settings,
        exhibits=list(zip(exhibits, seconds, strict=True)),
        made=sum(bool(exhibit.tables or exhibit.figures) for exhibit in exhibits),
        pictures={name: base64.b64encode(picture).decode() for name, picture in pictures.items()},
        command=shlex.join(["alcove", *sys.argv[1:]]),
        code=code_versions(),
    )
