"""The surrogate's training table: one row per candidate of every logged round."""

import io
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from jaxtyping import Float, Int

from cache.errors import CacheMismatchError, CacheMissError, InputError
from cache.location import Location
from stages.surrogate.config import TrainConfig

STANDARD = (
    "entropy",
    "least_confidence",
    "margin",
    "typicality",
    "coreset_distance",
    "cosine_distance",
    "feature_variation",
    "proba_variation",
)
INPUTS = {
    "standard": STANDARD,
    "step": (*STANDARD, "step"),
    "valid": (*STANDARD, "step", "val_accuracy", "val_cross_entropy"),
}
"""The thesis's three input sets (002, table 5.8)."""
TARGETS = {"accuracy": ("accuracy_change", 1.0), "cross_entropy": ("cross_entropy_change", -1.0)}
"""Target -> logged column and the sign that makes higher better."""


@dataclass(frozen=True, kw_only=True)
class Log:
    """The candidate log of one run. seed : the run's"""

    path: Location
    seed: int


@dataclass(frozen=True, kw_only=True)
class Table:
    """inputs : one column per name; gain : the target, higher is better; round : rows of one round share a number.

    candidate : pool index of the image that the row is about
    """

    names: tuple[str, ...]
    inputs: Float[np.ndarray, "rows names"]
    gain: Float[np.ndarray, "rows"]
    round: Int[np.ndarray, "rows"]
    seed: Int[np.ndarray, "rows"]
    candidate: Int[np.ndarray, "rows"]

    def __len__(self) -> int:
        return len(self.gain)

    def where(self, mask: np.ndarray) -> "Table":
        columns = {name: value[mask] for name, value in vars(self).items() if name != "names"}
        return Table(names=self.names, **columns)


def build_table(logs: Sequence[Log], config: TrainConfig) -> Table:
    """Read the logs and thin them to about `config.max_rows`, evenly over rounds.

    A relative gain has its round's mean subtracted and is divided by the round's standard deviation, so that an early
    round, where any label helps, does not drown the late ones.
    Raises CacheMissError when there are no logs.
    """
    if config.max_rows < 1 or config.folds < 1:
        raise InputError(f"max_rows={config.max_rows} and folds={config.folds} must be at least 1")
    if not logs:
        raise CacheMissError("no candidate logs to learn from: run `make al LOG_SEEDS=5` first")
    names = INPUTS[config.inputs]
    column, sign = TARGETS[config.target]
    wanted = ["round", "candidate", *names, column]
    frames = [_read(log, wanted).assign(run=i, seed=log.seed) for i, log in enumerate(logs)]
    frame = pd.concat(frames, ignore_index=True)
    group = frame.groupby(["run", "round"], sort=True).ngroup().to_numpy()
    gain = sign * frame[column].to_numpy(dtype=np.float64)
    table = Table(
        names=names,
        inputs=frame[list(names)].to_numpy(dtype=np.float32),
        gain=standardised(gain, group) if config.relative else gain,
        round=group,
        seed=frame["seed"].to_numpy(),
        candidate=frame["candidate"].to_numpy(),
    )
    if len(table) <= config.max_rows:
        return table
    return table.where(np.random.default_rng(0).random(len(table)) < config.max_rows / len(table))


def _read(log: Log, columns: list[str]) -> pd.DataFrame:
    try:
        return pd.read_parquet(io.BytesIO(log.path.read_bytes()), columns=columns)
    except (OSError, ValueError) as error:
        raise CacheMismatchError(f"{log.path} is damaged: delete {log.path.parent} and run `make al` again") from error


def standardised(gain: Float[np.ndarray, "rows"], round_: Int[np.ndarray, "rows"]) -> Float[np.ndarray, "rows"]:
    """Gains with mean 0 and standard deviation 1 within each round."""
    grouped = pd.Series(gain).groupby(round_)
    spread = grouped.transform("std", ddof=0).replace(0.0, 1.0)
    return ((gain - grouped.transform("mean")) / spread).to_numpy()
