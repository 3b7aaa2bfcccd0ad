"""What a report says about the surrogates among its strategies."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from pipeline.results import Group
from pipeline.tables import Table


@dataclass(frozen=True, kw_only=True)
class SurrogateNote:
    """quality : its manifest's table, or None where that has been replaced or removed, or holds none"""

    label: str
    train_seeds: tuple[int, ...] | None
    ran_on: tuple[int, ...]
    quality: Table | None

    @property
    def seen(self) -> tuple[int, ...]:
        """Seeds that it ran on although its training saw them."""
        return tuple(seed for seed in self.ran_on if seed in (self.train_seeds or ()))


def surrogate_notes(group: Group, manifests: Mapping[str, Mapping[str, Any]]) -> list[SurrogateNote]:
    """One per surrogate of a group, with what its model's manifest tells, where that model is still there."""
    notes = []
    for place, result in enumerate(result for result in group.results if result.is_surrogate):
        manifest = manifests.get(result.strategy["model_digest"], {})
        train_seeds = result.strategy.get("train_seeds", manifest.get("train_seeds"))
        quality = manifest.get("quality")
        notes.append(
            SurrogateNote(
                label=result.label,
                train_seeds=None if train_seeds is None else tuple(train_seeds),
                ran_on=result.seeds,
                quality=quality and _quality_table(f"{group.stem}/surrogate-{place + 1}", quality),
            )
        )
    return notes


def _quality_table(stem: str, quality: Mapping[str, Any]) -> Table:
    columns = [str(name).replace("_", " ") for name in quality["columns"]]
    said = pd.DataFrame([[_cell(value) for value in row] for row in quality["rows"]], columns=columns)
    numbers = pd.DataFrame(quality["rows"], columns=quality["columns"])
    caption = str(quality.get("caption", "Quality of the surrogate"))
    return Table(stem=stem, caption=caption, said=said.set_index(columns[0]), numbers=numbers)


def _cell(value: Any) -> str:
    return f"{value:.3f}" if isinstance(value, float) else str(value)


def read_manifests(folder: Path) -> tuple[dict[str, dict[str, Any]], list[str]]:
    """Manifests of the trained surrogates, by the digest that runs know the model by (`Surrogate.record`).

    And one sentence for each that is damaged and had to be left out.
    """
    manifests, problems = {}, []
    for path in sorted((folder / "surrogates").rglob("manifest.json")):
        try:
            manifest = json.loads(path.read_bytes())
            quality = manifest.get("quality")
            if quality is not None and {len(row) for row in quality["rows"]} - {len(quality["columns"])}:
                raise ValueError("rows of its quality table are not as long as the header")
            manifests[manifest["model_digest"]] = manifest
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            problems.append(f"left out the damaged manifest {path} ({error})")
    return manifests, problems
