"""One picture of a pretraining: the loss of every step, and the probe's accuracy beside it."""

from collections.abc import Sequence
from pathlib import Path

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from cache.files import write_whole


def draw(path: Path, title: str, losses: Sequence[float], probes: Sequence[tuple[int, float]]) -> None:
    """Write the PNG, whole or not at all.

    losses : of every step; probes : (step, accuracy of 20 nearest neighbours), none where there are no labels
    """
    figure = Figure(figsize=(5.4, 3.4), dpi=150, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot(xlabel="step", ylabel="loss", title=title)
    axes.title.set_fontsize("small")
    axes.plot(range(1, len(losses) + 1), losses, color="tab:blue", alpha=0.3, linewidth=0.8)
    width = max(len(losses) // 50, 1)
    blocks = [losses[start : start + width] for start in range(0, len(losses), width)]
    centres = [start + (len(block) + 1) / 2 for start, block in zip(range(0, len(losses), width), blocks, strict=True)]
    axes.plot(centres, [sum(block) / len(block) for block in blocks], color="tab:blue")
    if probes:
        right = axes.twinx()
        right.set_ylabel("20-NN accuracy", color="tab:orange")
        right.plot([step for step, _ in probes], [accuracy for _, accuracy in probes], "o-", color="tab:orange")
        right.set_ylim(0, 1)
    write_whole(path, lambda part: figure.savefig(part, format="png", metadata={"Software": None}))
