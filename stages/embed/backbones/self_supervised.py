"""What `simclr`, `simsiam` and `rotation` share: networks pretrained on the pool itself, kept, and used again."""

from __future__ import annotations

import json
from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from cache.errors import CacheMismatchError, InputError
from cache.files import copy_files, digest_json, require_writable, write_json, write_whole
from cache.location import Location, local_folder
from cache.locks import Lock
from stages.embed.backbones.base import Backbone, FrozenBackbone, Preprocessing
from stages.embed.device import PRECISIONS
from stages.embed.images.base import ImageSet
from stages.embed.pretrain.recipes import RECIPES, Recipe

if TYPE_CHECKING:
    import torch
    from torch import nn

_TRAINING_VERSION = 2
"""Raise it when pretrain/, convnet.py or cifar_stem.py change what a recipe gives: older weights are then made anew."""
_CIFAR_STEM_UP_TO = 64
_LOSSES_KEPT = 1000


@dataclass(frozen=True, kw_only=True)
class Pretrained:
    """Weights made here: the file, its record and its picture, and whether they stood before this call."""

    file: Path
    stood_before: bool

    @property
    def record(self) -> Path:
        return self.file.with_suffix(".json")

    @property
    def picture(self) -> Path:
        return self.file.with_suffix(".png")

    @property
    def names(self) -> list[str]:
        """Of the three files, the record last: it says that the others are there."""
        return [path.name for path in (self.file, self.picture, self.record)]

    @property
    def complete(self) -> bool:
        return self.record.is_file() and self.file.is_file()

    def read_record(self) -> dict[str, Any]:
        return _read_record(self.record)


