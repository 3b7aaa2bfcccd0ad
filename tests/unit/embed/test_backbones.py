"""Backbones: which names reach the libraries, what a missing network says, and what a weights file may hold."""

import logging
import os
import pickle
import time
import urllib.error
from typing import ClassVar

import huggingface_hub
import huggingface_hub.utils
import pytest
import timm
import torch
import torchvision
from safetensors.torch import save_file

from cache.errors import InputError, WeightsUnavailableError
from stages.embed.backbones import BACKBONES, dino, hub, timm_models
from stages.embed.backbones import weights as weights_module
from stages.embed.backbones.weights import (
    SUFFIXES,
    check_reachable,
    load_strictly,
    read_state,
    seeded_init,
    source_name,
    state_digest,
)
from stages.embed.images import DATASETS


@pytest.fixture(scope="module")
def digits():
    return DATASETS.build("digits").open()


def load(name, weights, digits, tmp_path):
    return BACKBONES.build(name).load(weights, digits, tmp_path, "cpu")


def assert_ways_out(error, name, capfd):
    text = str(error.value)
    assert text.startswith(f"the weights of {name!r} (") and "\n" not in text
    for part in ("no connection (no route)", "WEIGHTS=path", "WEIGHTS=random"):
        assert part in text
    captured = capfd.readouterr()
    assert captured.out == captured.err == ""


TORCHVISION_FILES = {
    "resnet18": ("resnet18-f37072fd.pth", "imagenet1k_v1", 512),
    "resnet34": ("resnet34-b627a593.pth", "imagenet1k_v1", 512),
    "resnet50": ("resnet50-11ad3fa6.pth", "imagenet1k_v2", 2048),
    "densenet201": ("densenet201-c1103571.pth", "imagenet1k_v1", 1920),
}


@pytest.mark.parametrize("name", TORCHVISION_FILES)
def test_torchvision_is_asked_for_its_record(name, digits, tmp_path, monkeypatch):
    file, source, dim = TORCHVISION_FILES[name]
    asked = []

    def download(url, **options):
        asked.append((url, options["check_hash"], options["weights_only"]))
        with seeded_init(7):
            return torchvision.models.get_model(name).state_dict()

    monkeypatch.setattr(weights_module, "_urllib_head", lambda url: asked.append(url))
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    monkeypatch.setattr("torchvision.models._api.load_state_dict_from_url", download)
    frozen = load(name, "", digits, tmp_path)
    url = f"https://download.pytorch.org/models/{file}"
    assert asked == [url, (url, True, True)]
    assert frozen.full_name == f"{name}.{source}" and frozen.dim == dim


def test_vgg16_asks_for_its_file():
    weights = torchvision.models.get_model_weights("vgg16")[BACKBONES.get("vgg16").version]
    assert weights.url.endswith("/vgg16-397923af.pth")


@pytest.mark.parametrize("name", ["resnet18", "vgg16", "densenet201"])
def test_torchvision_without_a_network(name, digits, tmp_path, monkeypatch, capfd):
    def head(url):
        raise urllib.error.URLError("no route")

    monkeypatch.setattr(weights_module, "_urllib_head", head)
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    with pytest.raises(WeightsUnavailableError) as error:
        load(name, "", digits, tmp_path)
    assert_ways_out(error, name, capfd)


class NoHub:
    """The hub's session in a place without a network; it notes what was asked."""

    asked: ClassVar[list] = []

    def head(self, url, timeout):
        self.asked.append((url, timeout))
        raise OSError("no route")


@pytest.fixture
def empty_hub(monkeypatch):
    """huggingface_hub with nothing in its cache."""
    monkeypatch.setattr(huggingface_hub, "try_to_load_from_cache", lambda repository, file: None)
    monkeypatch.setattr(NoHub, "asked", [])


HUB_FILES = {
    **{name: f"timm/{model}/resolve/main/model.safetensors" for name, (_, model) in dino.MODELS.items()},
    "timm:resnet10t": "timm/resnet10t.c3_in1k/resolve/main/model.safetensors",
    "timm:vit_base_mci_224.apple_mclip": "apple/mobileclip_b_timm/resolve/main/model.safetensors",
    "resnet34_simclr_cifar100": "edadaltocg/resnet34_simclr_cifar100/resolve/main/pytorch_model.bin",
}


