"""The stages on an object store: end to end, interrupted, shared by machines, damaged, and where there is none."""

import os
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from fsspec.registry import _registry
from joblib.externals.loky import get_reusable_executor

from cache import features
from cache.errors import InputError, StoreUnavailableError
from cache.location import Location, files_under, local_folder, location, reaching
from pipeline.cli import main
from stages.embed import extract
from stages.embed.config import EmbedConfig
from tests.integration.test_stages import AL, EMBED, ROOT, photos


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return photos(tmp_path_factory.mktemp("photos"))


def embed(folder: Path, root: str) -> int:
    return main(["embed", "--dataset", f"folder:{folder}", *EMBED, "--data-root", root])


def content(place: Location) -> dict[str, bytes]:
    return {name: (place / name).read_bytes() for name in files_under(place) if not name.endswith(".lock")}


def test_the_four_stages(folder: Path, s3: str, capsys: pytest.CaptureFixture[str]) -> None:
    """The grid with two worker processes; afterwards nothing but features, runs and weights lies in the store."""
    get_reusable_executor().shutdown()  # workers of earlier tests do not know the way to this store
    where = ["--dataset", f"folder:{folder}", "--data-root", s3]
    al = ["al", *where, *AL, "--strategy", "random,margin", "--seeds", "3", "--workers", "2"]
    assert embed(folder, s3) == 0
    assert main(al) == 0
    assert main(["surrogate", "--recipe", "gains", *where, "--backbone", "simclr", "--pca", "4", "--workers", "1"]) == 0
    assert main(["report", *where, "--backbone", "simclr"]) == 0
    said = capsys.readouterr().out
    assert "6 new runs, 0 reused" in said
    assert "trained the surrogate of cross_entropy" in said
    assert "1 new runs, 0 reused" in said
    assert "AUBC on folder-" in said
    machine = local_folder(location(s3))
    assert str(machine / "reports" / "report.html") in said
    assert "surrogate" in (machine / "reports" / "report.html").read_text()
    assert {name.split("/")[0] for name in files_under(location(s3))} == {"features", "runs", "weights"}
    assert not (ROOT / "s3:").exists()

    assert embed(folder, s3) == 0
    assert main(al) == 0
    said = capsys.readouterr().out
    assert "reused the features" in said
    assert "0 new runs, 6 reused" in said

    data = ["--data-root", s3]
    assert main(["cache", *data]) == 0
    key = capsys.readouterr().out.split()[0]
    assert main(["cache", "verify", *data]) == 0
    assert "as written" in capsys.readouterr().out
    assert main(["cache", "rm", "--key", key, *data]) == 0
    assert files_under(location(s3) / "features") == {}
    assert not (machine / "derived" / key).exists()
    assert main(["cache", *data]) == 2


