"""Preprocessing equals the record of the weights: torchvision's transforms, timm's transforms."""

import numpy as np
import pytest
import timm
import torch
from PIL import Image
from timm.data import create_transform, resolve_data_config
from torchvision.models import get_model_weights

from cache.errors import InputError
from stages.embed.backbones import BACKBONES, Preprocessing, timm_models, torchvision_models

SHAPES = [(300, 400), (500, 333), (97, 180), (224, 224), (256, 256), (8, 8), (32, 32)]
TORCHVISION = ["resnet18", "resnet34", "resnet50", "vgg16", "densenet201"]


def pictures(shape, count=3):
    return torch.randint(0, 256, (count, 3, *shape), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


def record_of(name):
    return get_model_weights(name)[BACKBONES.get(name).version]


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("name", TORCHVISION)
def test_it_equals_torchvisions_record(name, shape):
    images, published = pictures(shape), record_of(name)
    ours = torchvision_models.recorded_preprocessing(published)(images)
    torch.testing.assert_close(ours, published.transforms()(images), atol=1e-6, rtol=0)


@pytest.mark.parametrize("shape", [(300, 400), (97, 180)])
def test_pillow_differs_by_one_level_at_most(shape):
    images, published = pictures(shape), record_of("resnet18")
    pillow = torch.stack([published.transforms()(Image.fromarray(image.permute(1, 2, 0).numpy())) for image in images])
    ours = torchvision_models.recorded_preprocessing(published)(images)
    assert (ours - pillow).abs().max() < 1.01 / 255 / 0.224
    assert (ours - pillow).abs().mean() < 0.25 / 255 / 0.224


TIMM = {
    "vit_small_patch16_224.dino": (248, 224, "bicubic", False),  # 224 / 0.9, rounded down as timm does
    "resnet50.tv2_in1k": (201, 176, "bilinear", False),
    "vit_base_patch16_clip_224.openai": (248, 224, "bicubic", False),
    "vit_small_patch14_dinov2.lvd142m": (518, 518, "bicubic", False),
    "convnext_tiny.fb_in22k_ft_in1k_384": (384, 384, "bicubic", True),
}


def timm_record(model):
    with torch.device("meta"):
        network = timm.create_model(model)
    config = resolve_data_config({}, model=network)
    return timm_models.recorded_preprocessing(f"timm:{model}", network), create_transform(**config)


@pytest.mark.parametrize("model", TIMM)
def test_it_is_timms_record(model):
    ours, _ = timm_record(model)
    assert (ours.resize, ours.crop, ours.interpolation, ours.squash) == TIMM[model]


@pytest.mark.parametrize("model", [model for model in TIMM if "518" not in model])
@pytest.mark.parametrize("shape", [(300, 400), (97, 180)])
def test_smooth_pictures_come_out_as_from_timm(model, shape):
    """timm resizes with Pillow, which rounds between its two passes: a level or two apart."""
    ours, theirs = timm_record(model)
    rows, columns = np.mgrid[: shape[0], : shape[1]]
    channels = [127.5 + 120 * np.sin(rows / 9 + phase) * np.cos(columns / 13) for phase in (0, 1, 2)]
    image = np.stack(channels, axis=2).astype(np.uint8)
    mine = ours(torch.from_numpy(image).permute(2, 0, 1)[None])[0]
    difference = (mine - theirs(Image.fromarray(image))).abs()
    assert difference.max() < 2.01 / 255 / min(ours.std) and difference.mean() < 0.2 / 255 / min(ours.std)


def test_crop_modes_that_are_not_supported_are_refused():
    with torch.device("meta"):
        network = timm.create_model("test_vit")
    network.pretrained_cfg = {**network.pretrained_cfg, "crop_mode": "border"}
    with pytest.raises(InputError, match="timm:x wants input of 160x160 pixels with crop mode 'border'"):
        timm_models.recorded_preprocessing("timm:x", network)


def test_many_images_are_as_one_each():
    preprocessing = Preprocessing(resize=12, crop=10, interpolation="bicubic", mean=(0.5,) * 3, std=(0.2,) * 3)
    images = pictures((20, 31), count=70)
    alone = torch.cat([preprocessing(image[None]) for image in images])
    torch.testing.assert_close(preprocessing(images), alone, atol=1e-6, rtol=0)


def test_nothing_is_resized_at_zero():
    preprocessing = Preprocessing(resize=0, crop=20, interpolation="bilinear", mean=(0.0,) * 3, std=(1.0,) * 3)
    images = pictures((20, 20))
    torch.testing.assert_close(preprocessing(images), images.float() / 255)
