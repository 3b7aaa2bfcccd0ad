"""Trained surrogates: a folder with models in XGBoost's own format and the manifest that names them."""

import json
from collections.abc import Collection
from functools import lru_cache
from pathlib import Path
from typing import Any

from cache.errors import CacheMismatchError, CacheMissError
from cache.files import digest_file, digest_files

MODEL_FORMAT = 3
"""Raise it when what the inputs mean changes, so that older models are refused."""


def read_manifest(folder: Path) -> dict[str, Any]:
    """The manifest of a trained surrogate, checked against its model files and this version.

    Raises CacheMissError (no model), CacheMismatchError (changed, or of another version).
    """
    try:
        manifest = json.loads((folder / "manifest.json").read_text())
        changed = digest_files([folder / name for name in manifest["models"]]) != manifest["model_digest"]
        made_by = manifest["format"]
    except FileNotFoundError as error:
        raise CacheMissError(
            f"there is no trained surrogate in {folder}: run `make surrogate` first, STRATEGY=surrogate then finds it"
        ) from error
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise CacheMismatchError(
            f"the manifest in {folder} is not a surrogate's: run `make surrogate` again"
        ) from error
    if changed or made_by != MODEL_FORMAT:
        why = "its models are not those it names" if changed else f"it has format {made_by}, not {MODEL_FORMAT}"
        raise CacheMismatchError(f"the surrogate in {folder} cannot be used, {why}: run `make surrogate` again")
    return dict(manifest)


def load_models(folder: str, inputs: Collection[str]) -> tuple[dict[str, Any], list[Any]]:
    """Manifest and boosters, one thread each; read again only when the manifest has changed.

    inputs : those that whoever asks can compute
    Raises as `read_manifest`, and CacheMismatchError where the models want others.
    """
    file = Path(folder) / "manifest.json"
    manifest, boosters = _load(folder, digest_file(file) if file.exists() else "")
    if unknown := [name for name in manifest["inputs"] if name not in inputs]:
        raise CacheMismatchError(
            f"the surrogate in {folder} cannot be used, it wants inputs unknown here: {', '.join(unknown)}: run "
            f"`make surrogate` again"
        )
    return manifest, boosters


@lru_cache(maxsize=16)
def _load(folder: str, manifest_digest: str) -> tuple[dict[str, Any], list[Any]]:
    import xgboost

    manifest = read_manifest(Path(folder))
    boosters = [xgboost.Booster({"nthread": 1}, model_file=str(Path(folder) / name)) for name in manifest["models"]]
    return manifest, boosters
