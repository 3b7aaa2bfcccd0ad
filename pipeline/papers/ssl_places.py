"""What SSL meets AL (seed 003) compares: data sets, budgets, strategies, claims of its prose, and the runs."""

from __future__ import annotations

from dataclasses import dataclass

from pipeline.papers.base import Bench
from pipeline.papers.claims import ALL, RANDOM, Claim, backbone_of, named_group
from pipeline.results import Group
from pipeline.task import Task
from stages.al.protocol import ProtocolConfig, count_of

ENTROPY, CENTERS = "Entropy", "KCenterGreedy"
STRATEGIES = {RANDOM: "random", ENTROPY: "entropy", "SVM Min Margin": "svm_min_margin", CENTERS: "coreset"}
AL = tuple(name for name in STRATEGIES if name != RANDOM)
HEAD = "linear:recipe=ssl_meets_al"
CYCLES = 5
"""Times the head is fitted: 10% a cycle end at the half of table 1. The text does not have the others' axes."""
HALF = "10"
MOST = 10_000
"""Images of the pool at the small scale: the least of which 0.1% is an image for each of ten classes."""
SEEDS = {"small": "5", "paper": "5"}
"""The paper does not say how often it repeats."""
SPREAD = "± is the standard error over seeds."


@dataclass(frozen=True, kw_only=True)
class Place:
    """A data set of the paper, and its figure. steps : labels a cycle, percent of the pool

    saved : labels that active learning saves at most, percent of the pool, and percent labeled by then (section 5)
    """

    number: str
    name: str
    steps: tuple[str, ...]
    claims: tuple[Claim, ...]
    quotes: tuple[str, ...] = ()
    saved: tuple[str, str] | None = None


PLACES = (
    Place(
        number="Figure 3",
        name="CIFAR10",
        steps=("0.1", "0.2", "1", "2", HALF),
        claims=(
            Claim(
                quote="Random sampling outperforms AL methods when the budget is less than 1%",
                ahead=AL,
                behind=(RANDOM,),
                above=False,
                high=0.01,
            ),
            Claim(
                quote="from 1% budget onward, AL + self-training methods transition to higher performance",
                ahead=AL,
                behind=(RANDOM,),
                low=0.01,
            ),
            Claim(
                quote="Entropy as informativeness method outperforms KCenterGreedy", ahead=(ENTROPY,), behind=(CENTERS,)
            ),
        ),
        quotes=(
            "the greatest active learning gain as a result of using self-training occurs after labeling 30% providing "
            "20% less annotation that is equivalent to 10000 less labeling",
        ),
        saved=("20", "30"),
    ),
    Place(
        number="Figure 4",
        name="CIFAR100",
        steps=("1", "2", HALF),
        claims=(
            Claim(
                quote="On CIFAR100, Random sampling outperforms Active learning methods under low budget",
                ahead=AL,
                behind=(RANDOM,),
                above=False,
                high=0.1,
            ),
            Claim(
                quote="representative-based methods perform better",
                ahead=(CENTERS,),
                behind=(ENTROPY,),
                high=0.1,
            ),
        ),
        quotes=(
            "the active learning gain of using self-training appeared almost after labeling 40% of dataset resulting "
            "in 10% less annotation that is equivalent to 5000 less labeling",
        ),
        saved=("10", "40"),
    ),
    Place(
        number="Figure 5",
        name="Tiny ImageNet",
        steps=("1", "2", HALF),
        claims=(
            Claim(
                quote="Among the methods using self training, Random sampling shows superior performance",
                ahead=AL,
                behind=(RANDOM,),
                above=False,
            ),
        ),
        quotes=("increasing labeled data reduces performance gap from the AL methods",),
    ),
)


def task_of(bench: Bench, dataset: str) -> Task:
    """All dimensions; at the small scale at most MOST images of the pool."""
    task = bench.task(dataset, backbone_of(bench, dataset), 0)
    if bench.scale == "paper" or task.sizes[0] <= MOST:
        return task
    return bench.task(dataset, backbone_of(bench, dataset), 0, f"subset:{MOST}")


def group_of(bench: Bench, dataset: str, step: str) -> Group:
    """All strategies with so many labels a cycle, percent of the pool.

    The first are of all classes, where they are enough for one of each: "uniformly selected from all classes at random"
    """
    task = task_of(bench, dataset)
    size = count_of("step", f"{step}%", task.sizes[0])
    protocol = ProtocolConfig(
        initial="one_per_class" if size >= task.n_classes else "random",
        initial_size=str(size),
        batch_size=size,
        budget=str(CYCLES * size),
        candidates=ALL,
    )
    return named_group(bench, task, HEAD, STRATEGIES, bench.seeds(SEEDS[bench.scale]), protocol)


def taken(bench: Bench) -> dict[Place, str]:
    """The places that have a data set, with it."""
    return dict(zip(PLACES, bench.datasets, strict=False))
