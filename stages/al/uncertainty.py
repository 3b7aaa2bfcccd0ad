"""How uncertain a head is, from what was read off its logits; shared by the strategies and the surrogate's inputs.

Where the probabilities saturate, as those of the thesis's targets do, all keep their digits as long as the reading
does: 1 - p is never computed from a p that has been rounded to 1.
"""

import numpy as np
from jaxtyping import Float

from stages.al.readings import Reading


def entropy(reading: Reading) -> Float[np.ndarray, "n"]:
    """-sum p ln p of the class probabilities p, in nats."""
    return np.log1p(reading.rest) + reading.weighted / (1 + reading.rest)


def least_confidence(reading: Reading) -> Float[np.ndarray, "n"]:
    """1 - the largest class probability."""
    return reading.rest / (1 + reading.rest)


def closeness(reading: Reading) -> Float[np.ndarray, "n"]:
    """1 - margin: 1 less the difference of the two largest class probabilities; 0 where there is one class."""
    return (reading.rest + np.exp(-reading.gap)) / (1 + reading.rest)


def margin(reading: Reading) -> Float[np.ndarray, "n"]:
    """Largest minus second largest class probability; 1 where there is one class."""
    return 1 - closeness(reading)


def doubt(reading: Reading) -> Float[np.ndarray, "n"]:
    """p (1 - p) of the most probable class: the Fisher information of a yes or no with its probability."""
    return reading.rest / (1 + reading.rest) ** 2
