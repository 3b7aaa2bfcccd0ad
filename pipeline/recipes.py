"""Complete configurations by name."""

from dataclasses import dataclass

from cache.location import Location
from pipeline.config import AlConfig, SurrogateConfig
from pipeline.report import ReportConfig
from stages.embed.config import EmbedConfig


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """One configuration per stage."""

    embed: EmbedConfig
    al: AlConfig
    surrogate: SurrogateConfig
    report: ReportConfig


def demo(data_root: Location, workers: int) -> Recipe:
    """Every default: SimCLR on digits, six strategies, ten seeds, the surrogate on the five it was not trained on."""
    return Recipe(
        embed=EmbedConfig(data_root=data_root),
        al=AlConfig(data_root=data_root, workers=workers),
        surrogate=SurrogateConfig(data_root=data_root, workers=workers),
        report=ReportConfig(dataset="digits", backbone="simclr", data_root=data_root),
    )
