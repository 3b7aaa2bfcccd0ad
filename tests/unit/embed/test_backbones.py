"""Backbones: which names reach the libraries, what a missing network says, and what a weights file may hold."""

import logging
import os
import time
import urllib.error

import huggingface_hub
import huggingface_hub.utils
import pytest
import timm
import torch
import torchvision
from safetensors.torch import save_file

from cache.errors import InputError, WeightsUnavailableError
from stages.embed.backbones import BACKBONES, dinov2
from stages.embed.backbones import weights as weights_module
from stages.embed.backbones.weights import check_reachable, load_strictly, read_state, seeded_init, state_digest
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


def test_resnet18_asks_torchvision_for_its_record(digits, tmp_path, monkeypatch):
    asked = []

    def download(url, **options):
        asked.append((url, options["check_hash"]))
        with seeded_init(7):
            return torchvision.models.resnet18().state_dict()

    monkeypatch.setattr(weights_module, "_urllib_head", lambda url: asked.append(url))
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    monkeypatch.setattr("torchvision.models._api.load_state_dict_from_url", download)
    frozen = load("resnet18", "", digits, tmp_path)
    url = "https://download.pytorch.org/models/resnet18-f37072fd.pth"
    assert asked == [url, (url, True)]
    assert frozen.full_name == "resnet18.imagenet1k_v1" and frozen.dim == 512
    record = frozen.preprocessing.record()
    assert (record["resize"], record["crop"], record["interpolation"]) == (256, 224, "bilinear")
    assert record["mean"] == (0.485, 0.456, 0.406) and record["std"] == (0.229, 0.224, 0.225)


def test_resnet18_without_a_network(digits, tmp_path, monkeypatch, capfd):
    def head(url):
        raise urllib.error.URLError("no route")

    monkeypatch.setattr(weights_module, "_urllib_head", head)
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    with pytest.raises(WeightsUnavailableError) as error:
        load("resnet18", "", digits, tmp_path)
    assert_ways_out(error, "resnet18", capfd)


def test_dinov2_names_timms_repository():
    record = timm.get_pretrained_cfg(dinov2.MODEL)
    assert record.hf_hub_id == dinov2.REPOSITORY and record.mean == (0.485, 0.456, 0.406)


def test_dinov2_without_a_network(digits, tmp_path, monkeypatch, capfd):
    asked = []

    class Session:
        def head(self, url, timeout):
            asked.append((url, timeout))
            raise OSError("no route")

    monkeypatch.setattr(huggingface_hub, "try_to_load_from_cache", lambda repository, file: None)
    monkeypatch.setattr(huggingface_hub.utils, "get_session", Session)
    with pytest.raises(WeightsUnavailableError) as error:
        load("dinov2", "", digits, tmp_path)
    assert_ways_out(error, "dinov2", capfd)
    [(url, timeout)] = asked
    assert url.endswith("/timm/vit_small_patch14_dinov2.lvd142m/resolve/main/model.safetensors") and timeout <= 5


def test_dinov2_download_that_breaks_off_is_one_quiet_sentence(digits, tmp_path, monkeypatch, capfd):
    def download(*, repo_id, filename, **options):
        logging.getLogger("huggingface_hub").warning("retrying")
        raise OSError(f"{repo_id}/{filename} broke off")

    monkeypatch.setattr(huggingface_hub, "try_to_load_from_cache", lambda repository, file: None)
    monkeypatch.setattr(dinov2, "_ask", lambda url: None)
    monkeypatch.setattr("timm.models._hub.hf_hub_download", download)
    with pytest.raises(WeightsUnavailableError, match=f"{dinov2.REPOSITORY}/{dinov2.FILE} broke off; connect"):
        load("dinov2", "", digits, tmp_path)
    assert capfd.readouterr().err == ""


def test_dinov2_takes_the_published_file_from_cache_and_by_path(digits, tmp_path, monkeypatch):
    with seeded_init(3):
        published = timm.create_model(dinov2.MODEL, pretrained=False)  # 518 pixels, 37 x 37 patches
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


def test_a_hostile_pickle_does_not_run(tmp_path):
    torch.save({"state_dict": Hostile(tmp_path / "executed")}, tmp_path / "evil.pth")
    with pytest.raises(InputError, match="more in it than tensors"):
        read_state(str(tmp_path / "evil.pth"))
    assert not (tmp_path / "executed").exists()


def test_what_is_no_weights_file(tmp_path):
    (tmp_path / "junk.pth").write_bytes(b"junk")
    (tmp_path / "junk.safetensors").write_bytes(b"")
    (tmp_path / "w.onnx").write_bytes(b"")
    torch.save({"a": torch.zeros(1), "b": 3}, tmp_path / "mixed.pth")
    torch.save(torch.zeros(3), tmp_path / "tensor.pth")
    expected = {
        "junk.pth": "damaged",
        "junk.safetensors": "damaged",
        "w.onnx": "neither",
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
