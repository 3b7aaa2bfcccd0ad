"""What every backbone must do, one property per function; a new backbone adds its name to SPECS or TOO_BIG."""

import json
import re

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from cache.errors import InputError
from stages.embed.backbones import BACKBONES
from stages.embed.images import DATASETS
from stages.embed.views import VIEWS

SPECS = {
    "cifar_resnet18": "cifar_resnet18",
    "cifar_resnet34": "cifar_resnet34:trained_on=cifar100",
    "cifar_resnet50": "cifar_resnet50",
    "densenet201": "densenet201",
    "dino": "dino",
    "dinov2": "dinov2",
    "dinov2_reg": "dinov2_reg",
    "resnet18": "resnet18",
    "resnet34": "resnet34",
    "resnet34_simclr_cifar100": "resnet34_simclr_cifar100",
    "resnet50": "resnet50",
    "rotation": "rotation",
    "simclr": "simclr",
    "simsiam": "simsiam",
    "timm": "timm:test_resnet.r160_in1k",
}
TOO_BIG = {
    "dino_b": ("dino", "86 million parameters"),
    "dinov2_b": ("dinov2", "86 million parameters"),
    "dinov2_b_reg": ("dinov2_reg", "86 million parameters"),
    "dinov2_g": ("dinov2", "1.1 billion parameters"),
    "dinov2_g_reg": ("dinov2_reg", "1.1 billion parameters"),
    "dinov2_l": ("dinov2", "300 million parameters"),
    "dinov2_l_reg": ("dinov2_reg", "300 million parameters"),
    "vgg16": ("resnet18", "134 million parameters"),
}
"""Never built here: the sibling whose code they run, and why. Their shapes: unit/embed/test_published_weights.py."""

each = pytest.mark.parametrize("name", SPECS, scope="module")


@pytest.fixture(scope="module")
def digits():
    return DATASETS.build("digits").open()


@pytest.fixture(scope="module")
def load(name, digits, tmp_path_factory):
    root = tmp_path_factory.mktemp("weights")
    return lambda weights: BACKBONES.build(SPECS[name]).load(weights, digits, root, "cpu")


@pytest.fixture(scope="module")
def loaded(load):
    """Random weights of the backbone, loaded once."""
    return load("random")


@pytest.fixture(scope="module")
def features(loaded, digits):
    return embed(loaded, digits)


@pytest.fixture
def scratch(tmp_path):
    """A file that is gone after the test: pytest would keep some hundred megabytes of them."""
    file = tmp_path / "my-weights.safetensors"
    yield file
    file.unlink(missing_ok=True)


def embed(frozen, images, indices=(0, 1, 2, 3)):
    pixels = np.stack([images.load(i) for i in indices])
    return frozen.network(frozen.preprocessing(torch.from_numpy(pixels).permute(0, 3, 1, 2)))


def numpy_global_state():
    return np.random.get_state()[1].copy()  # noqa: NPY002 - the global generator is what is watched


def spread(features):
    """The smallest distance between two images' features."""
    return torch.pdist(features).min()


def test_the_list_is_complete():
    assert sorted([*SPECS, *TOO_BIG]) == list(BACKBONES)


@pytest.mark.parametrize("name", TOO_BIG)
def test_a_backbone_too_big_to_build_runs_its_siblings_code(name):
    sibling, _ = TOO_BIG[name]
    assert BACKBONES.get(name).load is BACKBONES.get(sibling).load


@each
def test_features_are_finite_rows_of_the_declared_length(name, loaded, features):
    assert features.shape == (4, loaded.dim) and features.dtype == torch.float32
    assert torch.isfinite(features).all()


@each
def test_different_images_have_different_features(name, features):
    assert spread(features) > 0.01 * features.norm(dim=1).max()  # float16, the cache's type, keeps 0.001


@each
def test_the_network_is_frozen(name, loaded, features):
    assert not any(module.training for module in loaded.network.modules())
    assert not any(parameter.requires_grad for parameter in loaded.network.parameters())
    assert not features.requires_grad


@each
def test_an_image_alone_gives_what_it_gives_in_a_batch(name, loaded, features, digits):
    alone = torch.cat([embed(loaded, digits, [index]) for index in range(4)])
    assert (features - alone).norm(dim=1).max() < 1e-3 * spread(features)


@each
def test_embedding_twice_is_identical_and_changes_no_weight(name, loaded, features, digits):
    before = {key: value.clone() for key, value in loaded.network.state_dict().items()}
    assert torch.equal(embed(loaded, digits), features)
    assert all(torch.equal(value, before[key]) for key, value in loaded.network.state_dict().items())


@each
def test_random_weights_are_reproducible_and_leave_global_generators_alone(name, load, loaded):
    torch_state, numpy_state = torch.get_rng_state(), numpy_global_state()
    assert load("random").weights_digest == loaded.weights_digest
    assert torch.equal(torch.get_rng_state(), torch_state)
    np.testing.assert_array_equal(numpy_global_state(), numpy_state)


@each
def test_the_full_name_is_arch_dot_weights(name, loaded):
    assert re.fullmatch(r"[A-Za-z0-9_-]+\.random", loaded.full_name)


@each
def test_preprocessing_is_a_json_record(name, loaded):
    record = loaded.preprocessing.record()
    assert json.loads(json.dumps(record))["mean"] == list(record["mean"])
    assert record["crop"] > 0 and min(record["std"]) > 0


@pytest.mark.parametrize("name", list(BACKBONES))
def test_its_views_are_registered_and_begin_with_identity(name):
    views = BACKBONES.get(name).views
    assert views[0] == "identity" and len(views) >= 2 and set(views) <= set(VIEWS)


@each
def test_a_weights_file_is_loaded_and_named(name, load, loaded, features, digits, scratch):
    state = loaded.network.state_dict()
    save_file({key: 1.01 * value if value.is_floating_point() else value for key, value in state.items()}, scratch)
    frozen = load(str(scratch))
    assert frozen.full_name == loaded.full_name.replace(".random", ".my-weights")
    assert frozen.weights_digest != loaded.weights_digest
    assert (embed(frozen, digits) - features).norm(dim=1).min() > 0.01 * spread(features)


@each
def test_saved_weights_give_the_same_features(name, load, loaded, features, digits, scratch):
    save_file(loaded.network.state_dict(), scratch)
    frozen = load(str(scratch))
    assert frozen.weights_digest == loaded.weights_digest
    assert torch.equal(embed(frozen, digits), features)


@each
def test_a_file_of_another_network_is_refused(name, load, scratch):
    save_file({"layers.99.weight": torch.zeros(3, 3), "fc.weight": torch.zeros(2, 3)}, scratch)
    with pytest.raises(InputError, match=r"does not fit this backbone: .* missing .* unexpected"):
        load(str(scratch))


@each
def test_a_file_that_is_missing_or_of_another_kind_is_refused(name, load, tmp_path):
    (tmp_path / "weights.npz").write_bytes(b"x")
    for file in ("gone.safetensors", "weights.npz"):
        with pytest.raises(InputError, match=file):
            load(str(tmp_path / file))
