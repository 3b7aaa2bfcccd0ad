"""Pretraining: losses against their formulas, the views, exact resumption, and what is kept and used again."""

import json
import math
import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file

from cache.errors import CacheMismatchError, InputError, UnreadableImageError
from pipeline.cli import main
from stages.embed.backbones import BACKBONES
from stages.embed.backbones.cifar_stem import cifar_resnet
from stages.embed.backbones.convnet import ConvNet
from stages.embed.backbones.rotation import four_rotations, rotation_loss
from stages.embed.backbones.simclr import nt_xent
from stages.embed.backbones.simsiam import negative_cosine
from stages.embed.backbones.weights import seeded_init
from stages.embed.images import DATASETS
from stages.embed.images.base import ImageSet
from stages.embed.pretrain import train as trainer
from stages.embed.pretrain.augment import _blur, _turn_hue, augment
from stages.embed.pretrain.pixels import channel_statistics, pool_pixels, stack_squares
from stages.embed.pretrain.probe import ProbeSet, features_of, linear_accuracy, neighbour_accuracy, probe_set
from stages.embed.pretrain.recipes import RECIPES, Recipe
from stages.embed.pretrain.train import schedule, train

SHORT = "simclr:width=8:steps=3:batch_size=32"
METHODS = tuple(RECIPES)
ROOT = Path(__file__).resolve().parents[3]


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
        ids=ids, labels=labels, split=split or ["train"] * n, contents=["c"] * n, class_names=(), arrays=list(arrays)
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


def test_negative_cosine_equals_equations_1_and_2():
    p1, p2, z1, z2 = np.random.default_rng(0).normal(size=(4, 6, 5))
    total = 0.0
    for i in range(6):
        for p, z in ((p1[i], z2[i]), (p2[i], z1[i])):
            total -= p @ z / math.sqrt(p @ p) / math.sqrt(z @ z) / 2
    assert negative_cosine(*map(torch.tensor, (p1, p2, z1, z2))).item() == pytest.approx(total / 6, rel=1e-9)


def test_negative_cosine_stops_the_gradient_of_the_projections():
    p1, p2, z1, z2 = (torch.rand(4, 3, requires_grad=True) for _ in range(4))
    negative_cosine(p1, p2, z1, z2).backward()
    assert p1.grad.abs().sum() > 0 and p2.grad.abs().sum() > 0 and z1.grad is None and z2.grad is None


def test_four_rotations_turn_every_image():
    images = torch.rand(3, 3, 5, 5)
    rotated = four_rotations(images).numpy()
    for turns in range(4):
        for i in range(3):
            expected = np.rot90(images[i].numpy(), turns, axes=(1, 2))
            np.testing.assert_array_equal(rotated[3 * turns + i], expected)


