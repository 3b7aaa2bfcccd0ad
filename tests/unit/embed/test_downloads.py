"""Published data sets: what is asked of the network, how it is read, and what a failure or an interruption leaves."""

import errno
import subprocess
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import numpy as np
import pytest
from torchvision.datasets import CIFAR10, SVHN

from cache.errors import DataUnavailableError, InputError
from stages.embed.images import DATASETS, download, isic2019
from stages.embed.images.folder import in_test_fifth
from tests import published

REPO = Path(__file__).resolve().parents[3]
TORONTO, STANFORD = "https://www.cs.toronto.edu/~kriz", "http://ufldl.stanford.edu/housenumbers"
FIRST_REQUEST = {
    "cifar10": (f"{TORONTO}/cifar-10-python.tar.gz", "c58f30108f718f92721af3b95e74349a"),
    "cifar100": (f"{TORONTO}/cifar-100-python.tar.gz", "eb9058c3a382ffc7106e4002c42a8d85"),
    "svhn": (f"{STANFORD}/train_32x32.mat", "e26dedcc434d2e4c54c9b2d4a06d8373"),
    "fashion_mnist": (
        "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/train-images-idx3-ubyte.gz",
        "8d4fb7e6c68d591d4c3dfef9ec88bf0d",
    ),
    "tiny_imagenet": ("http://cs231n.stanford.edu/tiny-imagenet-200.zip", "90528d7ca1a48142e341f4ef8d21d0de"),
    "isic2019": ("https://isic-challenge-data.s3.amazonaws.com/2019/ISIC_2019_Training_GroundTruth.csv", None),
}


@pytest.fixture
def publisher(monkeypatch):
    return published.publish(monkeypatch)


def open_set(name: str, root: Path):
    return DATASETS.build(name).open(root)


def partials(root: Path) -> list[Path]:
    return [path for path in root.rglob("*") if path.name.endswith(".partial")]


@pytest.mark.parametrize("name", published.NAMES)
def test_the_published_address_and_checksum_are_asked_for(name, tmp_path, monkeypatch):
    url, md5 = FIRST_REQUEST[name]
    asked = []

    def serve_junk(address, path):
        asked.append(address)
        path.write_bytes(b"junk")
        if md5 is None:
            raise OSError("the junk has no checksum to fail by")

    monkeypatch.setattr(download, "retrieve", serve_junk)
    with pytest.raises(DataUnavailableError) as error:
        open_set(name, tmp_path)
    assert asked == [url] and (md5 or "no checksum") in str(error.value)
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []


@pytest.mark.parametrize("name", published.NAMES)
def test_without_a_network_one_sentence_names_the_ways_out(name, tmp_path, monkeypatch):
    def no_network(request, timeout):
        raise OSError("[Errno -2] Name or service not known")

    monkeypatch.setattr("urllib.request.urlopen", no_network)
    with pytest.raises(DataUnavailableError) as error:
        open_set(name, tmp_path)
    text = str(error.value)
    for part in (name, FIRST_REQUEST[name][0], "connect", str(tmp_path / name), "folder:PATH", "parquet:PATH"):
        assert part in text
    assert "\n" not in text and "Name or service not known" in text


@pytest.mark.parametrize("name", published.NAMES)
def test_nothing_is_downloaded_twice(name, tmp_path, publisher):
    first = open_set(name, tmp_path)
    asked = list(publisher.asked)
    assert len(set(asked)) == len(asked) >= 1
    assert open_set(name, tmp_path).digest == first.digest
    assert publisher.asked == asked and partials(tmp_path) == []


@pytest.mark.parametrize("name", ["cifar10", "cifar100", "tiny_imagenet"])
def test_unpacked_folders_need_no_archive(name, tmp_path, publisher):
    first = open_set(name, tmp_path)
    (archive,) = (tmp_path / name).glob("*.*z*")
    archive.unlink()
    publisher.files.clear()
    assert open_set(name, tmp_path).digest == first.digest


def test_an_archive_put_by_hand_is_used(tmp_path, publisher):
    (tmp_path / "cifar10").mkdir()
    (tmp_path / "cifar10/cifar-10-python.tar.gz").write_bytes(publisher.files[CIFAR10.url])
    assert len(open_set("cifar10", tmp_path)) == 24 and publisher.asked == []


