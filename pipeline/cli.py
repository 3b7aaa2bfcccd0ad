"""The command line: one subcommand per stage, made from the stages' configuration dataclasses.

Nothing heavy is imported before a subcommand runs, so that --help answers at once.
"""

import errno
import os
import sys
import warnings
from collections.abc import Sequence
from contextlib import nullcontext
from typing import Annotated, get_args

import tyro

from cache.errors import AlcoveError, InputError
from cache.location import Location, location, reaching
from pipeline.config import (
    AlConfig,
    CacheConfig,
    DemoConfig,
    HeadsConfig,
    QueriesConfig,
    ReportConfig,
    ReproduceConfig,
    RunsConfig,
    StrategiesConfig,
    SuggestConfig,
    SurrogateConfig,
)
from stages.embed.config import EmbedConfig, PretrainConfig

Command = (
    Annotated[EmbedConfig, tyro.conf.subcommand("embed")]
    | Annotated[PretrainConfig, tyro.conf.subcommand("pretrain")]
    | Annotated[AlConfig, tyro.conf.subcommand("al")]
    | Annotated[SurrogateConfig, tyro.conf.subcommand("surrogate")]
    | Annotated[SuggestConfig, tyro.conf.subcommand("suggest")]
    | Annotated[ReportConfig, tyro.conf.subcommand("report")]
    | Annotated[HeadsConfig, tyro.conf.subcommand("heads")]
    | Annotated[QueriesConfig, tyro.conf.subcommand("queries")]
    | Annotated[ReproduceConfig, tyro.conf.subcommand("reproduce")]
    | Annotated[CacheConfig, tyro.conf.subcommand("cache")]
    | Annotated[RunsConfig, tyro.conf.subcommand("runs")]
    | Annotated[StrategiesConfig, tyro.conf.subcommand("strategies")]
    | Annotated[DemoConfig, tyro.conf.subcommand("demo")]
)

_GO_ON = "make room and run the same command again, it goes on where it stopped"
_REMEDIES = {errno.ENOSPC: f": {_GO_ON}", errno.EDQUOT: f": {_GO_ON}"}

_registry = tyro.constructors.ConstructorRegistry()


@_registry.primitive_rule
def _comma_separated(info: tyro.constructors.PrimitiveTypeInfo) -> tyro.constructors.PrimitiveConstructorSpec | None:
    if get_args(info.type) != (str, ...):  # tuple[str, ...], or typing's Tuple, which tyro makes of it
        return None
    return tyro.constructors.PrimitiveConstructorSpec(
        nargs=1,
        metavar="A,B,...",
        instance_from_str=lambda text: tuple(part.strip() for part in text[0].split(",") if part.strip()),
        is_instance=lambda value: isinstance(value, tuple),
        str_from_instance=lambda value: [",".join(value)],
    )


@_registry.primitive_rule
def _location(info: tyro.constructors.PrimitiveTypeInfo) -> tyro.constructors.PrimitiveConstructorSpec | None:
    if info.type != Location:
        return None
    return tyro.constructors.PrimitiveConstructorSpec(
        nargs=1,
        metavar="PATH|URL",
        instance_from_str=lambda text: _said(text[0]),
        is_instance=lambda value: isinstance(value, Location),
        str_from_instance=lambda value: [str(value)],
    )


def _said(text: str) -> Location:
    try:
        return location(text)
    except InputError as error:  # of a ValueError tyro would make a box of its own
        raise AlcoveError(str(error)) from error


def parse(arguments: Sequence[str]) -> Command:
    """The configuration that the arguments ask for. Exits with code 2 where they make no sense."""
    return tyro.cli(
        Command,
        prog="alcove",
        description="Active learning on cached vision embeddings: embed once, then compare strategies in seconds.",
        args=list(arguments),
        config=(tyro.conf.OmitArgPrefixes, tyro.conf.FlagConversionOff),
        registry=_registry,
    )


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; warnings are said without their source line.

    0: done; 1: a defect of ours; 2: bad input, said in one sentence; 130: stopped by Ctrl-C."""
    with warnings.catch_warnings():
        warnings.showwarning = lambda message, *_, **__: print(f"alcove: {message}", file=sys.stderr)
        try:
            config = parse(sys.argv[1:] if arguments is None else arguments)
            with nullcontext() if isinstance(config, StrategiesConfig) else reaching(config.data_root):
                return _run(config)
        except AlcoveError as error:
            print(f"alcove: {error}", file=sys.stderr)
            return 2
        except KeyboardInterrupt:
            print("alcove: stopped; what is finished is kept, run the same command again to go on", file=sys.stderr)
            return 130
        except BrokenPipeError:  # the reader of our output, such as `head`, has seen enough
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            return 0
        except OSError as error:
            if error.strerror is None:
                raise
            where = f"{error.filename}: " if error.filename is not None else ""
            print(f"alcove: {where}{error.strerror}{_REMEDIES.get(error.errno or 0, '')}", file=sys.stderr)
            return 2


def _run(config: Command) -> int:
    from pipeline import commands

    match config:
        case EmbedConfig():
            return commands.embed(config)
        case PretrainConfig():
            return commands.pretrain(config)
        case AlConfig():
            return commands.al(config)
        case SurrogateConfig():
            return commands.surrogate(config)
        case SuggestConfig():
            return commands.suggest(config)
        case ReportConfig():
            return commands.report(config)
        case HeadsConfig():
            return commands.heads(config)
        case QueriesConfig():
            return commands.queries(config)
        case ReproduceConfig():
            return commands.reproduce(config)
        case CacheConfig():
            return commands.cache(config)
        case RunsConfig():
            return commands.runs(config)
        case StrategiesConfig():
            return commands.strategies(config)
        case DemoConfig():
            return commands.demo(config)
