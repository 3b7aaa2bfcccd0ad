"""SimCLR pretraining: the loss against its formula, the views, and what is kept and used again."""

import json
import math
import shutil
from dataclasses import dataclass, replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file

from cache.errors import CacheMismatchError, InputError, UnreadableImageError
from stages.embed import pretrain
from stages.embed.backbones import BACKBONES
from stages.embed.backbones.convnet import ConvNet
from stages.embed.backbones.weights import seeded_init
from stages.embed.images import DATASETS
from stages.embed.images.base import ImageSet
from stages.embed.pretrain import Recipe, augment, channel_statistics, nt_xent, pool_pixels, train

SHORT = "simclr:width=8:steps=3:batch_size=32"


@dataclass(frozen=True, kw_only=True)
class MemoryImages(ImageSet):
    """arrays : one per image; None cannot be read"""

    arrays: list

    def load(self, index):
        if self.arrays[index] is None:
            raise UnreadableImageError(f"image {self.ids[index]!r} cannot be read: it is empty (0 bytes)")
        return self.arrays[index]


def memory_images(*arrays, split=None):
    n = len(arrays)
    ids, labels = [str(index) for index in range(n)], np.full(n, -1)
    return MemoryImages(
        ids=ids, labels=labels, split=split or ["train"] * n, class_names=(), digest="d", arrays=list(arrays)
    )


def filled(height, width, value=100):
    return np.full((height, width, 3), value, dtype=np.uint8)


@pytest.fixture(scope="module")
def digits():
    return DATASETS.build("digits").open()


def load(spec, images, root, weights=""):
    return BACKBONES.build(spec).load(weights, images, root, "cpu")


def test_nt_xent_equals_equation_2_1():
    z = np.random.default_rng(0).normal(size=(8, 5))
    unit = z / np.linalg.norm(z, axis=1, keepdims=True)
    total = 0.0
    for i in range(8):
        others = [math.exp(unit[i] @ unit[k] / 0.3) for k in range(8) if k != i]
        total -= math.log(math.exp(unit[i] @ unit[(i + 4) % 8] / 0.3) / sum(others))
    assert nt_xent(torch.tensor(z), 0.3).item() == pytest.approx(total / 8, rel=1e-9)