def test_a_wrong_archive_is_named_and_then_replaced(tmp_path, publisher, monkeypatch):
    (tmp_path / "cifar10").mkdir()
    archive = tmp_path / "cifar10/cifar-10-python.tar.gz"
    archive.write_bytes(b"half of it")

    def no_network(url, path):
        raise OSError("no network")

    with monkeypatch.context() as patch:
        patch.setattr(download, "retrieve", no_network)
        with pytest.raises(DataUnavailableError, match="the file there does not have its published MD5 checksum"):
            open_set("cifar10", tmp_path)
    assert archive.read_bytes() == b"half of it"
    assert len(open_set("cifar10", tmp_path)) == 24 and archive.read_bytes() == publisher.files[CIFAR10.url]


@pytest.mark.parametrize("name", published.NAMES)
def test_an_interrupted_download_is_redone(name, tmp_path, publisher, monkeypatch):
    def interrupted(url, path):
        path.write_bytes(publisher.files[url][:100])
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(download, "retrieve", interrupted)
        with pytest.raises(KeyboardInterrupt):
            open_set(name, tmp_path)
    assert len(open_set(name, tmp_path)) > 0 and partials(tmp_path) == []


@pytest.mark.parametrize("name", ["cifar10", "fashion_mnist", "tiny_imagenet", "isic2019"])
def test_an_interrupted_unpacking_is_redone(name, tmp_path, publisher, monkeypatch):
    def interrupted(archive, folder):
        (folder / "tiny-imagenet-200/train").mkdir(parents=True)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("torchvision.datasets.utils.extract_archive", interrupted)
        with pytest.raises(KeyboardInterrupt):
            open_set(name, tmp_path)
    assert len(open_set(name, tmp_path)) > 0 and partials(tmp_path) == []


def test_an_archive_without_checksum_that_is_none(tmp_path, publisher):
    publisher.files[isic2019.IMAGES.url] = b"<html>Please log in to this network</html>"
    with pytest.raises(InputError, match=r"ISIC_2019_Training_Input.zip' is damaged.*not a zip file.*remove it"):
        open_set("isic2019", tmp_path)
    assert partials(tmp_path) == []


def test_a_full_disk_is_named(tmp_path, publisher, monkeypatch):
    def full(archive, folder):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("torchvision.datasets.utils.extract_archive", full)
    with pytest.raises(InputError, match=r"cannot be read or unpacked: No space left on device$"):
        open_set("tiny_imagenet", tmp_path)
    assert partials(tmp_path) == []


DAMAGE = {
    "cifar10": "cifar-10-batches-py/data_batch_3",
    "cifar100": "cifar-100-python/meta",
    "fashion_mnist": "FashionMNIST/raw/train-images-idx3-ubyte",
    "tiny_imagenet": "tiny-imagenet-200/val/val_annotations.txt",
    "isic2019": "ISIC_2019_Training_GroundTruth.csv",
}


@pytest.mark.parametrize("name", DAMAGE)
def test_damaged_files_are_named_with_the_way_out(name, tmp_path, publisher):
    open_set(name, tmp_path)
    file = tmp_path / name / DAMAGE[name]
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])
    with pytest.raises(InputError, match="damaged or incomplete") as error:
        open_set(name, tmp_path)
    assert str(tmp_path / name) in str(error.value) and "\n" not in str(error.value)


@pytest.mark.parametrize("name", ["tiny_imagenet", "isic2019"])
def test_a_missing_image_is_noticed(name, tmp_path, publisher):
    images = open_set(name, tmp_path)
    (images.root / images.ids[3]).unlink()
    with pytest.raises(InputError, match="damaged or incomplete"):
        open_set(name, tmp_path)


@pytest.mark.parametrize("name", ["tiny_imagenet", "isic2019"])
def test_a_changed_image_changes_the_digest(name, tmp_path, publisher):
    images = open_set(name, tmp_path)
    (images.root / images.ids[3]).write_bytes(b"other")
    assert open_set(name, tmp_path).digest != images.digest


