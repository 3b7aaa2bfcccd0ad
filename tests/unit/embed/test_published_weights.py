"""Weights files as others publish them, made here with random values, load key by key."""

import huggingface_hub
import numpy as np
import pytest
import timm
import torch
import torchvision
from torch import nn

from cache.errors import InputError
from stages.embed.backbones import BACKBONES, cifar, dino, hub, timm_models
from stages.embed.backbones.weights import load_strictly, seeded_init
from stages.embed.images import DATASETS


@pytest.fixture(scope="module")
def digits():
    return DATASETS.build("digits").open()


def load(name, file, digits, tmp_path):
    return BACKBONES.build(name).load(str(file), digits, tmp_path, "cpu")


def random_state(shapes):
    """Random values under the names of a layout; variances are positive."""
    generator = torch.Generator().manual_seed(1)
    state = {}
    for name, shape in shapes.items():
        values = torch.randn(shape, generator=generator) * 0.05
        state[name] = values.abs() + 0.5 if name.endswith("running_var") else values
    return state


def assert_same(network, expected):
    own = network.state_dict()
    assert set(own) - {name for name in own if name.endswith("num_batches_tracked")} == set(expected)
    for name, value in expected.items():
        torch.testing.assert_close(own[name], value, msg=name)


# torchvision


@pytest.mark.parametrize(("name", "head"), [("resnet18", "fc."), ("resnet50", "fc."), ("densenet201", "classifier.")])
def test_torchvisions_files(name, head, digits, tmp_path):
    """From before torch 0.4.1: no count of batches, and in DenseNet `norm.1` where it is `norm1` now."""
    present = {
        key: value.shape
        for key, value in torchvision.models.get_model(name).state_dict().items()
        if not key.endswith("num_batches_tracked")
    }
    state = random_state(present)
    old = {
        key.replace("norm1", "norm.1").replace("norm2", "norm.2").replace("conv1", "conv.1").replace("conv2", "conv.2")
        if "denselayer" in key
        else key: value
        for key, value in state.items()
    }
    assert ("features.denseblock1.denselayer1.norm.1.running_mean" in old) == (name == "densenet201")
    torch.save(old, tmp_path / "published.pth")
    network = load(name, tmp_path / "published.pth", digits, tmp_path).network
    assert_same(network, {key: value for key, value in state.items() if not key.startswith(head)})


def test_vgg16_has_torchvisions_names_and_4096_features():
    with torch.device("meta"):
        published, network = torchvision.models.vgg16(), torchvision.models.vgg16()
        network.set_submodule(BACKBONES.get("vgg16").classifier, nn.Identity())
        load_strictly(network, published.state_dict(), "file", head="classifier.6.")
        assert network.eval()(torch.zeros(1, 3, 224, 224)).shape == (1, 4096)
    assert set(published.state_dict()) - set(network.state_dict()) == {"classifier.6.weight", "classifier.6.bias"}


# Meta's DINO and DINOv2, whose files have no classification head

SIZES = {"small": (384, 12), "base": (768, 12), "large": (1024, 24), "giant": (1536, 40)}


def vit_layout(model):
    """Names and shapes of the file that Meta publishes for a model of timm."""
    dim, depth = SIZES[model.split("_")[1]]
    second = "dinov2" in model
    patch, tokens = (14, 37 * 37) if second else (16, 14 * 14)
    layout = {
        "cls_token": (1, 1, dim),
        "pos_embed": (1, tokens + 1, dim),
        "patch_embed.proj.weight": (dim, 3, patch, patch),
        "patch_embed.proj.bias": (dim,),
        "norm.weight": (dim,),
        "norm.bias": (dim,),
    }
    layout |= {"mask_token": (1, dim)} if second else {}
    layout |= {"register_tokens": (1, 4, dim)} if "reg4" in model else {}
    block = {"norm1": (dim,), "attn.qkv": (3 * dim, dim), "attn.proj": (dim, dim), "norm2": (dim,)}
    if dim == 1536:  # a gated layer, its hidden size two thirds of 4 * dim
        block |= {"mlp.w12": (2 * 4096, dim), "mlp.w3": (dim, 4096)}
    else:
        block |= {"mlp.fc1": (4 * dim, dim), "mlp.fc2": (dim, 4 * dim)}
    for index in range(depth):
        for name, shape in block.items():
            layout |= {f"blocks.{index}.{name}.weight": shape, f"blocks.{index}.{name}.bias": shape[:1]}
        if second:
            layout |= {f"blocks.{index}.ls1.gamma": (dim,), f"blocks.{index}.ls2.gamma": (dim,)}
    return layout


