"""What every backbone must do, one property per function; a new backbone adds its name to NAMES."""

import json
import re

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from cache.errors import InputError
from stages.embed.backbones import BACKBONES
from stages.embed.images import DATASETS
from stages.embed.views import VIEWS, prepare

NAMES = ("dinov2", "resnet18", "rotation", "simclr", "simsiam")
SAME_NETWORK = {"rotation", "simclr", "simsiam"}  # they differ in how their network is trained: files fit each other

pytestmark = pytest.mark.parametrize("name", NAMES)


@pytest.fixture(scope="module")
def digits():
    return DATASETS.build("digits").open()


@pytest.fixture(scope="module")
def loaded(digits, tmp_path_factory):
    """Random weights of every backbone, loaded once."""
    root = tmp_path_factory.mktemp("weights")
    return {name: BACKBONES.build(name).load("random", digits, root, "cpu") for name in NAMES}


@pytest.fixture(scope="module")
def other_file(loaded, tmp_path_factory):
    """A weights file for every backbone: its random weights, all moved a little."""
    root = tmp_path_factory.mktemp("files")
    for name, frozen in loaded.items():
        state = {
            key: value + 0.01 if value.is_floating_point() else value
            for key, value in frozen.network.state_dict().items()
        }
        save_file(state, root / f"{name}.safetensors")
    return lambda name: root / f"{name}.safetensors"


def embed(frozen, images, indices=(0, 1, 2, 3)):
    batch = prepare(
        [images.load(i) for i in indices], VIEWS.build("identity"), [0] * len(indices), frozen.preprocessing
    )
    return frozen.network(batch)


def numpy_global_state():
    return np.random.get_state()[1].copy()  # noqa: NPY002 - the global generator is what is watched


def spread(features):
    """The smallest distance between two images' features."""
    return torch.pdist(features).min()


def test_the_list_is_complete(name):
    assert tuple(BACKBONES) == NAMES


def test_features_are_finite_rows_of_the_declared_length(name, loaded, digits):
    features = embed(loaded[name], digits)
    assert features.shape == (4, loaded[name].dim) and features.dtype == torch.float32
    assert torch.isfinite(features).all()


def test_different_images_have_different_features(name, loaded, digits):
    features = embed(loaded[name], digits)
    assert spread(features) > 0.01 * features.norm(dim=1).max()  # float16, the cache's type, keeps 0.001


def test_the_network_is_frozen(name, loaded, digits):
    network = loaded[name].network
    assert not any(module.training for module in network.modules())
    assert not any(parameter.requires_grad for parameter in network.parameters())
    assert not embed(loaded[name], digits).requires_grad


def test_an_image_alone_gives_what_it_gives_in_a_batch(name, loaded, digits):
    alone = torch.cat([embed(loaded[name], digits, [index]) for index in range(4)])
    together = embed(loaded[name], digits)
    assert (together - alone).norm(dim=1).max() < 1e-3 * spread(together)


def test_embedding_twice_is_identical_and_changes_no_weight(name, loaded, digits):
    before = {key: value.clone() for key, value in loaded[name].network.state_dict().items()}
    assert torch.equal(embed(loaded[name], digits), embed(loaded[name], digits))
    assert all(torch.equal(value, before[key]) for key, value in loaded[name].network.state_dict().items())


def test_random_weights_are_reproducible_and_leave_global_generators_alone(name, loaded, digits, tmp_path):
    torch_state, numpy_state = torch.get_rng_state(), numpy_global_state()
    again = BACKBONES.build(name).load("random", digits, tmp_path, "cpu")
    assert again.weights_digest == loaded[name].weights_digest
    assert torch.equal(torch.get_rng_state(), torch_state)
    np.testing.assert_array_equal(numpy_global_state(), numpy_state)


def test_the_full_name_is_arch_dot_weights(name, loaded):
    assert re.fullmatch(r"[A-Za-z0-9_-]+\.random", loaded[name].full_name)


def test_preprocessing_is_a_json_record(name, loaded):
    record = loaded[name].preprocessing.record()
    assert json.loads(json.dumps(record))["mean"] == list(record["mean"])
    assert record["crop"] > 0 and min(record["std"]) > 0


def test_its_views_are_registered_and_begin_with_identity(name):
    views = BACKBONES.get(name).views
    assert views[0] == "identity" and len(views) >= 2 and set(views) <= set(VIEWS)


def test_a_weights_file_is_loaded_and_named(name, loaded, other_file, digits, tmp_path):
    frozen = BACKBONES.build(name).load(str(other_file(name)), digits, tmp_path, "cpu")
    assert frozen.full_name.endswith(f".{name}") and frozen.weights_digest != loaded[name].weights_digest
    features = embed(loaded[name], digits)
    assert (embed(frozen, digits) - features).norm(dim=1).min() > 0.01 * spread(features)


def test_saved_weights_give_the_same_features(name, loaded, digits, tmp_path):
    file = tmp_path / "saved.safetensors"
    save_file(loaded[name].network.state_dict(), file)
    frozen = BACKBONES.build(name).load(str(file), digits, tmp_path, "cpu")
    assert frozen.weights_digest == loaded[name].weights_digest
    assert torch.equal(embed(frozen, digits), embed(loaded[name], digits))


def test_a_file_of_another_network_is_refused(name, other_file, digits, tmp_path):
    for other in set(NAMES) - ({name} | SAME_NETWORK if name in SAME_NETWORK else {name}):
        with pytest.raises(InputError, match=r"does not fit this backbone: .* missing .* unexpected"):
            BACKBONES.build(name).load(str(other_file(other)), digits, tmp_path, "cpu")


def test_a_file_that_is_missing_or_of_another_kind_is_refused(name, digits, tmp_path):
    (tmp_path / "weights.bin").write_bytes(b"x")
    for file in ("gone.safetensors", "weights.bin"):
        with pytest.raises(InputError, match=file):
            BACKBONES.build(name).load(str(tmp_path / file), digits, tmp_path, "cpu")
