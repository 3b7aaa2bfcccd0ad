"""The thesis's tables 5.8 and 5.10 and figures 5.6 and 5.9, from what its experiment measured."""

import re
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
from scipy.stats import ttest_rel, wilcoxon

from cache.files import digest_json, write_whole
from pipeline.curves import PALETTE, SURROGATE, draw_curves, line_styles
from pipeline.results import DIGEST_LENGTH, Estimate, Result, seed_ranges
from pipeline.thesis import CANDIDATES, LOG_SEEDS, STRATEGIES, Experiment, Setting
from stages.surrogate.thesis import MODELS, PARTS, error_table

SHOWN = "acc_asnvalid"
"""The surrogate of figure 5.6."""
INPUTS = ("Standard", "+ AL step", "+ Valid loss/acc")
CORRELATIONS = {
    "accuracy": "accuracy",
    "cross_entropy": "cross-entropy",
    "accuracy_gain": "gain of accuracy",
    "cross_entropy_drop": "drop of cross-entropy",
}
TARGETS = {"accuracy_gain": "increase of accuracy", "cross_entropy_drop": "decrease of cross-entropy"}
SAME = 1e-12
"""Differences of AUBC between seeds that are rounding."""


def write_report(done: Experiment, out: Path) -> list[Path]:
    """The tables as Markdown, every AUBC as CSV, and both figures of every setting. Returns the files."""
    dataset = done.settings[0].group.settings["dataset"]
    stem = f"thesis-{dataset}-{digest_json([dict(s.group.settings) for s in done.settings])[:DIGEST_LENGTH]}"
    contents = {f"{stem}.md": markdown(done).encode(), f"{stem}.csv": _csv(done).encode()}
    for setting in done.settings:
        where = f"{stem}-{re.sub(r'[^A-Za-z0-9._-]+', '-', setting.name)}"
        contents[f"{where}-figure-5.6.png"] = draw_strategies(setting)
        contents[f"{where}-figure-5.9.png"] = draw_models(setting)
    for name, content in contents.items():
        write_whole(out / name, partial(Path.write_bytes, data=content))
    return [out / name for name in contents]


def markdown(done: Experiment) -> str:
    """All tables, in the thesis's layouts."""
    settings = done.settings
    seeds, budget = seed_ranges(_first(settings).seeds), int(_first(settings).budget[-1])
    errors = f"ranks 0 to 2, all averaged over backbones and heads ({len(settings)} settings)"
    parts = [
        *(
            f"Table 5.8, {said}: mean squared error of the change of the validation set, seeds 0–{LOG_SEEDS - 2} "
            f"(train) and {LOG_SEEDS - 1} (test, by which hyperparameters are chosen); {errors}\n\n"
            f"{_table(['', *INPUTS], _error_rows(done, target))}"
            for target, said in TARGETS.items()
        ),
        "What the models learn from: where the logs hold most of the pool's images, a model can know them by their "
        "typicality and variation, and no run is one on images that it has not seen\n\n"
        + _table(["", "rows", "images", "of the pool"], _log_rows(settings)),
        "Correlation of validation with test over all rounds of all logs, of the levels and of the changes from "
        f"round to round\n\n{_table(['', *CORRELATIONS.values()], _correlation_rows(settings))}",
        f"Table 5.10: AUBC to {budget} labels, mean ± standard error over seeds {seeds}, which no model saw, "
        f"{CANDIDATES} candidates a round; the best strategy is bold. SM: the best of the six on these seeds, "
        "cherry-picked; selected: the one that table 5.8 chooses\n\n"
        + _table(["", *STRATEGIES, "SM", "selected"], _aubc_rows(done)),
        f"The six models, the same\n\n{_table(['', *(model.name for model in MODELS)], _model_rows(settings))}",
        "Paired differences of AUBC, mean ± standard error, and the p of two-sided tests; the best strategy is the "
        "best on these seeds\n\n"
        + _table(["", "surrogate", "against", "difference", "p (t)", "p (Wilcoxon)"], _test_rows(done)),
    ]
    return "\n\n".join(parts) + "\n"


def paired(first: Result, second: Result) -> tuple[Estimate, float, float]:
    """First's AUBC less second's on the same seeds, and the p of a paired t test and of Wilcoxon's, two-sided.

    nan where there is nothing to test: a single seed, or the same difference on every one
    """
    assert first.seeds == second.seeds
    a, b = (result.accuracy.mean(axis=1) for result in (first, second))
    difference = Estimate.of(list(a - b))
    if len(a) < 2 or np.ptp(a - b) < SAME:
        return difference, np.nan, np.nan
    return difference, float(ttest_rel(a, b).pvalue), float(wilcoxon(np.round(a - b, 12)).pvalue)


