"""Images to features: decode and prepare in threads, run the network in batches."""

from __future__ import annotations

import os
import threading
from collections import deque
from collections.abc import Generator, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import nullcontext
from functools import partial

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import nn
from torch.fx.experimental.optimization import fuse

from cache.errors import InputError, UnreadableImageError
from stages.embed.backbones.base import FrozenBackbone
from stages.embed.device import autocast
from stages.embed.images.arrays import ArrayImages
from stages.embed.images.base import ImageSet
from stages.embed.views import RandomView, View, view_seed

CPU_BATCH_PIXELS = 32 * 224**2
"""Of a batch on the CPU: larger ones are slower there, and take memory."""
GPU_BATCH_PIXELS = 256 * 224**2
CPU_LARGEST_BATCH = 256
GPU_LARGEST_BATCH = 1024
GPU_BATCHES_AHEAD = 2
GROUP_BYTES = 16 * 2**20
PIECES_PER_THREAD = 4


class Engine:
    """A frozen network over the views of some images.

    Images are decoded and prepared by threads, a few at a time whatever their size, so that memory does not grow with
    the number of images nor with the size of photos. On a GPU this happens two batches ahead of the network; on a CPU,
    where both would only get in each other's way, in turns with it.

    view_seed : of the random views; precision : "float32" or "bfloat16"
    batch_size : images per forward pass, or 0 for what suits the device; it is halved where a GPU runs out of memory
    """

    def __init__(
        self,
        images: ImageSet,
        frozen: FrozenBackbone,
        views: Sequence[View],
        *,
        device: str = "cpu",
        view_seed: int = 0,
        precision: str = "float32",
        batch_size: int = 0,
    ) -> None:
        self.images, self.frozen, self.views = images, frozen, views
        self._device, self._view_seed, self._precision = device, view_seed, precision
        self._on_gpu = torch.device(device).type == "cuda"
        most, pixels = (GPU_LARGEST_BATCH, GPU_BATCH_PIXELS) if self._on_gpu else (CPU_LARGEST_BATCH, CPU_BATCH_PIXELS)
        self._batch_size = batch_size or min(most, max(1, pixels // frozen.preprocessing.crop**2))
        self._one_large_photo = threading.Lock()
        """As floats, a photo takes many times the memory of its bytes: only one at a time."""
        self._network = frozen.network.to(memory_format=torch.channels_last) if self._on_gpu else fused(frozen.network)

    def batches(self, rows: Sequence[int]) -> list[Sequence[int]]:
        """Rows of the image set, as many at a time as go through the network at once."""
        return [rows[start : start + self._batch_size] for start in range(0, len(rows), self._batch_size)]

    def features(
        self, batches: Sequence[Sequence[int]]
    ) -> Generator[tuple[Float[np.ndarray, "rows views dim"], dict[int, str]]]:
        """Features of every batch of rows, in order, and why some of its rows cannot be read: theirs are zero."""
        with ThreadPoolExecutor(os.cpu_count(), initializer=partial(torch.set_num_threads, 1)) as threads:
            try:
                for batch, inputs, unreadable in self._prepared(batches, threads):
                    features = np.stack([self._forward(view) for view in inputs], axis=1)
                    features[[at for at, row in enumerate(batch) if row in unreadable]] = 0
                    yield features, unreadable
            except torch.cuda.OutOfMemoryError as error:
                fewer = max(1, self._batch_size // 2)
                raise InputError(f"this GPU has no room for the images: use ARGS='--batch-size {fewer}'") from error

    def _forward(self, inputs: torch.Tensor) -> Float[np.ndarray, "images dim"]:
        """Features of one view of a batch, in parts that the GPU has room for."""
        while True:
            try:
                with torch.inference_mode(), autocast(self._device, self._precision):
                    parts = [self._network(part).float().cpu() for part in inputs.split(self._batch_size)]
                return torch.cat(parts).numpy()
            except torch.cuda.OutOfMemoryError as error:
                if self._batch_size == 1:
                    raise InputError("this GPU has no room for one image: use DEVICE=cpu") from error
            self._batch_size //= 2
            torch.cuda.empty_cache()

    def _prepared(
        self, batches: Sequence[Sequence[int]], threads: ThreadPoolExecutor
    ) -> Iterator[tuple[Sequence[int], torch.Tensor, dict[int, str]]]:
        """Network input (views, images, 3, crop, crop) of every batch."""
        ahead: deque[tuple[Sequence[int], torch.Tensor, list[Future[dict[int, str]]]]] = deque()
        depth = GPU_BATCHES_AHEAD if self._on_gpu else 0
        pieces_per_batch = PIECES_PER_THREAD * (os.cpu_count() or 1)

        def first() -> tuple[Sequence[int], torch.Tensor, dict[int, str]]:
            batch, inputs, pieces = ahead.popleft()
            return batch, inputs, {row: why for piece in pieces for row, why in piece.result().items()}

        for batch in batches:
            inputs = self._empty(len(batch))
            step = len(batch) if isinstance(self.images, ArrayImages) else -(-len(batch) // pieces_per_batch)
            starts = range(0, len(batch), step)
            pieces = [threads.submit(self._fill, batch[at : at + step], inputs[:, at : at + step]) for at in starts]
            ahead.append((batch, inputs, pieces))
            if len(ahead) > depth:
                yield first()
        while ahead:
            yield first()

    def _empty(self, n: int) -> torch.Tensor:
        """Input of `n` images, all zero; every view of it is in channels_last layout."""
        side = self.frozen.preprocessing.crop
        return torch.zeros(len(self.views), n, side, side, 3, device=self._device).permute(0, 1, 4, 2, 3)

    @torch.inference_mode()
    def _fill(self, rows: Sequence[int], inputs: torch.Tensor) -> dict[int, str]:
        """Write the network input of some images, and say why some of them cannot be read."""
        unreadable: dict[int, str] = {}
        for start, group in self._groups(rows, unreadable):
            here = slice(start, start + len(group))
            ids = [self.images.ids[row] for row in rows[here]]
            with self._one_large_photo if group.nbytes > GROUP_BYTES else nullcontext():
                pixels = torch.from_numpy(group).to(self._device).permute(0, 3, 1, 2)
                for index, view in enumerate(self.views):
                    draws = isinstance(view, RandomView)
                    seeds = [view_seed(self._view_seed, view.label, image_id) for image_id in ids] if draws else []
                    inputs[index, here] = self.frozen.preprocessing(view.apply(pixels, seeds))
        return unreadable

    def _groups(
        self, rows: Sequence[int], unreadable: dict[int, str]
    ) -> Iterator[tuple[int, UInt8[np.ndarray, "images height width 3"]]]:
        """Neighbours of one size, decoded, a few megabytes at a time, and the position in `rows` of the first."""
        if isinstance(self.images, ArrayImages):
            yield 0, self.images.load_many(rows)
            return
        group: list[np.ndarray] = []
        for at, row in enumerate(rows):
            image = self._load(row, unreadable)
            full = (len(group) + 1) * group[0].nbytes > GROUP_BYTES if group else False
            if group and (full or image is None or image.shape != group[0].shape):
                yield at - len(group), np.stack(group)
                group = []
            if image is not None:
                group.append(image)
        if group:
            yield len(rows) - len(group), np.stack(group)

    def _load(self, row: int, unreadable: dict[int, str]) -> UInt8[np.ndarray, "height width 3"] | None:
        try:
            return self.images.load(row)
        except UnreadableImageError as error:
            unreadable[row] = str(error)
            return None


def fused(network: nn.Module) -> nn.Module:
    """Batch norms folded into the convolutions before them: the same features to rounding, an eighth faster on a CPU.

    A network that has none, or that torch.fx cannot follow, stays as it is.
    """
    if not any(isinstance(module, nn.BatchNorm2d) for module in network.modules()):
        return network
    try:
        return fuse(network)
    except Exception:  # tracing runs the network's own code on stand-ins, which may raise anything
        return network