@pytest.mark.parametrize("name", HUB_FILES)
def test_the_hub_without_a_network(name, digits, tmp_path, monkeypatch, capfd, empty_hub):
    monkeypatch.setattr(huggingface_hub.utils, "get_session", NoHub)
    with pytest.raises(WeightsUnavailableError) as error:
        load(name, "", digits, tmp_path)
    assert_ways_out(error, name, capfd)
    [(url, timeout)] = NoHub.asked
    assert url.endswith(f"/{HUB_FILES[name]}") and timeout <= 5


def test_a_hub_without_that_file_is_no_missing_network(monkeypatch, empty_hub):
    class Session:
        def __init__(self, status):
            self.status_code = status

        def head(self, url, timeout):
            return self

        def raise_for_status(self):
            raise urllib.error.HTTPError("url", self.status_code, "refused", None, None)

    monkeypatch.setattr(huggingface_hub.utils, "get_session", lambda: Session(404))
    assert hub.check_hub("a", "b", "some/repository", "model.safetensors") is None
    monkeypatch.setattr(huggingface_hub.utils, "get_session", lambda: Session(403))
    with pytest.raises(WeightsUnavailableError, match="the server answered 403"):
        hub.check_hub("a", "b", "some/repository", "model.safetensors")


def test_timm_weights_at_an_address_of_their_own(digits, tmp_path, monkeypatch, capfd):
    asked = []

    def head(url):
        asked.append(url)
        raise urllib.error.URLError("no route")

    monkeypatch.setattr(weights_module, "_urllib_head", head)
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    with pytest.raises(WeightsUnavailableError) as error:
        load("timm:gcvit_xxtiny.in1k", "", digits, tmp_path)
    assert_ways_out(error, "timm:gcvit_xxtiny.in1k", capfd)
    assert [url.rpartition("/")[2] for url in asked] == ["gcvit_xxtiny_224_nvidia-d1d86009.pth"]


@pytest.mark.parametrize("name", ["dinov2", "dino", "timm:test_resnet.r160_in1k"])
def test_a_timm_download_that_breaks_off_is_one_quiet_sentence(name, digits, tmp_path, monkeypatch, capfd, empty_hub):
    def download(*, repo_id, filename, **options):
        logging.getLogger("huggingface_hub").warning("retrying")
        raise OSError(f"{repo_id}/{filename} broke off")

    monkeypatch.setattr(hub, "_ask_hub", lambda url: None)
    monkeypatch.setattr("timm.models._hub.hf_hub_download", download)
    with pytest.raises(WeightsUnavailableError, match="timm/.*/model.safetensors broke off; connect"):
        load(name, "", digits, tmp_path)
    assert capfd.readouterr().err == ""


def test_a_hub_download_that_breaks_off_is_one_sentence(digits, tmp_path, monkeypatch, empty_hub):
    def download(repository, file):
        raise OSError(f"{repository}/{file} broke off")

    monkeypatch.setattr(hub, "_ask_hub", lambda url: None)
    monkeypatch.setattr(huggingface_hub, "hf_hub_download", download)
    with pytest.raises(WeightsUnavailableError, match="cifar100/pytorch_model.bin broke off; connect"):
        load("resnet34_simclr_cifar100", "", digits, tmp_path)


@pytest.mark.parametrize("name", ["cifar_resnet18", "cifar_resnet34", "cifar_resnet50"])
def test_a_backbone_without_weights_of_its_own_says_so(name, digits, tmp_path):
    with pytest.raises(WeightsUnavailableError, match=f"'{name}' has no published weights: .*path.*random") as error:
        load(name, "", digits, tmp_path)
    assert "\n" not in str(error.value)


def test_cifar_statistics_are_those_asked_for(digits, tmp_path):
    means = {
        spec: load(spec, "random", digits, tmp_path).preprocessing.mean[0]
        for spec in ("cifar_resnet18", "cifar_resnet18:trained_on=cifar100", "resnet34_simclr_cifar100")
    }
    assert list(means.values()) == [0.4914, 0.5071, 0.5071]
    with pytest.raises(InputError, match="trained_on must be one of cifar10, cifar100, got 'svhn'"):
        BACKBONES.build("cifar_resnet18:trained_on=svhn")


