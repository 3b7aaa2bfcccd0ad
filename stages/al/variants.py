"""Pools made of a pool: long-tailed, redundant, or smaller. Rows are chosen or repeated; nothing is embedded again.

A new variant is one class and one line in VARIANTS. Variants are the same for every run: their seed is fixed.
"""

import difflib
import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from jaxtyping import Int

from cache.errors import InputError, UnknownNameError
from stages.al.protocol import count_of

SEED = 0
WHOLE = "whole"
LARGEST_FACTOR = 1e6


class Variant(ABC):
    """One way to make a pool of another, from its text after the name: `longtail:50`.

    everywhere : whether the classes' shares of validation and test images follow those of the pool
    """

    everywhere: ClassVar[bool] = False

    @classmethod
    @abstractmethod
    def parse(cls, parts: list[str]) -> "Variant":
        """Made of the parts of the text after the name. Raises ValueError or InputError."""

    @abstractmethod
    def rows(self, labels: Int[np.ndarray, "pool"], rng: np.random.Generator) -> Int[np.ndarray, "rows"]:
        """Positions in the pool, repeated where the variant repeats images. Raises InputError."""

    @abstractmethod
    def text(self, n_pool: int) -> str:
        """The one text of what it makes of that many images; runs keep it."""


@dataclass(frozen=True)
class LongTail(Variant):
    """Class c of C keeps floor(n_max * factor^(-c / (C - 1))) images, drawn at random.

    The exponential profile of CIFAR-10-LT (Cao et al. 2019): the largest class has `factor` times the images of the
    smallest; SUPClust seed (001), section 4.1: factor 50. n_max is the largest for which every class has
    its images: the class size, where all are of one size. Classes are counted in the order of their numbers, those
    without an image in the pool left out.
    """

    factor: float

    @classmethod
    def parse(cls, parts: list[str]) -> "LongTail":
        (factor,) = map(float, parts)
        if not 1 <= factor <= LARGEST_FACTOR:
            raise ValueError
        return cls(factor)

    def rows(self, labels: Int[np.ndarray, "pool"], rng: np.random.Generator) -> Int[np.ndarray, "rows"]:
        classes, counts = np.unique(labels, return_counts=True)
        kept = long_tail_counts(counts, self.factor)
        if kept.min() < 1:
            raise InputError(
                f"a long tail of factor {self.factor:g} leaves the smallest class no image, the pool's classes have "
                f"{counts.min()} to {counts.max()}: lower the factor in POOL="
            )
        return _drawn(labels, classes, kept, rng)

    def text(self, n_pool: int) -> str:
        return f"longtail:{self.factor:g}"


@dataclass(frozen=True)
class Imbalanced(LongTail):
    """A long tail of the validation and test images too, as where rare classes are rare everywhere."""

    everywhere = True

    def text(self, n_pool: int) -> str:
        return f"imbalanced:{self.factor:g}"


def _drawn(
    labels: Int[np.ndarray, "n"],
    classes: Int[np.ndarray, "classes"],
    kept: Int[np.ndarray, "classes"],
    rng: np.random.Generator,
) -> Int[np.ndarray, "rows"]:
    """So many of each class at random, in order."""
    drawn = [
        rng.permutation(np.flatnonzero(labels == label))[:n] for label, n in zip(classes, kept.tolist(), strict=True)
    ]
    return np.sort(np.concatenate(drawn))


def long_tail_counts(counts: Int[np.ndarray, "classes"], factor: float) -> Int[np.ndarray, "classes"]:
    """Images kept of each class, at most `counts`: see LongTail."""
    share = factor ** (-np.arange(len(counts)) / max(len(counts) - 1, 1))
    largest = math.floor((counts / share).min() + 1e-9)
    return np.floor(largest * share + 1e-9).astype(np.int64)


