"""Stage one under kills, full disks and several workers: nothing lost, nothing wrong served."""

import multiprocessing
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from cache.errors import CacheIncompleteError
from cache.features import FeatureCache
from stages.embed.config import EmbedConfig
from stages.embed.extract import Embedded, embed
from tests.files import tree

ROOT = Path(__file__).resolve().parents[2]
KILLS = 20
BACKBONE = "simclr:width=4:steps=3:batch_size=16"
SHARD_IMAGES = 12


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """90 photos of four sizes: 8 shards."""
    rng, folder = np.random.default_rng(0), tmp_path_factory.mktemp("photos")
    for i in range(90):
        path = folder / f"class {i % 3}" / f"{i:03d}.png"
        path.parent.mkdir(exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (30 + i % 2, 40 + i % 4, 3), dtype=np.uint8)).save(path)
    return folder


def config(folder: Path, root: Path, **changes: str) -> EmbedConfig:
    return EmbedConfig(dataset=f"folder:{folder}", backbone=BACKBONE, data_root=root, **changes)


@pytest.fixture(scope="module")
def processes() -> Iterator[multiprocessing.context.ForkServerContext]:
    """Starts processes that have imported everything already, so that a kill meets the work and not the imports."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["tests.integration.work"])
    yield context


@pytest.fixture(scope="module")
def whole(folder: Path, processes, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data root after an embed that nothing disturbed, by a process such as those that are killed."""
    root = tmp_path_factory.mktemp("whole")
    assert finish(processes, (str(folder), BACKBONE, str(root), SHARD_IMAGES)) == 0
    return root


@pytest.fixture
def root(whole: Path, tmp_path: Path) -> Path:
    """A data root with the network's weights and no features."""
    shutil.copytree(whole / "weights", tmp_path / "data" / "weights")
    return tmp_path / "data"


def test_kill_9_at_random_instants(folder: Path, whole: Path, root: Path, processes) -> None:
    """Every time: what is half-written is refused, a finished cache is right, and resuming gives the same bytes."""
    expected, rng = tree(whole / "features"), np.random.default_rng(0)
    arguments = (str(folder), BACKBONE, str(root), SHARD_IMAGES)
    started = time.monotonic()
    assert finish(processes, arguments) == 0
    seconds = time.monotonic() - started
    assert tree(root / "features") == expected
    records = "features/*/*/*/records/*.json"
    shards, begun = len(list(root.glob(records))), []
    for kill in range(KILLS):
        shutil.rmtree(root / "features", ignore_errors=True)
        finished, instant = kill % (shards + 1), float(rng.uniform(0, seconds if kill % (shards + 1) == 0 else 0.05))
        finish(processes, arguments, lambda: len(list(root.glob(records))) >= finished, instant)  # noqa: B023
        written = {record: record.stat().st_mtime_ns for record in root.glob(records)}
        begun.append(len(written))
        for path in root.glob("features/*/*/*"):
            if path.is_dir() and (path / "identity.json").exists():
                check_what_is_served(path, whole)
        assert finish(processes, arguments) == 0
        assert tree(root / "features") == expected, f"killed {instant:.3f} s after {finished} shards"
        assert {record: record.stat().st_mtime_ns for record in written} == written  # not embedded again
    assert len(set(begun)) > 2, f"the kills met the same state every time: {begun}"


def finish(
    processes, arguments: tuple[object, ...], begin: Callable[[], bool] | None = None, kill_after: float = 0
) -> int | None:
    """Embed to the end, or until some seconds after `begin` has come true."""
    from tests.integration.work import embed_folder

    process = processes.Process(target=embed_folder, args=arguments)
    process.start()
    if begin:
        while process.is_alive() and not begin():
            time.sleep(0.001)
        process.join(kill_after)
        process.kill()
    process.join()
    return process.exitcode


def check_what_is_served(path: Path, whole: Path) -> None:
    """Either the cache is refused, or its features are those of the undisturbed one."""
    try:
        cache = FeatureCache(path, "make embed")
    except CacheIncompleteError:
        return
    undisturbed = FeatureCache(whole / path.relative_to(path.parents[3]), "make embed")
    np.testing.assert_array_equal(cache.features(), undisturbed.features())


DISK = """
set -e
weights=$(du -sk "$4/weights" | cut -f1)
mount -t tmpfs -o size=$((weights + 100))k tmpfs "$3"
cp -r "$4/weights" "$3/weights"
"$1" -m pipeline embed --dataset "folder:$2" --backbone "$5" --data-root "$3" 2>&1 || echo "exit $?"
"$1" -m pipeline cache --data-root "$3" 2>&1 || echo "exit $?"
mount -o remount,size=64m "$3"
"$1" -m pipeline embed --dataset "folder:$2" --backbone "$5" --data-root "$3" 2>&1 || echo "exit $?"
cp -r "$3/features" "$6"
"""


def test_a_full_disk(folder: Path, processes, tmp_path: Path) -> None:
    """One sentence and exit code 2; with room again, the same command goes on and gives the same bytes."""
    backbone = "simclr:width=64:steps=1:batch_size=16"
    disk, whole, result = tmp_path / "disk", tmp_path / "whole", tmp_path / "result"
    disk.mkdir()
    alone = ["unshare", "--map-root-user", "--mount"]
    probe = [*alone, "mount", "-t", "tmpfs", "tmpfs", str(disk)]
    if shutil.which("unshare") is None or subprocess.run(probe, capture_output=True, check=False).returncode:
        pytest.skip("needs `unshare --mount` to make a small disk, which this machine does not allow")
    assert finish(processes, (str(folder), backbone, str(whole), 1024)) == 0
    words = [sys.executable, str(folder), str(disk), str(whole), backbone, str(result)]
    done = subprocess.run(
        [*alone, "bash", "-c", DISK, "bash", *words],
        env=os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=True,
    )
    full, _, resumed = done.stdout.partition("exit 2\n")
    assert "No space left on device: make room" in full and "Traceback" not in done.stdout, done.stdout
    assert full.count("\n") <= 2, full
    assert "embedded 90 images" in resumed
    assert tree(result) == tree(whole / "features")


def test_several_devices_share_one_cache(folder: Path, whole: Path, root: Path) -> None:
    """A process for each, here on the CPU: the same bytes as one, and one report for all."""
    done = embed(config(folder, root, device="cpu,cpu,cpu"), SHARD_IMAGES)
    assert done == Embedded(
        path=done.path, n_images=90, n_views=3, new_images=90, copied_images=0, missing_images=0, unreadable={}
    )
    assert tree(root / "features") == tree(whole / "features")


def test_devices_share_a_part(folder: Path, whole: Path, root: Path) -> None:
    first = embed(config(folder, root, device="cpu,cpu", shard="2/3"), SHARD_IMAGES)
    assert (first.new_images, first.missing_images) == (30, 60)  # shards 1, 4 and 7 of 0 to 7, of 12, 12 and 6 images
    embed(config(folder, root, device="cpu,cpu", shard="1/3"), SHARD_IMAGES)
    last = embed(config(folder, root, shard="3/3"), SHARD_IMAGES)
    assert last.missing_images == 0
    assert tree(root / "features") == tree(whole / "features")
