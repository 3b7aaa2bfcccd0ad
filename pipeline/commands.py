"""What each command does and says. No algorithm: the stages do the work."""

import shlex
import shutil
import statistics
import sys
import time
import warnings
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

from cache.catalog import damage, describe_cache, list_caches, remove_cache
from cache.errors import CacheMissError, InputError
from cache.files import digest_json, require_writable
from cache.location import local_folder
from cache.runs import RunStore, StoredRun
from pipeline import recipes
from pipeline.config import (
    AlConfig,
    CacheConfig,
    DemoConfig,
    FeaturesConfig,
    HeadsConfig,
    QueriesConfig,
    ReportConfig,
    ReproduceConfig,
    RunsConfig,
    StrategiesConfig,
    SuggestConfig,
    SurrogateConfig,
    TaskConfig,
)
from pipeline.gains import evaluate_surrogate, matching_runs, train_surrogate
from pipeline.grid import Run, check_grid, expand, parse_seeds, plan, run_grid
from pipeline.report import make_report
from pipeline.results import strategy_labels
from pipeline.surrogate import compare, exploration, learn_surrogate
from pipeline.task import Task, find_features, model_folder, prepare_task
from stages.al.initial import require_initial
from stages.al.models import read_manifest
from stages.al.strategies.surrogate import SHIPPED
from stages.al.variants import Redundant, parse_variant
from stages.embed.config import EmbedConfig, PretrainConfig
from stages.surrogate.config import TrainConfig

REASONS_SHOWN = 10
T = TypeVar("T", TaskConfig, AlConfig, SurrogateConfig, ReproduceConfig)


def embed(config: EmbedConfig) -> int:
    """Stage one. Returns 2 when images could not be read: everything else is embedded, and they are recorded."""
    from stages.embed.extract import embed as extract

    started = time.perf_counter()
    done = extract(config)
    seconds = time.perf_counter() - started
    if done.new_images:
        copied = f", copied {done.copied_images:,} from earlier features" if done.copied_images else ""
        print(f"embedded {done.new_images:,} images x {done.n_views} views in {seconds:.0f} s{copied}: {done.path}")
    elif done.copied_images:
        print(f"copied {done.copied_images:,} images x {done.n_views} views from earlier features: {done.path}")
    elif done.missing_images:
        print(f"nothing of this part is missing: {done.path}")
    else:
        print(f"reused the features of {done.n_images:,} images x {done.n_views} views: {done.path}")
    if done.missing_images:
        print(f"{done.missing_images} images are left to the other workers; the last one to finish completes the cache")
    for why in list(done.unreadable.values())[:REASONS_SHOWN]:
        print(f"alcove: {why}", file=sys.stderr)
    if done.unreadable:
        print(
            f"alcove: {len(done.unreadable)} of {done.n_images} images could not be read and are recorded as such, the "
            f"others are embedded: replace or remove them and run the same command again",
            file=sys.stderr,
        )
    return 2 if done.unreadable else 0


def pretrain(config: PretrainConfig) -> int:
    """Ahead of stage one: weights of our own, and the line that uses them."""
    from stages.embed.backbones.self_supervised import probe_text
    from stages.embed.pretrain.run import pretrain as make_weights

    done = make_weights(config)
    if done.stood_before:
        print("pretrained before with this recipe on these images: nothing to do")
    print(f"weights  {done.file}\nrecord   {done.record}\npicture  {done.picture}")
    print(f"probe    {probe_text(done.read_record().get('probe', 'none recorded'))}")
    defaults = PretrainConfig()
    words = {
        "DATASET": (config.dataset, defaults.dataset),
        "BACKBONE": (config.backbone, defaults.backbone),
        "DATA_ROOT": (str(config.data_root), str(defaults.data_root)),
    }
    given = [f"{name}={shlex.quote(value)}" for name, (value, default) in words.items() if value != default]
    print(f"use      {' '.join(['make embed', *given])}")
    return 0


def al(config: AlConfig) -> int:
    """Stage two: the grid of heads x strategies x seeds."""
    config = _rooted(config)
    started = time.perf_counter()
    seeds = parse_seeds(config.seeds)
    config.protocol.check()
    config.candidate_log.check()
    require_initial(config.protocol.initial)
    check_grid(config.head, config.strategy, config.workers, config.engine)
    task = _prepare(config, config.pca)
    protocol = config.protocol.resolve(task.sizes[0])
    strategies, left_out = expand(config.strategy, config.head, task.n_views)
    if left_out:
        print(f"all but {', '.join(left_out)}, which these heads or views do not suit")
    runs = plan(
        task,
        config.head,
        strategies,
        seeds,
        protocol,
        config.data_root,
        config.candidate_log,
    )
    _say_models(runs)
    done, new = run_grid(task, runs, RunStore(config.data_root / "runs"), config.workers, config.engine)
    _say_runs(done, new, started)
    _warn_of_seen_seeds(done)
    return 0


