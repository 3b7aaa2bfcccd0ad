"""What a feature cache must keep, in a folder and in an object store."""

import json
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from cache.catalog import damage, describe_cache, find_cache, list_caches, remove_cache
from cache.errors import CacheIncompleteError, CacheMismatchError, CacheMissError, InputError
from cache.features import (
    FeatureCache,
    FeatureWriter,
    Identity,
    Listing,
)
from cache.files import UNREADABLE, remove_tree
from cache.location import Location, files_under
from cache.reuse import EarlierFeatures

N, DIM, SHARD = 23, 5, 8

IDENTITY = Identity(
    dataset="photos",
    dataset_digest="d0",
    backbone="net",
    parameters={"width": 8},
    full_name="net-w8.random",
    weights="",
    weights_digest="w0",
    preprocessing={"resize": 8, "mean": [0.5, 0.5, 0.5]},
    views=[{"name": "identity"}, {"name": "blur", "sigma": 1.0}],
    view_seed=0,
)
LISTING = Listing(
    ids=[f"dir/ä {i}.png" for i in range(N)],
    labels=np.arange(N) % 3 - 1,
    split=["train", "test"] * (N // 2) + ["train"],
    contents=[f"{i:064x}" for i in range(N)],
    class_names=("cat", "dog"),
)
FEATURES = np.random.default_rng(0).normal(size=(N, 2, DIM)).astype(np.float32)


@pytest.fixture
def root(place: Location) -> Location:
    return place / "features"


def writer(root: Location, identity: Identity = IDENTITY) -> FeatureWriter:
    return FeatureWriter(root, identity, LISTING, DIM, SHARD)


def write_shard(made: FeatureWriter, shard: int) -> None:
    rows = made.rows(shard)
    made.write(shard, FEATURES[rows.start : rows.stop], {9: "dir/ä 9.png is truncated"} if 9 in rows else None)


def write_all(root: Location, identity: Identity = IDENTITY) -> Location:
    made = writer(root, identity)
    for shard in made.pending():
        write_shard(made, shard)
    made.finish()
    return made.path


def tree(path: Location) -> dict[str, bytes]:
    return {name: (path / name).read_bytes() for name in files_under(path)}


def find(root: Location, **changes: object) -> FeatureCache:
    wanted = {
        "dataset": "photos",
        "backbone": "net",
        "parameters": {},
        "key": "",
        "fix": lambda identity: "make embed",
    } | changes
    return find_cache(root, **wanted)  # type: ignore[arg-type]


def test_reads_back_what_was_written(root: Location) -> None:
    cache = FeatureCache(write_all(root), "make embed")
    assert np.array_equal(cache.features(), FEATURES.astype(np.float16))
    assert cache.ids.tolist() == list(LISTING.ids)
    assert cache.labels.tolist() == LISTING.labels.tolist()
    assert cache.split.tolist() == list(LISTING.split)
    assert cache.contents.tolist() == list(LISTING.contents)
    assert cache.class_names == ["cat", "dog"]
    assert cache.unreadable == {9: "dir/ä 9.png is truncated"}
    assert np.flatnonzero(~cache.readable).tolist() == [9]


@pytest.mark.parametrize("order", [[0, 1, 2], [2, 0, 1]])
def test_sittings_and_order_leave_the_same_bytes(root: Location, tmp_path: Path, order: list[int]) -> None:
    whole = tree(write_all(tmp_path / "whole"))
    for shard in order:
        made = writer(root)
        assert shard in made.pending()
        write_shard(made, shard)
    writer(root).finish()
    assert tree(IDENTITY.folder(root)) == whole


def test_leftovers_of_a_kill_are_cleared(root: Location, tmp_path: Path) -> None:
    made = writer(root)
    write_shard(made, 0)
    (made.path / "features" / "c" / "1.0123.partial").write_bytes(b"half")
    made.close()  # a killed process holds no lock
    assert tree(write_all(root)) == tree(write_all(tmp_path / "whole"))


def test_a_writer_at_work_keeps_its_half_written_files(tmp_path: Path) -> None:
    """In a folder: in an object store nothing is half-written."""
    root = tmp_path / "features"
    other = writer(root)
    half = other.path / "features" / "c" / "1.0123.partial"
    half.parent.mkdir(exist_ok=True, parents=True)
    half.write_bytes(b"half")
    write_all(root)
    assert half.exists()
    other.close()
    writer(root).finish()
    assert not half.exists()


def test_writers_share_the_shards(root: Location, tmp_path: Path) -> None:
    """Two at once, in turn and on overlapping shards; the last one finishes."""
    one, two = writer(root), writer(root)
    for made, shard in ((one, 0), (two, 2), (two, 0), (one, 1), (two, 1)):
        write_shard(made, shard)
    one.finish()
    two.finish()
    assert tree(one.path) == tree(write_all(tmp_path / "whole"))


def test_a_kill_before_the_first_shard_leaves_nothing_in_the_way(root: Location) -> None:
    made = writer(root)
    remove_tree(made.path / "labels")
    (made.path / "identity.json").unlink()
    made.close()  # a killed process holds no lock
    assert FeatureCache(write_all(root), "").labels.tolist() == LISTING.labels.tolist()


def test_incomplete_is_refused_with_the_command(root: Location) -> None:
    made = writer(root)
    write_shard(made, 0)
    assert not made.complete
    with pytest.raises(CacheIncompleteError, match="run `make embed`"):
        find(root)
    with pytest.raises(CacheIncompleteError, match="2 of 3 shards"):
        made.finish()


def edit_manifest(path: Location, change: Callable[[dict], object]) -> None:
    manifest = json.loads((path / "manifest.json").read_text())
    change(manifest)
    (path / "manifest.json").write_text(json.dumps(manifest))


@pytest.mark.parametrize(
    "edit",
    [
        lambda manifest: manifest["identity"].update(full_name="resnet50.imagenet"),
        lambda manifest: manifest.update(class_names=["dog", "cat"]),
        lambda manifest: manifest.update(unreadable={}),
        lambda manifest: manifest.update(shape=[1, 1, 1]),
        lambda manifest: manifest.clear(),
    ],
)
def test_an_edited_manifest_is_refused_and_mended_by_the_command(
    root: Location, edit: Callable[[dict], object]
) -> None:
    path = write_all(root)
    before = tree(path)
    edit_manifest(path, edit)
    with pytest.raises(CacheMismatchError, match="run `make embed`"):
        find(root)
    made = writer(root)
    assert not made.complete
    assert made.pending() == []
    made.finish()
    assert tree(path) == before


def test_a_manifest_of_another_cache_is_refused(root: Location) -> None:
    other = write_all(root, replace(IDENTITY, view_seed=1))
    path = write_all(root)
    (path / "manifest.json").write_bytes((other / "manifest.json").read_bytes())
    with pytest.raises(CacheMismatchError, match="describes another cache"):
        FeatureCache(path, "make embed")


def test_a_flipped_bit_is_noticed_and_mended(root: Location) -> None:
    path = write_all(root)
    before = tree(path)
    shard = path / "features" / "c" / min(files_under(path / "features" / "c"))
    damaged = bytearray(shard.read_bytes())
    damaged[len(damaged) // 3] ^= 16
    shard.write_bytes(damaged)
    with pytest.raises(CacheMismatchError, match="make embed"):
        FeatureCache(path, "make embed").features()
    made = writer(root)
    assert made.pending() == [0]
    write_shard(made, 0)
    made.finish()
    assert tree(path) == before


@pytest.mark.parametrize("name", ["ids", "labels", "split", "contents"])
def test_damaged_labels_are_noticed_and_mended(root: Location, name: str) -> None:
    path = write_all(root)
    before = tree(path)
    chunk = path / name / "c" / "0"
    chunk.write_bytes(b"\x00" * chunk.stat().st_size)
    with pytest.raises(CacheMismatchError, match="run `make embed`"):
        FeatureCache(path, "make embed")
    made = writer(root)
    assert not made.complete
    made.finish()
    assert tree(path) == before


def test_a_lost_shard_is_noticed_and_mended(root: Location) -> None:
    path = write_all(root)
    before = tree(path)
    remove_tree(path / "features" / "c" / "1")
    with pytest.raises(CacheMismatchError, match="shard 1"):
        FeatureCache(path, "make embed").features()
    made = writer(root)
    assert made.pending() == [1]
    write_shard(made, 1)
    made.finish()
    assert tree(path) == before


@pytest.mark.parametrize(
    "change",
    [
        {"dataset_digest": "d1"},
        {"weights_digest": "w1"},
        {"full_name": "net-w8.other"},
        {"parameters": {"width": 9}},
        {"preprocessing": {"resize": 9}},
        {"views": [{"name": "identity"}, {"name": "blur", "sigma": 2.0}]},
        {"view_seed": 1},
        {"weights": "random"},
        {"dtype": "float32"},
    ],
)
def test_everything_that_changes_a_value_changes_the_key(change: dict) -> None:
    assert replace(IDENTITY, **change).key != IDENTITY.key


def test_find_says_what_is_missing_and_what_is_ambiguous(root: Location) -> None:
    with pytest.raises(CacheMissError, match="no features of 'net' for 'photos' yet: run `make embed`"):
        find(root)
    one = write_all(root)
    assert find(root).path == one
    assert find(root, parameters={"width": 8}).path == one
    with pytest.raises(CacheMissError):
        find(root, parameters={"width": 9})
    two = write_all(root, replace(IDENTITY, view_seed=1))
    with pytest.raises(InputError, match=f"2 feature caches.*KEY=.*({one.name}|{two.name})"):
        find(root)
    with pytest.raises(InputError, match=f"no feature cache with key zzz.*({one.name}|{two.name})"):
        find(root, key="zzz")
    assert find(root, key=two.name[:6]).path == two


def test_the_newest_content_of_a_changed_data_set_counts(root: Location) -> None:
    write_all(root)
    follows = {
        "dataset_digest": "d1",
        "weights_digest": "w1",
        "full_name": "net-w8.own-d1",
        "preprocessing": {"mean": 1},
    }
    let_time_pass(root)
    newer = write_all(root, replace(IDENTITY, **follows))
    assert find(root).path == newer


def test_caches_of_older_images_count_only_by_their_key(root: Location) -> None:
    older = write_all(root)
    let_time_pass(root)
    newer = write_all(root, replace(IDENTITY, dataset_digest="d1", weights="kept.safetensors"))
    assert find(root).path == newer
    assert find(root, key=older.name).path == older
    other = write_all(root, replace(IDENTITY, dataset_digest="d1"))
    with pytest.raises(InputError, match=f"2 feature caches.*({newer.name}|{other.name})"):
        find(root)


def test_an_unfinished_cache_does_not_stand_in_the_way_of_a_finished_one(root: Location) -> None:
    finished = write_all(root)
    writer(root, replace(IDENTITY, view_seed=1)).close()
    assert find(root).path == finished


def test_caches_are_listed_verified_and_removed(root: Location) -> None:
    path, other = write_all(root), writer(root, replace(IDENTITY, view_seed=1)).path
    assert list_caches(root) == sorted([path, other])
    about = describe_cache(path)
    assert (about.full_name, about.views, about.shape) == ("net-w8.random", ["identity", "blur"], (N, 2, DIM))
    assert (about.complete, describe_cache(other).complete) == (True, False)
    assert about.bytes == sum(len(content) for content in tree(path).values())
    assert damage(path) is None
    remove_tree(path / "features" / "c" / "1")
    assert "shard 1" in str(damage(path))
    remove_cache(path)
    assert list_caches(root) == [other]


@pytest.mark.parametrize("value", [np.nan, np.inf, 1e6])
def test_features_that_float16_cannot_hold_are_refused_by_image(root: Location, value: float) -> None:
    made = writer(root)
    features = FEATURES[:8].copy()
    features[3, 1, 2] = value
    with pytest.raises(InputError, match="'dir/ä 3.png' are not finite in float16"):
        made.write(0, features)
    assert 0 in made.pending()


def test_features_that_float16_would_bend_are_refused_by_image(root: Location) -> None:
    made = writer(root)
    for largest in (1e-7, 1e-38):
        features = FEATURES[:8] * (largest / np.abs(FEATURES).max())
        with pytest.raises(InputError, match="'dir/ä 0.png' are too small in float16 \\(8 such"):
            made.write(0, features)
    features = FEATURES[:8].copy()
    features[1, 0], features[2, 0] = 0, 1e-8  # beside the others, nothing
    made.write(0, features)


def test_a_cache_at_work_is_not_removed(tmp_path: Path) -> None:
    made = writer(tmp_path)
    with pytest.raises(InputError, match="is being written: wait"):
        remove_cache(made.path)
    made.close()
    remove_cache(made.path)
    assert list_caches(tmp_path) == []


def test_damaged_caches_are_described_listed_and_removed(root: Location) -> None:
    good = write_all(root)
    lost, edited = (write_all(root, replace(IDENTITY, view_seed=seed)) for seed in (1, 2))
    (lost / "features" / "zarr.json").unlink()
    (edited / "identity.json").write_text('{"views": 5}')
    problems = {path: describe_cache(path).problem for path in list_caches(root)}
    assert problems[good] is None and "has lost its array" in problems[lost] and "damaged" in problems[edited]
    remove_cache(edited)
    assert sorted(list_caches(root)) == sorted([good, lost])


def test_a_lost_array_is_found_again_with_its_shards(root: Location) -> None:
    path = write_all(root)
    before = tree(path)
    (path / "features" / "zarr.json").unlink()
    made = writer(root)
    assert made.pending() == []
    made.finish()
    assert tree(path) == before


def let_time_pass(root: Location) -> None:
    """Make what is written next the newer: in an object store times are whole seconds."""
    time.sleep(0.01 if isinstance(root, Path) else 1.05 - time.time() % 1)


def flip_a_bit(path: Path, shard: int) -> None:
    (chunk,) = (file for file in (path / "features" / "c" / str(shard)).rglob("*") if file.is_file())
    damaged = bytearray(chunk.read_bytes())
    damaged[len(damaged) // 3] ^= 16
    chunk.write_bytes(damaged)


NEW = replace(IDENTITY, dataset="moved", dataset_digest="d1")


def earlier(root: Location, identity: Identity = NEW, **changes: object) -> EarlierFeatures:
    listing = replace(LISTING, **changes)  # type: ignore[arg-type]
    return EarlierFeatures(root, identity, listing, range(len(listing.ids)))


def test_the_same_images_are_found_in_another_order(root: Location) -> None:
    write_all(root)
    order = np.random.default_rng(1).permutation(N)
    ids, contents = ([column[i] for i in order] for column in (LISTING.ids, LISTING.contents))
    found = earlier(root, ids=ids, contents=contents)
    assert [order[row] for row in found.missing(range(N))] == [9]  # could not be read
    features = np.full((N, 2, DIM), 7, dtype=np.float32)
    found.fill(range(N), features)
    assert (features[order == 9] == 7).all()
    assert np.array_equal(features[order != 9], FEATURES.astype(np.float16)[order[order != 9]])
    part = np.zeros((4, 2, DIM), dtype=np.float32)
    found.fill(range(3, 7), part)
    assert np.array_equal(part, np.where(features[3:7] == 7, 0, features[3:7]))


def test_only_wanted_rows_are_found(root: Location) -> None:
    write_all(root)
    assert EarlierFeatures(root, NEW, LISTING, range(3, 6)).missing(range(N)) == [*range(3), *range(6, N)]


def test_an_image_is_the_same_where_id_and_content_agree(root: Location) -> None:
    write_all(root)
    contents = list(LISTING.contents)
    contents[1] = "other"
    contents[2], contents[3] = contents[3], contents[2]
    contents[4] = UNREADABLE
    found = earlier(root, contents=contents, ids=[*LISTING.ids[:-1], "new id"])
    assert found.missing(range(N)) == [1, 2, 3, 4, 9, N - 1]


def test_what_could_not_be_read_twice_is_not_the_same(root: Location) -> None:
    identity, listing = replace(IDENTITY, view_seed=3), replace(LISTING, contents=[UNREADABLE] * N)
    made = FeatureWriter(root, identity, listing, DIM, SHARD)
    for shard in made.pending():
        write_shard(made, shard)
    made.finish()
    found = EarlierFeatures(root, replace(identity, dataset_digest="d1"), listing, range(N))
    assert found.missing(range(N)) == [*range(N)]


@pytest.mark.parametrize(
    "change",
    [
        {"weights_digest": "w1"},
        {"backbone": "other"},
        {"full_name": "net-w9.random"},
        {"preprocessing": {"resize": 9}},
        {"views": [{"name": "identity"}]},
        {"view_seed": 1},
        {"dtype": "float32"},
        {"format": 1},
    ],
)
def test_features_made_otherwise_are_not_used(root: Location, change: dict) -> None:
    write_all(root)
    assert earlier(root, replace(NEW, **change)).missing(range(N)) == [*range(N)]


def test_where_the_weights_came_from_does_not_matter(root: Location) -> None:
    write_all(root)
    same = replace(NEW, full_name="net-w8.file", weights="file.pth", parameters={"steps": 9})
    assert earlier(root, same).missing(range(N)) == [9]


def test_an_unfinished_cache_and_the_new_one_itself_are_no_donors(root: Location) -> None:
    made = writer(root)
    write_shard(made, 0)
    assert earlier(root).missing(range(N)) == [*range(N)]
    write_all(root)
    assert earlier(root, IDENTITY).missing(range(N)) == [*range(N)]


def test_several_donors_contribute_and_a_damaged_shard_comes_from_an_older_one(root: Location) -> None:
    older = write_all(root)
    let_time_pass(root)
    newer = write_all(root, replace(IDENTITY, dataset_digest="d2"))
    flip_a_bit(newer, 1)
    with pytest.warns(UserWarning, match=f"{newer} are damaged") as said:
        found = earlier(root)
    assert len(said) == 1 and found.missing(range(N)) == [9]
    flip_a_bit(older, 1)
    with pytest.warns(UserWarning) as said:
        found = earlier(root)
    assert len(said) == 2 and found.missing(range(N)) == [*range(8, 16)]


def test_a_donor_damaged_on_the_way_stops_the_copy(root: Location) -> None:
    path = write_all(root)
    found = earlier(root)
    flip_a_bit(path, 0)
    with pytest.raises(CacheMismatchError, match="shard 0"):
        found.fill(range(8), np.zeros((8, 2, DIM), dtype=np.float32))


def test_a_donor_whose_columns_are_damaged_is_named_and_not_used(root: Location) -> None:
    path = write_all(root)
    chunk = path / "contents" / "c" / "0"
    chunk.write_bytes(b"\x00" * chunk.stat().st_size)
    with pytest.warns(UserWarning, match=path.name):
        assert earlier(root).missing(range(N)) == [*range(N)]


def test_at_most_two_donor_shards_are_held_and_each_is_read_once_to_copy(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_all(root)
    found = earlier(root, ids=["0 new", *LISTING.ids[:-1]], contents=["new", *LISTING.contents[:-1]])
    read: list[int] = []
    block = FeatureCache.block
    monkeypatch.setattr(FeatureCache, "block", lambda cache, shard: read.append(shard) or block(cache, shard))
    for start in range(0, N, 5):
        rows = range(start, min(start + 5, N))
        found.fill(rows, np.zeros((len(rows), 2, DIM), dtype=np.float32))
    assert read == [0, 1, 2]


def test_caches_of_another_format_are_not_found(root: Location) -> None:
    write_all(root, replace(IDENTITY, format=1))
    with pytest.raises(CacheMissError, match="run `make embed`"):
        find(root)
    newer = write_all(root)
    assert find(root).path == newer
