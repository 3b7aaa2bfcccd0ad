"""Many trainings of one shape as one batched tensor program: softmax regression, or a ReLU network below it.

Every array has the runs as its leading dimension. Weights are kept as W (out, in + 1), the bias as the last column.
With inputs X (batch, in + 1), the last column ones, and P = softmax(WX') down its columns, the mean cross-entropy has

    dL/dW = (P - onehot) X / batch

and below a ReLU layer the same rule on W'(P - onehot) where the layer is positive. No autograd graph is built. This
layout is the fast one: the softmax runs over the middle dimension and every product has long rows.

A run's result is bitwise the same beside any others: products are one call per run (numpy's matmul; torch.bmm of ten
is not bitwise ten of one), everything else works element by element, and rows are padded so that no element of a run
falls into the remainder of a vector loop, which rounds otherwise. Threads, for which these products are too small,
would cut such loops elsewhere: there is one.
"""

import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from threadpoolctl import ThreadpoolController

from cache.errors import InputError
from stages.al.heads.recipes import Training

Labeled = tuple[np.ndarray, np.ndarray]
DROPOUT = 2
"""Stream of a run's seed that its dropout draws from; its batches are of the seed alone, initial weights stream 1."""
ROW = 64
"""Weights of a run are padded to a multiple of this; PyTorch's vector loops take at most two registers of 16 floats."""
BETAS, EPSILON, MOMENTUM_DECAY = (0.9, 0.999), 1e-8, 4e-3
"""PyTorch's defaults."""
THREADS = ThreadpoolController()


@torch.inference_mode()
def train_network(
    features: Float[np.ndarray, "runs n dim"],
    labels: Int[np.ndarray, "runs n"],
    *,
    start: list[Any],
    training: Training,
    seeds: Sequence[int],
    validation: Labeled | None = None,
) -> list[Any]:
    """Layers of weights (runs, in + 1, out) with ReLU between them, the bias as the last row, float32.

    start : the layers to begin with; seeds : one per run, of its batches and its dropout
    validation : (X, y), shared by the runs; needed for early stopping

    A run that has stopped early keeps its best weights and leaves. Raises ValueError when weights become infinite.
    """
    shapes = [(layer.shape[2], layer.shape[1]) for layer in start]
    optimizer = _Optimizer(_flat(start), training)
    group = _Group(features, labels, optimizer, shapes, training, seeds)
    stopping = None
    if validation and training.patience:
        stopping = _Stopping(optimizer.weights.numpy(), validation, training.patience)
    with THREADS.limit(limits=1), np.errstate(over="ignore", invalid="ignore"):
        for epoch in range(training.epochs):
            group.train_epoch(training.learning_rate * _scheduled(training.schedule, epoch / training.epochs))
            if stopping:
                going_on = stopping.go_on(group)
                if not len(going_on):
                    break
                if len(going_on) < len(group.running):
                    group.keep(going_on)
    trained = stopping.best if stopping else optimizer.weights.numpy()
    if not np.isfinite(trained).all() or (stopping and not np.isfinite(stopping.lowest).all()):
        raise InputError(f"the training of a head diverged: lower learning_rate={training.learning_rate}")
    return [layer.swapaxes(1, 2) for layer in _layers(trained, shapes)]


def batches(n: int, training: Training) -> list[slice]:
    """The batches of an epoch over n shuffled images; one of all n where that is less than a batch."""
    size = min(training.batch_size, n)
    last = n - n % size if training.drop_last else n
    return [slice(begin, min(begin + size, last)) for begin in range(0, last, size)]


