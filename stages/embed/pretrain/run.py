"""Pretraining on request, ahead of the embedding that would do it when needed."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cache.errors import InputError
from cache.files import require_writable
from cache.location import local_folder
from stages.embed.backbones import BACKBONES
from stages.embed.backbones.self_supervised import SelfSupervised
from stages.embed.config import PretrainConfig
from stages.embed.device import choose_devices
from stages.embed.images import DATASETS

if TYPE_CHECKING:
    from stages.embed.backbones.self_supervised import Pretrained


def pretrain(config: PretrainConfig) -> Pretrained:
    """The weights that the configuration describes, in the place where `embed` looks for them. Raises InputError."""
    method, _ = BACKBONES.parse(config.method)
    if not issubclass(method, SelfSupervised):
        known = [name for name in BACKBONES if issubclass(BACKBONES.get(name), SelfSupervised)]
        raise InputError(f"{config.method!r} is not pretrained here: METHOD is one of {', '.join(known)}")
    backbone = BACKBONES.build(config.backbone)
    require_writable(config.data_root)
    images = DATASETS.build(config.dataset).open(local_folder(config.data_root) / "datasets")
    return backbone.pretrain(images, config.data_root / "weights", choose_devices(config.device)[0])
