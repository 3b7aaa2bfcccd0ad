"""The shape of the house: who imports whom, what is registered, what stands in the README and the Makefile."""

import ast
import importlib
import pkgutil
import re
import subprocess
import sys
from pathlib import Path

import pytest

from stages.al.heads import HEADS
from stages.al.strategies import STRATEGIES
from stages.embed.backbones import BACKBONES
from stages.embed.images import DATASETS
from stages.embed.views import VIEWS
from stages.registry import Registry

ROOT = Path(__file__).resolve().parents[1]
MAY_IMPORT = {
    "cache": {"cache"},
    "stages.registry": {"cache", "stages.registry"},
    "stages.embed": {"cache", "stages.registry", "stages.embed"},
    "stages.al": {"cache", "stages.registry", "stages.al"},
    "stages.surrogate": {"cache", "stages.registry", "stages.surrogate"},
    "pipeline": {"cache", "stages", "pipeline"},
}
HEAD_HELPERS = {"base", "calibration", "gradient", "least_squares", "lockstep", "members", "recipes", "spectrum"}
REGISTRIES = [
    (DATASETS, "stages/embed/images", {"arrays", "base", "decoding", "download"}),
    (BACKBONES, "stages/embed/backbones", {"base", "cifar_stem", "convnet", "hub", "self_supervised", "weights"}),
    (HEADS, "stages/al/heads", HEAD_HELPERS),
    (STRATEGIES, "stages/al/strategies", {"base", "committee"}),
]
SOURCES = sorted(path for folder in ("cache", "stages", "pipeline") for path in (ROOT / folder).rglob("*.py"))


def module_name(path: Path) -> str:
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


