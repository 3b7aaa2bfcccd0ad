"""The thesis (seed 002): tables 5.2 to 5.12 and figures 5.2 to 5.15."""

from pipeline.papers.base import Bench, Recipe


def _settings(bench: Bench) -> dict[str, str]:
    return {"data sets": ", ".join(bench.datasets), "backbones": ", ".join(bench.backbones)}


RECIPE = Recipe(
    paper="Active Learning for Semi-Supervised image classification, master's thesis, Hildesheim 2023",
    datasets={"small": ("digits",), "paper": ("cifar10", "cifar100")},
    backbones={
        "small": ("simclr:steps=400", "simsiam:steps=400", "rotation:steps=400"),
        "paper": ("resnet18", "resnet50", "dinov2"),
    },
    settings=_settings,
    exhibits={},
)