def test_rotation_loss_equals_its_definition():
    logits = np.random.default_rng(0).normal(size=(12, 4))
    total = 0.0
    for row in range(12):
        total -= logits[row, row // 3] - math.log(sum(math.exp(value) for value in logits[row]))
    assert rotation_loss(torch.tensor(logits)).item() == pytest.approx(total / 12, rel=1e-9)
    assert rotation_loss(torch.zeros(12, 4)).item() == pytest.approx(math.log(4))


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
    paper = RECIPES["simsiam"]["ssl_meets_al"]  # it uses everything
    first, second, other = (augment(images, torch.Generator().manual_seed(seed), True, paper) for seed in (1, 1, 2))
    assert first.shape == images.shape and first.min() >= 0 and first.max() <= 1
    assert torch.equal(first, second) and not torch.equal(first, other)
    assert len({view.numpy().tobytes() for view in first}) == 40


def test_augment_mirrors_only_what_may_be_mirrored():
    ramp = torch.linspace(0.2, 0.8, 16).expand(200, 3, 16, 16)
    for flippable, lowest, highest in ((False, 0, 0), (True, 60, 140)):
        views = augment(ramp, torch.Generator().manual_seed(0), flippable, Recipe(steps=1))
        mirrored = (views[..., 0] > views[..., -1]).float().mean((1, 2)).round().sum().item()
        assert lowest <= mirrored <= highest


def test_a_recipe_without_augmentation_changes_nothing():
    still = Recipe(steps=1, crop=1.0, jitter=0.0, gray=0.0, blur=0.0)
    images = torch.rand(5, 3, 9, 9)
    assert torch.equal(augment(images, torch.Generator().manual_seed(0), False, still), images)


def test_jitter_changes_its_share_of_the_views():
    recipe = Recipe(steps=1, crop=1.0, gray=0.0, blur=0.0, jitter_share=0.8, hue=0.1)
    images = 0.2 + 0.4 * torch.rand(1, 3, 6, 6).expand(500, -1, -1, -1)
    views = augment(images, torch.Generator().manual_seed(0), False, recipe)
    unchanged = ((views - images).abs().amax((1, 2, 3)) < 1e-4).float().mean()
    assert 0.14 < unchanged < 0.26


def test_turning_the_hue_keeps_gray_and_comes_back():
    images = torch.rand(4, 3, 5, 5)
    turns = torch.tensor([0.0, 0.1, 0.5, 1.0])
    turned = _turn_hue(images, turns)
    torch.testing.assert_close(turned[[0, 3]], images[[0, 3]], atol=1e-4, rtol=0)
    assert (turned[1:3] - images[1:3]).abs().amax() > 0.05
    torch.testing.assert_close(_turn_hue(turned, -turns), images, atol=1e-4, rtol=0)
    gray = torch.rand(4, 1, 5, 5).expand(-1, 3, -1, -1)
    torch.testing.assert_close(_turn_hue(gray, turns), gray, atol=1e-3, rtol=0)


def test_blur_equals_one_convolution_per_image():
    images = torch.rand(2, 3, 9, 9, generator=torch.Generator().manual_seed(0))
    blurred = _blur(images, torch.tensor([[0.9, 0.1], [0.5, 0.5]]), 0.5, 1.0)  # only the second is blurred
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


def train_short(method, pixels, seed=0, **changes):
    """25 steps of 64 images, or what `changes` says: the history and the weights."""
    backbone = BACKBONES.build(f"{method}:width=8:steps={changes.pop('steps', 25)}:batch_size=64")
    with seeded_init():
        network = ConvNet(8, 8)
    settings = {"seed": seed, "flippable": False, "device": "cpu"} | changes
    history = train(backbone, network, pixels, backbone.training, **settings)
    return history, network.state_dict()


def same_weights(first, second):
    return all(torch.equal(first[name], second[name]) for name in first)


@pytest.mark.parametrize("method", METHODS)
def test_training_is_reproducible_learns_and_leaves_the_global_generator_alone(method, digits):
    pixels = pool_pixels(digits, 32)[:300]
    before = torch.get_rng_state()
    (history, state), (again, same), (_, other) = (train_short(method, pixels, seed) for seed in (0, 0, 1))
    assert torch.equal(torch.get_rng_state(), before)
    assert history.losses == again.losses and same_weights(state, same) and not same_weights(state, other)
    losses = history.losses
    assert len(losses) == 25 and np.mean(losses[-5:]) < np.mean(losses[:5]) - 0.15


@pytest.mark.parametrize("method", METHODS)
def test_mixed_precision_trains_the_same_network_to_much_the_same_loss(method, digits):
    pixels = pool_pixels(digits, 32)[:300]
    exact, _ = train_short(method, pixels)
    mixed, state = train_short(method, pixels, precision="bfloat16")
    assert mixed.losses != exact.losses and np.mean(mixed.losses[-5:]) == pytest.approx(exact.losses[-1], abs=0.3)
    assert all(tensor.dtype in (torch.float32, torch.int64) for tensor in state.values())


def test_each_epoch_shows_every_image_once():
    recipe = Recipe(epochs=2, batch_size=4)
    pixels = torch.arange(10, dtype=torch.uint8).view(10, 1, 1, 1)
    order = trainer._Order(pixels, recipe, 0)
    assert recipe.total_steps(10) == 4 and recipe.total_steps(3) == 2
    epochs = [[value for step in steps for value in order.batch(step).flatten().tolist()] for steps in ((0, 1), (2, 3))]
    assert all(len(set(epoch)) == 8 for epoch in epochs) and epochs[0] != epochs[1]


def test_schedules():
    cosine, steps = Recipe(steps=1, warm_up=0.2, floor=0.1), Recipe(steps=1, schedule="steps")
    assert [schedule(at, cosine) for at in (0.1, 0.2, 0.6, 1.0)] == pytest.approx([0.5, 1.0, 0.55, 0.1])
    assert [schedule(at, steps) for at in (0.0, 0.29, 0.3, 0.6, 0.9)] == pytest.approx([1, 1, 0.2, 0.04, 0.008])


def test_diverging_training_says_so():
    pixels = torch.zeros(4, 3, 8, 8, dtype=torch.uint8)
    backbone = BACKBONES.build("simclr:steps=3:batch_size=4:temperature=1e-45")
    with pytest.raises(InputError, match="diverged at step 1: lower learning_rate"):
        train(backbone, ConvNet(8, 8), pixels, backbone.training, seed=0, flippable=False, device="cpu")


def test_a_long_training_says_how_long_it_will_take(digits, monkeypatch, capsys):
    monkeypatch.setattr(trainer, "_TIMED_SECONDS", 0)
    monkeypatch.setattr(trainer, "_LONG_SECONDS", 0)
    train_short("simclr", pool_pixels(digits, 32)[:64], steps=6)
    said = capsys.readouterr().err
    assert said.count("on this machine") == 1 and "6 steps take about" in said
    trainer._say_duration(18000.0, 400, "cpu")
    assert "about 5 h on this machine: a GPU" in capsys.readouterr().err


@pytest.mark.parametrize("method", METHODS)
def test_a_training_that_stopped_goes_on_to_the_same_weights(method, digits, tmp_path, monkeypatch, capsys):
    pixels = pool_pixels(digits, 32)[:300]
    probe = lambda network: network.layers[0].weight.abs().mean().item()  # noqa: E731
    whole, state = train_short(method, pixels, steps=12, probe=probe)
    monkeypatch.setattr(trainer, "CHECKPOINT_SECONDS", 0.0)
    with monkeypatch.context() as patch:
        patch.setattr(trainer._State, "save_now_and_then", stop_after(7))
        with pytest.raises(KeyboardInterrupt):
            train_short(method, pixels, steps=12, probe=probe, checkpoint=tmp_path / "checkpoint")
    gone_on, same = train_short(method, pixels, steps=12, probe=probe, checkpoint=tmp_path / "checkpoint")
    assert "goes on after step 7" in capsys.readouterr().err
    assert gone_on.losses == whole.losses and gone_on.probes == whole.probes and same_weights(state, same)


def stop_after(steps):
    save = trainer._State.save_now_and_then

    def stopping(self):
        save(self)
        if len(self.history.losses) == steps:
            raise KeyboardInterrupt

    return stopping


def test_a_damaged_checkpoint_is_named(digits, tmp_path):
    (tmp_path / "x.checkpoint").write_bytes(b"half")
    with pytest.raises(InputError, match="x.checkpoint cannot be read .*delete it"):
        train_short("simclr", pool_pixels(digits, 32)[:64], checkpoint=tmp_path / "x.checkpoint")


KILLED = """
import sys
from pathlib import Path
import torch
from stages.embed.pretrain import train
from stages.embed.backbones import BACKBONES
from stages.embed.images import DATASETS
torch.set_num_threads(1)
train.CHECKPOINT_SECONDS = 0.0
backbone = BACKBONES.build("simclr:width=8:steps=60:batch_size=64")
backbone.pretrain(DATASETS.build("digits").open(), Path(sys.argv[1]), "cpu")
"""


def test_kill_9_and_the_same_command_end_with_the_same_bytes(tmp_path):
    command = [sys.executable, "-c", KILLED]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    whole = subprocess.Popen([*command, str(tmp_path / "whole")], env=environment, stderr=subprocess.DEVNULL)
    process = subprocess.Popen([*command, str(tmp_path / "killed")], env=environment, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 60
    while not list((tmp_path / "killed").glob("*.checkpoint")) and time.monotonic() < deadline:
        time.sleep(0.002)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    assert not list((tmp_path / "killed").glob("*.json"))
    resumed = subprocess.run([*command, str(tmp_path / "killed")], env=environment, capture_output=True, text=True)
    assert resumed.returncode == 0 and "goes on after step" in resumed.stderr
    assert whole.wait() == 0
    for suffix in (".safetensors", ".png"):
        (first,), (second,) = ((tmp_path / name).glob(f"*{suffix}") for name in ("whole", "killed"))
        assert first.read_bytes() == second.read_bytes()
    assert not list(tmp_path.rglob("*.checkpoint"))


def test_neighbour_accuracy_equals_its_definition(rng):
    train_features, test_features = rng.normal(size=(40, 3)).astype(np.float32), rng.normal(size=(9, 3))
    labels, test_labels = np.arange(40) % 3, np.arange(9) % 3
    right = 0
    for feature, label in zip(test_features, test_labels, strict=True):
        cosine = [row @ feature / np.linalg.norm(row) / np.linalg.norm(feature) for row in train_features]
        votes = [0.0, 0.0, 0.0]
        for index in sorted(range(40), key=lambda index: -cosine[index])[:20]:
            votes[labels[index]] += math.exp(cosine[index] / 0.07)
        right += votes.index(max(votes)) == label
    tensors = torch.from_numpy(train_features), labels, torch.from_numpy(test_features).float(), test_labels
    assert neighbour_accuracy(*tensors) == pytest.approx(right / 9)


def test_linear_accuracy_needs_a_line_and_finds_it(rng):
    features = rng.normal(size=(200, 2))
    labels = (features[:, 0] > 0).astype(np.int64)
    torch_features = torch.from_numpy(features).float()
    assert linear_accuracy(torch_features[:150], labels[:150], torch_features[150:], labels[150:]) >= 0.98


def test_the_probe_sees_what_the_embedding_sees(digits):
    images = probe_set(digits, 6)
    assert isinstance(images, ProbeSet) and images.test_pixels.shape == (359, 3, 6, 6)
    assert len(images.train_labels) == 1438
    frozen = BACKBONES.build("simclr:width=8:size=6").load("random", digits, Path("unused"), "cpu")
    features = features_of(frozen.network, images.test_pixels, frozen.preprocessing, "cpu")
    first = next(index for index, split in enumerate(digits.split) if split == "test")
    pixels = torch.from_numpy(digits.load(first)).permute(2, 0, 1)[None]
    torch.testing.assert_close(features[:1], frozen.network(frozen.preprocessing(pixels)))


def test_without_labels_there_is_no_probe_and_it_is_said(tmp_path):
    arrays = [filled(8, 8, 10 * value) for value in range(8)]
    images = memory_images(*arrays, split=["train"] * 6 + ["test"] * 2)
    assert "needs labeled images" in probe_set(images, 8)
    load("simclr:width=4:steps=2:batch_size=4", images, tmp_path)
    (record,) = tmp_path.glob("*.json")
    assert json.loads(record.read_text())["probe"].startswith("none, it needs labeled images")
    labeled = replace(images, labels=np.array([0, 1, 0, 1, 0, 1, 0, 1]), class_names=("a", "b"))
    images = probe_set(replace(labeled, arrays=[*arrays[:7], None]), 8)
    assert images.test_labels.tolist() == [0]  # the other one cannot be read


def test_stack_squares_leaves_out_what_cannot_be_read():
    pixels, readable = stack_squares(memory_images(filled(9, 8, 5), None, filled(4, 4, 7)), [0, 1, 2], 4)
    assert readable == [0, 2] and pixels[:, 0, 0, 0].tolist() == [5, 7]


def test_weights_are_kept_with_a_record_and_used_again(digits, tmp_path, monkeypatch, capsys):
    first = load(SHORT, digits, tmp_path)
    files = sorted(file.name for file in tmp_path.iterdir() if file.suffix != ".lock")
    assert files == [f"{first.full_name}.{suffix}" for suffix in ("json", "png", "safetensors")]
    assert (tmp_path / files[1]).read_bytes().startswith(b"\x89PNG")
    record = json.loads((tmp_path / files[0]).read_text())
    assert record["weights_digest"] == first.weights_digest and record["recipe"]["data_set"] == digits.digest
    assert 0 < record["probe"]["linear"] <= 1 and [step for step, _ in record["probe"]["during"]] == [1, 2, 3]
    assert len(record["loss"]) == 3 and record["images"] == 1438 and record["seconds"] >= 0
    capsys.readouterr()
    monkeypatch.setattr(trainer, "train", None)
    before = torch.get_rng_state()
    again = load(SHORT, digits, tmp_path)
    assert torch.equal(torch.get_rng_state(), before)
    assert again.weights_digest == first.weights_digest and again.preprocessing == first.preprocessing
    assert capsys.readouterr().out.count("\n") == 1


def test_another_recipe_or_data_set_has_another_name(digits, tmp_path):
    names = {load(f"{SHORT}{more}", digits, tmp_path).full_name for more in ("", ":seed=1", ":temperature=0.5")}
    for changed in ({"contents": ["other"] * len(digits)}, {"flippable": True}):
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
    monkeypatch.setattr(trainer, "train", None)
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


WRONG = (
    *("width=0", "steps=-1", "epochs=0", "batch_size=1", "learning_rate=0", "size=2", "seed=-1", "arch=vgg"),
    *("temperature=0", "crop=1.5", "blur=-1", "optimizer=lars", "precision=float8", "recipe=none", "steps=1:epochs=1"),
)


@pytest.mark.parametrize("wrong", WRONG)
def test_wrong_parameters(wrong):
    with pytest.raises(InputError, match=wrong.split("=")[0]):
        BACKBONES.build(f"simclr:{wrong}")


def test_a_recipe_fills_what_is_not_given():
    paper = BACKBONES.build("simclr:recipe=supclust_cifar10")
    assert (paper.arch, paper.epochs, paper.steps, paper.batch_size) == ("resnet18", 500, None, 512)
    assert (paper.optimizer, paper.learning_rate, paper.temperature) == ("sgd", 0.4, 0.1)
    mine = BACKBONES.build("simclr:recipe=supclust_cifar10:steps=7:learning_rate=0.1:arch=convnet")
    assert (mine.arch, mine.epochs, mine.steps, mine.learning_rate) == ("convnet", None, 7, 0.1)
    assert mine.training == RECIPES["simclr"]["supclust_cifar10"].with_changes(
        {"steps": 7, "learning_rate": 0.1, "arch": "convnet"}
    )
    assert replace(mine, seed=1).training == mine.training
    assert BACKBONES.build("simclr:steps=400") == BACKBONES.build("simclr")


@pytest.mark.parametrize(("method", "name"), [(method, name) for method in METHODS for name in RECIPES[method]])
def test_every_recipe_builds_its_network_and_optimiser(method, name, digits):
    backbone = BACKBONES.build(f"{method}:recipe={name}:steps=1:batch_size=4")
    pixels = pool_pixels(digits, 8)[:4]
    network = backbone._network(8)
    history = train(backbone, network, pixels, backbone.training, seed=0, flippable=True, device="cpu")
    assert len(history.losses) == 1


def test_the_cifar_stem_is_for_small_images():
    small = BACKBONES.build("simclr:arch=resnet18")
    large = BACKBONES.build("simclr:recipe=supclust_isic2019")
    assert small._network(32).conv1.stride == (1, 1) and large._network(224).conv1.stride == (2, 2)
    assert (small._arch, large._arch) == ("resnet18-cifar", "resnet18")
    assert cifar_resnet("resnet50")(torch.rand(2, 3, 32, 32)).shape == (2, 2048)


@pytest.mark.parametrize("method", METHODS)
def test_a_resnet_is_pretrained_kept_and_embeds(method, tmp_path):
    images = memory_images(*(filled(8, 8, 20 * value) for value in range(8)))
    first = load(f"{method}:arch=resnet18:steps=1:batch_size=4", images, tmp_path)
    assert first.dim == 512 and first.full_name.startswith(f"resnet18-cifar.{method}-s1-")
    assert load(f"{method}:arch=resnet18:steps=1:batch_size=4", images, tmp_path).weights_digest == first.weights_digest


def test_the_command_pretrains_once_and_prints_the_line_that_uses_it(tmp_path, capsys):
    command = ["pretrain", "--method", "rotation:width=4", "--steps", "2", "--data-root", str(tmp_path)]
    assert main(command) == 0
    first = capsys.readouterr().out
    files = [line.split(maxsplit=1)[1] for line in first.splitlines() if line.startswith(("weights", "record", "pict"))]
    assert len(files) == 3 and all(Path(file).is_file() for file in files)
    assert f"make embed BACKBONE=rotation:width=4:steps=2 DATA_ROOT={tmp_path}" in first
    assert main(command) == 0
    again = capsys.readouterr().out
    assert "pretrained before" in again and again.splitlines()[1:] == first.splitlines()[1:]
    frozen = load("rotation:width=4:steps=2", DATASETS.build("digits").open(), tmp_path / "weights")
    assert Path(files[0]).stem == frozen.full_name


def test_the_command_refuses_what_it_cannot_pretrain(tmp_path, capsys):
    assert main(["pretrain", "--method", "dinov2", "--data-root", str(tmp_path)]) == 2
    assert "METHOD is one of rotation, simclr, simsiam" in capsys.readouterr().err
