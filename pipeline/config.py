"""What the commands are asked to do; the command line is made from these classes. Imports nothing heavy."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import tyro

from cache.location import Location
from stages.al.protocol import CandidateLog, ProtocolConfig
from stages.surrogate.config import TrainConfig


@dataclass(frozen=True, kw_only=True)
class FeaturesConfig:
    """Which cached features, and which of their images make the pool."""

    dataset: str = "digits"
    """the data set that was embedded"""
    backbone: str = "simclr"
    """the backbone that embedded it"""
    key: str = ""
    """beginning of the cache's key, where several caches match"""
    pool: str = "whole"
    """whole, longtail:FACTOR, imbalanced:FACTOR (validation and test too), redundant:COPIES:IMAGES or subset:IMAGES;
    IMAGES may be a percentage; of surrogate's recipe returns several, comma-separated: it learns from each, as far as
    data sets can make it, and is compared on the first"""
    validation_size: int | None = None
    """images of the training split kept out of the pool; by default a fifth, at most 1,000"""
    workers: int = 0
    """processes, 0 for one per core"""
    data_root: Location = Path("data")
    """folder of everything alcove writes, or s3://bucket/prefix for its features, logs and pretrained weights"""


@dataclass(frozen=True, kw_only=True)
class TaskConfig(FeaturesConfig):
    """Which cached features, made ready how."""

    pca: int = 50
    """dimensions that PCA keeps, 0 for all"""
    engine: str = "processes"
    """processes, dask, or dask:tcp://HOST:8786 for a running scheduler, whose workers' machines need alcove and the
    data root at the same path (of an s3:// root, this machine's working folder); start them with --nthreads 1"""


@dataclass(frozen=True, kw_only=True)
class AlConfig(TaskConfig):
    """Run active learning on cached features: every head x strategy x seed, many runs at once."""

    head: tuple[str, ...] = ("ridge",)
    """ridge, solve, inv, pinv, truncated_pinv, linear, mlp, svm; settings after colons, such as ridge:penalty=50"""
    strategy: tuple[str, ...] = ("random", "entropy", "least_confidence", "margin", "coreset", "typiclust")
    """strategies, comma-separated, `alcove strategies` lists them; `all` for every one that needs no trained model"""
    seeds: str = "10"
    """how many seeds, or a range such as 5-9"""
    protocol: ProtocolConfig = field(default_factory=ProtocolConfig)
    candidate_log: CandidateLog = field(default_factory=CandidateLog)


@dataclass(frozen=True, kw_only=True)
class SurrogateConfig(TaskConfig):
    """Learn from the candidate logs which image to label next, then run what was learned as a strategy."""

    recipe: Literal["returns", "gains", "thesis"] = "returns"
    """returns: learn from random mixtures of strategies what the next rounds bring; gains: from dense look-ahead tables
    of `al` what one label changes; thesis: its own experiment, from logs to tables, with six models"""
    explore: int = 30
    """recipe returns: runs of random mixtures to learn from first"""
    turns: int = 0
    """recipe returns: how often what was learned is run and learned from too"""
    own: int = 20
    """recipe returns: its own runs in each turn"""
    head: str = ""
    """the head of the logs [ridge]; of the recipe thesis heads, comma-separated [solve,ridge]"""
    budget: str = ""
    """recipe thesis: images labeled in all, or a percentage of the pool [310]"""
    search: int = 20
    """recipe thesis: hyperparameter settings tried for each model"""
    training: TrainConfig = field(default_factory=TrainConfig)
    seeds: str = ""
    """seeds to run the surrogate on; by default those of the runs that its training never saw, of the thesis 5-14"""


@dataclass(frozen=True, kw_only=True)
class SuggestConfig:
    """Which images to label next, of a data set that has few labels or none."""

    dataset: str = "digits"
    """the data set that was embedded; its training images without a label are those to choose from"""
    backbone: str = "simclr"
    """the backbone that embedded it"""
    key: str = ""
    """beginning of the cache's key, where several caches match"""
    pca: int = 50
    """dimensions that PCA keeps, 0 for all"""
    head: str = "ridge"
    """what is fitted to the images that have labels, as for al"""
    strategy: str = ""
    """the strategy to ask; by default typiclust while labels are few, then surrogate, or margin where the head has no
    closed form"""
    batch_size: int = 50
    """how many images to suggest"""
    seed: int = 0
    """of every random draw: the same seed, images and labels give the same suggestion"""
    data_root: Location = Path("data")
    """folder of everything alcove writes, or s3://bucket/prefix for its features, logs and pretrained weights"""


@dataclass(frozen=True, kw_only=True)
class HeadsConfig(FeaturesConfig):
    """Compare heads on random labels, without active learning: the thesis's figures 5.2 to 5.4."""

    head: tuple[str, ...] = (
        *("listing", "inv", "solve", "pinv", "ridge", "ridge:penalty=gcv:intercept=true", "truncated_pinv"),
        "solve:dims_per_label=0.5",
    )
    """heads, as for al; listing is the thesis's own lines, with nothing checked"""
    seeds: str = "5"
    """how many random draws of labels, or a range such as 5-9"""
    sizes: tuple[str, ...] = ()
    """numbers of labels, or percentages of the pool; by default 10 to eight times the features' dimension, closer
    about it"""


