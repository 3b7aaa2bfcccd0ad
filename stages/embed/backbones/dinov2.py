"""DINOv2, the small vision transformer, through timm."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, cast

from cache.errors import InputError
from stages.embed.backbones.base import BACKBONES, Backbone, FrozenBackbone, Preprocessing
from stages.embed.images.base import ImageSet

if TYPE_CHECKING:
    import torch
    from timm.models.vision_transformer import VisionTransformer

ARCHITECTURE = "vit_small_patch14_dinov2"
MODEL = f"{ARCHITECTURE}.lvd142m"
REPOSITORY, FILE = f"timm/{MODEL}", "model.safetensors"
SIDE = 224


@BACKBONES.register("dinov2")
@dataclass(frozen=True, kw_only=True)
class DINOv2(Backbone):
    """ViT-S/14 trained without labels on LVD-142M; class token, 384. Oquab et al. 2023; thesis (002), section 5.1.

    Input 224 pixels, 16x16 patches, as in the paper's evaluation: timm's record says 518, the resolution of the last
    training phase, at five times the cost. The rest of the preprocessing is timm's record.
    """

    views: ClassVar[tuple[str, ...]] = ("identity", "hflip", "sharpen", "blur")

    def load(self, weights: str, images: ImageSet, weights_root: Path, device: str) -> FrozenBackbone:
        from timm.data import resolve_data_config

        from stages.embed.backbones.weights import RANDOM, freeze

        network = self._network(weights)
        config = resolve_data_config({"input_size": (3, SIDE, SIDE)}, model=network)
        preprocessing = Preprocessing(
            resize=round(SIDE / config["crop_pct"]),
            crop=SIDE,
            interpolation=config["interpolation"],
            mean=config["mean"],
            std=config["std"],
        )
        source = {"": "lvd142m", RANDOM: RANDOM}.get(weights, Path(weights).stem)
        return freeze(
            network, full_name=f"{ARCHITECTURE}.{source}", preprocessing=preprocessing, dim=384, device=device
        )

    def _network(self, weights: str) -> VisionTransformer:
        from stages.embed.backbones.weights import RANDOM, load_strictly, read_state, seeded_init

        with seeded_init():  # residual branches at full strength: at timm's 1e-5, random features hardly differ
            network = _create(pretrained=False, init_values=1.0) if weights else _download()
        if weights not in ("", RANDOM):
            state = _converted(read_state(weights), network, weights)
            load_strictly(network, state, weights, head="head.")
        return network


def _create(**options: Any) -> VisionTransformer:
    import timm

    return cast("VisionTransformer", timm.create_model(MODEL, img_size=SIDE, num_classes=0, **options))


def _converted(state: dict[str, torch.Tensor], network: VisionTransformer, path: str) -> dict[str, torch.Tensor]:
    """The state dict in timm's names, position embedding resampled to our input. Takes Meta's own files too."""
    from timm.models.vision_transformer import checkpoint_filter_fn

    try:
        return checkpoint_filter_fn(state, network)
    except (RuntimeError, ValueError, KeyError, IndexError) as error:
        raise InputError(f"the weights file {path!r} does not fit this backbone: {error}") from error


def _download() -> VisionTransformer:
    """The published weights: from huggingface_hub's local cache where they are there, else from the network."""
    from huggingface_hub import hf_hub_url, try_to_load_from_cache

    from stages.embed.backbones.weights import check_reachable, download_errors

    cached = try_to_load_from_cache(REPOSITORY, FILE)
    if not isinstance(cached, str):
        check_reachable("dinov2", MODEL, hf_hub_url(REPOSITORY, FILE), _ask)
    overlay = {"file": cached} if isinstance(cached, str) else None
    with download_errors("dinov2", MODEL):
        return _create(pretrained=True, pretrained_cfg_overlay=overlay)


def _ask(url: str) -> object:
    """The headers, through huggingface_hub's own session and so its proxy and offline settings, without its retries."""
    from huggingface_hub.utils import get_session

    from stages.embed.backbones.weights import PROBE_SECONDS

    return get_session().head(url, timeout=PROBE_SECONDS).raise_for_status()
