"""The trainer: one loop for every objective, that goes on exactly where a killed one stopped.

Every draw is a function of the seed and of what is drawn for (the order of an epoch, the views of a step), so a
checkpoint needs no generator's state, and neither probes nor checkpoints can move a result.
"""

from __future__ import annotations

import hashlib
import math
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol, runtime_checkable

import torch
from torch import nn
from tqdm import tqdm

from cache.errors import InputError
from cache.files import write_whole
from stages.embed.backbones.weights import seeded_init
from stages.embed.device import autocast, choose_precision
from stages.embed.pretrain.augment import augment
from stages.embed.pretrain.pixels import channel_statistics
from stages.embed.pretrain.recipes import Recipe

CHECKPOINT_SECONDS = 30.0
_PROBES = 10
_LONG_SECONDS = 60
_TIMED_SECONDS = 5
_UNITS = (("days", 86400), ("h", 3600), ("min", 60), ("s", 1))
_PLAIN_LINE_SECONDS = 10
_STEPS_BETWEEN_READS = 50
"""On a GPU the losses are read this rarely: reading one waits until the device has finished."""


@runtime_checkable
class Objective(Protocol):
    """What a self-supervised method must offer: how many views, which head, and a loss without labels."""

    @property
    def n_views(self) -> int: ...

    def head(self, dim: int, recipe: Recipe) -> nn.Module:
        """What is trained on top of the features and thrown away."""

    def outputs(self, network: nn.Module, head: nn.Module, views: list[torch.Tensor]) -> tuple[torch.Tensor, ...]:
        """The forward pass, in mixed precision where the device has it. views : `n_views` times (n, 3, h, w)"""

    def loss(self, outputs: tuple[torch.Tensor, ...], recipe: Recipe) -> torch.Tensor:
        """A scalar, in float32."""


@dataclass
class History:
    """What happened so far. probes : (step, accuracy); seconds : over all attempts"""

    losses: list[float] = field(default_factory=list)
    probes: list[tuple[int, float]] = field(default_factory=list)
    seconds: float = 0.0


def train(
    objective: Objective,
    network: nn.Module,
    pixels: torch.Tensor,
    recipe: Recipe,
    *,
    seed: int,
    flippable: bool,
    device: str,
    precision: str = "auto",
    probe: Callable[[nn.Module], float] | None = None,
    checkpoint: Path | None = None,
) -> History:
    """Train `network` in place, on `device`, on views of `pixels`.

    network : maps normalised images (n, 3, h, w) to features (n, dim)
    pixels : (n, 3, h, w) uint8; kept on the device
    precision : "float32"; "bfloat16" for the forward pass; "auto" is bfloat16 on a GPU that has it
    probe : called ten times in the course of the training
    checkpoint : a file that is read, if it is there, and rewritten every CHECKPOINT_SECONDS; the caller removes it.
        A killed training that goes on ends with the same weights, bit by bit, on the CPU with as many threads.
    The global random generators are left alone. Raises InputError when the loss is no longer a finite number.
    """
    mean, std = (torch.tensor(values, device=device).view(1, 3, 1, 1) for values in channel_statistics(pixels))
    state = _State(objective, network, recipe, seed, device, checkpoint)
    total = recipe.total_steps(len(pixels))
    order = _Order(pixels.to(device), recipe, seed)
    precision = choose_precision(precision, device)
    layout = torch.channels_last if device.startswith("cuda") else torch.contiguous_format
    for step in _progress(state, total, device):
        images = order.batch(step).float() / 255
        draws = generator(seed, "views", step)
        views = [(augment(images, draws, flippable, recipe) - mean) / std for _ in range(objective.n_views)]
        with autocast(device, precision):
            outputs = objective.outputs(network, state.head, [view.contiguous(memory_format=layout) for view in views])
        loss = objective.loss(tuple(output.float() for output in outputs), recipe)
        state.update(loss, recipe.learning_rate * schedule(step / total, recipe))
        done = step + 1
        if probe and (done * _PROBES // total > step * _PROBES // total):
            state.history.probes.append((done, probe(network)))
        if done < total:
            state.save_now_and_then()
    state.read_losses()
    return state.history


def schedule(progress: float, recipe: Recipe) -> float:
    """Share of the highest learning rate after this share of the steps."""
    if progress < recipe.warm_up:
        return max(progress / recipe.warm_up, 0.02)
    if recipe.schedule == "steps":
        return 0.2 ** sum(progress >= drop for drop in (0.3, 0.6, 0.8))
    cosine = 0.5 * (1 + math.cos(math.pi * (progress - recipe.warm_up) / (1 - recipe.warm_up)))
    return recipe.floor + (1 - recipe.floor) * cosine


def generator(seed: int, purpose: str, index: int) -> torch.Generator:
    """The source of the draws for one purpose: the same whatever was drawn before."""
    digest = hashlib.sha256(f"{seed} {purpose} {index}".encode()).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest[:7], "big"))


class _Order:
    """Which images each step sees: every epoch in an order of its own, without the images that fill no batch."""

    def __init__(self, pixels: torch.Tensor, recipe: Recipe, seed: int):
        self._pixels, self._seed = pixels, seed
        self._batch_size = min(recipe.batch_size, len(pixels))
        self._per_epoch = recipe.steps_per_epoch(len(pixels))
        self._epoch, self._order = -1, torch.empty(0)

    def batch(self, step: int) -> torch.Tensor:
        epoch, part = divmod(step, self._per_epoch)
        if epoch != self._epoch:
            order = torch.randperm(len(self._pixels), generator=generator(self._seed, "order", epoch))
            self._epoch, self._order = epoch, order.to(self._pixels.device)
        return self._pixels[self._order[part * self._batch_size : (part + 1) * self._batch_size]]


