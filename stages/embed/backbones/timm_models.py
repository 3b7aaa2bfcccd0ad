"""Every network of timm, under its name there."""

from __future__ import annotations

import difflib
import math
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from cache.errors import InputError, WeightsUnavailableError
from cache.location import Location
from stages.embed.backbones.base import BACKBONES, Backbone, FrozenBackbone, Preprocessing
from stages.embed.images.base import ImageSet

if TYPE_CHECKING:
    import torch
    from torch import nn


@BACKBONES.register("timm")
@dataclass(frozen=True, kw_only=True)
class Timm(Backbone):
    """timm:MODEL, any model of timm, such as timm:convnext_tiny.fb_in22k; what its last layer reads. Wightman 2019.

    Input size and preprocessing are those of the weights' record; without a tag after the dot, timm's own choice.

    views : by the rule of the thesis (002), section 5.1, only what the training saw. We cannot know that for every
        model of timm; a mirrored image is what nearly all of them saw
    """

    argument: ClassVar[str] = "model"
    views: ClassVar[tuple[str, ...]] = ("identity", "hflip")
    model: str

    def load(self, weights: str, images: ImageSet, weights_root: Location, device: str) -> FrozenBackbone:
        return load_timm(f"timm:{self.model}", self.model, weights, device)


def load_timm(name: str, model: str, weights: str, device: str, **options: Any) -> FrozenBackbone:
    """A network of timm without its classification layer.

    name : for messages; options : of timm.create_model, such as img_size, which then is the input size
    Raises InputError: no such model, one that gives no vector per image, a weights file that does not fit.
    """
    from stages.embed.backbones.weights import RANDOM, freeze, load_strictly, read_state, seeded_init, source_name

    _require_known(model)
    with seeded_init():
        network: Any = _create(model, **options) if weights else _download(name, model, options)
    preprocessing = recorded_preprocessing(name, network, options.get("img_size"))
    dim = _feature_dim(name, model, preprocessing.crop, options)
    if weights not in ("", RANDOM):
        load_strictly(network, converted(read_state(weights), network, weights), weights, head=_head(network))
    source = source_name(weights, published=network.pretrained_cfg["tag"])
    full_name = f"{model.partition('.')[0]}.{source}"
    return freeze(network, full_name=full_name, preprocessing=preprocessing, dim=dim, device=device)


def recorded_preprocessing(name: str, network: nn.Module, side: int | None = None) -> Preprocessing:
    """What timm's record says, at the record's own input size or at `side` pixels. Raises InputError."""
    from timm.data import resolve_data_config

    config = resolve_data_config({"input_size": (3, side, side)} if side else {}, model=network)
    _, height, width = config["input_size"]
    if height != width or config["crop_mode"] not in ("center", "squash"):
        raise InputError(
            f"{name} wants input of {height}x{width} pixels with crop mode {config['crop_mode']!r}: "
            f"only square input with modes 'center' and 'squash' is supported"
        )
    return Preprocessing(
        resize=math.floor(height / config["crop_pct"]),
        crop=height,
        interpolation=config["interpolation"],
        mean=tuple(config["mean"]),
        std=tuple(config["std"]),
        squash=config["crop_mode"] == "squash",
    )


def converted(state: dict[str, torch.Tensor], network: nn.Module, path: str) -> dict[str, torch.Tensor]:
    """The state dict in timm's present names: its authors' own layout, such as Meta's, is what timm converts too.

    A position embedding of another size is resampled to the network's.
    """
    convert = getattr(sys.modules[type(network).__module__], "checkpoint_filter_fn", None)
    if convert is None:
        return state
    try:
        return convert(dict(state), network)
    except (RuntimeError, ValueError, KeyError, IndexError, AttributeError) as error:
        raise InputError(f"the weights file {path!r} does not fit this backbone: {error}") from error


def _require_known(model: str) -> None:
    import timm

    known = {*timm.list_models(), *timm.list_models(pretrained=True)}
    if model not in known:
        near = difflib.get_close_matches(model, sorted(known), n=3, cutoff=0.4)
        hint = f": did you mean {', '.join(near)}?" if near else ""
        raise InputError(f"timm has no model named {model!r}{hint}")


def _create(model: str, **options: Any) -> nn.Module:
    import timm

    return timm.create_model(model, num_classes=0, **options)


def _feature_dim(name: str, model: str, side: int, options: dict[str, Any]) -> int:
    """Length of the feature vector, from the shapes alone: a copy on torch's meta device. Raises InputError."""
    import torch

    with torch.no_grad(), torch.device("meta"):
        output = _create(model, **options).eval()(torch.zeros(1, 3, side, side))
    if not isinstance(output, torch.Tensor) or output.ndim != 2:
        raise InputError(f"{name} does not give one feature vector per image: choose another model")
    return output.shape[1]


def _head(network: Any) -> tuple[str, ...]:
    """Prefixes of the classification layers' keys, by timm's record."""
    names = network.pretrained_cfg.get("classifier") or ()
    return tuple(f"{name}." for name in ((names,) if isinstance(names, str) else names))


def _download(name: str, model: str, options: dict[str, Any]) -> nn.Module:
    """The network with its published weights: from the local cache where they are there, else from the network."""
    import timm

    from stages.embed.backbones.hub import check_hub, check_url
    from stages.embed.backbones.weights import download_errors

    record: Any = timm.get_pretrained_cfg(model)
    cached = None
    if record.hf_hub_id:
        cached = check_hub(name, model, record.hf_hub_id, record.hf_hub_filename or "model.safetensors")
    elif record.url:
        check_url(name, model, record.url)
    else:
        raise WeightsUnavailableError(
            f"timm has no published weights of {model!r}: name a model with a tag, give a local file with "
            f"WEIGHTS=path, or ask for random weights by name with WEIGHTS=random"
        )
    overlay = {"file": cached, "custom_load": False} if cached else None
    with download_errors(name, model):
        return _create(model, pretrained=True, pretrained_cfg_overlay=overlay, **options)
