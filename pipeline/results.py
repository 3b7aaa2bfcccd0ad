"""The numbers of a report: stored runs, grouped and compared. Draws nothing, writes nothing."""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from jaxtyping import Float, Int

from cache.files import digest_json
from pipeline.reading import Run
from stages.al.protocol import Protocol
from stages.al.strategies import STRATEGIES
from stages.al.view import Needs

DIGEST_LENGTH = 8


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """Mean and its standard error over seeds; of a single seed the error is None."""

    mean: float
    error: float | None

    @classmethod
    def of(cls, values: Sequence[float]) -> "Estimate":
        error = float(np.std(values, ddof=1) / len(values) ** 0.5) if len(values) > 1 else None
        return cls(mean=float(np.mean(values)), error=error)


@dataclass(frozen=True, kw_only=True)
class Result:
    """A strategy within a group.

    seeds : those that count; left_out : those it has runs of that do not
    gain : AUBC less random's on the same seed; None for random itself and where no seed is shared with it
    """

    label: str
    strategy: Mapping[str, Any]
    seeds: tuple[int, ...]
    left_out: tuple[int, ...]
    budget: Int[np.ndarray, "rounds"]
    accuracy: Float[np.ndarray, "seeds rounds"]
    aubc: Estimate
    final: Estimate
    gain: Estimate | None
    seconds: float

    @property
    def name(self) -> str:
        return str(self.strategy["name"])

    @property
    def is_surrogate(self) -> bool:
        return "model_digest" in self.strategy


@dataclass(frozen=True, kw_only=True)
class Group:
    """Runs that differ in strategy and seed only. results : highest AUBC first. shared : all on the same seeds"""

    settings: Mapping[str, Any]
    runs: tuple[Run, ...]
    results: tuple[Result, ...]
    shared: bool

    @property
    def title(self) -> str:
        parts = [self.settings["dataset"], self.settings["backbone"], self.settings["head"]["name"]]
        return " · ".join(parts + variants_of(self.settings))

    @property
    def stem(self) -> str:
        """A file name that tells this group from every other."""
        name = "-".join(re.sub(r"[^A-Za-z0-9._-]+", "-", part) for part in self.title.split(" · "))
        return f"{name}-{digest_json(dict(self.settings))[:DIGEST_LENGTH]}"

    @property
    def left_out(self) -> dict[tuple[int, ...], list[str]]:
        """Seeds that do not count, and the labels of the strategies that have runs of them."""
        labels: dict[tuple[int, ...], list[str]] = {}
        for result in self.results:
            if result.left_out:
                labels.setdefault(result.left_out, []).append(result.label)
        return labels

    @property
    def n_seeds(self) -> str:
        """`5 seeds`, or `2 to 10 seeds` where strategies differ."""
        counts = sorted({len(result.seeds) for result in self.results})
        said = " to ".join(str(count) for count in dict.fromkeys((counts[0], counts[-1])))
        return f"{said} seed{'s' * (said != '1')}"

    @property
    def headline(self) -> str:
        """One line: AUBC of random, of the best strategy without training, and of the best surrogate."""
        dataset, backbone, head, *variants = self.title.split(" · ")
        variant = "".join(f", {name}" for name in variants)
        return (
            f"AUBC on {dataset} with {backbone} and {head}{variant}, {self.n_seeds}: "
            f"{', '.join(self._headline_parts())}"
        )

    def _headline_parts(self) -> list[str]:
        random = next((result for result in self.results if result.name == "random"), None)
        surrogate = next((result for result in self.results if result.is_surrogate), None)
        best = next((result for result in self.results if not (result.is_surrogate or sees_labels(result))), None)
        kept = [result for result in (random, best, surrogate) if result] or self.results[:1]
        shown = dict.fromkeys(result.label for result in kept)
        last = list(shown)[-1]
        parts = []
        for result in (next(result for result in self.results if result.label == label) for label in shown):
            notes = ["best strategy"] * (result is best and len(self.results) > 1)
            if result.gain and result.label == last:
                notes.append(f"{result.gain.mean:+.3f} over random")
            if set(result.seeds) & set(result.strategy.get("train_seeds") or ()):
                notes.append("not fair: trained on some of these seeds")
            parts.append(f"{result.label} {result.aubc.mean:.3f}" + f" ({', '.join(notes)})" * bool(notes))
        return parts


def sees_labels(result: Result) -> bool:
    """Whether it sees labels that its budget does not count: the pool's, as no one could, or the validation set's."""
    if result.name not in STRATEGIES:
        return False
    return bool({Needs.ORACLE, Needs.VALIDATION} & STRATEGIES.get(result.name).requires)  # type: ignore[attr-defined]


