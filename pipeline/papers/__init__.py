"""`alcove reproduce`: papers' tables and figures made again. A new recipe is one file and one line in RECIPES."""

import difflib
import time
from pathlib import Path

from cache.errors import InputError, UnknownNameError
from cache.files import require_writable
from cache.location import local_folder
from pipeline.config import ReproduceConfig
from pipeline.engines import build_engine
from pipeline.papers import ssl_meets_al, supclust, thesis
from pipeline.papers.base import Bench, Recipe, chosen
from pipeline.papers.page import write_page

RECIPES: dict[str, Recipe] = {"thesis": thesis.RECIPE, "supclust": supclust.RECIPE, "ssl_meets_al": ssl_meets_al.RECIPE}


def reproduce(config: ReproduceConfig) -> list[Path]:
    """Make the exhibits that are asked for, in order, each said as it is done. Returns the files.

    Runs and features are kept, so that the same command goes on where it was stopped.
    Raises InputError (recipe, exhibits, settings) before anything is computed.
    """
    recipe = _recipe(config.recipe)
    names = chosen(recipe, config.only)
    if config.workers < 0:
        raise InputError(f"workers={config.workers} must be 0 (one per core) or more")
    build_engine(config.engine)
    bench = Bench(config, recipe)
    settings = recipe.settings(bench)
    bench.check()
    out = config.out or local_folder(config.data_root) / "reports" / f"reproduce-{config.recipe}-{config.scale}"
    require_writable(out)
    made, seconds = [], []
    for name in names:
        started = time.perf_counter()
        made.append(recipe.exhibits[name](bench))
        seconds.append(time.perf_counter() - started)
        print(f"{name} in {seconds[-1]:.0f} s: {made[-1].title}", flush=True)
    print(f"{bench.new_runs} new runs, {bench.reused_runs} reused, in {sum(seconds):.0f} s")
    return write_page(config, recipe, settings, made, seconds, out)


def _recipe(name: str) -> Recipe:
    """Raises InputError for none and UnknownNameError for one that there is not."""
    known = ", ".join(RECIPES)
    if not name:
        raise InputError(f"reproduce needs a recipe: RECIPE= one of {known}")
    if name not in RECIPES:
        near = difflib.get_close_matches(name, RECIPES, n=1, cutoff=0.5)
        hint = f"did you mean {near[0]!r}? " if near else ""
        raise UnknownNameError(f"there is no recipe named {name!r}: {hint}Known: {known}")
    return RECIPES[name]