def imported(path: Path) -> set[str]:
    """Our own modules that a file imports, anywhere in it."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module:
            found.add(node.module)
        elif isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
    return {name for name in found if name.split(".")[0] in ("cache", "stages", "pipeline", "tests")}


def inside(name: str, packages: set[str]) -> bool:
    return any(name == package or name.startswith(package + ".") for package in packages)


@pytest.mark.parametrize("path", SOURCES, ids=module_name)
def test_imports_run_one_way(path: Path) -> None:
    home = max((package for package in MAY_IMPORT if inside(module_name(path), {package})), key=len, default=None)
    if home is None:
        assert imported(path) == set()
        return
    assert [name for name in imported(path) if not inside(name, MAY_IMPORT[home])] == []


def test_the_top_level_is_the_design_cards() -> None:
    tracked = subprocess.run(["git", "-C", str(ROOT), "ls-files"], capture_output=True, text=True, check=True).stdout
    names = {line.split("/")[0] for line in tracked.splitlines()}
    assert {name for name in names if not name.startswith(".")} == {
        *("pyproject.toml", "README.md", "Makefile", "LICENSE", "constraints.txt"),
        *("pipeline", "stages", "cache", "tests"),
    }


@pytest.mark.parametrize(("registry", "folder", "helpers"), REGISTRIES, ids=[folder for _, folder, _ in REGISTRIES])
def test_every_file_of_a_variant_is_registered(registry: Registry, folder: str, helpers: set[str]) -> None:
    files = {module.name for module in pkgutil.iter_modules([str(ROOT / folder)])}
    assert files - helpers == {registry.get(name).__module__.rpartition(".")[2] for name in registry}


@pytest.mark.parametrize("registry", [DATASETS, BACKBONES, STRATEGIES, HEADS, VIEWS], ids=lambda r: r.kind)
def test_every_component_says_what_it_is(registry: Registry) -> None:
    for name in registry:
        assert len(registry.get(name).__doc__ or "") > 15, name


@pytest.mark.parametrize(
    ("module", "unwanted"),
    [
        ("pipeline.cli", ("torch", "sklearn", "matplotlib", "pandas", "zarr")),
        ("pipeline.commands", ("torch", "timm", "torchvision")),
        ("pipeline.grid", ("torch", "timm", "torchvision", "dask", "distributed")),
    ],
)
def test_heavy_packages_are_imported_where_they_are_used(module: str, unwanted: tuple[str, ...]) -> None:
    code = f"import sys, {module}; print([name for name in {unwanted} if name in sys.modules])"
    found = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"


def make_targets() -> set[str]:
    return set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), flags=re.MULTILINE))


def readme_commands() -> list[str]:
    blocks = re.findall(r"```(?:sh|bash)\n(.*?)```", (ROOT / "README.md").read_text(), flags=re.DOTALL)
    return [line.split("#")[0].strip() for block in blocks for line in block.splitlines() if line.strip()]


def test_the_commands_of_the_readme_exist() -> None:
    commands = readme_commands()
    assert "make demo" in commands
    assert "make test" in commands
    for command in commands:
        words = command.split()
        if words[0] == "make":
            assert words[1] in make_targets(), command
            variables = {word.partition("=")[0] for word in words[2:]}
            assert variables <= set(re.findall(r"^([A-Z_]+) +\?=", (ROOT / "Makefile").read_text(), flags=re.MULTILINE))


def test_make_help_explains_every_target_and_variable() -> None:
    text = (ROOT / "Makefile").read_text()
    shown = subprocess.run(["make", "help"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    for name in make_targets():
        assert re.search(rf"^  {name} ", shown, flags=re.MULTILINE), name
    for name in set(re.findall(r"^([A-Z_]+) +\?=", text, flags=re.MULTILINE)) - {"PYTHON"}:
        assert re.search(rf"\b{name} ", shown), name


def test_make_help_names_every_initial_set_and_pool() -> None:
    from stages.al.initial import INITIAL_SETS
    from stages.al.variants import VARIANTS

    shown = subprocess.run(["make", "help"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    for name in (*INITIAL_SETS, *VARIANTS):
        assert re.search(rf"\b{name}\b", shown), name
    for component in (*INITIAL_SETS.values(), *VARIANTS.values()):
        assert len(component.__doc__ or "") > 15


def test_makefile_and_command_line_share_their_defaults() -> None:
    defaults = dict(re.findall(r"^([A-Z_]+) +\?= ?(.*)$", (ROOT / "Makefile").read_text(), flags=re.MULTILINE))
    al = importlib.import_module("pipeline.config").AlConfig()
    embed = importlib.import_module("stages.embed.config").EmbedConfig()
    pretrain = importlib.import_module("stages.embed.config").PretrainConfig()
    training = importlib.import_module("stages.surrogate.config").TrainConfig()
    expected = {
        "DATA_ROOT": al.data_root,
        "DATASET": embed.dataset,
        "BACKBONE": embed.backbone,
        "METHOD": pretrain.method,
        "RECIPE": pretrain.recipe,
        "ARCH": pretrain.arch,
        "STEPS": pretrain.steps,
        "EPOCHS": pretrain.epochs,
        "WEIGHTS": embed.weights,
        "DEVICE": embed.device,
        "SHARD": embed.shard,
        "POOL": al.pool,
        "PCA": al.pca,
        "HEAD": ",".join(al.head),
        "STRATEGY": ",".join(al.strategy),
        "SEEDS": al.seeds,
        "INITIAL": al.protocol.initial_size,
        "INITIAL_SET": al.protocol.initial,
        "BATCH": al.protocol.batch_size,
        "BUDGET": al.protocol.budget,
        "CANDIDATES": al.protocol.candidates,
        "TRAIN_VIEWS": al.protocol.train_views,
        "VALIDATION": al.validation_size,
        "LOG_SEEDS": al.candidate_log.log_seeds,
        "LOG_EVERY": al.candidate_log.log_every,
        "LOG_CANDIDATES": al.candidate_log.log_candidates,
        "INPUTS": training.inputs,
        "TARGET": training.target,
        "WORKERS": al.workers,
        "ENGINE": al.engine,
    }
    assert {name: defaults[name] for name in expected} == {name: str(value) for name, value in expected.items()}
