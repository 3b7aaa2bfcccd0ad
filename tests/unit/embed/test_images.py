"""Data sets: what is found where, what damaged input says, and that ids and splits stay put."""

import hashlib
import io
import json
import os
import subprocess
import sys
import threading
import warnings
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from cache.errors import InputError, UnreadableImageError
from cache.files import UNREADABLE, digest_file
from stages.embed.images import DATASETS
from stages.embed.images.decoding import decode
from stages.embed.images.folder import in_test_fifth

REPO = Path(__file__).resolve().parents[3]
CIFAR10 = REPO / "../shared/data/cifar10"


def encode(pixels: np.ndarray, kind: str = "PNG", **options) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, kind, **options)
    return buffer.getvalue()


def some_pixels(seed: int = 0, shape: tuple[int, ...] = (6, 5, 3)) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


def put(root: Path, *names: str) -> Path:
    for seed, name in enumerate(names):
        file = root / name
        file.parent.mkdir(parents=True, exist_ok=True)
        kind = {".jpg": "JPEG", ".jpeg": "JPEG", ".tif": "TIFF"}.get(file.suffix.lower(), file.suffix[1:].upper())
        file.write_bytes(encode(some_pixels(seed), kind))
    return root


def open_folder(root: Path):
    return DATASETS.build(f"folder:{root}").open()


def one_sentence(error: pytest.ExceptionInfo) -> str:
    text = str(error.value)
    assert "\n" not in text and "Traceback" not in text
    return text


def test_no_torch_is_imported():
    code = (
        "import stages.embed.images as i; i.DATASETS.build('digits').open(); import sys; print('torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=REPO, check=True)
    assert done.stdout.strip() == "False"


def test_digits():
    images = DATASETS.build("digits").open()
    assert len(images) == 1797 and images.class_names == tuple("0123456789") and not images.flippable
    assert list(images.split).count("test") == 359 and set(images.split) == {"train", "test"}
    loaded = np.stack([images.load(index) for index in range(len(images))])
    assert loaded.shape == (1797, 8, 8, 3) and loaded.min() == 0 and loaded.max() == 255
    assert images.digest == DATASETS.build("digits").open().digest


def test_decode_keeps_lossless_pixels():
    pixels = some_pixels()
    np.testing.assert_array_equal(decode(encode(pixels), "a"), pixels)


def test_decode_turns_by_exif():
    exif = Image.Exif()
    exif[0x0112] = 6  # shown after a quarter turn clockwise
    pixels = some_pixels()
    np.testing.assert_array_equal(decode(encode(pixels, exif=exif), "a"), np.rot90(pixels, -1))


@pytest.mark.parametrize("gray", [np.uint8(200), np.uint16(200 * 256)])
def test_decode_gray(gray):
    decoded = decode(encode(np.full((3, 4), gray)), "a")
    assert decoded.shape == (3, 4, 3) and (decoded == 200).all()


def test_decode_palette_with_transparency_warns_nobody():
    buffer = io.BytesIO()
    Image.fromarray(some_pixels()).quantize(4).save(buffer, "PNG", transparency=b"\x00\x10\x20\x30")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert decode(buffer.getvalue(), "a").shape == (6, 5, 3)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "empty"),
        (b"not an image", "known format"),
        (encode(some_pixels(shape=(64, 64, 3)), "JPEG")[:700], "truncated"),
        (encode(some_pixels(shape=(64, 64, 3)))[:700], "truncated"),
        (encode(np.zeros((3, 3), dtype=np.float32), "TIFF"), "32-bit"),
    ],
)
def test_damaged_image_is_one_sentence(content, reason):
    with pytest.raises(UnreadableImageError) as error:
        decode(content, "cat/7.jpg")
    assert "'cat/7.jpg'" in one_sentence(error) and reason in str(error.value)


def test_decompression_bomb(monkeypatch):
    content = encode(some_pixels())
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 20)  # 30 pixels: Pillow warns, which is no error
    assert decode(content, "a").shape == (6, 5, 3)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 10)
    with pytest.raises(UnreadableImageError, match="bomb"):
        decode(content, "a")


def test_decoding_in_threads_leaves_the_warning_filters_alone(monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 20)
    content, before, failed = encode(some_pixels()), list(warnings.filters), []

    def work():
        try:
            for _ in range(50):
                decode(content, "a")
        except UnreadableImageError as error:
            failed.append(error)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failed and list(warnings.filters) == before


def test_folder_flat_is_unlabeled(tmp_path):
    images = open_folder(put(tmp_path, "b.PNG", "a.jpeg", "ü 雪.webp", "c.tif", ".hidden.png", ".dir/x.png"))
    assert list(images.ids) == ["a.jpeg", "b.PNG", "c.tif", "ü 雪.webp"]
    assert set(images.labels) == {-1} and set(images.split) == {"train"} and images.class_names == ()
    np.testing.assert_array_equal(images.load(1), some_pixels(0))


