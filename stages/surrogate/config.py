"""What stage three is asked to do."""

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """How the surrogate learns from the candidate logs."""

    inputs: Literal["standard", "step", "valid"] = "step"
    """acquisition metrics; with the step; with the step, validation accuracy and cross-entropy (thesis, table 5.8)"""
    target: Literal["cross_entropy", "accuracy"] = "cross_entropy"
    """the gain to predict: decrease of validation cross-entropy, or increase of validation accuracy"""
    relative: bool = True
    """standardise the target within its round; False is the thesis's raw target"""
    folds: int = 2
    """models, each scoring the images that it did not learn from; 1 is the thesis's single model of all images"""
    max_rows: int = 300_000
    """rows to learn from; more are thinned at random"""