class _State:
    """All that a step changes: weights, optimiser, history; and how they are saved and restored."""

    def __init__(
        self,
        objective: Objective,
        network: nn.Module,
        recipe: Recipe,
        seed: int,
        device: str,
        checkpoint: Path | None,
    ):
        if device.startswith("cuda"):
            torch.backends.cudnn.benchmark = True  # every batch has one shape
            network = network.to(memory_format=torch.channels_last)
        with seeded_init(seed):
            self.head = objective.head(_dim(network, recipe.size), recipe)
        self._trained = nn.ModuleList([network, self.head]).to(device).train()
        self._optimizer = _optimizer(self._trained, recipe)
        self.history = History()
        self._recipe, self._device, self._checkpoint = recipe, device, checkpoint
        self._unread: list[torch.Tensor] = []
        self._restore()
        self._begun = time.perf_counter() - self.history.seconds
        self._saved = time.perf_counter()

    def update(self, loss: torch.Tensor, learning_rate: float) -> None:
        for group in self._optimizer.param_groups:
            group["lr"] = learning_rate
        self._optimizer.zero_grad()
        loss.backward()
        self._optimizer.step()
        self._unread.append(loss.detach())
        if self._device == "cpu" or len(self._unread) >= _STEPS_BETWEEN_READS:
            self.read_losses()

    def read_losses(self) -> None:
        """Move the losses from the device to the history. Raises InputError at the first that is not finite."""
        if not self._unread:
            return
        for loss in torch.stack(self._unread).tolist():
            self.history.losses.append(loss)
            if not math.isfinite(loss):
                raise InputError(
                    f"pretraining diverged at step {len(self.history.losses)}: "
                    f"lower learning_rate={self._recipe.learning_rate}"
                )
        self._unread.clear()
        self.history.seconds = time.perf_counter() - self._begun

    def save_now_and_then(self) -> None:
        if self._checkpoint is None or time.perf_counter() - self._saved < CHECKPOINT_SECONDS:
            return
        self.read_losses()
        content = {
            "trained": self._trained.state_dict(),
            "optimizer": self._optimizer.state_dict(),
            "losses": torch.tensor(self.history.losses, dtype=torch.float64),
            "probes": self.history.probes,
            "seconds": self.history.seconds,
        }
        write_whole(self._checkpoint, lambda part: torch.save(content, part))
        self._saved = time.perf_counter()

    def _restore(self) -> None:
        if self._checkpoint is None or not self._checkpoint.is_file():
            return
        try:
            content = torch.load(self._checkpoint, map_location="cpu", weights_only=True)
            self._trained.load_state_dict(content["trained"])
            self._optimizer.load_state_dict(content["optimizer"])
        except Exception as error:  # zip, pickle and torch fail on damaged bytes in unrelated ways
            name, reason = self._checkpoint.name, str(error).partition("\n")[0]
            raise InputError(f"the checkpoint {name} cannot be read ({reason}): delete it to start again") from error
        self.history.losses = content["losses"].tolist()
        self.history.probes = [(int(step), float(accuracy)) for step, accuracy in content["probes"]]
        self.history.seconds = content["seconds"]
        print(f"pretrain: goes on after step {len(self.history.losses)}", file=sys.stderr, flush=True)


def _optimizer(trained: nn.Module, recipe: Recipe) -> torch.optim.Optimizer:
    if recipe.optimizer == "adamw":
        return torch.optim.AdamW(trained.parameters(), lr=recipe.learning_rate, weight_decay=recipe.weight_decay)
    return torch.optim.SGD(
        trained.parameters(),
        lr=recipe.learning_rate,
        weight_decay=recipe.weight_decay,
        momentum=recipe.momentum,
        nesterov=recipe.nesterov,
    )


def _dim(network: nn.Module, size: int) -> int:
    with torch.no_grad():
        device = next(network.parameters()).device
        return network.eval()(torch.zeros(1, 3, size, size, device=device)).shape[1]


def _progress(state: _State, total: int, device: str) -> Iterator[int]:
    """Count the steps that are left: a bar on a terminal, elsewhere a line now and then; before a long one, how long.

    How long is judged by a median, without the first step: it allocates.
    """
    losses, durations = state.history.losses, list[float]()
    first = len(losses)
    bar = tqdm(range(first, total), desc="pretrain", unit="step", disable=None, initial=first, total=total)
    spoken = before = time.monotonic()
    said = False
    for step in bar:
        yield step
        now = time.monotonic()
        if not said:
            durations.append(now - before)
            before = now
        if not said and len(durations) > 1 and sum(durations) > _TIMED_SECONDS:
            said = True
            _say_duration(statistics.median(durations[1:]) * (total - step - 1), total - first, device)
        if losses:
            bar.set_postfix_str(f"loss {losses[-1]:.3f}", refresh=False)
        if bar.disable and losses and now - spoken > _PLAIN_LINE_SECONDS:
            spoken = now
            print(f"pretrain: step {step + 1} of {total}, loss {losses[-1]:.3f}", file=sys.stderr, flush=True)


def _say_duration(seconds: float, total: int, device: str) -> None:
    if seconds < _LONG_SECONDS:
        return
    unit, length = next((unit, length) for unit, length in _UNITS if seconds >= 2 * length or length == 1)
    advice = "" if device != "cpu" or seconds < 3600 else ": a GPU, ARCH=convnet or fewer STEPS would be quicker"
    tqdm.write(f"pretrain: {total} steps take about {seconds / length:.0f} {unit} on this machine{advice}", sys.stderr)
