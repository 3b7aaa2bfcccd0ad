"""SSL meets AL (seed 003): figures 3 to 6 and table 1, its methods with self-training, on frozen features."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial

from pipeline.efficiency import labels_needed
from pipeline.papers.base import Bench, Beside, Exhibit, Recipe, Row, Value
from pipeline.papers.claims import (
    RANDOM,
    accuracy_of,
    check_places,
    claims_table,
    differences,
    short_name,
    values_table,
)
from pipeline.papers.figures import draw_group
from pipeline.papers.published import read_tables
from pipeline.papers.ssl_law import figure_6
from pipeline.papers.ssl_places import AL, CYCLES, HALF, MOST, PLACES, SEEDS, SPREAD, STRATEGIES, Place, group_of, taken
from pipeline.results import Group
from pipeline.tables import Table

PUBLISHED = read_tables("ssl_meets_al.txt")


def curves(bench: Bench, place: Place) -> Exhibit:
    """Figure 3, 4 or 5."""
    dataset = taken(bench).get(place)
    if dataset is None:
        missing = f"DATASET= names no data set in the place of {place.name}: nothing is drawn"
        return Exhibit(number=place.number, title=f"AL performance on {place.name}", remarks=[missing])
    name = short_name(dataset)
    groups = {step: group_of(bench, dataset, step) for step in place.steps}
    stem = place.number.lower().replace(" ", "-")
    ours = {claim: differences(list(groups.values()), claim, start=1) for claim in place.claims}
    tables: list[Beside | Table] = [
        values_table(stem, f"Test accuracy after each cycle. {SPREAD}", _accuracies(groups), corner="Cycle"),
        claims_table(f"{stem}-claims", place.claims, {name: ours}, "accuracy after a query"),
    ]
    if place.saved:
        tables.append(_saved_table(stem, name, groups[HALF], place.saved))
    return Exhibit(
        number=place.number,
        title=f"AL performance on {name}",
        tables=tables,
        figures={f"{stem}-{step}": draw_group(group, f"{name} · {step}% a cycle") for step, group in groups.items()},
        quotes=place.quotes,
        remarks=_about_initial(groups),
    )


def _accuracies(groups: Mapping[str, Group]) -> dict[tuple[Row, str], Value]:
    cells = {}
    for step, group in groups.items():
        size = int(group.results[0].budget[0])
        part = f"{step}% a cycle: {size} label{'s' * (size > 1)}"
        for name in STRATEGIES:
            for cycle, values in enumerate(accuracy_of(group, [name]).T, start=1):
                cells[(part, name), str(cycle)] = Value.error(values.tolist())
    return cells


def _saved_table(stem: str, name: str, group: Group, published: tuple[str, str]) -> Beside:
    rows = [("", "Labels saved, % of the pool"), ("", "by then labeled, %")]
    found = most_saved(group)
    return Beside(
        stem=f"{stem}-saved",
        caption="What active learning saves at most, 10% a cycle: labels that Random needs for the same mean accuracy, "
        "less those spent; a dash where Random reaches no accuracy of a later cycle.",
        rows=rows,
        columns=[name],
        ours={(row, name): Value(mean=100 * share) for row, share in zip(rows, found or (), strict=False)},
        published={(row, name): text for row, text in zip(rows, published, strict=True)},
        digits=".1f",
    )


def most_saved(group: Group) -> tuple[float, float] | None:
    """Shares of the pool: the most labels that a strategy saves against Random, and those labeled by then.

    Of mean curves, straight between rounds. None where Random never reaches what a strategy has after a query.
    """
    random, budget = accuracy_of(group, [RANDOM]).mean(axis=0), group.results[0].budget
    found = []
    for name in AL:
        needed = labels_needed(budget, random, accuracy_of(group, [name]).mean(axis=0))
        found += [(float(n - spent), float(spent)) for n, spent in zip(needed[1:], budget[1:], strict=True) if n == n]
    saved, spent = max(found, default=(None, None))
    n_pool = group.settings["n_pool"]
    return None if saved is None or spent is None else (saved / n_pool, spent / n_pool)


def _about_initial(groups: Mapping[str, Group]) -> list[str]:
    few = [f"{step}%" for step, group in groups.items() if group.settings["protocol"]["initial"] == "random"]
    return [f"Of {', '.join(few)} there is not an image for every class: the first labels are random."] * bool(few)


def table_1(bench: Bench) -> Exhibit:
    """Methods at 50% labeling."""
    found = {place.name: dataset for place, dataset in taken(bench).items()}
    groups = {
        name: group_of(bench, dataset, HALF) for name, dataset in found.items() if name in PUBLISHED["Table 1"].columns
    }

    names = {name: f"{short_name(dataset)} ({name})" for name, dataset in found.items() if bench.scale == "small"}

    def measure(row: Row, column: str) -> Value | None:
        part, name = row
        if part != "AL + Self-training" or name not in STRATEGIES or column not in groups:
            return None
        return Value.error(accuracy_of(groups[column], [name])[:, -1].tolist())

    table = PUBLISHED["Table 1"].beside(
        "table-1", f"Accuracy with half of the pool labeled. {SPREAD}", measure, digits=".3f", names=names
    )
    return Exhibit(
        number="Table 1",
        title="Performance of AL methods with and without Self-training at 50% labeling",
        tables=[table],
        remarks=["Without self-training, and for VAAL, a network is trained in every round: not made here."],
    )


def _settings(bench: Bench) -> dict[str, str]:
    check_places(bench, [place.name for place in PLACES])
    most = "" if bench.scale == "paper" else f"; at most {MOST:,} of them, classes in proportion"
    return {
        "Data": ", ".join(
            f"{short_name(dataset)} in the place of {place.name}" for place, dataset in taken(bench).items()
        ),
        "Features": f"{', '.join(bench.backbones)}, frozen; all dimensions, one view. The paper crops and flips the "
        "labeled images at random",
        "Head": "linear, 100 epochs of SGD with momentum 0.9, rate 30 falling as a cosine, batches of 256, no weight "
        "decay, for all strategies; SVM Min Margin asks one-vs-rest SVMs with C = 5",
        "Protocol": f"as many first labels as labels a cycle, in percent of the pool; {CYCLES} cycles, the text having "
        "no axes; every unlabeled image may be queried",
        "Repetitions": f"seeds {', '.join(map(str, bench.seeds(SEEDS[bench.scale])))}, the paper does not say how "
        f"many; {SPREAD}",
        "Pool": f"the training images less those for validation (1,000, or a fifth of fewer than 5,000){most}",
    }


RECIPE = Recipe(
    paper="Reducing Label Effort: Self-Supervised meets Active Learning, 2021",
    datasets={"small": ("digits",), "paper": ("cifar10", "cifar100", "tiny_imagenet")},
    backbones={"small": ("simsiam",), "paper": ("simsiam:recipe=ssl_meets_al",)},
    settings=_settings,
    exhibits={
        **{place.number: partial(curves, place=place) for place in PLACES},
        "Figure 6": figure_6,
        "Table 1": table_1,
    },
    left_out={
        "AL without self-training (dashed lines)": "it trains a ResNet18 in every round",
        "VAAL": "it trains an autoencoder and a discriminator in every round",
        "The curves' numbers": "the text does not have them; what its prose says of them stands beside ours",
    },
)