def test_an_interrupted_embed_goes_on_and_machines_share_weights(
    folder: Path, s3: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Stopped between a shard and its record, resumed by another machine; the bytes of an uninterrupted folder."""
    ours = {"dataset": f"folder:{folder}", "backbone": EMBED[1]}
    whole = extract.embed(EmbedConfig(**ours, data_root=tmp_path / "whole"), shard_images=12)
    with monkeypatch.context() as patch:
        patch.setattr(features, "write_json", stopped_at("00002.json", features.write_json))
        with pytest.raises(KeyboardInterrupt):
            extract.embed(EmbedConfig(**ours, data_root=location(s3)), shard_images=12)
    assert not any(name.endswith("manifest.json") for name in files_under(location(s3)))

    monkeypatch.setenv("ALCOVE_LOCAL", str(tmp_path / "another machine"))
    capsys.readouterr()
    resumed = extract.embed(EmbedConfig(**ours, data_root=location(s3)), shard_images=12)
    assert "pretrained before" in capsys.readouterr().out
    assert 0 < resumed.new_images < resumed.n_images == whole.n_images
    assert content(location(s3) / "features") == {
        name: data for name, data in content(tmp_path / "whole" / "features").items() if not name.endswith(".lock")
    }
    assert content(location(s3) / "weights").keys() == content(tmp_path / "whole" / "weights").keys()


def stopped_at(name: str, write: Callable) -> Callable:
    def writing(path: Location, content: object) -> None:
        if path.name == name:
            raise KeyboardInterrupt
        write(path, content)

    return writing


def test_a_flipped_byte_is_refused_and_mended_by_embed(
    folder: Path, s3: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert embed(folder, s3) == 0
    before = content(location(s3) / "features")
    shard = location(s3) / "features" / next(name for name in sorted(before) if "/features/c/" in name)
    damaged = bytearray(shard.read_bytes())
    damaged[len(damaged) // 3] ^= 16
    shard.write_bytes(damaged)
    where = ["--dataset", f"folder:{folder}", "--data-root", s3]
    assert main(["al", *where, *AL, "--strategy", "random", "--workers", "1"]) == 2
    backbone = "simclr:batch_size=16:steps=3:width=4"
    command = f"make embed DATASET=folder:{folder} BACKBONE={backbone} DATA_ROOT={s3}"
    assert command in " ".join(capsys.readouterr().err.split())
    assert main(["cache", "verify", "--data-root", s3]) == 2
    assert "is not what was written" in capsys.readouterr().out
    assert embed(folder, s3) == 0
    assert content(location(s3) / "features") == before


STAGES = ("embed", "pretrain", "al", "surrogate", "report", "cache", "demo")


@pytest.mark.parametrize("stage", STAGES)
def test_a_missing_bucket_is_one_sentence(stage: str, s3: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([stage, "--data-root", "s3://no-such-bucket/data"]) == 2
    assert one_sentence(capsys).startswith("alcove: the bucket 'no-such-bucket' of 's3://no-such-bucket/data' does not")


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"AWS_ENDPOINT_URL": "http://127.0.0.1:{unused}"}, "check the network, and AWS_ENDPOINT_URL"),
        (
            {"AWS_ACCESS_KEY_ID": None, "AWS_SECRET_ACCESS_KEY": None, "AWS_EC2_METADATA_DISABLED": "true"},
            "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY",
        ),
    ],
    ids=["unreachable", "no credentials"],
)
def test_a_store_that_cannot_be_used_is_one_sentence(
    changes: dict[str, str | None], expected: str, s3: str, tmp_path: Path
) -> None:
    """In a process of its own: a client reads its environment once."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # and listens to nobody
        changed = {name: value and value.format(unused=taken.getsockname()[1]) for name, value in changes.items()}
        files = {"AWS_SHARED_CREDENTIALS_FILE": str(tmp_path / "none"), "AWS_CONFIG_FILE": str(tmp_path / "none")}
        environment = {name: value for name, value in (os.environ | files | changed).items() if value is not None}
        command = [sys.executable, "-m", "pipeline", "cache", "--data-root", s3]
        done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=20)
    assert done.returncode == 2
    assert done.stderr.startswith("alcove: ")
    assert done.stderr.count("\n") == 1
    assert expected in done.stderr


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (PermissionError("The provided token has expired."), "refuses access to"),
        (FileNotFoundError("bucket/data/x"), "something was removed from"),
    ],
)
def test_a_store_that_fails_during_the_work_is_one_sentence(error: OSError, expected: str, s3: str) -> None:
    with pytest.raises(StoreUnavailableError, match=expected), reaching(location(s3)):
        raise error


def test_defects_of_ours_are_not_blamed_on_the_store(s3: str) -> None:
    with pytest.raises(ZeroDivisionError), reaching(location(s3)):
        raise ZeroDivisionError


def test_a_missing_package_is_one_sentence(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setitem(sys.modules, "s3fs", None)
    monkeypatch.delitem(_registry, "s3", raising=False)
    assert main(["cache", "--data-root", "s3://bucket/data"]) == 2
    assert "pip install 'alcove[s3]'" in one_sentence(capsys)


@pytest.mark.parametrize("text", ["cloud://bucket/data", "s3://", "s3://bucket/../other"])
def test_a_url_of_no_use_is_one_sentence(text: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(InputError):
        location(text)
    assert main(["cache", "--data-root", text]) == 2
    assert "s3://BUCKET/PREFIX" in one_sentence(capsys)


def one_sentence(capsys: pytest.CaptureFixture[str]) -> str:
    said = capsys.readouterr().err
    assert said.startswith("alcove: ")
    assert said.count("\n") == 1
    return said


def test_where_this_machine_works(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    root = location("s3://bucket/some/prefix/")
    assert str(root) == "s3://bucket/some/prefix"
    monkeypatch.delenv("ALCOVE_LOCAL", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert local_folder(root) == tmp_path / "alcove" / "s3" / "bucket" / "some" / "prefix"
    assert local_folder(root / "weights") == local_folder(root) / "weights"
    monkeypatch.setenv("ALCOVE_LOCAL", str(tmp_path / "scratch"))
    assert local_folder(root) == tmp_path / "scratch" / "s3" / "bucket" / "some" / "prefix"
    assert local_folder(Path("data")) == location("data") == Path("data")
    assert location("file:///data") == Path("/data")