@dataclass(frozen=True, kw_only=True)
class SelfSupervised(Backbone):
    """Features before the objective's head, of a network pretrained on the images of split "train".

    Kept in `weights_root` and used again for the same recipe and images. Where that is in an object store, this
    machine works in a folder of its own, takes what others have trained and gives what it trains.

    recipe : a name in `stages.embed.pretrain.recipes`; it fills whatever is not given here
    arch : convnet, a small net with 4 * width features; or resnet18, resnet34, resnet50, with the CIFAR stem where
        images have at most 64 pixels
    width : channels of the first layers of convnet
    precision : of the forward pass in training; "auto" is bfloat16 on a GPU that has it, float32 elsewhere
    seed : of every draw
    the others : see `Recipe`
    """

    views: ClassVar[tuple[str, ...]] = ("identity", "crop", "blur")
    n_views: ClassVar[int]
    recipe: str = "cpu"
    arch: str | None = None
    width: int = 32
    size: int | None = None
    steps: int | None = None
    epochs: int | None = None
    batch_size: int | None = None
    optimizer: str | None = None
    learning_rate: float | None = None
    weight_decay: float | None = None
    crop: float | None = None
    jitter: float | None = None
    blur: float | None = None
    precision: str = "auto"
    seed: int = 0

    def __post_init__(self) -> None:
        for key, value in asdict(self.training).items():
            if key in self._given():
                object.__setattr__(self, key, value)
        if not self.width > 0 or self.seed < 0:
            raise ValueError(f"width must be above 0 and seed at least 0, got width={self.width}, seed={self.seed}")
        if self.precision not in PRECISIONS:
            raise ValueError(f"precision must be one of {', '.join(PRECISIONS)}, got {self.precision!r}")

    @abstractmethod
    def head(self, dim: int, recipe: Recipe) -> nn.Module:
        """See `stages.embed.pretrain.train.Objective`."""

    @abstractmethod
    def outputs(self, network: nn.Module, head: nn.Module, views: list[torch.Tensor]) -> tuple[torch.Tensor, ...]:
        """See `stages.embed.pretrain.train.Objective`."""

    @abstractmethod
    def loss(self, outputs: tuple[torch.Tensor, ...], recipe: Recipe) -> torch.Tensor:
        """See `stages.embed.pretrain.train.Objective`."""

    @property
    def training(self) -> Recipe:
        """The named recipe with the values that were given in their place."""
        known = RECIPES[self.name]
        if self.recipe not in known:
            raise ValueError(f"there is no recipe {self.recipe!r}: {self.name} has {', '.join(known)}")
        given = {key: value for key, value in self._given().items() if value is not None}
        return known[self.recipe].with_changes(given)

    def load(self, weights: str, images: ImageSet, weights_root: Location, device: str) -> FrozenBackbone:
        if weights == "":
            return self._pretrained(images, weights_root, device)
        if weights == "random":
            preprocessing, network, _ = self._untrained(images)
            return self._freeze(network, weights, preprocessing, device)
        return self._from_file(weights, Path(weights).stem, images, device)

    def pretrain(self, images: ImageSet, weights_root: Location, device: str) -> Pretrained:
        """The weights of this recipe on these images; made first where they are not kept yet.

        A training that was killed goes on at its last checkpoint.
        """
        stands = self._kept(images, weights_root)
        if not stands.complete:
            require_writable(stands.file.parent)
            with Lock(stands.file.with_suffix(".lock")).alone():
                if not stands.complete:  # else another process has made them meanwhile
                    stands = replace(stands, stood_before=False)
                    self._make(images, stands, device)
        folder = stands.file.parent
        copy_files(stands.names, folder, weights_root)
        if folder != weights_root and not stands.stood_before:
            # another machine may have been faster: then its weights count
            copy_files(stands.names, weights_root, folder, replace=True)
        return stands

    def weights_to_make(self, images: ImageSet, weights_root: Location) -> Path | None:
        kept = self._kept(images, weights_root)
        return None if kept.complete else kept.file

    def _kept(self, images: ImageSet, weights_root: Location) -> Pretrained:
        """Where the weights of this recipe on these images are on this machine; fetched if they are in the store."""
        folder = local_folder(weights_root)
        kept = Pretrained(file=folder / f"{self._arch}.{self._source(images)}.safetensors", stood_before=True)
        copy_files(kept.names, weights_root, folder)
        return kept

    def _pretrained(self, images: ImageSet, weights_root: Location, device: str) -> FrozenBackbone:
        done = self.pretrain(images, weights_root, device)
        if done.stood_before:
            print(f"pretrained before with this recipe on these images: using {done.file}")
        changed = CacheMismatchError(
            f"{done.file} is not what {done.record.name} records: delete both to pretrain again"
        )
        try:
            frozen = self._from_file(str(done.file), self._source(images), images, device)
        except InputError as error:
            raise changed from error
        if frozen.weights_digest != done.read_record().get("weights_digest"):
            raise changed
        return frozen

    def _make(self, images: ImageSet, to: Pretrained, device: str) -> None:
        """Train, then write the weights, their picture and last their record, each by renaming a finished file."""
        from safetensors.torch import save

        from stages.embed.backbones.weights import state_digest
        from stages.embed.pretrain import picture
        from stages.embed.pretrain.probe import ProbeSet, probe_set
        from stages.embed.pretrain.train import train

        preprocessing, network, pixels = self._untrained(images)
        probed = probe_set(images, preprocessing.crop)
        probe = Probe(probed, preprocessing, device) if isinstance(probed, ProbeSet) else None
        checkpoint = to.file.with_suffix(".checkpoint")
        history = train(
            self,
            network,
            pixels,
            self.training,
            seed=self.seed,
            flippable=images.flippable,
            device=device,
            precision=self.precision,
            probe=probe.neighbours if probe else None,
            checkpoint=checkpoint,
        )
        state = {name: tensor.cpu().contiguous() for name, tensor in network.state_dict().items()}
        header = {"preprocessing": json.dumps(preprocessing.record())}
        write_whole(to.file, lambda part: part.write_bytes(save(state, metadata=header)))
        picture.draw(to.picture, to.file.stem, history.losses, history.probes)
        record: dict[str, Any] = {
            "recipe": self._recipe_record(images),
            "weights_digest": state_digest(state),
            "images": len(pixels),
            "steps": len(history.losses),
            "seconds": round(history.seconds, 1),
            "device": device,
            "loss": _thinned(history.losses),
            "probe": probe.record(network, history.probes) if probe else probed,
        }
        write_json(to.record, record)
        checkpoint.unlink(missing_ok=True)
        print(
            f"pretrained {len(history.losses)} steps on {len(pixels)} images in {record['seconds']} s "
            f"(probe: {probe_text(record['probe'])}): {to.file}"
        )

    def _given(self) -> dict[str, Any]:
        """The fields that a recipe fills where they are None."""
        of_recipe = {field.name for field in fields(Recipe)}
        return {field.name: getattr(self, field.name) for field in fields(self) if field.name in of_recipe}

    @property
    def _arch(self) -> str:
        """The first half of a full name: what has to agree for weights to fit."""
        training = self.training
        if training.arch == "convnet":
            return f"convnet-w{self.width}"
        return training.arch if training.size > _CIFAR_STEM_UP_TO else f"{training.arch}-cifar"

    def _source(self, images: ImageSet) -> str:
        """The second half: the method, its length, and a digest of everything that decides the weights."""
        training = self.training
        length = f"s{training.steps}" if training.steps else f"e{training.epochs}"
        return f"{self.name}-{length}-{digest_json(self._recipe_record(images))[:8]}"

    def _recipe_record(self, images: ImageSet) -> dict[str, Any]:
        return {
            **asdict(self.training),
            "method": self.name,
            "width": self.width,
            "precision": self.precision,
            "seed": self.seed,
            "data_set": images.digest,
            "flippable": images.flippable,
            "version": _TRAINING_VERSION,
        }

    def _untrained(self, images: ImageSet) -> tuple[Preprocessing, nn.Module, torch.Tensor]:
        """The preprocessing that fits the pool, the network as initialised, and the pool's pixels."""
        from stages.embed.pretrain.pixels import channel_statistics, pool_pixels

        pixels = pool_pixels(images, self.training.size)
        mean, std = channel_statistics(pixels)
        size = pixels.shape[-1]
        preprocessing = Preprocessing(resize=size, crop=size, interpolation="bilinear", mean=mean, std=std)
        return preprocessing, self._network(size), pixels

    def _network(self, size: int) -> nn.Module:
        """The architecture with the weights that the seed initialises; size : side of its input, in pixels"""
        from stages.embed.backbones.cifar_stem import cifar_resnet, plain_resnet
        from stages.embed.backbones.convnet import ConvNet
        from stages.embed.backbones.weights import seeded_init

        training = self.training
        with seeded_init(self.seed):
            if training.arch == "convnet":
                return ConvNet(self.width, size)
            return (plain_resnet if training.size > _CIFAR_STEM_UP_TO else cifar_resnet)(training.arch)

    def _from_file(self, path: str, source: str, images: ImageSet, device: str) -> FrozenBackbone:
        """Weights with the preprocessing that their file records; for a file of other origin, the pool's."""
        from stages.embed.backbones.weights import load_strictly, read_metadata, read_state

        state = read_state(path)
        stored = read_metadata(path).get("preprocessing")
        if stored:
            preprocessing = _preprocessing(stored, path)
            network = self._network(preprocessing.crop)
        else:
            preprocessing, network, _ = self._untrained(images)
        load_strictly(network, state, path, head="fc.")
        return self._freeze(network, source, preprocessing, device)

    def _freeze(self, network: nn.Module, source: str, preprocessing: Preprocessing, device: str) -> FrozenBackbone:
        from stages.embed.backbones.weights import freeze

        dims = {"convnet": 4 * self.width, "resnet50": 2048}
        return freeze(
            network,
            full_name=f"{self._arch}.{source}",
            preprocessing=preprocessing,
            dim=dims.get(self.training.arch, 512),
            device=device,
        )