def surrogate(config: SurrogateConfig) -> int:
    """Stage three: learn what to query, then run what was learned on seeds that it never saw."""
    recipe = {"returns": _returns, "gains": _gains, "thesis": _thesis}[config.recipe]
    return recipe(config)


def _returns(config: SurrogateConfig) -> int:
    """Random mixtures of strategies, what accuracy and cross-entropy did next, and a model of it."""
    from pipeline.surrogate_figures import write_figures

    config = replace(_rooted(config), head=config.head or "ridge")
    started = time.perf_counter()
    if min(config.explore, config.turns, config.own) < 0 or config.explore < 2:
        raise InputError(
            f"explore={config.explore} must be at least 2, turns={config.turns} and own={config.own} at least 0"
        )
    check_grid([config.head], ["surrogate"], config.workers, config.engine)
    seeds = parse_seeds(config.seeds) if config.seeds else None
    names, (first, *others) = _listed("DATASET", config.dataset), _listed("POOL", config.pool)
    for pool in others:
        parse_variant(pool)
    config = replace(config, pool=first)
    tasks = [_prepare(replace(config, dataset=name), config.pca) for name in names]
    for task in tasks:
        exploration(config, task)
    learned_from = tasks + [task for pool in others for task in _shaped(config, names, pool)]
    folder = model_folder(config.data_root, tasks[0], config.head, "returns")
    if len(learned_from) > 1:
        digest = digest_json(
            [model_folder(config.data_root, task, config.head, "returns").parts[-4:] for task in learned_from]
        )
        folder = local_folder(config.data_root) / "surrogates" / f"of-{len(learned_from)}-pools-{digest[:10]}"
    new = learn_surrogate(config, learned_from, folder)
    manifest = read_manifest(folder)
    print(f"{'learned' if new else 'reused'} the surrogate: {manifest['rows']} queries, {folder}")
    if len(learned_from) > 1:
        print(f"any pool's queries can ask it: STRATEGY=surrogate:{folder}")
    shares = sorted(manifest["importance"].items(), key=lambda item: -item[1])
    seen = ", ".join(f"{name} {share:.2f}" for name, share in shares[:8] if share)
    print(f"what it looks at: {seen or 'nothing, because so few queries teach nothing'}")
    store = RunStore(config.data_root / "runs")
    compared = []
    for task in tasks:
        done, count = compare(config, task, store, seeds, folder)
        _say_runs(done, count, started)
        compared += done
    for path in write_figures(manifest, store, compared, local_folder(config.data_root) / "reports"):
        print(path)
    return 0


def _listed(word: str, text: str) -> list[str]:
    """The entries of a comma-separated list, each once. Raises InputError where one is empty."""
    entries = list(dict.fromkeys(entry.strip() for entry in text.split(",")))
    if "" in entries:
        raise InputError(f"{word}={text} has an empty entry: write names with a comma between two")
    return entries


def _shaped(config: SurrogateConfig, names: Sequence[str], pool: str) -> list[Task]:
    """That variant of the pool of each data set; where it cannot be, or would all be labeled, that is said."""
    tasks = []
    for name in names:
        try:
            task = _prepare(replace(config, dataset=name, pool=pool), config.pca)
            if exploration(config, task).budget < task.sizes[0]:
                tasks.append(task)
                continue
            why = f"its {task.sizes[0]} images would all be labeled"
        except InputError as error:
            why = str(error)
        print(f"left out {pool} of {name}: {why}")
    return tasks


def _gains(config: SurrogateConfig) -> int:
    """The dense look-ahead tables of `al`, a model of what one label changes, and runs of it."""
    if config.budget:
        warnings.warn("BUDGET= is ignored: the surrogate runs with the protocols of its logs", stacklevel=2)
    config = replace(_rooted(config), head=config.head or "ridge")
    started = time.perf_counter()
    store = RunStore(config.data_root / "runs")
    check_grid([config.head], ["gain_surrogate"], config.workers, config.engine)
    seeds = parse_seeds(config.seeds) if config.seeds else None
    task = _prepare(config, config.pca)
    _require_copies_together(config, task.sizes[0])
    runs = matching_runs(store, task, config.head)
    folder = model_folder(config.data_root, task, config.head, "gains")
    trained = train_surrogate(config, task, runs, folder)
    manifest = read_manifest(folder)
    print(
        f"{'trained' if trained else 'reused'} the surrogate of {manifest['target']} "
        f"({manifest['trees']} trees, {manifest['rows']} rows, seeds {manifest['train_seeds']}): {folder}"
    )
    print("\n".join(_quality_lines(manifest["quality"])))
    done, new = evaluate_surrogate(config, task, runs, store, seeds, manifest["train_seeds"])
    if not done:
        print("every seed of these runs trained the surrogate: `make al SEEDS=10` adds seeds it never saw")
        return 0
    _say_runs(done, new, started)
    return 0


