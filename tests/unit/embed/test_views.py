"""Views: what each does to known pixels, and that randomness comes from an image's own seed alone."""

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.transforms.v2 import functional as F

from cache.errors import InputError
from stages.embed.config import EmbedConfig
from stages.embed.extract import embed
from stages.embed.images.folder import FolderImages
from stages.embed.views import VIEWS, build_views, specs_of, uniform, view_seed

REPO = Path(__file__).resolve().parents[3]
NAMES = ("blur", "crop", "hflip", "identity", "sharpen", "trivialaugment")
RANDOM = ("crop", "trivialaugment")


def some_images(n: int = 6, height: int = 8, width: int = 8) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randint(0, 256, (n, 3, height, width), generator=generator, dtype=torch.uint8)


def numpy_global_state():
    return np.random.get_state()[1].copy()  # noqa: NPY002 - the global generator is what is watched


def test_the_list_is_complete():
    assert tuple(VIEWS) == NAMES


def test_names_are_listed_without_torch():
    code = "import sys; from stages.embed.views import VIEWS; VIEWS.build('crop'); print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=REPO, check=True)
    assert done.stdout.strip() == "False"


@pytest.mark.parametrize("shape", [(8, 8), (3, 5), (1, 1), (40, 33)])
@pytest.mark.parametrize("name", NAMES)
def test_shape_and_type_stay(name, shape):
    images = some_images(4, *shape)
    before = images.clone()
    output = VIEWS.build(name).apply(images, [1, 2, 3, 4])
    assert output.shape == images.shape and output.dtype == torch.uint8
    assert torch.equal(images, before)


@pytest.mark.parametrize("name", NAMES)
def test_neither_batch_nor_order_matters(name):
    view, images, seeds = VIEWS.build(name), some_images(), [5, 3, 9, 2, 2**63 - 1, 0]
    together = view.apply(images, seeds)
    alone = torch.cat([view.apply(images[i : i + 1], [seeds[i]]) for i in range(len(images))])
    backwards = view.apply(images.flip(0), seeds[::-1]).flip(0)
    assert torch.equal(together, alone) and torch.equal(together, backwards)


@pytest.mark.parametrize("name", NAMES)
def test_global_generators_are_left_alone(name):
    torch_state, numpy_state = torch.get_rng_state(), numpy_global_state()
    VIEWS.build(name).apply(some_images(), range(6))
    assert torch.equal(torch.get_rng_state(), torch_state)
    np.testing.assert_array_equal(numpy_global_state(), numpy_state)


@pytest.mark.parametrize("name", NAMES)
def test_only_random_views_depend_on_the_seed(name):
    image, view = some_images(1, 16, 16).expand(30, -1, -1, -1), VIEWS.build(name)
    distinct = {output.numpy().tobytes() for output in view.apply(image, range(30))}
    assert len(distinct) > 10 if name in RANDOM else len(distinct) == 1


def test_hflip_mirrors():
    images = some_images()
    np.testing.assert_array_equal(VIEWS.build("hflip").apply(images, range(6)).numpy(), images.numpy()[..., ::-1])


def test_sharpen_and_blur_move_contrast_apart():
    image = torch.zeros(1, 3, 9, 9, dtype=torch.uint8)
    image[..., 4, 4], background = 120, 60
    image = image.clamp(min=background)
    sharp, blurred = (VIEWS.build(name).apply(image, [0])[0, 0, 4, 4].item() for name in ("sharpen", "blur"))
    assert background < blurred < 120 < sharp


def test_blur_equals_its_formula():
    weights = np.exp(-0.5 * (np.arange(-2, 3) / 0.8) ** 2)
    weights /= weights.sum()
    image = torch.zeros(1, 3, 9, 9, dtype=torch.uint8)
    image[..., 4, 4] = 255
    blurred = VIEWS.build("blur").apply(image, [0])[0, 0].numpy()
    np.testing.assert_allclose(blurred[2:7, 2:7], 255 * np.outer(weights, weights), atol=1)


def test_a_whole_crop_is_the_image_and_a_crop_holds_a_part():
    ramp = torch.arange(32, dtype=torch.uint8).mul(8).expand(1, 3, 32, 32)
    crops = VIEWS.build("crop:smallest=0.3").apply(ramp.expand(50, -1, -1, -1), range(50)).float()
    spans = (crops[..., -1] - crops[..., 0]).mean((1, 2)) / 248
    assert 0.4 < spans.min() < spans.max() <= 1
    constant = torch.full((1, 3, 8, 8), 77, dtype=torch.uint8)
    assert torch.equal(VIEWS.build("crop").apply(constant, [3]), constant)


def test_view_seeds_are_spread_and_stay():
    seeds = {view_seed(0, name, str(image)) for name in NAMES for image in range(100)}
    assert len(seeds) == 600 and min(seeds) >= 0 and max(seeds) < 2**63
    assert view_seed(0, "crop", "train/1.png") == 639132578427598909  # golden: it decides cached features
    assert view_seed(1, "crop", "train/1.png") != view_seed(0, "crop", "train/1.png")


