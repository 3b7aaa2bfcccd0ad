"""The thesis (seed 002): tables 5.2 to 5.12 and figures 5.2 to 5.15, from features, heads and runs."""

import sys

from cache.errors import InputError
from pipeline.grid import parse_seeds
from pipeline.papers import thesis_full, thesis_runs, thesis_surrogate
from pipeline.papers.base import Bench, Recipe
from pipeline.papers.thesis_scale import BACKBONES, DATASETS, LATER, PLACES, scale_of
from pipeline.results import seed_ranges
from stages.al.protocol import count_of


def _settings(bench: Bench) -> dict[str, str]:
    """What the page says of the data and the protocol. Raises InputError where backbones or data sets are too many."""
    if len(bench.backbones) != len(PLACES):
        raise InputError(
            f"the thesis compares {len(PLACES)} backbones, BACKBONE= names {len(bench.backbones)}: give one in the "
            f"place of each of {', '.join(PLACES)}"
        )
    if len(bench.datasets) > 2:
        raise InputError(
            f"DATASET= names {len(bench.datasets)} data sets: the thesis has CIFAR-10 and, for figures 5.13 to 5.15, "
            "CIFAR-100"
        )
    scale = scale_of(bench)
    if count_of("BUDGET", scale.budget, sys.maxsize) <= LATER:
        raise InputError(f"BUDGET={scale.budget} ends before tables 5.11 and 5.12 begin: at least {LATER + 1} labels")
    places = [f"{backbone} in the place of {place}" for backbone, place in zip(bench.backbones, PLACES, strict=True)]
    first, *others = bench.datasets
    second = f"{others[0]} in that of CIFAR-100" if others else "none in that of CIFAR-100: no figures 5.13 to 5.15"
    return {
        "Data": ", ".join(bench.datasets)
        if bench.datasets == DATASETS["paper"]
        else f"{first} in the place of CIFAR-10, {second}",
        "Backbones": ", ".join(places) if bench.backbones != BACKBONES["paper"] else ", ".join(bench.backbones),
        "Protocol": f"10 random labels, then one a round to {scale.budget}, from 10,000 random candidates a round; "
        f"PCA to {scale.pca} dimensions before closed forms, none before gradients",
        "Heads": "AdamW at 1e-3 with PyTorch's other defaults (5.2); batches of 32, an epoch's smaller last batch left "
        "out, at most 100 epochs, 10 without a better validation loss: of these the thesis states only the 32, and "
        "that it stops early (4.6). One view of each image: its augmented copies (5.1) are not trained on. Closed "
        "forms as in the listing (4.4)",
        "Repetitions": f"seeds {seed_ranges(parse_seeds(scale.seeds))}; ± is the standard deviation, as in the thesis",
        "Surrogate": f"learned from 4 repetitions, tuned on a fifth over {scale.search} settings, run on seeds "
        f"{scale.surrogate_seeds}, to {scale.surrogate_budget} labels; the thesis states neither how many settings nor "
        "how many labels",
        "Pool": "the training images less those for validation (1,000, or a fifth of fewer than 5,000), of which the "
        "thesis does not state how many it has",
    }


RECIPE = Recipe(
    paper="Active Learning for Semi-Supervised image classification, master's thesis, Hildesheim 2023",
    datasets=DATASETS,
    backbones=BACKBONES,
    settings=_settings,
    exhibits={
        "Table 5.2": thesis_full.table_5_2,
        "Table 5.3": thesis_full.table_5_3,
        "Table 5.4": thesis_full.table_5_4,
        "Figure 5.2": thesis_full.figure_5_2,
        "Figure 5.3": thesis_full.figure_5_3,
        "Table 5.5": thesis_full.table_5_5,
        "Figure 5.4": thesis_full.figure_5_4,
        "Figure 5.5": thesis_runs.figure_5_5,
        "Table 5.6": thesis_runs.table_5_6,
        "Table 5.7": thesis_runs.table_5_7,
        "Table 5.8": thesis_surrogate.table_5_8,
        "Figure 5.6": thesis_surrogate.figure_5_6,
        "Table 5.9": thesis_runs.table_5_9,
        "Figure 5.7": thesis_runs.figure_5_7,
        "Figure 5.8": thesis_runs.figure_5_8,
        "Figure 5.9": thesis_surrogate.figure_5_9,
        "Table 5.10": thesis_surrogate.table_5_10,
        "Figure 5.10": thesis_runs.figure_5_10,
        "Table 5.11": thesis_runs.table_5_11,
        "Figure 5.11": thesis_runs.figure_5_11,
        "Table 5.12": thesis_runs.table_5_12,
        "Figure 5.12": thesis_runs.figure_5_12,
        "Figure 5.13": thesis_runs.figure_5_13,
        "Figure 5.14": thesis_full.figure_5_14,
        "Figure 5.15": thesis_runs.figure_5_15,
    },
    left_out={
        "Table 5.1": "it chooses the optimiser and its rate on the whole labeled data; its choice, AdamW at 1e-3, is "
        "used here",
        "Figure 5.1": "a picture of the features, without numbers",
        "The whole network trained in every round": "4.2 gives it a week a repetition and reports no number of it",
    },
)
