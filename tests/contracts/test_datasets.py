"""What every data set must do, one property per function; a new data set adds a spec to SPECS."""

import io
import re
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from stages.embed.images import DATASETS
from tests import published

NAMES = ("cifar10", "cifar100", "digits", "fashion_mnist", "folder", "isic2019", "parquet", "svhn", "tiny_imagenet")

pytestmark = pytest.mark.parametrize("name", NAMES)


@pytest.fixture(scope="module")
def specs(tmp_path_factory):
    """A spec for every data set; the files that are not downloaded are made here."""
    root = tmp_path_factory.mktemp("images")
    rng, rows = np.random.default_rng(0), []
    for index in range(12):
        buffer = io.BytesIO()
        Image.fromarray(rng.integers(0, 256, (7, 9, 3), dtype=np.uint8)).save(buffer, "PNG")
        folder = root / "folder" / f"class{index % 3}"
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"{index}.png").write_bytes(buffer.getvalue())
        rows.append({"bytes": buffer.getvalue(), "path": None})
    table = pa.table({"image": rows, "label": [index % 3 for index in range(12)]})
    pq.write_table(table, root / "train.parquet")
    downloaded = {name: name for name in published.NAMES}
    return {
        **downloaded,
        "digits": "digits",
        "folder": f"folder:{root}/folder",
        "parquet": f"parquet:{root}/train.parquet",
    }


@pytest.fixture(scope="module")
def downloads(tmp_path_factory):
    """The folder of downloads; the network is replaced."""
    with pytest.MonkeyPatch.context() as monkeypatch:
        published.publish(monkeypatch)
        yield tmp_path_factory.mktemp("datasets")


@pytest.fixture
def images(name, specs, downloads):
    return DATASETS.build(specs[name]).open(downloads)


def test_the_list_is_complete(name):
    assert tuple(DATASETS) == NAMES


def test_everything_has_one_entry_per_image(name, images):
    assert len(images) == len(images.ids) == len(images.labels) == len(images.split) >= 12


def test_ids_are_unique_text(name, images):
    assert len(set(images.ids)) == len(images) and all(type(image_id) is str for image_id in images.ids)


def test_labels_index_the_class_names(name, images):
    assert images.labels.dtype == np.int64 and images.labels.ndim == 1
    assert set(images.labels) == set(range(len(images.class_names))) and len(set(images.class_names)) >= 3


def test_splits_are_known_and_the_pool_is_not_empty(name, images):
    assert {"train"} <= set(images.split) <= {"train", "val", "test"}


def test_images_are_fresh_writable_rgb_arrays(name, images):
    for index in (0, len(images) - 1):
        first, second = images.load(index), images.load(index)
        assert first.dtype == np.uint8 and first.ndim == 3 and first.shape[2] == 3
        assert first.flags.writeable and first.flags.c_contiguous
        np.testing.assert_array_equal(first, second)
        first[:] = 0
        np.testing.assert_array_equal(images.load(index), second)


def test_contents_tell_the_images_apart(name, images):
    assert len(images.contents) == len(images) and all(re.fullmatch("[0-9a-f]{64}", each) for each in images.contents)
    pixels = {images.load(index).tobytes() for index in range(len(images))}
    assert len(set(images.contents)) >= len(pixels) >= 10


def test_the_digest_sees_every_column(name, images):
    changes = {
        "ids": ["new", *images.ids[1:]],
        "labels": np.array([-1, *images.labels[1:]]),
        "split": ["val", *images.split[1:]],
        "contents": ["new", *images.contents[1:]],
        "class_names": ("new", *images.class_names[1:]),
    }
    digests = {replace(images, **{column: values}).digest for column, values in changes.items()}
    assert len(digests | {images.digest}) == 6


def test_opening_twice_gives_the_same(name, images, specs, downloads):
    again = DATASETS.build(specs[name]).open(downloads)
    assert again.digest == images.digest and len(images.digest) == 64
    assert list(again.contents) == list(images.contents)
    assert list(again.ids) == list(images.ids) and list(again.split) == list(images.split)
    np.testing.assert_array_equal(again.labels, images.labels)


def test_the_slug_is_a_file_name(name, specs):
    slug = DATASETS.build(specs[name]).slug
    assert slug.startswith(name) and "/" not in slug and slug == DATASETS.build(specs[name]).slug