@dataclass(frozen=True, kw_only=True)
class QueriesConfig(FeaturesConfig):
    """Draw what strategies query where it lies in the pool: SUPClust's figures 3 and 4."""

    pca: int = 50
    """dimensions that PCA keeps, 0 for all"""
    head: str = "ridge"
    """the head that strategies may ask"""
    strategy: tuple[str, ...] = ("typiclust", "supclust")
    """strategies, comma-separated, a panel for each"""
    seed: int = 0
    """of the runs and the layout"""
    protocol: ProtocolConfig = field(default_factory=lambda: ProtocolConfig(initial="own", batch_size=10, budget="100"))
    """as for al; initial=own lets each strategy choose the first labels too"""
    layout: Literal["tsne", "pca"] = "tsne"
    """t-SNE of a few thousand images, or the first two principal components of all"""
    temperature: float = 1.0
    """of SUP in figure 4"""


@dataclass(frozen=True, kw_only=True)
class ReproduceConfig:
    """Make a paper's tables and figures again, its published numbers beside ours: pretrain, embed, run and draw."""

    recipe: str = ""
    """whose: thesis, supclust or ssl_meets_al"""
    scale: Literal["small", "paper"] = "small"
    """paper: its own settings; small: the same exhibits on any images in minutes, offline, with backbones pretrained
    on them"""
    dataset: tuple[str, ...] = ()
    """data sets in the places of the paper's, comma-separated, as for embed [small: digits; paper: its own]"""
    backbone: tuple[str, ...] = ()
    """backbones in the places of the paper's, comma-separated [small: pretrained here; paper: its own]"""
    only: tuple[str, ...] = ()
    """exhibits to make, such as 5.6,5.7 [all]"""
    seeds: str = ""
    """repetitions, or a range such as 5-9 [the scale's]"""
    budget: str = ""
    """images labeled in all, or a percentage of the pool [the scale's]"""
    workers: int = 0
    """processes, 0 for one per core"""
    engine: str = "processes"
    """processes, dask, or dask:tcp://HOST:8786, as for al"""
    device: str = "auto"
    """of embedding: auto, cpu, cuda:1, as for embed"""
    out: Path | None = None
    """folder for the page; by default reports/reproduce-RECIPE-SCALE in DATA_ROOT"""
    data_root: Location = Path("data")
    """folder of everything alcove writes, or s3://bucket/prefix for its features, logs and pretrained weights"""


@dataclass(frozen=True, kw_only=True)
class CacheConfig:
    """List the feature caches, read one again and compare it with its record, or remove it."""

    action: tyro.conf.Positional[Literal["ls", "verify", "rm"]] = "ls"
    """what to do"""
    key: str = ""
    """beginning of a cache's key; empty for all, which rm refuses"""
    data_root: Location = Path("data")
    """folder of everything alcove writes, or s3://bucket/prefix for its features, logs and pretrained weights"""


@dataclass(frozen=True, kw_only=True)
class RunsConfig:
    """List the stored runs, grouped by setting, or show one; write them to a CSV file, or to MLflow."""

    action: tyro.conf.Positional[Literal["ls", "show"]] = "ls"
    """what to do"""
    key: str = ""
    """part of a run's id; show wants one that fits a single run"""
    dataset: str = ""
    """data set to list, as for embed; empty for all"""
    backbone: str = ""
    """backbone to list, short or full name; empty for all"""
    head: tuple[str, ...] = ()
    """names of heads to list, comma-separated; empty for all"""
    strategy: tuple[str, ...] = ()
    """names of strategies to list, comma-separated; empty for all"""
    pool: str = ""
    """variant of the pool to list, such as whole, longtail or longtail:50; empty for all"""
    seeds: str = ""
    """runs of so many seeds or of a range such as 5-9; empty for all"""
    sort: Literal["aubc", "seconds", "strategy"] = "aubc"
    """what comes first within a setting: the highest AUBC, the fastest, or names in order"""
    csv: Path | None = None
    """instead of a table write a file with one row per run: its settings, its results, and where its rounds are"""
    mlflow: str = ""
    """instead of a table log the runs to this MLflow tracking URI, such as sqlite:///mlflow.db, each once"""
    data_root: Location = Path("data")
    """folder of everything alcove writes, or s3://bucket/prefix for its features, logs and pretrained weights"""


@dataclass(frozen=True, kw_only=True)
class ReportConfig:
    """Draw learning curves, compare strategies in a table, and put both on one HTML page."""

    dataset: str = ""
    """data set to report on, as for embed; empty for all"""
    backbone: str = ""
    """backbone to report on, short or full name; empty for all"""
    layout: Literal["pca", "tsne"] = "pca"
    """of the map of queried images: the first two principal components, or t-SNE, which takes a while"""
    out: Path | None = None
    """folder for the report; by default reports in DATA_ROOT, or in this machine's own folder where that is a URL"""
    data_root: Location = Path("data")
    """folder of everything alcove writes, or s3://bucket/prefix for its features, logs and pretrained weights"""


@dataclass(frozen=True, kw_only=True)
class StrategiesConfig:
    """List the query strategies, or show one in full."""

    name: tyro.conf.Positional[str] = ""
    """the one to show; all are listed without"""


@dataclass(frozen=True, kw_only=True)
class DemoConfig:
    """All four stages on scikit-learn's digits, offline, on the CPU."""

    workers: int = 0
    """processes, 0 for one per core"""
    data_root: Location = Path("data")
    """folder of everything alcove writes, or s3://bucket/prefix for its features, logs and pretrained weights"""
