"""A small network pretrained with SimCLR on the pool itself: the backbone that needs no network."""

from __future__ import annotations

import json
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from cache.errors import CacheMismatchError, InputError
from cache.files import digest_json, require_writable, write_json, write_whole
from stages.embed.backbones.base import BACKBONES, Backbone, FrozenBackbone, Preprocessing
from stages.embed.images.base import ImageSet

if TYPE_CHECKING:
    import torch

    from stages.embed.backbones.convnet import ConvNet
    from stages.embed.pretrain import Recipe

_TRAINING_VERSION = 1
"""Raise it when pretrain.py or convnet.py changes what a recipe gives: older weights are then made anew."""


@BACKBONES.register("simclr")
@dataclass(frozen=True, kw_only=True)
class SimCLR(Backbone):
    """Features of a small convolutional net, 4 * width, before SimCLR's projection head. Chen et al. 2020.

    Pretrained on the images of split "train"; kept in `weights_root` and used again for the same recipe and images.

    width : channels of the first layers
    size : largest side of the square images that it sees, in pixels
    steps, batch_size, learning_rate, temperature, seed : see `stages.embed.pretrain.Recipe`
    """

    views: ClassVar[tuple[str, ...]] = ("identity", "crop", "blur")
    width: int = 32
    size: int = 32
    steps: int = 400
    batch_size: int = 256
    learning_rate: float = 2e-3
    temperature: float = 0.2
    seed: int = 0

    def __post_init__(self) -> None:
        for key in ("width", "steps", "learning_rate", "temperature"):
            if not getattr(self, key) > 0:
                raise ValueError(f"{key} must be above 0, got {getattr(self, key)}")
        if self.size < 4 or self.batch_size < 2 or self.seed < 0:
            raise ValueError(
                f"size must be at least 4, batch_size 2 and seed 0, got {self.size}, {self.batch_size}, {self.seed}"
            )

    def load(self, weights: str, images: ImageSet, weights_root: Path, device: str) -> FrozenBackbone:
        if weights == "":
            return self._pretrained(images, weights_root, device)
        if weights == "random":
            preprocessing, network, _ = self._untrained(images)
            return self._freeze(network, weights, preprocessing, device)
        return self._from_file(weights, Path(weights).stem, images, device)

    def _pretrained(self, images: ImageSet, weights_root: Path, device: str) -> FrozenBackbone:
        """The weights of this recipe on these images; made first where they are not kept yet."""
        about_images = {"data_set": images.digest, "flippable": images.flippable}
        recipe = {**asdict(self), **about_images, "version": _TRAINING_VERSION}
        source = f"simclr-s{self.steps}-{digest_json(recipe)[:8]}"
        file = weights_root / f"convnet-w{self.width}.{source}.safetensors"
        record = file.with_suffix(".json")
        if record.is_file():
            print(f"pretrained before with this recipe on these images: using {file}")
        else:
            require_writable(weights_root)
            self._pretrain(images, file, recipe, device)
        frozen = self._from_file(str(file), source, images, device)
        if frozen.weights_digest != _recorded_digest(record):
            raise CacheMismatchError(f"{file} is not what {record.name} records: delete both to pretrain again")
        return frozen

    def _pretrain(self, images: ImageSet, file: Path, recipe: dict[str, Any], device: str) -> None:
        """Train, then write the weights, then their record, each by renaming a finished file."""
        from safetensors.torch import save

        from stages.embed.backbones.weights import state_digest
        from stages.embed.pretrain import train

        preprocessing, network, pixels = self._untrained(images)
        begun = time.perf_counter()
        losses = train(network, pixels, self._recipe(), images.flippable, device)
        state = {name: tensor.cpu().contiguous() for name, tensor in network.state_dict().items()}
        header = {"preprocessing": json.dumps(preprocessing.record())}
        write_whole(file, lambda part: part.write_bytes(save(state, metadata=header)))
        record = {
            "recipe": recipe,
            "weights_digest": state_digest(state),
            "images": len(pixels),
            "seconds": round(time.perf_counter() - begun, 1),
            "loss": [round(loss, 4) for loss in losses],
        }
        write_json(file.with_suffix(".json"), record)
        print(f"pretrained {self.steps} steps on {len(pixels)} images in {record['seconds']} s: {file}")

    def _recipe(self) -> Recipe:
        from stages.embed.pretrain import Recipe

        return Recipe(
            steps=self.steps,
            batch_size=self.batch_size,
            learning_rate=self.learning_rate,
            temperature=self.temperature,
            seed=self.seed,
        )

    def _untrained(self, images: ImageSet) -> tuple[Preprocessing, ConvNet, torch.Tensor]:
        """The preprocessing that fits the pool, the network as initialised, and the pool's pixels."""
        from stages.embed.backbones.convnet import ConvNet
        from stages.embed.backbones.weights import seeded_init
        from stages.embed.pretrain import channel_statistics, pool_pixels

        pixels = pool_pixels(images, self.size)
        mean, std = channel_statistics(pixels)
        size = pixels.shape[-1]
        with seeded_init(self.seed):
            network = ConvNet(self.width, size)
        preprocessing = Preprocessing(resize=size, crop=size, interpolation="bilinear", mean=mean, std=std)
        return preprocessing, network, pixels

    def _from_file(self, path: str, source: str, images: ImageSet, device: str) -> FrozenBackbone:
        """Weights with the preprocessing that their file records; for a file of other origin, the pool's."""
        from stages.embed.backbones.convnet import ConvNet
        from stages.embed.backbones.weights import load_strictly, read_metadata, read_state, seeded_init

        state = read_state(path)
        stored = read_metadata(path).get("preprocessing")
        if stored:
            preprocessing = _preprocessing(stored, path)
            with seeded_init(self.seed):
                network = ConvNet(self.width, preprocessing.crop)
        else:
            preprocessing, network, _ = self._untrained(images)
        load_strictly(network, state, path, head="fc.")
        return self._freeze(network, source, preprocessing, device)

    def _freeze(self, network: ConvNet, source: str, preprocessing: Preprocessing, device: str) -> FrozenBackbone:
        from stages.embed.backbones.weights import freeze

        full_name = f"convnet-w{self.width}.{source}"
        return freeze(network, full_name=full_name, preprocessing=preprocessing, dim=4 * self.width, device=device)


def _preprocessing(stored: str, path: str) -> Preprocessing:
    try:
        record = json.loads(stored)
        return Preprocessing(**{**record, "mean": tuple(record["mean"]), "std": tuple(record["std"])})
    except (ValueError, TypeError, KeyError) as error:
        raise InputError(f"the preprocessing in the header of {path!r} cannot be used: {error}") from error


def _recorded_digest(record: Path) -> str | None:
    try:
        return json.loads(record.read_text()).get("weights_digest")
    except ValueError:
        return None
