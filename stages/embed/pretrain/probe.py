"""How good frozen features are: accuracy of 20 nearest neighbours and of a linear classifier. For the record only.

Nothing here reaches the weights: training never sees a label.
"""

import warnings
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import nn

from stages.embed.backbones.base import Preprocessing
from stages.embed.images.base import ImageSet
from stages.embed.pretrain.pixels import stack_squares

_NEIGHBOURS = 20
_TEMPERATURE = 0.07
_LARGEST_TRAIN, _LARGEST_TEST = 5000, 2000
_BATCH = 500


@dataclass(frozen=True, kw_only=True)
class ProbeSet:
    """Labeled images of splits "train" and "test" (or "val"): pixels (n, 3, size, size) uint8, labels (n,)."""

    train_pixels: torch.Tensor
    train_labels: Int[np.ndarray, "train"]
    test_pixels: torch.Tensor
    test_labels: Int[np.ndarray, "test"]


def probe_set(images: ImageSet, size: int) -> ProbeSet | str:
    """At most 5,000 labeled images to learn from and 2,000 to test on; or the reason why there is no probe."""
    labels, split = np.asarray(images.labels), np.asarray(images.split)
    train = np.flatnonzero((labels >= 0) & (split == "train"))
    test = np.flatnonzero((labels >= 0) & (split == "test"))
    if not len(test):
        test = np.flatnonzero((labels >= 0) & (split == "val"))
    if len(np.unique(labels[train])) < 2 or not len(test):
        return "none, it needs labeled images of two classes in split 'train' and some in 'test' or 'val'"
    train_pixels, train = _sample(images, train, _LARGEST_TRAIN, size)
    test_pixels, test = _sample(images, test, _LARGEST_TEST, size)
    if len(np.unique(labels[train])) < 2 or not len(test):
        return "none, the labeled images cannot be read"
    return ProbeSet(
        train_pixels=train_pixels, train_labels=labels[train], test_pixels=test_pixels, test_labels=labels[test]
    )


def features_of(network: nn.Module, pixels: torch.Tensor, preprocessing: Preprocessing, device: str) -> torch.Tensor:
    """Features (n, dim) float32 on the CPU, as the embedding will compute them; the network's mode is left as it was.

    pixels : (n, 3, size, size) uint8, already of the size that the network sees
    """
    was_training = network.training
    network.eval()
    with torch.inference_mode():
        parts = [network(preprocessing(part.to(device))).float().cpu() for part in pixels.split(_BATCH)]
    network.train(was_training)
    return torch.cat(parts)


def neighbour_accuracy(
    train: Float[torch.Tensor, "train dim"],
    train_labels: Int[np.ndarray, "train"],
    test: Float[torch.Tensor, "test dim"],
    test_labels: Int[np.ndarray, "test"],
) -> float:
    """Fraction of test images whose 20 nearest by cosine vote for their class, with weight exp(cosine / 0.07).

    Wu et al. 2018, section 3.4.
    """
    cosine = F.normalize(test, dim=1) @ F.normalize(train, dim=1).T
    nearest = cosine.topk(min(_NEIGHBOURS, len(train)), dim=1)
    votes = torch.zeros(len(test), int(train_labels.max()) + 1)
    votes.scatter_add_(1, torch.from_numpy(train_labels)[nearest.indices], torch.exp(nearest.values / _TEMPERATURE))
    return float((votes.argmax(1).numpy() == test_labels).mean())


def linear_accuracy(
    train: Float[torch.Tensor, "train dim"],
    train_labels: Int[np.ndarray, "train"],
    test: Float[torch.Tensor, "test dim"],
    test_labels: Int[np.ndarray, "test"],
) -> float:
    """Fraction of test images that logistic regression on the standardised training features gets right."""
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    classifier = make_pipeline(StandardScaler(), LogisticRegression(max_iter=200))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # 200 iterations are enough for a number in a record
        classifier.fit(train.double().numpy(), train_labels)
    return float(classifier.score(test.double().numpy(), test_labels))


def _sample(images: ImageSet, indices: np.ndarray, largest: int, size: int) -> tuple[torch.Tensor, np.ndarray]:
    if len(indices) > largest:
        indices = np.sort(np.random.default_rng(0).choice(indices, largest, replace=False))
    pixels, readable = stack_squares(images, indices.tolist(), size)
    return pixels, np.array(readable, dtype=np.int64)