def test_folder_classes_and_stable_split(tmp_path):
    names = [f"{name}/deep/{index}.png" for name in ("cat", "ant") for index in range(40)] + ["loose.png"]
    before = open_folder(put(tmp_path, *names))
    assert before.class_names == ("ant", "cat") and before.labels[list(before.ids).index("cat/deep/3.png")] == 1
    assert before.labels[-1] == -1 and before.split[-1] == "train"
    labeled = [part for part, label in zip(before.split, before.labels, strict=True) if label >= 0]
    assert 5 <= labeled.count("test") <= 30
    after = open_folder(put(tmp_path, "cat/0new.png"))
    place = dict(zip(after.ids, after.split, strict=True))
    assert [place[image_id] for image_id in before.ids] == list(before.split)
    assert after.digest != before.digest


def test_a_fifth_is_test():
    share = np.mean([in_test_fifth(str(index)) for index in range(10_000)])
    assert share == pytest.approx(0.2, abs=0.02)


def test_folder_with_splits(tmp_path):
    images = open_folder(put(tmp_path, "train/b/1.png", "train/2.png", "valid/a/3.png", "test/b/4.png"))
    found = dict(zip(images.ids, zip(images.split, images.labels, strict=True), strict=True))
    assert images.class_names == ("a", "b")
    assert found == {
        "train/b/1.png": ("train", 1),
        "train/2.png": ("train", -1),
        "valid/a/3.png": ("val", 0),
        "test/b/4.png": ("test", 1),
    }


def test_folder_digest_sees_content_and_class(tmp_path):
    root = put(tmp_path / "a", "x/1.png", "y/2.png")
    digest = open_folder(root).digest
    assert open_folder(put(tmp_path / "b", "x/1.png", "y/2.png")).digest == digest
    (root / "x/1.png").write_bytes(encode(some_pixels(9)))
    changed = open_folder(root).digest
    (root / "y").rename(root / "z")
    assert len({digest, changed, open_folder(root).digest}) == 3


def test_folder_contents_are_those_of_the_files_in_order(tmp_path):
    images = open_folder(put(tmp_path, *(f"{index:03d}.png" for index in range(150))))
    assert images.contents == [digest_file(tmp_path / image_id) for image_id in images.ids]
    assert len(set(images.contents)) == 150


def test_folder_follows_no_loop(tmp_path):
    put(tmp_path, "cat/1.png")
    (tmp_path / "cat/again").symlink_to(tmp_path)
    assert list(open_folder(tmp_path).ids) == ["cat/1.png"]


def test_folder_keeps_unreadable_images_in_the_list(tmp_path):
    put(tmp_path, "1.png", "2.png")
    (tmp_path / "3.png").symlink_to(tmp_path / "gone")
    (tmp_path / "2.png").write_bytes(b"")
    images = open_folder(tmp_path)
    assert list(images.ids) == ["1.png", "2.png", "3.png"]
    assert images.contents[2] == UNREADABLE and UNREADABLE not in images.contents[:2]
    for index in (1, 2):
        with pytest.raises(UnreadableImageError) as error:
            images.load(index)
        assert images.ids[index] in one_sentence(error)


def test_folder_errors_are_one_sentence(tmp_path):
    file = put(tmp_path, "full/1.png") / "full/1.png"
    (tmp_path / "empty").mkdir()
    put(tmp_path / "mixed", "train/1.png", "other/2.png")
    expected = {"missing": "no folder", str(file): "is a file", "empty": "no image", "mixed": "other/2.png"}
    for path, part in expected.items():
        with pytest.raises(InputError) as error:
            open_folder(tmp_path / path)
        assert part in one_sentence(error)


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux lets file names be any bytes")
def test_folder_name_that_is_not_utf8(tmp_path):
    Path(os.fsdecode(os.fsencode(tmp_path) + b"/\xff.png")).write_bytes(b"")
    with pytest.raises(InputError, match="UTF-8"):
        open_folder(tmp_path)


def test_slugs_are_safe_and_distinct(tmp_path):
    slugs = [DATASETS.build(f"folder:{tmp_path / name}").slug for name in ("a b", "a/b", "ü", "x" * 200)]
    assert len(set(slugs)) == 4
    for slug in slugs:
        assert slug.isascii() and "/" not in slug and " " not in slug and len(slug) < 70
    assert DATASETS.build(f"folder:{tmp_path}/x/../a b").slug == slugs[0]