def test_channel_statistics():
    pixels = torch.randint(0, 256, (50, 3, 6, 6), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    pixels[:, 2] = 51
    scaled = pixels.numpy() / 255
    mean, std = channel_statistics(pixels)
    np.testing.assert_allclose(mean, scaled.mean((0, 2, 3)), atol=5e-5)
    np.testing.assert_allclose(std[:2], scaled.std((0, 2, 3))[:2], atol=5e-5)
    assert std[2] == 0.01  # a constant channel must not divide by zero
    assert all(value == round(value, 4) for value in mean + std)


def test_augment_is_seeded_in_range_and_different_for_each_image():
    images = torch.rand(1, 3, 9, 12, generator=torch.Generator().manual_seed(0)).expand(40, -1, -1, -1)
    first, second, other = (augment(images, torch.Generator().manual_seed(seed), True) for seed in (1, 1, 2))
    assert first.shape == images.shape and first.min() >= 0 and first.max() <= 1
    assert torch.equal(first, second) and not torch.equal(first, other)
    assert len({view.numpy().tobytes() for view in first}) == 40


def test_augment_mirrors_only_what_may_be_mirrored():
    ramp = torch.linspace(0.2, 0.8, 16).expand(200, 3, 16, 16)
    for flippable, lowest, highest in ((False, 0, 0), (True, 60, 140)):
        views = augment(ramp, torch.Generator().manual_seed(0), flippable)
        mirrored = (views[..., 0] > views[..., -1]).float().mean((1, 2)).round().sum().item()
        assert lowest <= mirrored <= highest


def test_blur_equals_one_convolution_per_image():
    images = torch.rand(2, 3, 9, 9, generator=torch.Generator().manual_seed(0))
    blurred = pretrain._blur(images, torch.tensor([[0.9, 0.1], [0.5, 0.5]]))  # only the second is blurred
    torch.testing.assert_close(blurred[0], images[0])
    weights = torch.exp(-0.5 * (torch.arange(-2, 3) / 0.55) ** 2)
    kernel = torch.outer(weights, weights) / weights.sum() ** 2
    padded = F.pad(images[1:], (2, 2, 2, 2), mode="replicate")
    torch.testing.assert_close(blurred[1:], F.conv2d(padded, kernel.expand(3, 1, 5, 5), groups=3))


def test_pool_pixels_takes_the_readable_training_images():
    arrays = [filled(8, 8, 10), None, filled(8, 8, 20), filled(8, 8, 30)]
    images = memory_images(*arrays, split=["train", "train", "test", "train"])
    with pytest.warns(UserWarning, match="leaves out 1 of 3 images; the first: image '1'"):
        pixels = pool_pixels(images, 32)
    assert pixels.shape == (2, 3, 8, 8) and pixels[:, 0, 0, 0].tolist() == [10, 30]


def test_pool_pixels_agrees_on_one_size():
    sizes = [(40, 60), (12, 20), (12, 12), (5, 9)]
    assert pool_pixels(memory_images(*(filled(*size) for size in sizes)), 32).shape == (4, 3, 12, 12)
    assert pool_pixels(memory_images(*(filled(64, 48) for _ in range(3))), 32).shape == (3, 3, 32, 32)


def test_pretraining_needs_two_images():
    with pytest.raises(InputError, match="at least two readable images"):
        pool_pixels(memory_images(filled(8, 8), filled(8, 8), split=["train", "test"]), 32)


def trained_state(pixels, seed=0):
    with seeded_init():
        network = ConvNet(8, 8)
    recipe = Recipe(steps=25, batch_size=64, learning_rate=2e-3, temperature=0.2, seed=seed)
    return train(network, pixels, recipe, False, "cpu"), network.state_dict()


def test_training_is_reproducible_learns_and_leaves_the_global_generator_alone(digits):
    pixels = pool_pixels(digits, 32)[:300]
    before = torch.get_rng_state()
    (losses, state), (again, same), (_, other) = (trained_state(pixels, seed) for seed in (0, 0, 1))
    assert torch.equal(torch.get_rng_state(), before)
    assert losses == again and all(torch.equal(state[name], same[name]) for name in state)
    assert not torch.equal(state["layers.0.weight"], other["layers.0.weight"])
    assert len(losses) == 25 and np.mean(losses[-5:]) < np.mean(losses[:5]) - 0.2


def test_diverging_training_says_so():
    pixels = torch.zeros(4, 3, 8, 8, dtype=torch.uint8)
    recipe = Recipe(steps=3, batch_size=4, learning_rate=1e-3, temperature=1e-45, seed=0)
    with pytest.raises(InputError, match="diverged at step 1: lower learning_rate"):
        train(ConvNet(8, 8), pixels, recipe, False, "cpu")


def test_weights_are_kept_with_a_record_and_used_again(digits, tmp_path, monkeypatch, capsys):
    first = load(SHORT, digits, tmp_path)
    files = sorted(file.name for file in tmp_path.iterdir())
    assert files == [f"{first.full_name}.json", f"{first.full_name}.safetensors"]
    record = json.loads((tmp_path / files[0]).read_text())
    assert record["weights_digest"] == first.weights_digest and record["recipe"]["data_set"] == digits.digest
    assert len(record["loss"]) == 3 and record["images"] == 1438 and record["seconds"] >= 0
    capsys.readouterr()
    monkeypatch.setattr(pretrain, "train", None)
    before = torch.get_rng_state()
    again = load(SHORT, digits, tmp_path)
    assert torch.equal(torch.get_rng_state(), before)
    assert again.weights_digest == first.weights_digest and again.preprocessing == first.preprocessing
    assert capsys.readouterr().out.count("\n") == 1


def test_another_recipe_or_data_set_has_another_name(digits, tmp_path):
    names = {load(f"{SHORT}{more}", digits, tmp_path).full_name for more in ("", ":seed=1", ":temperature=0.5")}
    for changed in ({"digest": "other"}, {"flippable": True}):
        names.add(load(SHORT, replace(digits, **changed), tmp_path).full_name)
    assert len(names) == 5 and all(name.startswith("convnet-w8.simclr-s3-") for name in names)


def test_a_run_killed_before_the_record_starts_again(digits, tmp_path):
    first = load(SHORT, digits, tmp_path)
    record = tmp_path / f"{first.full_name}.json"
    record.unlink()
    record.with_suffix(".safetensors").write_bytes(b"half")
    assert load(SHORT, digits, tmp_path).weights_digest == first.weights_digest and record.is_file()


def test_weights_that_contradict_their_record_are_refused(digits, tmp_path):
    first = load(SHORT, digits, tmp_path)
    (tmp_path / f"{first.full_name}.json").write_text("{}")
    with pytest.raises(CacheMismatchError, match="delete both"):
        load(SHORT, digits, tmp_path)


def test_a_folder_that_cannot_be_written_fails_before_training(digits, tmp_path, monkeypatch):
    monkeypatch.setattr(pretrain, "train", None)
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(InputError, match="cannot be written"):
        load(SHORT, digits, tmp_path / "file")


def test_kept_weights_carry_their_preprocessing_to_other_images(digits, tmp_path):
    first = load(SHORT, digits, tmp_path)
    file = tmp_path / "copy.safetensors"
    shutil.copy(tmp_path / f"{first.full_name}.safetensors", file)
    other = memory_images(filled(30, 30), filled(30, 30, 7))
    moved = load(SHORT, other, tmp_path, str(file))
    assert moved.full_name == "convnet-w8.copy" and moved.preprocessing == first.preprocessing
    save_file(load_file(file), file)  # without the header: the preprocessing is that of the images at hand
    assert load(SHORT, other, tmp_path, str(file)).preprocessing.crop == 30
    save_file(load_file(file), file, metadata={"preprocessing": "{}"})
    with pytest.raises(InputError, match="preprocessing"):
        load(SHORT, other, tmp_path, str(file))


@pytest.mark.parametrize("wrong", ["width=0", "steps=-1", "batch_size=1", "learning_rate=0", "size=2", "seed=-1"])
def test_wrong_parameters(wrong):
    with pytest.raises(InputError, match=wrong.split("=")[0]):
        BACKBONES.build(f"simclr:{wrong}")