def test_draws_are_views_of_their_own():
    views = build_views(["identity", "crop:smallest=0.5*3", "crop", "hflip"])
    labels = ["identity", "crop#0", "crop#1", "crop#2", "crop", "hflip"]
    assert [view.label for view in views] == labels
    assert [view.record() for view in views[1:5]] == [
        {"name": "crop#0", "smallest": 0.5},
        {"name": "crop#1", "smallest": 0.5},
        {"name": "crop#2", "smallest": 0.5},
        {"name": "crop", "smallest": 0.3},  # as before there were draws, so that caches stay valid
    ]
    image = some_images(1, 32, 32)
    drawn = {view.apply(image, [view_seed(0, view.label, "train/1.png")]).numpy().tobytes() for view in views[1:4]}
    assert len(drawn) == 3


@pytest.mark.parametrize(
    ("specs", "part"),
    [
        ("crop,identity", "begin with identity"),
        ("identity,identity", "distinct"),
        ("identity,crop,crop", "distinct"),
        ("identity,crop*2,crop*3", "distinct"),
        ("identity,crop:draw=1,crop*2", "distinct"),
        ("identity,hflip*2", "nothing at random"),
        ("identity,crop*0", r"crop\*3"),
        ("identity,crop*two", r"crop\*3"),
        ("identity,crop*", r"crop\*3"),
        ("identity,corp*3", "did you mean 'crop'"),
        ("", "no view named"),
    ],
)
def test_views_that_cannot_be(specs, part):
    with pytest.raises(InputError, match=part):
        build_views(specs.split(","))


def test_an_image_is_decoded_once_for_all_its_views(tmp_path, monkeypatch):
    folder, loaded = tmp_path / "photos", []
    folder.mkdir()
    for index in range(5):
        Image.fromarray(np.full((12, 12, 3), 50 * index, dtype=np.uint8)).save(folder / f"{index}.png")
    load = FolderImages.load

    def counted(images, index):
        loaded.append(index)
        return load(images, index)

    monkeypatch.setattr(FolderImages, "load", counted)
    views = ("identity", "crop*3", "blur")
    config = EmbedConfig(dataset=f"folder:{folder}", weights="random", views=views, data_root=tmp_path / "data")
    backbone_alone = embed(replace(config, views=("identity",)))
    looks = len(loaded) - 5  # of the backbone, to find its input size
    loaded.clear()
    done = embed(config)
    assert (backbone_alone.n_views, done.n_views) == (1, 5) and len(loaded) - looks == 5
    names = json.loads((done.path / "identity.json").read_text())["views"]
    assert [view["name"] for view in names] == ["identity", "crop#0", "crop#1", "crop#2", "blur"]


@pytest.mark.parametrize("specs", [["identity"], ["identity", "crop*3", "hflip"], ["identity", "sharpen:factor=3.0"]])
def test_the_records_tell_the_specs(specs: list[str]) -> None:
    assert specs_of([view.record() for view in build_views(specs)]) == specs


@pytest.mark.parametrize("shape", [(32, 32), (20, 33), (300, 201)])
def test_crops_are_bilinear_copies_of_a_part(shape):
    """Against torchvision's resized crop of floats, with the same draws; small images at once, large ones each."""
    images, seeds = some_images(5, *shape), [3, 1, 4, 1, 5]
    crops = VIEWS.build("crop").apply(images, seeds).float()
    area, ratio, down, right = uniform(seeds, 4).T
    area, ratio = 0.3 + area * 0.7, (4 / 3) ** (2 * ratio - 1)
    for i in range(5):
        height = int(np.clip(np.rint(shape[0] * np.sqrt(area[i] / ratio[i])), 1, shape[0]))
        width = int(np.clip(np.rint(shape[1] * np.sqrt(area[i] * ratio[i])), 1, shape[1]))
        top, left = int(down[i] * (shape[0] - height + 1)), int(right[i] * (shape[1] - width + 1))
        expected = F.resized_crop(images[i].float(), top, left, height, width, list(shape), antialias=True)
        assert (crops[i] - expected).abs().max() <= 0.51


def test_crops_stay_as_they_are():
    """Golden: what is cached depends on it. Raise the cache's FORMAT when it has to change."""
    ramp = torch.arange(64, dtype=torch.uint8).mul(4).reshape(1, 1, 8, 8).expand(1, 3, 8, 8)
    crop = VIEWS.build("crop").apply(ramp, [view_seed(0, "crop", "train/1.png")])
    assert crop[0, 0, :2].tolist() == [[68, 71, 75, 78, 82, 85, 89, 92], [88, 91, 95, 98, 102, 105, 109, 112]]