def table(count: int, labels: list | None, names: list[str] | None = None) -> pa.Table:
    images = [{"bytes": encode(some_pixels(seed)), "path": None} for seed in range(count)]
    columns = {"image": pa.array(images, pa.struct([("bytes", pa.binary()), ("path", pa.string())]))}
    if labels is not None:
        columns["label"] = pa.array(labels, pa.int64())
    features = {"info": {"features": {"label": {"names": names, "_type": "ClassLabel"}}}}
    return pa.table(columns).replace_schema_metadata({"huggingface": json.dumps(features)} if names else None)


def write(root: Path, **tables: pa.Table) -> Path:
    for name, content in tables.items():
        pq.write_table(content, root / f"{name.replace('__', '-')}.parquet")
    return root


def open_parquet(path: Path | str):
    return DATASETS.build(f"parquet:{path}").open()


def test_parquet_folder(tmp_path):
    shards = {"train__00000-of-00002": table(2, [1, None], ["cat", "dog"]), "train__00001-of-00002": table(1, [0])}
    images = open_parquet(write(tmp_path, **shards, test=table(2, [0, 1]), validation=table(1, [-1])))
    assert list(images.ids) == [f"train/{n:08d}" for n in range(3)] + ["val/00000000"] + [
        f"test/{n:08d}" for n in range(2)
    ]
    assert list(images.split) == ["train"] * 3 + ["val"] + ["test"] * 2
    assert images.labels.tolist() == [1, -1, 0, -1, 0, 1] and images.class_names == ("cat", "dog")
    np.testing.assert_array_equal(images.load(5), some_pixels(1))


def test_parquet_file_without_labels(tmp_path):
    images = open_parquet(write(tmp_path, anything=table(2, None)) / "anything.parquet")
    assert set(images.split) == {"train"} and images.labels.tolist() == [-1, -1] and images.class_names == ()


def test_parquet_numbers_stand_for_missing_names(tmp_path):
    assert open_parquet(write(tmp_path, train=table(2, [2, 0]))).class_names == ("0", "1", "2")


def test_parquet_digest_sees_content_and_split(tmp_path):
    digests = set()
    for tables in ({"train": table(2, [0, 1])}, {"train": table(2, [1, 1])}, {"test": table(2, [0, 1])}):
        root = tmp_path / str(len(digests))
        root.mkdir()
        digests.add(open_parquet(write(root, **tables)).digest)
    assert len(digests) == 3


def test_parquet_unreadable_bytes(tmp_path):
    images = [{"bytes": None, "path": "x.png"}, {"bytes": b"junk", "path": None}, None]
    kind = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    opened = open_parquet(write(tmp_path, train=pa.table({"image": pa.array(images, kind)})))
    assert len(opened) == 3 and opened.contents[0] == opened.contents[2] != opened.contents[1]
    for index in range(3):
        with pytest.raises(UnreadableImageError) as error:
            opened.load(index)
        assert f"train/{index:08d}" in one_sentence(error)


def test_parquet_names_what_it_ignores(tmp_path):
    with pytest.warns(UserWarning, match=r"extra\.parquet"):
        assert len(open_parquet(write(tmp_path, train=table(1, [0]), extra=table(1, [0])))) == 1


@pytest.mark.parametrize(
    ("content", "part"),
    [
        (pa.table({"pixels": [1]}), "no column 'image' .it has: pixels"),
        (pa.table({"image": ["x"]}), "struct"),
        (table(1, [0]).set_column(1, "label", pa.array([0.5])), "integers"),
        (table(2, [0, 5], ["cat", "dog"]), "expected -1 to 1"),
        (table(1, [-2]), "expected -1"),
        (table(0, []), "no row"),
    ],
)
def test_parquet_wrong_columns(tmp_path, content, part):
    with pytest.raises(InputError, match=part) as error:
        open_parquet(write(tmp_path, train=content))
    one_sentence(error)


def test_parquet_wrong_paths(tmp_path):
    (tmp_path / "empty").mkdir()
    (tmp_path / "junk.parquet").write_bytes(b"junk")
    for path, part in {"missing": "no file or folder", "empty": "train", "junk.parquet": "as Parquet"}.items():
        with pytest.raises(InputError, match=part) as error:
            open_parquet(tmp_path / path)
        one_sentence(error)


def described(columns: dict[str, pa.Array], **features: object) -> pa.Table:
    """A table with `huggingface` metadata; the image column is given by its name alone."""
    metadata = {"huggingface": json.dumps({"info": {"features": features}})}
    return pa.table(columns).replace_schema_metadata(metadata)


def cifar100_table() -> pa.Table:
    """As Hugging Face publishes CIFAR-100: `img`, `fine_label`, `coarse_label`."""
    columns = {"img": table(3, None)["image"], "fine_label": pa.array([2, 0, 1]), "coarse_label": pa.array([1, 0, 1])}
    fine, coarse = ({"_type": "ClassLabel", "names": names} for names in (["ant", "bee", "cat"], ["insect", "mammal"]))
    return described(columns, img={"_type": "Image"}, fine_label=fine, coarse_label=coarse)