class _Group:
    """Runs that train side by side: their images, their draws and the optimizer of their weights."""

    def __init__(
        self,
        features: np.ndarray,
        labels: np.ndarray,
        optimizer: "_Optimizer",
        shapes: list[tuple[int, int]],
        training: Training,
        seeds: Sequence[int],
    ):
        runs, self._n, dim = features.shape
        self.optimizer, self._shapes, self._training = optimizer, shapes, training
        self._X, self._y = _with_ones(features).reshape(-1, dim + 1), labels.ravel()
        self._buffer = np.empty(runs * min(training.batch_size, self._n) * (dim + 1), dtype=np.float32)
        self._rngs = [np.random.default_rng(seed) for seed in seeds]
        self._dropout_rngs = [np.random.default_rng([seed, DROPOUT]) for seed in seeds if training.dropout]
        self.running = np.arange(runs)
        self._look()

    def keep(self, places: np.ndarray) -> None:
        """Let only the runs at these places go on."""
        self.running = self.running[places]
        self.optimizer.keep(torch.from_numpy(places))
        self._look()

    def _look(self) -> None:
        self.layers = _layers(self.optimizer.weights.numpy(), self._shapes)
        self._gradients = _layers(self.optimizer.gradients.numpy(), self._shapes)

    def train_epoch(self, learning_rate: float) -> None:
        orders = np.stack([self._rngs[run].permutation(self._n) for run in self.running])
        orders += self.running[:, None] * self._n
        # each image's entry among the columns of all runs' one-hot labels
        entries = self._y.take(orders) + np.arange(len(orders))[:, None] * self._shapes[-1][0]
        for batch in batches(self._n, self._training):
            _backward(self.layers, self._take(orders[:, batch]), entries[:, batch], self._gradients)
            self.optimizer.step(learning_rate)

    def _take(self, rows: Int[np.ndarray, "runs batch"]) -> Float[np.ndarray, "runs batch dim1"]:
        """Images, with dropout; a view of the one buffer."""
        X = self._buffer[: rows.size * self._X.shape[1]].reshape(*rows.shape, -1)
        self._X.take(rows, axis=0, out=X, mode="clip")  # the other modes go through a copy
        if self._training.dropout:
            rngs = [self._dropout_rngs[run] for run in self.running]
            X[..., :-1] *= dropout_factors(rngs, X.shape[1], X.shape[2] - 1, self._training.dropout)
        return X


def dropout_factors(
    rngs: Sequence[np.random.Generator], batch: int, dim: int, rate: float
) -> Float[np.ndarray, "runs batch dim"]:
    """What to multiply each feature by: 0 with probability `rate`, else 1 / (1 - rate); each run draws its own."""
    draws = np.empty((len(rngs), batch, dim), dtype=np.float32)
    for run, rng in zip(draws, rngs, strict=True):
        rng.random(out=run, dtype=np.float32)
    return (draws >= rate) * np.float32(1 / (1 - rate))


class _Stopping:
    """The best weights of every run so far, by validation cross-entropy, until its patience is spent."""

    def __init__(self, weights: np.ndarray, validation: Labeled, patience: int):
        # a product with images in contiguous columns is two to three times faster
        self._X = np.ascontiguousarray(_with_ones(np.asarray(validation[0])).T)
        self._y = torch.tensor(validation[1], dtype=torch.long)
        self._patience, self._waited = patience, np.zeros(len(weights), dtype=int)
        self.best, self.lowest = weights.copy(), np.full(len(weights), np.inf)

    def go_on(self, group: _Group) -> Int[np.ndarray, "kept"]:
        """The places, among the running ones, of those that go on after one more epoch."""
        losses = np.array([self._loss([layer[place] for layer in group.layers]) for place in range(len(group.running))])
        better = losses < self.lowest[group.running]
        improved = group.running[better]
        self.lowest[improved], self.best[improved] = losses[better], group.optimizer.weights.numpy()[better]
        self._waited[group.running] += 1
        self._waited[improved] = 0
        return np.flatnonzero(self._waited[group.running] < self._patience)

    def _loss(self, layers: list[np.ndarray]) -> float:
        """Of one run, so that the logits of many images stay in the processor's cache and no neighbour plays in."""
        logits = torch.from_numpy(_forward(layers, self._X)[-1])
        return -logits.log_softmax(dim=0).gather(0, self._y[None]).mean().item()


