"""SUPClust (seed 001): figures 5 and 6 in its setting of self-supervised features."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from cache.errors import InputError
from pipeline.papers.base import Bench, Exhibit, Recipe, Value
from pipeline.papers.claims import (
    ALL,
    RANDOM,
    Claim,
    backbone_of,
    check_places,
    claims_table,
    differences,
    named_group,
    short_name,
    values_table,
)
from pipeline.papers.figures import draw_group
from pipeline.results import Group
from pipeline.task import Task
from stages.al.protocol import ProtocolConfig

TYPICLUST = "TypiClust"
STRATEGIES = {
    RANDOM: "random",
    "Margin": "margin",
    "Least confidence": "least_confidence",
    "Entropy": "entropy",
    "BALD": "bald",
    "Coreset": "coreset",
    "DBAL": "dbal",
    TYPICLUST: "typiclust",
    "ProbCover": "probcover",
    "SUPClust": "supclust",
}
"""By the paper's names, in the order of section 4.1."""
ABLATION = {
    "SUPClust": "supclust",
    "SUPClust w/o SUP": "supclust:without=sup",
    "SUPClust w/o typicality": "supclust:without=typicality",
    "typiclust-rp": "typiclust",
}
OWN = (TYPICLUST, "ProbCover", "SUPClust")
"""Those that choose the first labels by the self-supervised features; the others begin at random."""
CIFAR_HEAD = "linear:recipe=supclust"
ISIC_HEAD = f"{CIFAR_HEAD}:learning_rate=0.0125:batch_size=50"
"""The columns of table 1 (A.1)."""
REGIMES = {"tiny": 1, "small": 5}
"""Labels a round, times the number of classes (4.1)."""
ROUNDS = 6
"""Times the head is fitted; the text does not have the figures' axes."""
LONG_TAIL = "longtail:50"
SEEDS = {"small": "3", "paper": "10"}
DATASETS = {"small": ("digits",), "paper": ("cifar10", "cifar100", "isic2019")}
BACKBONES = {
    "small": ("simclr",),
    "paper": ("simclr:recipe=supclust_cifar10", "resnet34_simclr_cifar100", "simclr:recipe=supclust_isic2019"),
}

DIVERSE, UNSURE = (TYPICLUST, "Coreset", "ProbCover"), ("Margin", "Least confidence", "Entropy", "BALD", "DBAL")
FIGURE_5 = (
    Claim(quote="the performance noticeably declines", ahead=("SUPClust w/o SUP",), behind=("SUPClust",), above=False),
    Claim(quote="falling below that of TypiClust", ahead=("SUPClust w/o SUP",), behind=("typiclust-rp",), above=False),
    Claim(
        quote="fails to achieve the performance levels observed with other querying strategies",
        ahead=("SUPClust w/o typicality",),
        behind=("typiclust-rp",),
        above=False,
    ),
)
IMBALANCED = Claim(
    quote="On CIFAR10-LT50 and ISIC2019, SUPClust demonstrates a strong performance gain compared to TypiClust",
    ahead=("SUPClust",),
    behind=(TYPICLUST,),
)
LONG_TAILED = Claim(
    quote="The performance of Coreset on CIFAR10-LT50 in the SSL setting is surprising",
    ahead=("Coreset",),
    behind=(RANDOM,),
)
EVERYWHERE = (
    Claim(quote="SUPClust performs well on all evaluated datasets", ahead=("SUPClust",), behind=(RANDOM,)),
    Claim(quote="generally perform better than their uncertainty-based counterparts", ahead=DIVERSE, behind=UNSURE),
    Claim(
        quote="their performance in low-budget regimes is worse than randomly selecting samples",
        ahead=UNSURE,
        behind=(RANDOM,),
        above=False,
    ),
)


@dataclass(frozen=True)
class Panel:
    """A data set of figure 6. place : that it stands in"""

    dataset: str
    place: str

    @property
    def long_tailed(self) -> bool:
        return self.place == "CIFAR-10-LT50"

    @property
    def name(self) -> str:
        return short_name(self.dataset) + "-LT50" * self.long_tailed


def panels(bench: Bench) -> list[Panel]:
    """The first data set twice, as it is and with a long tail; of several, the last in the place of ISIC-2019."""
    first, *others = bench.datasets
    places = [*["CIFAR-100"] * (len(others) - 1), "ISIC-2019"] if others else []
    return [
        Panel(first, "CIFAR-10"),
        Panel(first, "CIFAR-10-LT50"),
        *(Panel(dataset, place) for dataset, place in zip(others, places, strict=True)),
    ]


def task_of(bench: Bench, panel: Panel) -> Task:
    """All dimensions, as the embeddings come. Raises InputError where a long tail would leave a class no image."""
    pool = LONG_TAIL if panel.long_tailed else "whole"
    return bench.task(panel.dataset, backbone_of(bench, panel.dataset), 0, pool)


def group_of(bench: Bench, panel: Panel, regime: str, strategies: Mapping[str, str]) -> Group:
    """Strategies on a data set, in one of the two budgets."""
    task = task_of(bench, panel)
    step = REGIMES[regime] * task.n_classes
    return named_group(
        bench,
        task,
        ISIC_HEAD if panel.place == "ISIC-2019" else CIFAR_HEAD,
        strategies,
        bench.seeds(SEEDS[bench.scale]),
        ProtocolConfig(initial_size=str(step), batch_size=step, budget=str(ROUNDS * step), candidates=ALL),
        own=[name for name, spec in strategies.items() if spec.partition(":")[0] in map(STRATEGIES.get, OWN)],
    )


