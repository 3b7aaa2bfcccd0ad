"""Complete configurations by name."""

from dataclasses import dataclass

from cache.location import Location
from pipeline.config import AlConfig, ReportConfig, SurrogateConfig
from stages.embed.config import EmbedConfig


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """One configuration per stage."""

    embed: EmbedConfig
    al: AlConfig
    surrogate: SurrogateConfig
    report: ReportConfig


def demo(data_root: Location, workers: int) -> Recipe:
    """Defaults, but fewer runs to learn from: SimCLR on digits, six strategies, ten seeds, and the surrogate."""
    return Recipe(
        embed=EmbedConfig(data_root=data_root),
        al=AlConfig(data_root=data_root, workers=workers),
        surrogate=SurrogateConfig(data_root=data_root, workers=workers, explore=20),
        report=ReportConfig(dataset="digits", backbone="simclr", data_root=data_root),
    )
