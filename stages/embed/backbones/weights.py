"""What the backbones share about weights: reading files safely, matching them, naming them, reaching the network."""

import contextlib
import hashlib
import logging
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import load_file
from torch import nn

from cache.errors import InputError, WeightsUnavailableError
from stages.embed.backbones.base import FrozenBackbone, Preprocessing
from stages.embed.images.folder import user_path

RANDOM = "random"
SUFFIXES = (".safetensors", ".pth", ".pth.tar", ".tar", ".bin")
"""Of weights files: all but the first are torch.save's, as published by torchvision, Meta, SCAN and the hub."""
PROBE_SECONDS = 5
_INIT_SEED = 0


def state_digest(state: Mapping[str, torch.Tensor]) -> str:
    """sha256 over the names, shapes, types and values of a state dict, in the order of the names."""
    whole = hashlib.sha256()
    for name in sorted(state):
        tensor = state[name].detach().cpu().contiguous()
        whole.update(f"{name} {tuple(tensor.shape)} {tensor.dtype}\n".encode())
        whole.update(tensor.flatten().view(torch.uint8).numpy().data)
    return whole.hexdigest()


@contextlib.contextmanager
def seeded_init(seed: int = _INIT_SEED) -> Iterator[None]:
    """Initialise networks reproducibly; the global generator is as before afterwards."""
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        yield


def source_name(weights: str, published: str) -> str:
    """The part of a full name after the dot: the published weights', "random", or the file's name."""
    if weights in ("", RANDOM):
        return weights or published
    name = Path(weights).name
    suffix = max((suffix for suffix in SUFFIXES if name.endswith(suffix)), key=len, default="")
    return name.removesuffix(suffix)


def read_state(path: str) -> dict[str, torch.Tensor]:
    """The state dict in a file of one of SUFFIXES; wrappers ("state_dict", "model", "module.") are removed.

    Nothing in the file is executed. Raises InputError: no such file, another suffix, or not a state dict.
    """
    file = user_path(path)
    if not file.name.endswith(SUFFIXES):
        raise InputError(f"WEIGHTS={path!r} is no weights file ({', '.join(SUFFIXES)}) nor the word 'random'")
    if not file.is_file():
        raise InputError(f"there is no weights file {path!r}: check the path in WEIGHTS=")
    try:
        content = load_file(file) if file.suffix == ".safetensors" else _load_pth(file)
    except Exception as error:  # damaged or hostile bytes: safetensors, zip and pickle fail in unrelated ways
        raise InputError(f"the weights file {path!r} was not loaded: damaged, or more in it than tensors") from error
    for wrapper in ("state_dict", "model"):
        content = content[wrapper] if isinstance(content, dict) and isinstance(content.get(wrapper), dict) else content
    if not isinstance(content, dict) or not all(isinstance(value, torch.Tensor) for value in content.values()):
        raise InputError(f"the weights file {path!r} holds no state dict: save network.state_dict() in it")
    return {name.removeprefix("module."): tensor for name, tensor in content.items()}


def read_metadata(path: str) -> dict[str, str]:
    """The text fields in the header of a .safetensors file; the others have none."""
    if Path(path).suffix != ".safetensors":
        return {}
    with safe_open(user_path(path), framework="pt") as file:
        return file.metadata() or {}


def load_strictly(
    network: nn.Module, state: Mapping[str, torch.Tensor], path: str, head: str | tuple[str, ...]
) -> None:
    """Load a state dict that must fit exactly, once the classification head (prefix `head`) is left out.

    Batch norm's count of training steps may be missing, as in files from before torch 0.4.1: features do not need it.
    Raises InputError naming the first keys that are missing, unexpected or of another shape.
    """
    state = {name: tensor for name, tensor in state.items() if not name.startswith(head)}
    own = network.state_dict()
    state = {name: own[name] for name in own if name.endswith(".num_batches_tracked")} | state
    problems = {
        "missing": [name for name in own if name not in state],
        "unexpected": [name for name in state if name not in own],
        "of another shape": [name for name in own if name in state and own[name].shape != state[name].shape],
    }
    listed = [f"{len(names)} {kind} ({_first(names)})" for kind, names in problems.items() if names]
    if listed:
        raise InputError(f"the weights file {path!r} does not fit this backbone: keys {', '.join(listed)}")
    network.load_state_dict(state)


def freeze(
    network: nn.Module, *, full_name: str, preprocessing: Preprocessing, dim: int, device: str
) -> FrozenBackbone:
    """The finished network: eval mode, no gradients, on its device."""
    network = network.eval().requires_grad_(False)
    digest = state_digest(network.state_dict())
    return FrozenBackbone(
        full_name=full_name,
        weights_digest=digest,
        preprocessing=preprocessing,
        dim=dim,
        network=network.to(device),
    )


def check_reachable(name: str, model: str, url: str, head: Callable[[str], object] | None = None) -> None:
    """Ask for the headers of a download, so that a missing network shows at once and not after minutes of retries.

    head : asks for them, given the address; default urllib, which respects the proxy settings
    Raises WeightsUnavailableError with the ways out.
    """
    try:
        (head or _urllib_head)(url)
    except Exception as error:  # each HTTP library has its own family of errors, not all of them OSError
        response = getattr(error, "response", error)
        status = getattr(response, "status_code", getattr(response, "code", None))
        reason = f"the server answered {status}" if status else f"no connection ({_first_line(error)})"
        raise _unavailable(name, model, reason) from error


@contextlib.contextmanager
def download_errors(name: str, model: str) -> Iterator[None]:
    """Turn whatever a library raises while downloading into WeightsUnavailableError, and keep its log lines back."""
    loggers = [logging.getLogger(library) for library in ("timm", "huggingface_hub")]
    levels = [logger.level for logger in loggers]
    try:
        for logger in loggers:
            logger.setLevel(logging.CRITICAL)
        yield
    except Exception as error:  # timm, huggingface_hub, torch.hub and their HTTP libraries share no base class
        raise _unavailable(name, model, _first_line(error)) from error
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


def _unavailable(name: str, model: str, reason: str) -> WeightsUnavailableError:
    return WeightsUnavailableError(
        f"the weights of {name!r} ({model}) cannot be downloaded: {reason}; connect to the internet, or give a local "
        f"file with WEIGHTS=path, or ask for random weights by name with WEIGHTS=random"
    )


def _load_pth(file: Path) -> object:
    return torch.load(file, map_location="cpu", weights_only=True)


def _urllib_head(url: str) -> object:
    with urllib.request.urlopen(urllib.request.Request(url, method="HEAD"), timeout=PROBE_SECONDS) as answer:
        return answer.status


def _first_line(error: Exception) -> str:
    lines = str(getattr(error, "reason", error)).splitlines() or [type(error).__name__]
    return lines[0].rstrip(". ")


def _first(names: list[str], count: int = 3) -> str:
    return ", ".join(names[:count]) + (", ..." if len(names) > count else "")