def test_an_unknown_timm_model_names_the_nearest(digits, tmp_path):
    with pytest.raises(InputError, match=r"no model named 'resnet50d.a1_in2k': did you mean resnet50d.*\?") as error:
        load("timm:resnet50d.a1_in2k", "", digits, tmp_path)
    assert str(error.value).count(",") == 2 and "\n" not in str(error.value)
    with pytest.raises(InputError, match="write timm:MODEL"):
        BACKBONES.build("timm")


def test_timm_models_that_cannot_be_backbones_say_why(digits, tmp_path):
    with pytest.raises(WeightsUnavailableError, match="timm has no published weights of 'coatnet_0_224'"):
        load("timm:coatnet_0_224", "", digits, tmp_path)
    with torch.device("meta"), pytest.raises(InputError, match="does not give one feature vector per image"):
        timm_models.load_timm("timm:mobilenetv5_300m_enc", "mobilenetv5_300m_enc", "random", "cpu")
    with torch.device("meta"), pytest.raises(InputError, match="1024x768 pixels with crop mode 'squash'"):
        timm_models.load_timm("timm:x", "vit_base_patch16_sapiens2.fb", "random", "cpu")


def test_timms_choice_of_weights_is_in_the_name(digits, tmp_path, monkeypatch):
    with seeded_init(3):
        published = timm.create_model("test_resnet")
    file = tmp_path / "model.safetensors"
    save_file(published.state_dict(), file)
    monkeypatch.setattr(huggingface_hub, "try_to_load_from_cache", lambda repository, name: str(file))
    frozen = load("timm:test_resnet", "", digits, tmp_path)
    assert frozen.full_name == "test_resnet.r160_in1k" and frozen.dim == published.num_features
    by_path = load("timm:test_resnet", str(file), digits, tmp_path)
    assert by_path.full_name == "test_resnet.model" and by_path.weights_digest == frozen.weights_digest


def test_dinov2_takes_the_published_file_from_cache_and_by_path(digits, tmp_path, monkeypatch):
    _, model = dino.MODELS["dinov2"]
    with seeded_init(3):
        published = timm.create_model(model, pretrained=False)  # 518 pixels, 37 x 37 patches
    file = tmp_path / "model.safetensors"
    save_file(published.state_dict(), file)
    monkeypatch.setattr(huggingface_hub, "try_to_load_from_cache", lambda repository, name: str(file))
    cached, by_path = load("dinov2", "", digits, tmp_path), load("dinov2", str(file), digits, tmp_path)
    assert cached.full_name == "vit_small_patch14_dinov2.lvd142m" and cached.preprocessing.crop == 224
    assert cached.weights_digest == by_path.weights_digest
    assert cached.network.pos_embed.shape == (1, 257, 384)
    torch.testing.assert_close(cached.network.cls_token, published.cls_token.detach())


def test_a_server_that_refuses_is_named():
    def head(url):
        raise urllib.error.HTTPError(url, 403, "Forbidden", None, None)

    with pytest.raises(WeightsUnavailableError, match="the server answered 403"):
        check_reachable("resnet18", "model", "https://example.org", head)


def test_resnet18_takes_wrapped_pth_and_drops_the_head(digits, tmp_path):
    with seeded_init(5):
        state = torchvision.models.resnet18(num_classes=7).state_dict()
    torch.save(
        {"epoch": 3, "state_dict": {f"module.{name}": value for name, value in state.items()}}, tmp_path / "a.pth"
    )
    save_file(state, tmp_path / "a.safetensors")
    wrapped, plain = (load("resnet18", str(tmp_path / f"a.{end}"), digits, tmp_path) for end in ("pth", "safetensors"))
    assert wrapped.full_name == "resnet18.a" and wrapped.weights_digest == plain.weights_digest


class Hostile:
    def __init__(self, mark):
        self.mark = mark

    def __reduce__(self):
        return os.mkdir, (str(self.mark),)


@pytest.mark.parametrize("end", SUFFIXES)
@pytest.mark.parametrize("form", ["zip", "legacy", "bare pickle"])
def test_a_hostile_pickle_does_not_run(form, end, tmp_path):
    file, content = tmp_path / f"evil{end}", {"state_dict": Hostile(tmp_path / "executed")}
    if form == "bare pickle":
        file.write_bytes(pickle.dumps(content))
    else:
        torch.save(content, file, _use_new_zipfile_serialization=form == "zip")
    with pytest.raises(InputError, match="more in it than tensors"):
        read_state(str(file))
    assert not (tmp_path / "executed").exists()