def figure_5(bench: Bench) -> Exhibit:
    """The ablation, one label a class and round, on the last data set (ISIC-2019)."""
    panel = panels(bench)[-1] if len(bench.datasets) > 1 else panels(bench)[0]
    group = group_of(bench, panel, "tiny", ABLATION)
    step = int(group.results[0].budget[0])
    ours = {claim: differences([group], claim) for claim in FIGURE_5}
    aubcs = {(("", name), panel.name): _aubc(group, name) for name in ABLATION}
    return Exhibit(
        number="Figure 5",
        title=f"Ablation study on {panel.name} with budget={step} and with self-supervised embeddings",
        tables=[
            values_table("figure-5", f"AUBC: mean test accuracy over the {ROUNDS} rounds. {SPREAD}", aubcs),
            claims_table("figure-5-claims", FIGURE_5, {panel.name: ours}, "AUBC"),
        ],
        figures={"figure-5": draw_group(group, f"{panel.name} · {step} labels a round", "error", step)},
        remarks=[f"{panel.name} stands in the place of ISIC-2019."] * (panel.dataset != "isic2019"),
    )


def figure_6(bench: Bench) -> Exhibit:
    """All strategies on every data set, in both budgets."""
    groups: dict[tuple[Panel, str], Group] = {}
    remarks = []
    for panel in panels(bench):
        try:
            task_of(bench, panel)
        except InputError as error:
            if not panel.long_tailed:
                raise
            remarks.append(f"{panel.name} is left out: {error}.")
            continue
        groups |= {(panel, regime): group_of(bench, panel, regime, STRATEGIES) for regime in REGIMES}
    titles = {key: f"{key[0].name}, {key[1]}" for key in groups}
    aubcs = {(("", name), titles[key]): _aubc(group, name) for name in STRATEGIES for key, group in groups.items()}
    ours = {titles[key]: {c: differences([group], c) for c in _claims(key[0])} for key, group in groups.items()}
    return Exhibit(
        number="Figure 6",
        title="Results in the tiny and the small budget regime, SSL setting",
        tables=[
            values_table("figure-6", f"AUBC: mean test accuracy over the {ROUNDS} rounds. {SPREAD}", aubcs),
            claims_table("figure-6-claims", [*EVERYWHERE, IMBALANCED, LONG_TAILED], ours, "AUBC"),
        ],
        figures={_stem(*key): draw_group(group, titles[key]) for key, group in groups.items()},
        captions={_stem(*key): f"{titles[key]}: {REGIMES[key[1]]} x classes labels a round." for key in groups},
        remarks=remarks,
    )


SPREAD = "± is the standard error over seeds."


def _claims(panel: Panel) -> list[Claim]:
    imbalanced = panel.long_tailed or panel.place == "ISIC-2019"
    return [*EVERYWHERE, *([IMBALANCED] if imbalanced else []), *([LONG_TAILED] if panel.long_tailed else [])]


def _aubc(group: Group, name: str) -> Value:
    (result,) = (result for result in group.results if result.label == name)
    return Value(mean=result.aubc.mean, spread=result.aubc.error)


def _stem(panel: Panel, regime: str) -> str:
    return f"figure-6-{panel.name}-{regime}"


def _settings(bench: Bench) -> dict[str, str]:
    check_places(bench, ("CIFAR-10", "CIFAR-100", "ISIC-2019"))
    return {
        "Data": "; ".join(f"{panel.name} in the place of {panel.place}" for panel in panels(bench))
        if bench.datasets != DATASETS["paper"]
        else "CIFAR-10, CIFAR-10-LT50, CIFAR-100, ISIC-2019",
        "Features": f"{', '.join(bench.backbones)}, frozen; all dimensions, one view, no augmentation of the labeled "
        "images",
        "Head": "linear, 200 epochs of SGD with Nesterov momentum 0.9, rate 0.025 falling as a cosine, batches of at "
        "most 100, weight decay 0.0003; in the place of ISIC-2019 rate 0.0125, batches of at most 50 (table 1)",
        "Protocol": f"tiny: one label a class and round, small: five; {ROUNDS} rounds, ours, as the text does not have "
        "the axes; every unlabeled image may be queried",
        "First labels": "TypiClust, ProbCover and SUPClust choose theirs, the others begin at random; the text does "
        "not say. Their clusters are the same for all seeds, so seeds differ less than with clusters drawn anew",
        "Repetitions": f"seeds {', '.join(map(str, bench.seeds(SEEDS[bench.scale])))}; {SPREAD}",
        "Pool": "the training images less those for validation (1,000, or a fifth of fewer than 5,000), which nothing "
        "here uses",
    }


RECIPE = Recipe(
    paper="SUPClust: Active Learning at the Boundaries, 2024",
    datasets=DATASETS,
    backbones=BACKBONES,
    settings=_settings,
    exhibits={"Figure 5": figure_5, "Figure 6": figure_6},
    left_out={
        "The FSL setting (dotted lines of figure 6)": "it trains a ResNet18 in every round",
        "The curves' numbers": "the text does not have them; what its prose says of them stands beside ours",
        "Figures 3 and 4": "make queries draws them",
    },
)
