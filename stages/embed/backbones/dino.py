"""DINO and DINOv2: vision transformers trained without labels, through timm. A new one costs a line."""

from dataclasses import dataclass
from typing import Any, ClassVar

from cache.location import Location
from stages.embed.backbones.base import BACKBONES, Backbone, FrozenBackbone
from stages.embed.images.base import ImageSet


@dataclass(frozen=True, kw_only=True)
class DINO(Backbone):
    """trained on ImageNet without labels; class token. Caron et al. 2021.

    Input and preprocessing are timm's record. Views are those of the thesis (002), section 5.1, for DINOv2, whose
    augmentations DINO shares.
    """

    model: ClassVar[str]
    options: ClassVar[dict[str, Any]] = {}
    views: ClassVar[tuple[str, ...]] = ("identity", "hflip", "sharpen", "blur")

    def load(self, weights: str, images: ImageSet, weights_root: Location, device: str) -> FrozenBackbone:
        from stages.embed.backbones.timm_models import load_timm

        return load_timm(self.name, self.model, weights, device, **self.options)


@dataclass(frozen=True, kw_only=True)
class DINOv2(DINO):
    """trained on LVD-142M without labels; class token. Oquab et al. 2023; thesis (002), section 5.1.

    Input 224 pixels, 16x16 patches, as in the paper's evaluation: timm's record says 518, the resolution of the last
    training phase, at five times the cost. The rest of the preprocessing is timm's record. `_reg` has four register
    tokens: Darcet et al. 2024.
    """

    # residual branches at full strength: at timm's 1e-5, the features of random weights hardly differ
    options: ClassVar[dict[str, Any]] = {"img_size": 224, "init_values": 1.0}


MODELS: dict[str, tuple[type[DINO], str]] = {
    "dino": (DINO, "vit_small_patch16_224.dino"),
    "dino_b": (DINO, "vit_base_patch16_224.dino"),
    "dinov2": (DINOv2, "vit_small_patch14_dinov2.lvd142m"),
    "dinov2_b": (DINOv2, "vit_base_patch14_dinov2.lvd142m"),
    "dinov2_l": (DINOv2, "vit_large_patch14_dinov2.lvd142m"),
    "dinov2_g": (DINOv2, "vit_giant_patch14_dinov2.lvd142m"),
    "dinov2_reg": (DINOv2, "vit_small_patch14_reg4_dinov2.lvd142m"),
    "dinov2_b_reg": (DINOv2, "vit_base_patch14_reg4_dinov2.lvd142m"),
    "dinov2_l_reg": (DINOv2, "vit_large_patch14_reg4_dinov2.lvd142m"),
    "dinov2_g_reg": (DINOv2, "vit_giant_patch14_reg4_dinov2.lvd142m"),
}
"""Our name -> timm's. Without a size it is the small one."""

for _name, (_family, _model) in MODELS.items():
    _about = {"model": _model, "__doc__": f"{_model} of timm, {_family.__doc__}", "__module__": __name__}
    BACKBONES.register(_name)(type(f"{_family.__name__}_{_name}", (_family,), _about))
