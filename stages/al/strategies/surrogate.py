import json
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float

from cache.errors import CacheMismatchError, CacheMissError
from cache.files import digest_file, digest_files
from stages.al.acquisition import METRICS, REQUIRES, acquisition_table
from stages.al.strategies.base import STRATEGIES, ScoredStrategy
from stages.al.view import PoolView


def read_manifest(folder: Path) -> dict[str, Any]:
    """The manifest of a trained surrogate, checked against its model files and the inputs known here.

    Raises CacheMissError (no model), CacheMismatchError (changed, or made for other inputs).
    """
    try:
        manifest = json.loads((folder / "manifest.json").read_text())
        changed = digest_files([folder / name for name in manifest["models"]]) != manifest["model_digest"]
        unknown = [name for name in manifest["inputs"] if name not in METRICS]
    except FileNotFoundError as error:
        raise CacheMissError(
            f"there is no trained surrogate in {folder}: run `make surrogate` first, STRATEGY=surrogate then finds it"
        ) from error
    except (ValueError, KeyError, TypeError) as error:
        raise CacheMismatchError(
            f"the manifest in {folder} is not a surrogate's: run `make surrogate` again"
        ) from error
    if changed or unknown:
        why = f"it wants inputs unknown here: {', '.join(unknown)}" if unknown else "its models are not those it names"
        raise CacheMismatchError(f"the surrogate in {folder} cannot be used, {why}: run `make surrogate` again")
    return dict(manifest)


def load_surrogate(folder: str) -> tuple[dict[str, Any], list[Any]]:
    """Manifest and boosters, one thread each; read again only when the manifest has changed."""
    return _load(folder, digest_file(Path(folder) / "manifest.json") if Path(folder).exists() else "")


@lru_cache(maxsize=16)
def _load(folder: str, manifest_digest: str) -> tuple[dict[str, Any], list[Any]]:
    import xgboost

    manifest = read_manifest(Path(folder))
    boosters = [xgboost.Booster({"nthread": 1}, model_file=str(Path(folder) / name)) for name in manifest["models"]]
    return manifest, boosters


@STRATEGIES.register("surrogate")
@dataclass(frozen=True, kw_only=True)
class Surrogate(ScoredStrategy):
    """Query the candidate whose gain the trained XGBoost models predict highest.

    Thesis seed (002), sections 4.7 and 5.6. Deviations: the thesis scores 500 random candidates a round, here the
    protocol's candidates are scored; an image is scored by a model that did not learn from it (see
    stages/surrogate/train.py).

    model : folder that `make surrogate` wrote
    """

    model: str
    argument = "model"
    paper = "thesis seed 2023, 4.7"
    cost = "n (d + C + trees)"
    requires = REQUIRES

    def score(self, view: PoolView) -> Float[np.ndarray, "candidates"]:
        manifest, boosters = load_surrogate(self.model)
        inputs = np.column_stack(list(acquisition_table(view, tuple(manifest["inputs"])).values()))
        fold = view.candidates % len(boosters)
        scores = np.empty(len(inputs))
        for k, booster in enumerate(boosters):
            if (fold == k).any():
                scores[fold == k] = booster.inplace_predict(inputs[fold == k])
        return scores

    def record(self) -> dict[str, Any]:
        manifest, _ = load_surrogate(self.model)
        return {"name": self.name} | {name: manifest[name] for name in ("model_digest", "train_seeds")}
