"""The thesis's exhibits of active learning without a surrogate (5.5 and 5.8)."""

from collections.abc import Mapping, Sequence

from matplotlib.figure import Figure

from pipeline.curves import line_styles
from pipeline.grid import parse_seeds
from pipeline.papers.base import Bench, Exhibit, Value
from pipeline.papers.figures import draw_group
from pipeline.papers.thesis_full import ONE_THREAD, without_second
from pipeline.papers.thesis_scale import (
    ADAMW,
    FEW,
    LATER,
    MAIN,
    MANY,
    MLP,
    PINV,
    PLACES,
    PUBLISHED,
    SOLVE,
    STRATEGIES,
    names_of,
    protocol_of,
    scale_of,
    task_of,
    title_of,
)
from pipeline.results import Group, Result
from stages.al.protocol import ProtocolConfig

HEAD_OF_PART = {
    "Closed-form solution (Solve)": SOLVE,
    "Gradient based solution (AdamW)": ADAMW,
    "Gradient based": ADAMW,
    "Closed-form approximation (Solve)": SOLVE,
}
SAID = {ADAMW: "AdamW", SOLVE: "solve", PINV: "Penrose inverse", MLP: "MLP"}
TRUE_LOSS = "true_loss"
NAMES = (*sorted(set(STRATEGIES.values()) - {"random"}), TRUE_LOSS)
"""What gives colours, so that a strategy has the same in all figures."""
SINGULAR = (
    "With fewer labels than dimensions the system is singular. Our solve notices and takes the Penrose inverse, as 4.4 "
    "says; the thesis's lines do not notice and are almost random to 50 labels (5.5). So our closed form starts better "
    "than the published one, and solve and the Penrose inverse query and predict alike."
)


def group_of(
    bench: Bench, place: str, head: str, strategies: Sequence[str], protocol: ProtocolConfig, pca: int | None = None
) -> Group:
    """The runs of a backbone and head, compared."""
    task = task_of(bench, place, head, pca=pca)
    return bench.group(task, head, strategies, parse_seeds(scale_of(bench).seeds), protocol)


def aubc_of(group: Group, strategy: str, start: int = 0) -> Value:
    """Mean test accuracy over the rounds from `start` labels on (4.5)."""
    result = result_of(group, strategy)
    return Value.deviation(result.accuracy[:, result.budget >= start].mean(axis=1))


def result_of(group: Group, strategy: str) -> Result:
    return next(result for result in group.results if result.name == strategy)


def all_of(bench: Bench, place: str, head: str, **changes: object) -> Group:
    """The seven strategies."""
    return group_of(bench, place, head, list(STRATEGIES.values()), protocol_of(bench, **changes))


def figure_5_5(bench: Bench) -> Exhibit:
    return Exhibit(
        number="Figure 5.5",
        title="Strategies by gradient and in closed form",
        figures=_of_heads(bench, "figure-5.5", (ADAMW, SOLVE)),
        quotes=[
            "until there are as many labels as the 50 dimensions the closed form is almost random; by gradient Coreset "
            "and BADGE never match the others, in closed form all end alike."
        ],
        remarks=[SINGULAR],
    )


def _of_heads(bench: Bench, stem: str, heads: Sequence[str], more: Sequence[str] = ()) -> dict[str, Figure]:
    """A panel for each head: the seven strategies and more."""
    figures = {}
    for letter, head in zip("ab", heads, strict=False):
        group = group_of(bench, PLACES[MAIN], head, [*STRATEGIES.values(), *more], protocol_of(bench))
        figures[f"{stem}{letter}"] = _drawn(bench, group, SAID[head])
    return figures


def _drawn(bench: Bench, group: Group, said: str, start: int = 0, second: bool = False) -> Figure:
    title = title_of(bench, PLACES[MAIN], said, second)
    return draw_group(group, title, band="deviation", start=start, styles=line_styles(group, NAMES))


def table_5_6(bench: Bench) -> Exhibit:
    return Exhibit(
        number="Table 5.6",
        title="AUBC by backbone, in closed form and by gradient",
        tables=[
            PUBLISHED["Table 5.6"].beside(
                "table-5.6",
                f"AUBC from 10 to {scale_of(bench).budget} labels.",
                lambda row, place: aubc_of(_three(bench, place, HEAD_OF_PART[row[0]]), STRATEGIES[row[1]]),
                names=names_of(bench),
                best="highest",
            )
        ],
        remarks=[SINGULAR],
    )