@dataclass(frozen=True)
class Redundant(Variant):
    """`images` random images of the pool, each `copies` times: position i and i + images are the same image.

    Best-practices seed (000), A.15, with 2 and 20 copies. Deviation: there 6,000 images stay single and the others are
    repeated; here the pool is nothing but repeated images.
    """

    copies: int
    images: str

    @classmethod
    def parse(cls, parts: list[str]) -> "Redundant":
        copies, images = parts
        if not 2 <= int(copies) <= 1000:
            raise ValueError
        count_of("POOL", images, 1)
        return cls(int(copies), images)

    def rows(self, labels: Int[np.ndarray, "pool"], rng: np.random.Generator) -> Int[np.ndarray, "rows"]:
        size = _fitting(self.images, len(labels))
        return np.tile(np.sort(rng.choice(len(labels), size, replace=False)), self.copies)

    def text(self, n_pool: int) -> str:
        return f"redundant:{self.copies}:{_fitting(self.images, n_pool)}"


@dataclass(frozen=True)
class Subset(Variant):
    """A random subset in which every class has its share of the pool, to the nearest image (largest remainders)."""

    images: str

    @classmethod
    def parse(cls, parts: list[str]) -> "Subset":
        (images,) = parts
        count_of("POOL", images, 1)
        return cls(images)

    def rows(self, labels: Int[np.ndarray, "pool"], rng: np.random.Generator) -> Int[np.ndarray, "rows"]:
        size = _fitting(self.images, len(labels))
        classes, counts = np.unique(labels, return_counts=True)
        kept, remainder = counts * size // len(labels), counts * size % len(labels)
        kept[np.argsort(-remainder, kind="stable")[: size - kept.sum()]] += 1
        return _drawn(labels, classes, kept, rng)

    def text(self, n_pool: int) -> str:
        return f"subset:{_fitting(self.images, n_pool)}"


VARIANTS: dict[str, type[Variant]] = {
    "longtail": LongTail,
    "imbalanced": Imbalanced,
    "redundant": Redundant,
    "subset": Subset,
}
FORMS = "whole, longtail:50, imbalanced:50, redundant:20:6000, subset:5000 or subset:10%"


def parse_variant(text: str) -> Variant | None:
    """The variant that a text asks for, None for the whole pool. Raises InputError."""
    name, *parts = text.split(":")
    if text == WHOLE:
        return None
    if name not in VARIANTS:
        near = difflib.get_close_matches(name, [*VARIANTS, WHOLE], n=1, cutoff=0.5)
        hint = f"did you mean {near[0]!r}? " if near else ""
        raise UnknownNameError(f"there is no pool named {name!r}: {hint}Known: {FORMS}")
    try:
        return VARIANTS[name].parse(parts)
    except ValueError as error:
        raise InputError(f"pool={text!r} is not possible: write {FORMS}") from error


def variant_rows(variant: Variant, labels: Int[np.ndarray, "pool"]) -> Int[np.ndarray, "rows"]:
    """Positions in the pool that a variant keeps, the same for every run. Raises InputError."""
    return variant.rows(labels, np.random.default_rng(SEED))


def evaluated_rows(
    variant: Variant,
    labels: Int[np.ndarray, "images"],
    before: Int[np.ndarray, "pool"],
    after: Int[np.ndarray, "kept"],
) -> Int[np.ndarray, "rows"]:
    """Positions of the validation or test images that go with a variant of a pool, the same for every run.

    All, or of every class the share that it keeps of the pool, in proportion to the largest such share, to the nearest
    image, and at least one.

    before, after : labels of the pool that was, and of what the variant made of it
    """
    if not variant.everywhere:
        return np.arange(len(labels))
    classes, counts = np.unique(labels, return_counts=True)
    was, left = ((part[:, None] == classes).sum(axis=0) for part in (before, after))
    share = np.where(was > 0, left / np.maximum(was, 1), 1)
    kept = np.clip(np.rint(counts * share / share.max()), 1, counts).astype(np.int64)
    return _drawn(labels, classes, kept, np.random.default_rng(SEED))


def _fitting(amount: str, n_pool: int) -> int:
    size = count_of("POOL", amount, n_pool)
    if not 1 <= size <= n_pool:
        raise InputError(f"{amount} images of the pool's {n_pool} are impossible: 1 to {n_pool} in POOL=")
    return size