class Probe:
    """The probe of one training: its images, and how the network sees them."""

    def __init__(self, images: Any, preprocessing: Preprocessing, device: str):
        self._images, self._preprocessing, self._device = images, preprocessing, device

    def neighbours(self, network: nn.Module) -> float:
        from stages.embed.pretrain.probe import neighbour_accuracy

        return neighbour_accuracy(*self._features(network))

    def record(self, network: nn.Module, probes: Sequence[tuple[int, float]]) -> dict[str, Any]:
        """Both accuracies at the end, and the neighbours' on the way."""
        from stages.embed.pretrain.probe import linear_accuracy, neighbour_accuracy

        features = self._features(network)
        return {
            "linear": round(linear_accuracy(*features), 4),
            "neighbours": round(neighbour_accuracy(*features), 4),
            "train_images": len(features[1]),
            "test_images": len(features[3]),
            "during": [[step, round(accuracy, 4)] for step, accuracy in probes],
        }

    def _features(self, network: nn.Module) -> tuple[Any, Any, Any, Any]:
        from stages.embed.pretrain.probe import features_of

        train, test = (
            features_of(network, pixels, self._preprocessing, self._device)
            for pixels in (self._images.train_pixels, self._images.test_pixels)
        )
        return train, self._images.train_labels, test, self._images.test_labels


def probe_text(probe: dict[str, Any] | str) -> str:
    """A record's probe in words."""
    if isinstance(probe, str):
        return probe
    return f"linear {probe['linear']:.3f}, 20-NN {probe['neighbours']:.3f}"


def _thinned(losses: Sequence[float]) -> list[float]:
    """At most 1,000 values: means of equal stretches of steps."""
    stretch = -(-len(losses) // _LOSSES_KEPT)
    parts = (losses[start : start + stretch] for start in range(0, len(losses), stretch))
    return [round(sum(part) / len(part), 4) for part in parts]


def _preprocessing(stored: str, path: str) -> Preprocessing:
    try:
        record = json.loads(stored)
        return Preprocessing(**{**record, "mean": tuple(record["mean"]), "std": tuple(record["std"])})
    except (ValueError, TypeError, KeyError) as error:
        raise InputError(f"the preprocessing in the header of {path!r} cannot be used: {error}") from error


def _read_record(record: Path) -> dict[str, Any]:
    try:
        content = json.loads(record.read_text())
    except ValueError:
        return {}
    return content if isinstance(content, dict) else {}
