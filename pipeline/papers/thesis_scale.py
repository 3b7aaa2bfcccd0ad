"""The thesis's settings at both scales, and what its exhibits share."""

from collections.abc import Mapping
from dataclasses import dataclass, replace

from pipeline.grid import parse_seeds
from pipeline.papers.base import Bench
from pipeline.papers.published import read_tables
from pipeline.task import Task
from stages.al.protocol import ProtocolConfig

PUBLISHED = read_tables("thesis.txt")
PLACES = ("ResNet18", "ResNet50", "DinoV2")
MAIN = 1
"""The place of the backbone that all figures have, ResNet50."""
ADAMW, SOLVE, PINV, MLP = "linear", "solve", "pinv", "mlp"
STRATEGIES = {
    "Random": "random",
    "Entropy": "entropy",
    "Margin": "margin",
    "Least Confidence": "least_confidence",
    "Typiclust": "typiclust",
    "Coreset": "coreset",
    "BADGE": "badge",
}
"""By the names of its tables."""
FEW, MANY = 500, 10_000
"""Candidates of a round (4.6, 5.6)."""
LATER = 50
"""Labels from which tables 5.11 and 5.12 count, as many as PCA keeps dimensions."""
DATASETS = {"small": ("digits",), "paper": ("cifar10", "cifar100")}
BACKBONES = {
    "small": ("simclr:steps=400", "simsiam:steps=400", "rotation:steps=200"),
    "paper": ("resnet18", "resnet50", "dinov2"),
}


@dataclass(frozen=True, kw_only=True)
class Scale:
    """seeds : of all but the surrogate and figure 5.15, which has few_seeds; budget : labels in all

    surrogate_seeds : that the surrogates run on; search : hyperparameter settings tried for each of them
    batch : labels a round of figure 5.12, which the thesis does not state; wide_pca : dimensions of figure 5.15
    """

    seeds: str
    few_seeds: str = "2"
    budget: str
    pca: int = 50
    wide_pca: int = 150
    batch: int = 10
    surrogate_seeds: str
    surrogate_budget: str
    search: int


SCALES = {
    "paper": Scale(seeds="5", budget="510", surrogate_seeds="5-9", surrogate_budget="310", search=20),
    "small": Scale(seeds="3", budget="160", surrogate_seeds="5-7", surrogate_budget="80", search=5),
}
"""5.5: 10 labels, 500 more, 5 repetitions. How long the surrogate's curves are and how it was tuned is not stated."""


def scale_of(bench: Bench) -> Scale:
    """With what the user asked for in its place."""
    known, config = SCALES[bench.scale], bench.config
    if config.seeds:
        count = len(parse_seeds(config.seeds))
        known = replace(known, seeds=config.seeds, few_seeds=config.seeds, surrogate_seeds=f"5-{4 + count}")
    return replace(known, budget=config.budget, surrogate_budget=config.budget) if config.budget else known


def names_of(bench: Bench) -> Mapping[str, str]:
    """What our columns are called: the thesis's backbones, or those in their places."""
    if bench.backbones == BACKBONES["paper"]:
        return {}
    short = [backbone.partition(":")[0] for backbone in bench.backbones]
    ours = short if len(set(short)) == len(short) else bench.backbones
    return {place: f"{name} ({place})" for place, name in zip(PLACES, ours, strict=True)}


def name_of(bench: Bench, place: str) -> str:
    return names_of(bench).get(place, place)


def backbone_of(bench: Bench, place: str) -> str:
    return bench.backbones[PLACES.index(place)]


def task_of(bench: Bench, place: str, head: str, second: bool = False, pca: int | None = None) -> Task:
    """Features for a head: projected before a closed form, as they are before gradients (5.5).

    second : of the data set in CIFAR-100's place; pca : other than the scale's
    """
    kept = scale_of(bench).pca if pca is None else pca
    return bench.task(bench.datasets[int(second)], backbone_of(bench, place), 0 if head in (ADAMW, MLP) else kept)


def protocol_of(bench: Bench, **changes: object) -> ProtocolConfig:
    """10 labels at random, then one at a time (5.5)."""
    return replace(ProtocolConfig(budget=scale_of(bench).budget, candidates=MANY), **changes)  # type: ignore[arg-type]


def title_of(bench: Bench, place: str, said: str, second: bool = False) -> str:
    """Of a figure."""
    dataset = bench.datasets[int(second)].rpartition("/")[2]
    return f"{dataset} · {name_of(bench, place)} · {said}"