@pytest.mark.parametrize("name", ["resnet18", "dinov2", "cifar_resnet18", "timm:test_resnet.r160_in1k", "simclr"])
def test_a_hostile_file_does_not_run_on_its_way_to_a_backbone(name, digits, tmp_path):
    torch.save({"model": {"a": Hostile(tmp_path / "executed")}}, tmp_path / "evil.pth.tar")
    with pytest.raises(InputError, match="more in it than tensors"):
        load(name, str(tmp_path / "evil.pth.tar"), digits, tmp_path)
    assert not (tmp_path / "executed").exists()


def test_the_name_of_a_file_loses_its_whole_suffix():
    files = ["/a/b.c/model.pth.tar", "x.lvd142m.safetensors", "pytorch_model.bin", "checkpoint.tar", "w.pth"]
    assert [source_name(file, "v1") for file in files] == ["model", "x.lvd142m", "pytorch_model", "checkpoint", "w"]
    assert [source_name(word, "v1") for word in ("", "random")] == ["v1", "random"]


def test_what_is_no_weights_file(tmp_path):
    (tmp_path / "junk.pth").write_bytes(b"junk")
    (tmp_path / "junk.safetensors").write_bytes(b"")
    (tmp_path / "w.onnx").write_bytes(b"")
    torch.save({"a": torch.zeros(1), "b": 3}, tmp_path / "mixed.pth")
    torch.save(torch.zeros(3), tmp_path / "tensor.pth")
    expected = {
        "junk.pth": "damaged",
        "junk.safetensors": "damaged",
        "w.onnx": "is no weights file",
        "gone.pth": "no weights file",
        "mixed.pth": "no state dict",
        "tensor.pth": "no state dict",
    }
    for name, part in expected.items():
        with pytest.raises(InputError, match=part) as error:
            read_state(str(tmp_path / name))
        assert name in str(error.value) and "\n" not in str(error.value)


def test_strict_loading_names_the_first_keys():
    network = torch.nn.Sequential(torch.nn.Linear(2, 3), torch.nn.Linear(3, 4))
    state = {"0.weight": torch.zeros(9, 9), "0.bias": torch.zeros(3), **{f"x{i}": torch.zeros(1) for i in range(5)}}
    with pytest.raises(InputError) as error:
        load_strictly(network, {**state, "head.weight": torch.zeros(1)}, "file.pth", head="head.")
    expected = "2 missing (1.weight, 1.bias), 5 unexpected (x0, x1, x2, ...), 1 of another shape (0.weight)"
    assert str(error.value) == f"the weights file 'file.pth' does not fit this backbone: keys {expected}"


def test_state_digest_sees_name_shape_type_and_value():
    states = [
        {"a": torch.zeros(4), "b": torch.ones(2)},
        {"b": torch.zeros(4), "a": torch.ones(2)},
        {"a": torch.zeros(2, 2), "b": torch.ones(2)},
        {"a": torch.zeros(4, dtype=torch.int32), "b": torch.ones(2)},
        {"a": torch.zeros(4), "b": torch.tensor([1.0, 1.5])},
        {"a": torch.zeros(4), "b": torch.ones(2, dtype=torch.bfloat16)},
        {"a": torch.zeros(4), "b": torch.tensor(1.0)},
    ]
    assert len({state_digest(state) for state in states}) == len(states)
    assert state_digest(states[0]) == state_digest(dict(reversed(states[0].items())))


def test_seeded_init_leaves_the_global_generator_alone():
    before = torch.get_rng_state()
    with seeded_init():
        first = torch.rand(3)
    with seeded_init():
        assert torch.equal(first, torch.rand(3))
    assert torch.equal(torch.get_rng_state(), before)


def test_an_unreachable_address_answers_in_seconds():
    begun = time.monotonic()
    with pytest.raises(WeightsUnavailableError, match="no connection"):
        check_reachable("a", "b", "http://127.0.0.1:9/")
    assert time.monotonic() - begun < 6
