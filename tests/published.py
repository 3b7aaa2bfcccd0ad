"""Tiny data sets in the layouts they are published in, served in place of the network."""

import gzip
import hashlib
import io
import pickle
import struct
import tarfile
import zipfile
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import pytest
import scipy.io
from PIL import Image
from torchvision.datasets import CIFAR10, CIFAR100, SVHN, FashionMNIST

from stages.embed.images import download, isic2019, tiny_imagenet

NAMES = ("cifar10", "cifar100", "fashion_mnist", "isic2019", "svhn", "tiny_imagenet")


@dataclass
class Publisher:
    """The network. files : by URL; asked : the URLs that were asked for"""

    files: dict[str, bytes] = field(default_factory=dict)
    asked: list[str] = field(default_factory=list)

    def retrieve(self, url: str, path: Path) -> None:
        self.asked.append(url)
        path.write_bytes(self.files[url])


def publish(monkeypatch: pytest.MonkeyPatch) -> Publisher:
    """Replace the download, and the published checksums by those of the tiny archives."""
    publisher = Publisher()
    monkeypatch.setattr(download, "retrieve", publisher.retrieve)
    for put in (_cifar10, _cifar100, _svhn, _fashion_mnist, _tiny_imagenet, _isic2019):
        put(publisher.files, monkeypatch)
    return publisher


def pixels(seed: int, *shape: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


def md5(content: bytes) -> str:
    return hashlib.md5(content, usedforsecurity=False).hexdigest()


class _OldPickler(pickle.Pickler):
    """Writes dtypes as the NumPy of 2009 did."""

    def reducer_override(self, value):
        return (np.dtype, ("u1", 0, 1), value.__reduce__()[2]) if isinstance(value, np.dtype) else NotImplemented


def _pickled(value: object) -> bytes:
    buffer = io.BytesIO()
    _OldPickler(buffer, protocol=2).dump(value)
    return buffer.getvalue()


def _tar(files: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as tar:
        for name, content in files.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            tar.addfile(entry, io.BytesIO(content))
    return buffer.getvalue()


def _zip(files: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return buffer.getvalue()


def _jpeg(seed: int) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels(seed, 8, 8, 3)).save(buffer, "JPEG")
    return buffer.getvalue()


def _cifar(files, monkeypatch, loader, batches: dict[str, dict], meta: dict) -> None:
    content = {name: _pickled(batch) for name, batch in batches.items()}
    content[loader.meta["filename"]] = _pickled(meta)
    files[loader.url] = _tar({f"{loader.base_folder}/{name}": batch for name, batch in content.items()})
    sums = {name: md5(batch) for name, batch in content.items()}
    monkeypatch.setattr(loader, "tgz_md5", md5(files[loader.url]))
    monkeypatch.setattr(loader, "train_list", [[name, sums[name]] for name, _ in loader.train_list])
    monkeypatch.setattr(loader, "test_list", [[name, sums[name]] for name, _ in loader.test_list])
    monkeypatch.setattr(loader, "meta", {**loader.meta, "md5": sums[loader.meta["filename"]]})


def _cifar10(files, monkeypatch) -> None:
    names = [name for name, _ in CIFAR10.train_list + CIFAR10.test_list]
    batches = {name: {"data": pixels(seed, 4, 3072), "labels": [0, 1, 2, 3]} for seed, name in enumerate(names)}
    _cifar(files, monkeypatch, CIFAR10, batches, {"label_names": ["airplane", "automobile", "bird", "cat"]})


def _cifar100(files, monkeypatch) -> None:
    batches = {
        name: {"data": pixels(seed, 9, 3072), "fine_labels": [0, 1, 2] * 3, "coarse_labels": [0] * 9}
        for seed, name in enumerate(("train", "test"))
    }
    meta = {"fine_label_names": ["apple", "aquarium_fish", "baby"], "coarse_label_names": ["all"]}
    _cifar(files, monkeypatch, CIFAR100, batches, meta)


def _svhn(files, monkeypatch) -> None:
    listed = dict(SVHN.split_list)
    for seed, split in enumerate(("train", "test")):
        buffer = io.BytesIO()
        labels = np.arange(1, 11, dtype=np.uint8)[:, None]  # 10 stands for the digit 0
        scipy.io.savemat(buffer, {"X": pixels(seed, 32, 32, 3, 10), "y": labels})
        url, name, _ = listed[split]
        files[url], listed[split] = buffer.getvalue(), [url, name, md5(buffer.getvalue())]
    monkeypatch.setattr(SVHN, "split_list", listed)


def _fashion_mnist(files, monkeypatch) -> None:
    resources = []
    for seed, (name, _) in enumerate(FashionMNIST.resources):
        values = pixels(seed, 10, 28, 28) if "images" in name else np.arange(10, dtype=np.uint8)
        header = struct.pack(f">I{values.ndim}I", 0x800 + values.ndim, *values.shape)
        content = gzip.compress(header + values.tobytes(), mtime=0)
        files[FashionMNIST.mirrors[0] + name] = content
        resources.append((name, md5(content)))
    monkeypatch.setattr(FashionMNIST, "resources", resources)


def _tiny_imagenet(files, monkeypatch) -> None:
    top, wordnet = "tiny-imagenet-200", ("n03126707", "n01443537", "n02012849")
    words = "n01443537\tgoldfish, Carassius auratus\nn02012849\tcrane\nn03126707\tcrane\nn09999999\tunused\n"
    content = {f"{top}/words.txt": words.encode(), f"{top}/wnids.txt": "\n".join(wordnet).encode()}
    for seed, name in enumerate(wordnet):
        for index in range(4):
            content[f"{top}/train/{name}/images/{name}_{index}.JPEG"] = _jpeg(10 * seed + index)
        content[f"{top}/train/{name}/{name}_boxes.txt"] = b""
        content[f"{top}/val/images/val_{seed}.JPEG"] = _jpeg(100 + seed)
        content[f"{top}/test/images/test_{seed}.JPEG"] = _jpeg(200 + seed)
    annotations = [f"val_{seed}.JPEG\t{name}\t0\t0\t7\t7\n" for seed, name in enumerate(wordnet)]
    content[f"{top}/val/val_annotations.txt"] = "".join(annotations).encode()
    archive = tiny_imagenet.ARCHIVE
    files[archive.url] = _zip(content)
    monkeypatch.setattr(tiny_imagenet, "ARCHIVE", replace(archive, md5=md5(files[archive.url])))
    monkeypatch.setattr(tiny_imagenet, "N_IMAGES", 15)


def _isic2019(files, monkeypatch) -> None:
    ids = [f"ISIC_{index:07d}{'_downsampled' * (index % 2)}" for index in range(24)]
    content = {f"ISIC_2019_Training_Input/{name}.jpg": _jpeg(index) for index, name in enumerate(ids)}
    files[isic2019.IMAGES.url] = _zip({"ISIC_2019_Training_Input/LICENSE.txt": b"CC-BY-NC", **content})
    columns = (*isic2019.CLASSES, "UNK")
    rows = [
        ",".join([name, *(str(float(column == index % 8)) for column in range(9))]) for index, name in enumerate(ids)
    ]
    files[isic2019.LABELS.url] = "\n".join([",".join(["image", *columns]), *rows]).encode()
    monkeypatch.setattr(isic2019, "N_IMAGES", 24)