def _three(bench: Bench, place: str, head: str) -> Group:
    """Runs that table 5.12 has too, of the strategies of tables 5.6 and 5.7."""
    return group_of(bench, place, head, ["random", "typiclust", "coreset"], protocol_of(bench))


def table_5_7(bench: Bench) -> Exhibit:
    def seconds(place: str, head: str) -> Value:
        return Value.deviation([run.seconds for run in _three(bench, place, head).runs])

    return Exhibit(
        number="Table 5.7",
        title="Seconds of an experiment of active learning",
        tables=[
            PUBLISHED["Table 5.7"].beside(
                "table-5.7",
                f"Seconds of a run from 10 to {scale_of(bench).budget} labels, evaluated after every one: mean ± "
                "standard deviation over the runs of table 5.6, one thread.",
                lambda row, place: seconds(place, {"AdamW": ADAMW, "Solve": SOLVE}[row[1]]),
                names=names_of(bench),
                digits=".2f",
                best="lowest",
            )
        ],
        remarks=[
            ONE_THREAD,
            "Runs by gradient are trained up to ten at once and share the seconds; the thesis ran one at a time.",
            "A run that the store had already kept the seconds of the day that it was made.",
        ],
    )


def table_5_9(bench: Bench) -> Exhibit:
    def aubc(part: str, name: str, strategy: str) -> Value:
        candidates = {"500": FEW, "10000": MANY}[name]
        return aubc_of(all_of(bench, PLACES[MAIN], HEAD_OF_PART[part], candidates=candidates), STRATEGIES[strategy])

    return Exhibit(
        number="Table 5.9",
        title="AUBC by the number of candidates a round",
        tables=[
            PUBLISHED["Table 5.9"].beside(
                "table-5.9",
                f"AUBC from 10 to {scale_of(bench).budget} labels, {names_of(bench).get(PLACES[MAIN], PLACES[MAIN])}.",
                lambda row, strategy: aubc(*row, strategy),
                best="highest",
            )
        ],
        remarks=[SINGULAR] + ["A pool of fewer than 10,000 images is offered whole."] * _is_small(bench),
    )


def _is_small(bench: Bench) -> bool:
    return task_of(bench, PLACES[MAIN], SOLVE).sizes[0] < MANY


def figure_5_7(bench: Bench) -> Exhibit:
    return Exhibit(
        number="Figure 5.7",
        title="The true loss as a strategy",
        figures=_of_heads(bench, "figure-5.7", (ADAMW, SOLVE), [TRUE_LOSS]),
        quotes=["asking for the highest true loss is bad in the long run, and unexpectedly good early in closed form."],
    )


def figure_5_8(bench: Bench) -> Exhibit:
    group = all_of(bench, PLACES[MAIN], MLP)
    return Exhibit(
        number="Figure 5.8",
        title="Strategies with an MLP",
        figures={"figure-5.8": _drawn(bench, group, SAID[MLP])},
        quotes=["the MLP is better, and has the same issues as the linear classifier."],
        remarks=["The thesis does not state its network: ours has one hidden layer of 128 units."],
    )


def figure_5_10(bench: Bench) -> Exhibit:
    groups = {
        "figure-5.10a": (all_of(bench, PLACES[MAIN], SOLVE), "solve, strategies from 10"),
        "figure-5.10b": (all_of(bench, PLACES[MAIN], SOLVE, initial_size=str(LATER)), f"solve, from {LATER}"),
    }
    return Exhibit(
        number="Figure 5.10",
        title="Strategies from the 10th label, or from the 50th",
        figures={stem: _drawn(bench, group, said, LATER) for stem, (group, said) in groups.items()},
        quotes=["no solid conclusion can be derived from it."],
        remarks=[SINGULAR],
    )


def table_5_11(bench: Bench) -> Exhibit:
    first_labels = {"Coreset 10": "10", "Coreset 50": str(LATER)}

    def aubc(place: str, first: str) -> Value:
        group = group_of(bench, place, SOLVE, ["coreset"], protocol_of(bench, initial_size=first))
        return aubc_of(group, "coreset", LATER)

    return Exhibit(
        number="Table 5.11",
        title="Coreset from the 10th label, or from the 50th",
        tables=[
            PUBLISHED["Table 5.11"].beside(
                "table-5.11",
                f"AUBC from {LATER} to {scale_of(bench).budget} labels, solve.",
                lambda row, place: aubc(place, first_labels[row[1]]),
                names=names_of(bench),
                best="highest",
            )
        ],
    )


