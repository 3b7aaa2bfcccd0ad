"""The thesis's surrogate: tables 5.8 and 5.10, figures 5.6 and 5.9 (5.6 and 5.8)."""

from dataclasses import replace

from pipeline.config import SurrogateConfig
from pipeline.curves import PALETTE, SURROGATE, line_styles
from pipeline.papers.base import Bench, Exhibit, Value
from pipeline.papers.figures import draw_group, strategy_names
from pipeline.papers.thesis_scale import (
    ADAMW,
    MAIN,
    PLACES,
    PUBLISHED,
    SOLVE,
    STRATEGIES,
    backbone_of,
    names_of,
    scale_of,
    task_of,
    title_of,
)
from pipeline.thesis import CANDIDATES, LOG_SEEDS, Experiment, Setting, run_thesis
from pipeline.thesis_report import SHOWN
from stages.surrogate.thesis import MODELS, error_table

HEADS = {"Gradient based": ADAMW, "Closed-form": SOLVE}
COLUMNS = {"Standard": "acc", "+AL step": "acc_asn", "+Valid loss/acc": "acc_asnvalid"}
"""Models of table 5.8."""


def experiment(bench: Bench) -> Experiment:
    """All backbones and both heads, each head on the features it takes (5.5)."""
    return bench.once("surrogate", lambda: _experiment(bench))


def _experiment(bench: Bench) -> Experiment:
    scale, config = scale_of(bench), bench.config
    asked = SurrogateConfig(
        seeds=scale.surrogate_seeds,
        budget=scale.surrogate_budget,
        search=scale.search,
        workers=config.workers,
        engine=config.engine,
        data_root=config.data_root,
    )
    parts = []
    for head in HEADS.values():
        tasks = {backbone_of(bench, place): task_of(bench, place, head) for place in PLACES}
        parts.append(run_thesis(asked, tasks, [head]))
    bench.new_runs += sum(part.new_runs for part in parts)
    bench.reused_runs += sum(part.n_runs - part.new_runs for part in parts)
    return Experiment(
        settings=[setting for part in parts for setting in part.settings],
        new_runs=sum(part.new_runs for part in parts),
        n_runs=sum(part.n_runs for part in parts),
    )


def setting_of(bench: Bench, place: str, head: str) -> Setting:
    backbone = backbone_of(bench, place)
    return next(s for s in experiment(bench).settings if (s.backbone, s.head) == (backbone, head))


def table_5_8(bench: Bench) -> Exhibit:
    done = experiment(bench)
    found = {f"{part.capitalize()} set": error_table(done.errors("accuracy_gain", part)) for part in ("train", "test")}
    return Exhibit(
        number="Table 5.8",
        title="Error of the surrogates that predict the increase of accuracy",
        tables=[
            PUBLISHED["Table 5.8"].beside(
                "table-5.8",
                f"Mean squared error and rank (0 to 2) over {len(done.settings)} settings, three backbones by gradient "
                f"and in closed form; learned from {LOG_SEEDS - 1} repetitions, tested on the fifth.",
                lambda row, column: Value(mean=float(found[row[0]].loc[row[1], COLUMNS[column]])),
                digits=".4e",
                row_digits={"Average rank": ".3f"},
                best="lowest",
                along="row",
            )
        ],
        remarks=[
            "The thesis has 15 settings (its ranks are fifteenths) and does not list them.",
            _correlated(done),
        ],
    )


def _correlated(done: Experiment) -> str:
    """What 5.6 says of validation and test, beside ours."""
    said = []
    for name, key in (("accuracy", "accuracy"), ("accuracy's gain of a round", "accuracy_gain")):
        values = [setting.correlations[key] for setting in done.settings]
        said.append(f"{sum(values) / len(values):.2f} of the {name}")
    return f"Correlation of validation with test, the thesis: 0.99; ours: {', '.join(said)}."


def figure_5_6(bench: Bench) -> Exhibit:
    figures = {}
    for letter, (said, head) in zip("ab", HEADS.items(), strict=True):
        group = setting_of(bench, PLACES[MAIN], head).group
        kept = tuple(r for r in group.results if r.label in (*STRATEGIES.values(), SHOWN))
        group = replace(group, results=kept)
        title = title_of(bench, PLACES[MAIN], said.lower())
        styles = line_styles(group, strategy_names([group]))
        figures[f"figure-5.6{letter}"] = draw_group(group, title, band="deviation", styles=styles)
    return Exhibit(
        number="Figure 5.6",
        title=f"The surrogate {SHOWN} beside the strategies",
        figures=figures,
        quotes=["at best it is comparable, which is so only in closed form with ResNet50."],
        remarks=[f"All choose from {CANDIDATES} candidates a round, on seeds that no surrogate saw."],
    )


def figure_5_9(bench: Bench) -> Exhibit:
    colours = (SURROGATE, PALETTE[0], PALETTE[2])
    styles = {model.name: (colours[i % 3], "-" if i < 3 else "--") for i, model in enumerate(MODELS)}
    group = setting_of(bench, PLACES[MAIN], ADAMW).group
    title = title_of(bench, PLACES[MAIN], "six surrogates, AdamW")
    return Exhibit(
        number="Figure 5.9",
        title="Surrogates by inputs and target",
        figures={"figure-5.9": draw_group(group, title, band="deviation", styles=styles)},
        quotes=["those that see validation loss and accuracy do not do too well."],
    )


def table_5_10(bench: Bench) -> Exhibit:
    def aubc(place: str, training: str, column: str) -> Value:
        setting = setting_of(bench, place, HEADS[training])
        chosen = _best_model(setting) if column == "SM" else STRATEGIES[column]
        return Value.deviation(setting.results[chosen].accuracy.mean(axis=1))

    best = [
        f"{names_of(bench).get(place, place)}, {training.lower()}: {_best_model(setting_of(bench, place, head))}"
        for place in PLACES
        for training, head in HEADS.items()
    ]
    return Exhibit(
        number="Table 5.10",
        title="AUBC of strategies and the best surrogate, cherry-picked",
        tables=[
            PUBLISHED["Table 5.10"].beside(
                "table-5.10",
                f"AUBC to {scale_of(bench).surrogate_budget} labels, {CANDIDATES} candidates a round; SM: the best of "
                "the six surrogates, on these very seeds.",
                lambda row, column: aubc(*row, column),
                names=names_of(bench),
                best="highest",
                along="row",
            )
        ],
        quotes=[
            "the best surrogates are, in this order, loss_asn, acc, acc, loss, acc and acc_asn; all are below random."
        ],
        remarks=[f"SM of ours: {'; '.join(best)}."],
    )


def _best_model(setting: Setting) -> str:
    return setting.best([model.name for model in MODELS]).label