@pytest.mark.parametrize("name", dino.MODELS)
def test_metas_names_and_shapes_fit(name):
    """On torch's meta device, which computes shapes only: the giant has 1.1 billion parameters."""
    family, model = dino.MODELS[name]
    with torch.device("meta"):
        network = timm.create_model(model, num_classes=0, **family.options)
        state = {key: torch.empty(shape) for key, shape in vit_layout(model).items()}
        load_strictly(network, timm_models.converted(state, network, "file"), "file", head="head.")
        assert network(torch.zeros(1, 3, 224, 224)).shape == (1, SIZES[model.split("_")[1]][0])


@pytest.mark.parametrize("name", ["dino", "dinov2", "dinov2_reg"])
def test_metas_values_arrive(name, digits, tmp_path):
    _, model = dino.MODELS[name]
    state = random_state(vit_layout(model))
    torch.save(state, tmp_path / "meta.pth")
    frozen = load(name, tmp_path / "meta.pth", digits, tmp_path)
    assert frozen.full_name == f"{model.partition('.')[0]}.meta"
    own = frozen.network.state_dict()
    unchanged = set(own) - {"pos_embed", "cls_token", "reg_token"}
    assert unchanged == set(state) - {"pos_embed", "cls_token", "register_tokens", "mask_token"}
    for key in unchanged:
        assert torch.equal(own[key], state[key]), key
    if name == "dinov2_reg":  # timm adds the class token's position to the token itself
        assert torch.equal(own["reg_token"], state["register_tokens"])
        assert torch.equal(own["cls_token"], state["cls_token"] + state["pos_embed"][:, 0])
    else:
        assert torch.equal(own["cls_token"], state["cls_token"])
    assert own["pos_embed"].shape[1] == {"dino": 197, "dinov2": 257, "dinov2_reg": 256}[name]


def test_a_file_that_lacks_a_key_is_refused(digits, tmp_path):
    state = random_state(vit_layout(dino.MODELS["dinov2"][1]))
    del state["blocks.11.norm1.weight"]
    torch.save(state, tmp_path / "part.pth")
    with pytest.raises(InputError, match=r"1 missing \(blocks.11.norm1.weight\)"):
        load("dinov2", tmp_path / "part.pth", digits, tmp_path)


# SimCLR for CIFAR: SCAN and TypiClust


def scan_layout():
    """ResNet-18 of SCAN's ContrastiveModel: shapes by its state dict's names."""

    def batch_norm(name, width):
        return {f"{name}.{part}": (width,) for part in ("weight", "bias", "running_mean", "running_var")}

    layout = {"conv1.weight": (64, 3, 3, 3), **batch_norm("bn1", 64)}
    before = 64
    for stage, width in enumerate((64, 128, 256, 512), start=1):
        for block in (0, 1):
            name = f"layer{stage}.{block}"
            layout |= {f"{name}.conv1.weight": (width, before, 3, 3), **batch_norm(f"{name}.bn1", width)}
            layout |= {f"{name}.conv2.weight": (width, width, 3, 3), **batch_norm(f"{name}.bn2", width)}
            if before != width:
                layout |= {f"{name}.shortcut.0.weight": (width, before, 1, 1)}
                layout |= batch_norm(f"{name}.shortcut.1", width)
            before = width
    return {f"backbone.{name}": shape for name, shape in layout.items()}


HEADS = {
    "simclr": {"0.weight": (512, 512), "0.bias": (512,), "2.weight": (128, 512), "2.bias": (128,)},
    "scan": {"weight": (10, 512), "bias": (10,)},
}


def scan_state(kind):
    prefix = {"simclr": "contrastive_head.", "scan": "cluster_head.0."}[kind]
    state = random_state(scan_layout() | {prefix + name: shape for name, shape in HEADS[kind].items()})
    counts = {name: torch.tensor(9) for name in state if name.endswith("running_mean")}
    return state | {name.replace("running_mean", "num_batches_tracked"): value for name, value in counts.items()}


def contents(state):
    optimizer = {"state": {0: {"momentum_buffer": torch.zeros(3)}}, "param_groups": [{"lr": 0.4, "params": [0]}]}
    return {
        "model.pth.tar": state,
        "checkpoint.pth.tar": {"optimizer": optimizer, "model": state, "epoch": 500},
        "selflabel.tar": {"model": {f"module.{name}": value for name, value in state.items()}, "head": 0},
        "old.pth": state,
    }