def _thesis(config: SurrogateConfig) -> int:
    """The thesis's experiment: logs, models, runs, tables and figures, for every backbone and head."""
    from pipeline.thesis import HEADS, STRATEGIES, check_thesis, run_thesis
    from pipeline.thesis_report import markdown, write_report

    config = _rooted(config)
    started = time.perf_counter()
    if config.training != TrainConfig():
        warnings.warn("the recipe thesis has its own inputs and targets: those asked for are ignored", stacklevel=2)
    heads, backbones = ([part.strip() for part in text.split(",")] for text in (config.head or HEADS, config.backbone))
    check_grid(heads, [*STRATEGIES, "gain_surrogate"], config.workers, config.engine)
    check_thesis(config)
    tasks = {name: _prepare(replace(config, backbone=name), config.pca) for name in backbones}
    done = run_thesis(config, tasks, list(dict.fromkeys(heads)))
    files = write_report(done, local_folder(config.data_root) / "reports")
    seconds = time.perf_counter() - started
    print(f"{done.new_runs} new runs, {done.n_runs - done.new_runs} reused, in {seconds:.0f} s\n\n{markdown(done)}")
    for path in files:
        print(path)
    return 0


def suggest(config: SuggestConfig) -> int:
    """The next images to label, in a list and on a page."""
    from pipeline.suggest import make_suggestion

    print("\n".join(make_suggestion(config)))
    return 0


def report(config: ReportConfig) -> int:
    """Pictures, tables and one page from the run store."""
    made = make_report(config)
    print(f"{made.page}, {made.summary.name}, and {len(made.files) - 2} files of tables and figures beside them")
    for headline, verdict in zip(made.headlines, made.verdicts, strict=True):
        print(f"{headline}. {verdict}")
    return 0


def heads(config: HeadsConfig) -> int:
    """The thesis's figures 5.2 to 5.4 on cached features, and their numbers."""
    from pipeline.head_figures import write_figures
    from pipeline.heads import accuracy_lines, check_heads, compare_heads

    started = time.perf_counter()
    seeds = parse_seeds(config.seeds)
    check_heads(config.head, config.sizes, config.workers)
    out = local_folder(config.data_root) / "reports"
    task = _prepare(config, pca=0)
    require_writable(out)
    comparison = compare_heads(task, config.head, seeds, config.sizes, config.workers)
    for path in write_figures(comparison, out):
        print(path)
    print("\n".join(accuracy_lines(comparison)))
    print(f"{len(comparison.table)} fits in {time.perf_counter() - started:.0f} s")
    return 0


def queries(config: QueriesConfig) -> int:
    """SUPClust's figures 3 and 4 of some strategies on cached features."""
    from pipeline.queries import check_queries, find_queries
    from pipeline.query_figures import write_figures

    started = time.perf_counter()
    check_queries(config)
    out = local_folder(config.data_root) / "reports"
    task = _prepare(config, config.pca)
    require_writable(out)
    found = find_queries(task, config)
    for path in write_figures(found, out):
        print(path)
    print(f"{len(found.queried)} strategies in {time.perf_counter() - started:.0f} s")
    return 0


def reproduce(config: ReproduceConfig) -> int:
    """A paper's tables and figures, one after the other, on one page."""
    from pipeline.papers import reproduce as make_exhibits

    for path in make_exhibits(_rooted(config)):
        print(path)
    return 0


def cache(config: CacheConfig) -> int:
    """The feature caches. `verify` returns 2 when one is not what was written."""
    root = config.data_root / "features"
    paths = [path for path in list_caches(root) if path.name.startswith(config.key)]
    if not paths:
        raise CacheMissError(f"there is no feature cache in {root}" + f" with key {config.key}" * bool(config.key))
    if config.action == "rm" and (not config.key or len(paths) > 1):
        raise InputError(f"rm removes one cache: name it with --key, one of {', '.join(path.name for path in paths)}")
    damaged = 0
    for path in paths:
        about = describe_cache(path)
        state = about.problem or ("complete" if about.complete else "unfinished")
        if config.action == "verify" and (about.complete or about.problem):
            problem = damage(path)
            damaged += problem is not None
            state = problem or "as written"
        print(
            f"{path.name}  {about.dataset}  {about.full_name}  {'x'.join(map(str, about.shape))}  "
            f"{about.bytes / 1e6:.1f} MB  {','.join(about.views)}  {state}"
        )
        if config.action == "rm":
            remove_cache(path)
            shutil.rmtree(local_folder(config.data_root) / "derived" / path.name, ignore_errors=True)
            print(f"removed {path} and what was derived from it")
    return 2 if damaged else 0