def test_parquet_label_column_by_name(tmp_path):
    write(tmp_path, train=cifar100_table(), test=cifar100_table())
    fine, coarse = (open_parquet(f"{tmp_path}?label={name}_label") for name in ("fine", "coarse"))
    assert fine.labels.tolist() == [2, 0, 1] * 2 and fine.class_names == ("ant", "bee", "cat")
    assert coarse.labels.tolist() == [1, 0, 1] * 2 and coarse.class_names == ("insect", "mammal")
    assert fine.digest != coarse.digest and fine.ids == coarse.ids
    files = [encode(some_pixels(seed)) for seed in range(3)] * 2
    assert fine.contents == coarse.contents == [hashlib.sha256(file).hexdigest() for file in files]
    np.testing.assert_array_equal(fine.load(1), some_pixels(1))


def test_parquet_slug_tells_the_columns(tmp_path):
    write(tmp_path, train=cifar100_table())
    (tmp_path / "link").symlink_to(tmp_path)
    columns = ("", "?label=a", "?label=b", "?image=a", "?label=a&image=b")
    slugs = [DATASETS.build(f"parquet:{tmp_path}{text}").slug for text in columns]
    assert len(set(slugs)) == 5
    assert DATASETS.build(f"parquet:{tmp_path}/link?image=b&label=a").slug == slugs[4]


def test_parquet_the_only_typed_columns_are_found(tmp_path):
    label = {"_type": "ClassLabel", "names": ["no", "yes"]}
    columns = {"id": pa.array([7, 8]), "img": table(2, None)["image"], "kind": pa.array([1, 0])}
    content = described(columns, id={"_type": "Value"}, img={"_type": "Image"}, kind=label)
    images = open_parquet(write(tmp_path, train=content))
    assert images.labels.tolist() == [1, 0] and images.class_names == ("no", "yes")
    np.testing.assert_array_equal(images.load(0), some_pixels(0))


@pytest.mark.parametrize("kind", [pa.binary(), pa.large_binary()])
def test_parquet_plain_binary_images(tmp_path, kind):
    content = pa.table({"photo": pa.array([encode(some_pixels(0)), None], kind), "label": [0, 1]})
    images = open_parquet(f"{write(tmp_path, train=content)}?image=photo")
    np.testing.assert_array_equal(images.load(0), some_pixels(0))
    with pytest.raises(UnreadableImageError):
        images.load(1)


def test_parquet_text_labels_are_classes(tmp_path):
    content = [table(3, None).append_column("dx", pa.array(texts)) for texts in (["nv", None, "mel"], ["df"] * 3)]
    images = open_parquet(f"{write(tmp_path, train=content[0], test=content[1])}?label=dx")
    assert images.class_names == ("df", "mel", "nv") and images.labels.tolist() == [2, -1, 1, 0, 0, 0]
    mixed = table(3, None).append_column("dx", pa.array([1, 2, 3]))
    with pytest.raises(InputError, match="text in one file"):
        open_parquet(f"{write(tmp_path, val=mixed)}?label=dx")


@pytest.mark.parametrize(
    ("query", "parts"),
    [
        ("", ["several label columns", "parquet:PATH?label=fine_label", "parquet:PATH?label=coarse_label"]),
        ("?label=corse_label", ["no column 'corse_label'", "did you mean 'coarse_label'", "img, fine_label"]),
        ("?image=imgs&label=fine_label", ["no column 'imgs'", "did you mean 'img'"]),
        ("?image=fine_label&label=fine_label", ["'fine_label'", "int64", "struct"]),
        ("?label=img", ["'img'", "integers or text"]),
        ("?label=", ["names no columns"]),
        ("?label=fine_label&split=x", ["names no columns"]),
    ],
)
def test_parquet_wrong_choices(tmp_path, query, parts):
    with pytest.raises(InputError) as error:
        open_parquet(f"{write(tmp_path, train=cifar100_table())}{query}")
    for part in parts:
        assert part in one_sentence(error)


@pytest.mark.skipif(not CIFAR10.is_dir(), reason="the shared CIFAR-10 Parquet files are absent")
def test_parquet_cifar10():
    images = open_parquet(CIFAR10)
    assert len(images) == 60_000 and images.class_names[3] == "cat"
    assert np.bincount(images.labels[:50_000]).tolist() == [5000] * 10
    assert images.split[49_999] == "train" and images.split[50_000] == "test" and images.ids[-1] == "test/00009999"
    means = np.mean([images.load(index).mean((0, 1)) for index in range(2000)], axis=0) / 255
    np.testing.assert_allclose(means, [0.4913, 0.4821, 0.4465], atol=0.02)  # SOURCE.md, all of train