def variants_of(settings: Mapping[str, Any]) -> list[str]:
    """What of the pool and the protocol is not the default, in words: `pool longtail:50`."""
    protocol, usual = settings["protocol"], asdict(Protocol())
    words = {"initial": "initial set", "candidates": "candidates", "train_views": "trained on views"}
    named = [("pool", settings["pool"])] if settings.get("pool") else []
    named += [(said, protocol[name]) for name, said in words.items() if protocol.get(name, usual[name]) != usual[name]]
    return [f"{name} {value}" for name, value in named]


def group_runs(runs: Iterable[Run]) -> list[Group]:
    """Groups by data set, backbone, head and the rest of the settings, in that order."""
    grouped: dict[tuple[str, ...], list[Run]] = {}
    for run in runs:
        names = (run.settings["dataset"], run.settings["backbone"], run.settings["full_name"])
        grouped.setdefault((*names, run.settings["head"]["name"], digest_json(run.settings)), []).append(run)
    return [_group(grouped[key]) for key in sorted(grouped)]


def _group(runs: list[Run]) -> Group:
    """Seeds that all strategies share count, if there are two or more; otherwise each strategy's own do."""
    labels = strategy_labels([run.strategy for run in runs])
    by_label: dict[str, dict[int, Run]] = {}
    for run, label in zip(runs, labels, strict=True):
        by_label.setdefault(label, {})[run.seed] = run
    common = set.intersection(*(set(by_seed) for by_seed in by_label.values()))
    shared = len(common) > 1
    counted = {label: common if shared else set(by_seed) for label, by_seed in by_label.items()}
    random = {seed: by_label["random"][seed] for seed in counted["random"]} if "random" in by_label else {}
    results = [result_of(label, by_seed, counted[label], random) for label, by_seed in sorted(by_label.items())]
    results.sort(key=lambda result: -result.aubc.mean)
    return Group(settings=runs[0].settings, runs=tuple(runs), results=tuple(results), shared=shared)


def result_of(label: str, by_seed: Mapping[int, Run], counted: set[int], random: Mapping[int, Run]) -> Result:
    """A strategy's result from its runs by seed, of which some count, beside random's."""
    runs = [by_seed[seed] for seed in sorted(counted)]
    paired = tuple(sorted(counted & set(random))) if label != "random" else ()
    return Result(
        label=label,
        strategy=runs[0].strategy,
        seeds=tuple(sorted(counted)),
        left_out=tuple(sorted(set(by_seed) - counted)),
        budget=runs[0].budget,
        accuracy=np.stack([run.accuracy for run in runs]),
        aubc=Estimate.of([run.aubc for run in runs]),
        final=Estimate.of([run.accuracy[-1] for run in runs]),
        gain=Estimate.of([by_seed[seed].aubc - random[seed].aubc for seed in paired]) if paired else None,
        seconds=float(np.mean([run.seconds for run in runs])),
    )


def strategy_labels(strategies: Sequence[Mapping[str, Any]]) -> list[str]:
    """A label for each: the name, and where variants of a name are among them, the parameters that differ."""
    distinct = list({digest_json(dict(strategy)): strategy for strategy in strategies}.values())
    labels = []
    for strategy in strategies:
        variants = [other for other in distinct if other["name"] == strategy["name"]]
        keys = sorted({key for variant in variants for key in variant})
        differing = [key for key in keys if len({digest_json(variant.get(key)) for variant in variants}) > 1]
        parts = [_difference(key, strategy.get(key), [variant.get(key) for variant in variants]) for key in differing]
        labels.append(f"{strategy['name']} ({', '.join(parts)})" if parts else strategy["name"])
    return labels


def _difference(key: str, value: Any, values: Sequence[Any]) -> str:
    """`tau=3`; of digests as many digits as tell them apart; of seed lists their ranges."""
    if key == "model_digest":
        digests = {str(other) for other in values}
        length = next(n for n in range(DIGEST_LENGTH, 65) if len({digest[:n] for digest in digests}) == len(digests))
        return f"model {str(value)[:length]}"
    if key == "train_seeds":
        return f"trained on {seed_ranges(value or [])}"
    return f"{key}={value}"


def seed_ranges(seeds: Iterable[int]) -> str:
    """`0–4, 7` for 0, 1, 2, 3, 4, 7; `no seed` for none."""
    runs: list[list[int]] = []
    for seed in sorted(seeds):
        if runs and seed == runs[-1][-1] + 1:
            runs[-1].append(seed)
        else:
            runs.append([seed])
    parts = [str(run[0]) if len(run) == 1 else f"{run[0]}–{run[-1]}" for run in runs]
    return ", ".join(parts) or "no seed"