def figure_5_11(bench: Bench) -> Exhibit:
    return Exhibit(
        number="Figure 5.11",
        title="The Penrose inverse, and solve",
        figures=_of_heads(bench, "figure-5.11", (PINV, SOLVE)),
        quotes=[
            "the Penrose inverse still collapses where there are as many labels as dimensions, but before that "
            "strategies that ask the classifier can work."
        ],
        remarks=[SINGULAR],
    )


def table_5_12(bench: Bench) -> Exhibit:
    heads = {"Solve": SOLVE, "Penrose Inv.": PINV}

    def aubc(place: str, name: str, strategy: str) -> Value:
        return aubc_of(all_of(bench, place, heads[name]), STRATEGIES[strategy], LATER + 1)

    return Exhibit(
        number="Table 5.12",
        title="AUBC of solve and the Penrose inverse after the 50th label",
        tables=[
            PUBLISHED["Table 5.12"].beside(
                "table-5.12",
                f"AUBC after {LATER} and to {scale_of(bench).budget} labels.",
                lambda row, strategy: aubc(*row, strategy),
                names=names_of(bench),
                best="highest",
            )
        ],
        remarks=[
            SINGULAR,
            "The published numbers of solve cannot be those of table 5.6's runs without their first 50 labels: "
            "ResNet50's random would sum to 450 × 0.8453 = 380 over the last 450 labels, and to 500 × 0.7464 = 373 "
            "over all 500.",
        ],
    )


def figure_5_12(bench: Bench) -> Exhibit:
    batch = scale_of(bench).batch
    groups: Mapping[str, tuple[Group, str]] = {
        "figure-5.12a": (all_of(bench, PLACES[MAIN], ADAMW, batch_size=batch), f"AdamW, {batch} a round"),
        "figure-5.12b": (all_of(bench, PLACES[MAIN], ADAMW), "AdamW, one a round"),
    }
    return Exhibit(
        number="Figure 5.12",
        title="Batches, and one label at a time",
        figures={stem: _drawn(bench, group, said) for stem, (group, said) in groups.items()},
        quotes=["batches help BADGE hugely; of the others no difference is to be seen."],
        remarks=[f"The thesis does not state its batch: ours has {batch} labels."],
    )


def figure_5_13(bench: Bench) -> Exhibit:
    title = "Strategies on CIFAR-100"
    if len(bench.datasets) < 2:
        return without_second("Figure 5.13", title)
    groups = {letter: second_group(bench, head) for letter, head in zip("ab", (ADAMW, SOLVE), strict=True)}
    return Exhibit(
        number="Figure 5.13",
        title=title,
        figures={
            f"figure-5.13{letter}": _drawn(bench, group, said, second=True)
            for (letter, group), said in zip(groups.items(), ("AdamW", "solve"), strict=True)
        },
        quotes=[
            "by gradient entropy, margin, least confidence and TypiClust are always above random; the closed form is "
            "about 10% worse."
        ],
        remarks=_one_of_each(groups["a"]),
    )


def second_group(bench: Bench, head: str, pca: int | None = None, seeds: str = "") -> Group:
    """Of the data set in CIFAR-100's place: one label of each class first, then as many more as on the other."""
    task = task_of(bench, PLACES[MAIN], head, second=True, pca=pca)
    first = task.n_classes
    more = scale_of(bench).budget
    budget = more if "%" in more else str(first + int(more) - 10)
    protocol = protocol_of(bench, initial="one_per_class", initial_size=str(first), budget=budget)
    chosen = parse_seeds(seeds or scale_of(bench).seeds)
    return bench.group(task, head, list(STRATEGIES.values()), chosen, protocol)


def _one_of_each(group: Group) -> list[str]:
    budget = group.results[0].budget
    return [f"From {budget[0]} labels, one of each class, to {budget[-1]}."]


def figure_5_15(bench: Bench) -> Exhibit:
    scale, title = scale_of(bench), "More PCA dimensions on CIFAR-100"
    if len(bench.datasets) < 2:
        return without_second("Figure 5.15", title)
    group = second_group(bench, SOLVE, scale.wide_pca, scale.few_seeds)
    kept = group.settings["pca"]
    said = f"solve, {f'PCA to {kept}' if kept else 'no PCA'}"
    return Exhibit(
        number="Figure 5.15",
        title=title,
        figures={"figure-5.15": _drawn(bench, group, said, second=True)},
        quotes=["more dimensions are a huge boost; Coreset is as good as TypiClust early, and falls behind later."],
        remarks=_one_of_each(group),
    )