class _Optimizer:
    """PyTorch's update rules on one flat tensor of weights, a padded row per run.

    These are the fused kernels that torch.optim calls; its bookkeeping around them takes five times as long. NAdam has
    no such kernel and is written out.
    """

    def __init__(self, weights: torch.Tensor, training: Training):
        self.weights, self.gradients = weights, torch.zeros_like(weights)
        self._moments = [torch.zeros_like(weights), torch.zeros_like(weights)]
        self._training = training
        self._steps, self._momentum_product = np.zeros((), dtype=np.float32), 1.0
        self.step = self._kernel()

    def keep(self, rows: torch.Tensor) -> None:
        """Forget the other runs."""
        self.weights, self.gradients = self.weights[rows], self.gradients[rows]
        self._moments = [moment[rows] for moment in self._moments]
        self.step = self._kernel()

    def _kernel(self) -> Callable[[float], None]:
        """The update, a function of the learning rate."""
        kind, decay = self._training.optimizer, self._training.weight_decay
        weights, gradients, (first, second) = [self.weights], [self.gradients], self._moments
        if kind == "nadam":
            return self._nadam
        if kind == "sgd":
            momentum, nesterov = self._training.momentum, self._training.nesterov
            buffers = [first] if momentum else []
            rest = {"dampening": 0.0, "maximize": False, "is_first_step": False}
            sgd = partial(torch._fused_sgd_, weights, gradients, buffers, momentum=momentum, nesterov=nesterov, **rest)
            return lambda learning_rate: sgd(lr=learning_rate, weight_decay=decay)
        rest = {"beta1": BETAS[0], "beta2": BETAS[1], "eps": EPSILON, "amsgrad": False, "maximize": False}
        kernel = torch._fused_adam_ if kind == "adam" else torch._fused_adamw_
        adam = partial(kernel, weights, gradients, [first], [second], [], [torch.from_numpy(self._steps)], **rest)

        def step(learning_rate: float) -> None:
            self._steps += 1
            adam(lr=learning_rate, weight_decay=decay)

        return step

    def _nadam(self, learning_rate: float) -> None:
        """Dozat 2016, as torch.optim.NAdam has it."""
        self._steps += 1
        weights, (first, second), steps = self.weights, self._moments, self._steps.item()
        gradient = self.gradients.add_(weights, alpha=self._training.weight_decay)
        momentum, following = (BETAS[0] * (1 - 0.5 * 0.96 ** (t * MOMENTUM_DECAY)) for t in (steps, steps + 1))
        self._momentum_product *= momentum
        first.lerp_(gradient, 1 - BETAS[0])
        second.mul_(BETAS[1]).addcmul_(gradient, gradient, value=1 - BETAS[1])
        root = second.div(1 - BETAS[1] ** steps).sqrt_().add_(EPSILON)
        weights.addcdiv_(gradient, root, value=-learning_rate * (1 - momentum) / (1 - self._momentum_product))
        weights.addcdiv_(first, root, value=-learning_rate * following / (1 - self._momentum_product * following))


def _forward(layers: list[np.ndarray], X: np.ndarray) -> list[np.ndarray]:
    """Each layer's input (..., in + 1, batch), X the first, and last the logits (..., classes, batch)."""
    seen = [X]
    for layer in layers[:-1]:
        hidden = np.empty((*layer.shape[:-2], layer.shape[-2] + 1, X.shape[-1]), dtype=np.float32)
        np.matmul(layer, seen[-1], out=hidden[..., :-1, :])
        hidden[..., -1, :] = 1
        seen.append(np.maximum(hidden, 0, out=hidden))
    return [*seen, np.matmul(layers[-1], seen[-1])]


def _backward(layers: list[np.ndarray], X: np.ndarray, entries: np.ndarray, gradients: list[np.ndarray]) -> None:
    """Write the gradients of the mean cross-entropy.

    X : (runs, batch, dim + 1); entries : (runs, batch), run * classes + label of each image
    """
    *inputs, logits = _forward(layers, X.swapaxes(1, 2))
    batch = X.shape[1]
    error = torch.from_numpy(logits).softmax(dim=1).numpy()
    error.reshape(-1)[entries * batch + np.arange(batch)] -= 1
    error *= np.float32(1 / batch)
    for i in reversed(range(len(layers))):
        np.matmul(error, inputs[i].swapaxes(1, 2), out=gradients[i])
        if i:
            error = np.matmul(layers[i][..., :-1].swapaxes(1, 2), error)
            error *= (inputs[i] > 0)[:, :-1]


def _flat(start: list[Any]) -> torch.Tensor:
    """Layers (runs, in + 1, out) as one row of W (out, in + 1) per run, padded with zeros."""
    rows = [np.swapaxes(layer, 1, 2).reshape(len(layer), -1) for layer in start]
    used = sum(row.shape[1] for row in rows)
    flat = torch.zeros(len(rows[0]), -(-used // ROW) * ROW)
    flat.numpy()[:, :used] = np.hstack(rows)
    return flat


def _layers(flat: np.ndarray, shapes: list[tuple[int, int]]) -> list[np.ndarray]:
    """Views (runs, out, in + 1) of flat rows."""
    ends = np.cumsum([math.prod(shape) for shape in shapes])
    begins = [0, *ends[:-1]]
    return [flat[:, b:e].reshape(-1, *shape) for b, e, shape in zip(begins, ends, shapes, strict=True)]


def _with_ones(X: np.ndarray) -> np.ndarray:
    return np.concatenate([X, np.ones((*X.shape[:-1], 1))], axis=-1, dtype=np.float32)


def _scheduled(schedule: str, progress: float) -> float:
    """The share of the learning rate when `progress` of the epochs are over."""
    return (1 + math.cos(math.pi * progress)) / 2 if schedule == "cosine" else 1.0