@pytest.mark.parametrize("file", ["model.pth.tar", "checkpoint.pth.tar", "selflabel.tar", "old.pth"])
@pytest.mark.parametrize("kind", HEADS)
def test_checkpoints_of_scan_and_typiclust(kind, file, digits, tmp_path):
    state = scan_state(kind)
    torch.save(contents(state)[file], tmp_path / file, _use_new_zipfile_serialization=file != "old.pth")
    frozen = load("cifar_resnet18", tmp_path / file, digits, tmp_path)
    assert frozen.full_name == f"cifar_resnet18.{file.partition('.')[0]}" and frozen.dim == 512
    own = frozen.network.state_dict()
    published = {name.removeprefix("backbone."): value for name, value in state.items() if "_head." not in name}
    assert len(own) == len(published)
    for name, value in own.items():
        assert torch.equal(value, published[name.replace("downsample", "shortcut")]), name


def test_a_scan_checkpoint_of_another_network_is_refused(digits, tmp_path):
    """TypiClust's ResNet-18 for Tiny ImageNet halves the image in its first stage too, by one more shortcut."""
    state = scan_state("simclr") | {"backbone.layer1.0.shortcut.0.weight": torch.zeros(64, 64, 1, 1)}
    torch.save(state, tmp_path / "model.pth.tar")
    with pytest.raises(InputError, match=r"1 unexpected \(layer1.0.downsample.0.weight\)"):
        load("cifar_resnet18", tmp_path / "model.pth.tar", digits, tmp_path)


# SimCLR for CIFAR-100 on the hub


def hub_network():
    """The model as its authors build it: timm's ResNet-34 with another stem."""
    with seeded_init(4):
        network = timm.create_model("resnet34", num_classes=0)
        network.conv1 = nn.Conv2d(3, 64, kernel_size=3, stride=1, padding=1, bias=False)
    network.maxpool = nn.Identity()
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.5, 1.0, generator=torch.Generator().manual_seed(2))
    return network.eval()


def test_the_hubs_simclr_for_cifar100(digits, tmp_path, monkeypatch):
    network, asked = hub_network(), []
    file = tmp_path / "pytorch_model.bin"
    torch.save(network.state_dict(), file)

    def download(repository, name):
        asked.append((repository, name))
        return str(file)

    monkeypatch.setattr(huggingface_hub, "try_to_load_from_cache", lambda repository, name: None)
    monkeypatch.setattr(hub, "_ask_hub", asked.append)
    monkeypatch.setattr(huggingface_hub, "hf_hub_download", download)
    frozen = BACKBONES.build("resnet34_simclr_cifar100").load("", digits, tmp_path, "cpu")
    assert asked[0].endswith("/edadaltocg/resnet34_simclr_cifar100/resolve/main/pytorch_model.bin")
    assert asked[1:] == [("edadaltocg/resnet34_simclr_cifar100", "pytorch_model.bin")]
    assert frozen.full_name == "cifar_resnet34.simclr_cifar100" and frozen.preprocessing.crop == 32
    assert (frozen.preprocessing.mean, frozen.preprocessing.std) == cifar.STATISTICS["cifar100"]
    pixels = np.stack([digits.load(i) for i in range(4)])
    batch = frozen.preprocessing(torch.from_numpy(pixels).permute(0, 3, 1, 2))
    with torch.no_grad():
        torch.testing.assert_close(frozen.network(batch), network(batch))
    by_path = load("cifar_resnet34:trained_on=cifar100", file, digits, tmp_path)
    assert by_path.weights_digest == frozen.weights_digest and by_path.preprocessing == frozen.preprocessing


def test_the_hubs_file_is_taken_from_its_cache_without_a_question(digits, tmp_path, monkeypatch):
    file = tmp_path / "pytorch_model.bin"
    torch.save(hub_network().state_dict(), file)
    monkeypatch.setattr(huggingface_hub, "try_to_load_from_cache", lambda repository, name: str(file))
    monkeypatch.setattr(hub, "_ask_hub", lambda url: pytest.fail("asked"))
    monkeypatch.setattr(huggingface_hub, "hf_hub_download", lambda repository, name: pytest.fail("downloaded"))
    assert BACKBONES.build("resnet34_simclr_cifar100").load("", digits, tmp_path, "cpu").dim == 512