def draw_strategies(setting: Setting) -> bytes:
    """Figure 5.6: one surrogate beside the strategies."""
    labels = [label for label in setting.results if label in (*STRATEGIES, SHOWN)]
    group = replace(setting.group, results=tuple(setting.results[label] for label in labels))
    return draw_curves(group, line_styles(group, sorted(set(STRATEGIES) - {"random"})))


def draw_models(setting: Setting) -> bytes:
    """Figure 5.9: all six; those that predict accuracy are solid, those of the loss dashed."""
    colours = (SURROGATE, PALETTE[0], PALETTE[2])
    styles = {model.name: (colours[i % 3], "-" if i < 3 else "--") for i, model in enumerate(MODELS)}
    group = replace(setting.group, results=tuple(r for r in setting.group.results if r.label in styles))
    return draw_curves(group, styles)


def _error_rows(done: Experiment, target: str) -> list[list[str]]:
    rows = []
    for part in PARTS:
        table = error_table(done.errors(target, part))
        for name, formatted in (("Average MSE", "{:.4e}"), ("Average rank", "{:.3f}")):
            rows.append([f"{name}, {part}", *map(formatted.format, table.loc[name])])
    return rows


def _log_rows(settings: Sequence[Setting]) -> list[list[str]]:
    return [[s.name, f"{s.rows:,}", f"{s.images:,}", f"{s.images / s.n_pool:.0%}"] for s in settings]


def _correlation_rows(settings: Sequence[Setting]) -> list[list[str]]:
    values = pd.DataFrame({setting.name: dict(setting.correlations) for setting in settings})
    values = values.assign(average=values.mean(axis=1))
    return [[name, *(f"{values.loc[key, name]:.3f}" for key in CORRELATIONS)] for name in values]


def _aubc_rows(done: Experiment) -> list[list[str]]:
    rows = []
    for setting in done.settings:
        chosen = [setting.results[name] for name in STRATEGIES]
        pair = _cherry(setting), setting.results[done.selected]
        best = setting.best(STRATEGIES).aubc.mean
        cells = [f"**{_said(result)}**" if result.aubc.mean == best else _said(result) for result in chosen]
        named = [f"{_said(result)} ({result.label})" for result in pair]
        rows.append([setting.name, *cells, *named])
    return rows


def _model_rows(settings: Sequence[Setting]) -> list[list[str]]:
    return [[setting.name, *(_said(setting.results[model.name]) for model in MODELS)] for setting in settings]


def _test_rows(done: Experiment) -> list[list[str]]:
    rows = []
    for setting in done.settings:
        best = setting.best(STRATEGIES)
        for role, result in (("SM", _cherry(setting)), ("selected", setting.results[done.selected])):
            for other in dict.fromkeys(("random", best.label)):
                difference, t, w = paired(result, setting.results[other])
                said = f"{other}{' (best)' * (other == best.label)}"
                rows.append(
                    [
                        setting.name,
                        f"{role}, {result.label}",
                        said,
                        _estimate(difference, "+.4f"),
                        f"{t:.2g}",
                        f"{w:.2g}",
                    ]
                )
    return rows


def _cherry(setting: Setting) -> Result:
    return setting.best([model.name for model in MODELS])


def _first(settings: Sequence[Setting]) -> Result:
    return settings[0].results["random"]


def _said(result: Result) -> str:
    return _estimate(result.aubc, ".4f")


def _estimate(estimate: Estimate, digits: str) -> str:
    error = "" if estimate.error is None else f" ± {estimate.error:.4f}"
    return f"{estimate.mean:{digits}}{error}".replace("-", "−")


def _table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Markdown that is also readable as it stands."""
    widths = [max(map(len, column)) for column in zip(header, *rows, strict=True)]
    lines = [header, ["-" * max(3, width) for width in widths], *rows]
    return "\n".join(
        f"| {' | '.join(f'{cell:<{width}}' for cell, width in zip(line, widths, strict=True))} |" for line in lines
    )


def _csv(done: Experiment) -> str:
    """A row per setting, strategy and seed: its AUBC and last accuracy, unrounded."""
    rows = [
        {
            "backbone": setting.backbone,
            "head": setting.head,
            "strategy": result.label,
            "seed": seed,
            "aubc": accuracy.mean(),
            "final_accuracy": accuracy[-1],
        }
        for setting in done.settings
        for result in setting.group.results
        for seed, accuracy in zip(result.seeds, result.accuracy, strict=True)
    ]
    return pd.DataFrame(rows).to_csv(index=False, lineterminator="\n")