def test_cifar_pixels_labels_and_names(tmp_path, publisher):
    images = open_set("cifar10", tmp_path)
    assert len(images) == 24 and list(images.split) == ["train"] * 20 + ["test"] * 4
    assert images.ids[4] == "train/00000004" and images.ids[-1] == "test/00000003"
    assert images.labels.tolist() == [0, 1, 2, 3] * 6 and images.class_names[3] == "cat" and images.flippable
    stored = published.pixels(1, 4, 3072)[0]  # the second batch; red, green and blue planes
    np.testing.assert_array_equal(images.load(4), stored.reshape(3, 32, 32).transpose(1, 2, 0))


def test_cifar100_has_its_fine_labels(tmp_path, publisher):
    images = open_set("cifar100", tmp_path)
    assert images.class_names == ("apple", "aquarium_fish", "baby") and images.labels.tolist() == [0, 1, 2] * 6


def test_svhn_digits_are_their_classes_and_never_mirrored(tmp_path, publisher):
    images = open_set("svhn", tmp_path)
    assert images.labels.tolist() == [*range(1, 10), 0] * 2 and not images.flippable
    assert publisher.asked == [SVHN.split_list[split][0] for split in ("train", "test")]
    np.testing.assert_array_equal(images.load(12), published.pixels(1, 32, 32, 3, 10)[..., 2])


def test_fashion_mnist_is_gray(tmp_path, publisher):
    images = open_set("fashion_mnist", tmp_path)
    assert len(images) == 20 and images.class_names[9] == "Ankle boot" and images.flippable
    np.testing.assert_array_equal(images.load(3), np.stack([published.pixels(0, 10, 28, 28)[3]] * 3, axis=-1))


def test_tiny_imagenet_layout(tmp_path, publisher):
    images = open_set("tiny_imagenet", tmp_path)
    assert images.class_names == ("goldfish", "crane (n02012849)", "crane (n03126707)")
    found = dict(zip(images.ids, zip(images.split, images.labels, strict=True), strict=True))
    assert len(found) == 15 and list(images.split).count("test") == 3
    assert found["train/n03126707/images/n03126707_2.JPEG"] == ("train", 2)
    assert found["val/images/val_1.JPEG"] == ("test", 0)


def test_isic2019_layout_and_stable_split(tmp_path, publisher):
    images = open_set("isic2019", tmp_path)
    assert images.ids[:2] == ["ISIC_0000000.jpg", "ISIC_0000001_downsampled.jpg"]
    assert images.class_names[:2] == ("MEL", "NV") and images.labels.tolist() == list(range(8)) * 3
    assert list(images.split) == ["test" if in_test_fifth(image_id) else "train" for image_id in images.ids]
    assert 1 <= list(images.split).count("test") <= 10


class Server(BaseHTTPRequestHandler):
    """Serves /whole, and breaks off /short in the middle; /silent never answers."""

    def do_GET(self):
        if self.path == "/silent":
            time.sleep(3)
            return
        self.send_response(200 if self.path in ("/whole", "/short") else 404)
        self.send_header("Content-Length", "1000")
        self.end_headers()
        self.wfile.write(b"x" * (1000 if self.path == "/whole" else 500))

    def log_message(self, *args):
        pass


@pytest.fixture(scope="module")
def address():
    server = HTTPServer(("127.0.0.1", 0), Server)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


def test_retrieve_takes_a_whole_file(address, tmp_path):
    archive = download.Archive(f"{address}/whole", published.md5(b"x" * 1000))
    assert download.fetch(archive, tmp_path / "new", "x").read_bytes() == b"x" * 1000


@pytest.mark.parametrize(
    ("path", "reason"), [("short", "500 of 1000 bytes"), ("gone", "404|Not Found"), ("silent", "timed out")]
)
def test_retrieve_says_what_went_wrong(address, tmp_path, monkeypatch, path, reason):
    monkeypatch.setattr(download, "SILENCE_SECONDS", 0.3)
    with pytest.raises(DataUnavailableError, match=reason):
        download.fetch(download.Archive(f"{address}/{path}", None), tmp_path, "x")
    assert list(tmp_path.iterdir()) == []


def test_naming_data_sets_imports_no_torch():
    code = "import sys; from stages.embed.images import DATASETS; list(DATASETS); print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=REPO, check=True)
    assert done.stdout.strip() == "False"
