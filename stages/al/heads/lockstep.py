"""Many trainings of one shape as one batched tensor program: softmax regression, or a ReLU network below it.

Every tensor has the runs as its leading dimension. With inputs X (batch, in + 1), the last column ones, and
P = softmax(XW), the mean cross-entropy has

    dL/dW = X' (P - onehot) / batch

and below a ReLU layer the same rule on (P - onehot) W' where the layer is positive. No autograd graph is built. The
optimizers are PyTorch's own: they work element by element, so that stacking runs does not change any of them. A step
of ten runs thus costs about what a step of one does.
"""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int

from stages.al.heads.recipes import Training

Labeled = tuple[np.ndarray, np.ndarray]


def train_linear(
    features: Float[np.ndarray, "runs n dim"],
    labels: Int[np.ndarray, "runs n"],
    *,
    n_classes: int,
    training: Training,
    seeds: Sequence[int],
    start: Float[np.ndarray, "runs dim1 classes"] | None = None,
    validation: Labeled | None = None,
) -> Float[np.ndarray, "runs dim1 classes"]:
    """Weights of softmax regression, one training per run, the bias as the last row (dim1 = dim + 1), float32.

    seeds : one per run, of its batches; start : weights to begin with, zeros when None (the problem is convex)
    validation : (X, y), shared by the runs; needed for early stopping
    """
    if start is None:
        runs, _, dim = features.shape
        start = np.zeros((runs, dim + 1, n_classes), dtype=np.float32)
    return train_network(features, labels, start=[start], training=training, seeds=seeds, validation=validation)[0]


def train_network(
    features: Float[np.ndarray, "runs n dim"],
    labels: Int[np.ndarray, "runs n"],
    *,
    start: list[Any],
    training: Training,
    seeds: Sequence[int],
    validation: Labeled | None = None,
) -> list[Any]:
    """As `train_linear`, for layers of weights (runs, in + 1, out) with ReLU between them.

    A run's result does not depend on the runs beside it: one that has stopped early keeps its best weights while the
    others go on. Raises ValueError when weights become infinite.
    """
    # C order: the fused optimizers walk through weights and gradients side by side in memory
    weights = [torch.tensor(np.ascontiguousarray(layer), dtype=torch.float32) for layer in start]
    X, runs = _with_ones(torch.tensor(features, dtype=torch.float32)), len(features)
    targets = torch.eye(weights[-1].shape[2])[torch.tensor(labels, dtype=torch.long)]
    stopping = _Stopping(weights, validation, training.patience) if validation and training.patience else None
    rngs = [np.random.default_rng(seed) for seed in seeds]
    optimizer = _optimizer(weights, training)
    offsets = torch.arange(runs)[:, None] * X.shape[1]
    flat_X, flat_targets = X.flatten(0, 1), targets.flatten(0, 1)
    for epoch in range(training.epochs):
        if training.schedule == "cosine":
            optimizer.param_groups[0]["lr"] = training.learning_rate * _cosine(epoch / training.epochs)
        orders = torch.from_numpy(np.stack([rng.permutation(X.shape[1]) for rng in rngs])) + offsets
        shuffled, shuffled_targets = (
            flat.index_select(0, orders.flatten()).unflatten(0, orders.shape) for flat in (flat_X, flat_targets)
        )
        for batch in batches(X.shape[1], training):
            for layer, gradient in zip(
                weights, _gradients(weights, shuffled[:, batch], shuffled_targets[:, batch]), strict=True
            ):
                layer.grad = gradient
            optimizer.step()
        if stopping and stopping.all_stopped(weights):
            break
    trained = [layer.numpy() for layer in (stopping.best if stopping else weights)]
    if not all(np.isfinite(layer).all() for layer in trained):
        raise ValueError(f"the training diverged: lower learning_rate={training.learning_rate}")
    return trained


def batches(n: int, training: Training) -> list[slice]:
    """The batches of an epoch over n shuffled images; one of all n where that is less than a batch."""
    size = min(training.batch_size, n)
    last = n - n % size if training.drop_last else n
    return [slice(begin, min(begin + size, last)) for begin in range(0, last, size)]


class _Stopping:
    """The best weights of every run so far, by validation cross-entropy, until its patience is spent."""

    def __init__(self, weights: list[torch.Tensor], validation: Labeled, patience: int):
        runs = len(weights[0])
        X = _with_ones(torch.tensor(validation[0], dtype=torch.float32))
        self._X, self._y = X.expand(runs, *X.shape), torch.tensor(validation[1], dtype=torch.long)
        self._patience = patience
        self._lowest, self._waited = torch.full((runs,), torch.inf), torch.zeros(runs)
        self.best = [layer.clone() for layer in weights]

    def all_stopped(self, weights: list[torch.Tensor]) -> bool:
        """Look at the weights of one more epoch."""
        logits = _forward(weights, self._X)[-1]
        loss = -logits.log_softmax(dim=2)[:, torch.arange(len(self._y)), self._y].mean(dim=1)
        running = self._waited < self._patience
        better = (loss < self._lowest) & running
        self._lowest[better] = loss[better]
        for best, layer in zip(self.best, weights, strict=True):
            best[better] = layer[better]
        self._waited = torch.where(better, 0.0, self._waited + 1) * running + self._patience * ~running
        return bool((self._waited >= self._patience).all())


def _forward(weights: list[torch.Tensor], X: torch.Tensor) -> list[torch.Tensor]:
    """Each layer's input, and last the logits."""
    seen = [X]
    for layer in weights[:-1]:
        seen.append(_with_ones(torch.bmm(seen[-1], layer).relu_()))
    return [*seen, torch.bmm(seen[-1], weights[-1])]


def _gradients(weights: list[torch.Tensor], X: torch.Tensor, targets: torch.Tensor) -> list[torch.Tensor]:
    """Of the mean cross-entropy, one per layer."""
    *inputs, logits = _forward(weights, X)
    # PyTorch's softmax over a short last axis is not vectorised: over the middle one it is 15 times faster
    proba = logits.transpose(1, 2).contiguous().softmax(dim=1).transpose(1, 2)
    error = proba.sub_(targets).div_(X.shape[1])
    gradients: list[torch.Tensor] = []
    for i in reversed(range(len(weights))):
        gradients.insert(0, torch.bmm(inputs[i].transpose(1, 2), error).contiguous())
        if i:
            error = torch.bmm(error, weights[i][:, :-1].transpose(1, 2)).mul_(inputs[i][..., :-1] > 0)
    return gradients


def _with_ones(X: torch.Tensor) -> torch.Tensor:
    return torch.cat([X, X.new_ones(*X.shape[:-1], 1)], dim=-1)


def _cosine(progress: float) -> float:
    return (1 + math.cos(math.pi * progress)) / 2


def _optimizer(weights: list[torch.Tensor], training: Training) -> torch.optim.Optimizer:
    """PyTorch's, its fused kernel where there is one: an update is then a single call."""
    common: dict[str, Any] = {"lr": training.learning_rate, "weight_decay": training.weight_decay}
    match training.optimizer:
        case "sgd":
            common |= {"momentum": training.momentum, "nesterov": training.nesterov}
            return torch.optim.SGD(weights, **common, fused=True)
        case "adam":
            return torch.optim.Adam(weights, **common, fused=True)
        case "adamw":
            return torch.optim.AdamW(weights, **common, fused=True)
        case _:
            return torch.optim.NAdam(weights, **common)