def runs(config: RunsConfig) -> int:
    """The stored runs. Damaged ones are named on stderr and passed over."""
    from pipeline.runs import chosen_runs, list_runs, show_run, write_csv

    if config.action == "show":
        print("\n".join(show_run(config)))
    elif config.mlflow:
        from pipeline.tracking import log_runs

        new, there = log_runs(chosen_runs(config), config.mlflow)
        print(f"{new} new runs logged, {there} were there: {config.mlflow}")
    elif config.csv:
        print(f"{write_csv(config, config.csv)} runs: {config.csv}")
    else:
        print("\n".join(list_runs(config)))
    return 0


def strategies(config: StrategiesConfig) -> int:
    """The query strategies, from what their classes say of themselves."""
    from pipeline.strategies import describe_strategy, list_strategies

    print("\n".join(describe_strategy(config.name) if config.name else list_strategies()))
    return 0


def demo(config: DemoConfig) -> int:
    """The four stages in order, with every default."""
    recipe = recipes.demo(config.data_root, config.workers)
    return embed(recipe.embed) or al(recipe.al) or surrogate(recipe.surrogate) or report(recipe.report)


def _rooted(config: T) -> T:
    """With a data root that dask workers find from whatever folder they were started in."""
    root = config.data_root
    return (
        replace(config, data_root=root.absolute())
        if config.engine != "processes" and isinstance(root, Path)
        else config
    )


def _prepare(config: FeaturesConfig, pca: int) -> Task:
    variant = parse_variant(config.pool)
    cache = find_features(config.dataset, config.backbone, config.key, config.data_root)
    task = prepare_task(cache, pca, config.validation_size, config.data_root, variant)
    n_pool, n_validation, n_test = task.sizes
    said_pool = f" ({task.about['pool']})" if variant else ""
    left_out = f"; {task.n_unlabeled} unlabeled images left out" if task.n_unlabeled else ""
    left_out += f"; {len(cache.unreadable)} unreadable images left out" if cache.unreadable else ""
    print(
        f"features {cache.key} ({task.about['full_name']}): pool {n_pool}{said_pool}, validation {n_validation}, "
        f"test {n_test}, {task.n_classes} classes{left_out}"
    )
    return task


def _require_copies_together(config: SurrogateConfig, n_pool: int) -> None:
    """Raises InputError where an image could be scored by a model that learned from its copy."""
    variant, folds = parse_variant(config.pool), config.training.folds
    if isinstance(variant, Redundant) and folds > 0 and (n_pool // variant.copies) % folds:
        raise InputError(
            f"copies of one image would fall into different folds of the surrogate: take a number of images for POOL= "
            f"that {folds} divides, it is {n_pool // variant.copies}"
        )


def _say_runs(runs: Sequence[StoredRun], new: int, started: float) -> None:
    seconds = time.perf_counter() - started
    print(f"{new} new runs, {len(runs) - new} reused, in {seconds:.0f} s: {runs[0].path.parent}")
    aubcs: dict[str, list[float]] = {}
    heads, strategies = (strategy_labels([run.record["run"][part] for run in runs]) for part in ("head", "strategy"))
    for run, head, strategy in zip(runs, heads, strategies, strict=True):
        aubcs.setdefault(f"{head} {strategy}", []).append(run.record["summary"]["aubc"])
    for name, values in sorted(aubcs.items(), key=lambda item: -statistics.mean(item[1])):
        spread = statistics.stdev(values) / len(values) ** 0.5 if len(values) > 1 else 0.0
        print(f"  {name:<30} AUBC {statistics.mean(values):.4f} +- {spread:.4f} ({len(values)} seeds)")


def _warn_of_seen_seeds(runs: Sequence[StoredRun]) -> None:
    seen = {
        run.record["run"]["seed"]
        for run in runs
        if run.record["run"]["seed"] in run.record["run"]["strategy"].get("train_seeds", [])
    }
    if seen:
        print(f"note: the surrogate was trained on seeds {sorted(seen)}, its curves there are not a fair comparison")


def _say_models(runs: Sequence[Run]) -> None:
    """Which model each surrogate asks, and what that learned from."""
    for spec in dict.fromkeys(run.strategy for run in runs):
        name, _, model = spec.partition(":")
        if name == "surrogate":
            shipped = model == "shipped"
            about = read_manifest(SHIPPED if shipped else Path(model))["about"]
            names = ", ".join(dict.fromkeys(pool["dataset"] for pool in about["pools"]))
            print(f"surrogate: the model {'that comes with alcove' if shipped else model}, learned from {names}")


def _quality_lines(quality: dict[str, Any]) -> list[str]:
    widths = (20, 18, 10)
    rows = [quality["columns"], *quality["rows"]]
    return ["  " + "".join(f"{cell!s:<{width}}" for cell, width in zip(row, widths, strict=True)) for row in rows]
