"""Image files as they are found in the wild: damaged, huge, of rare kinds, and with awkward names."""

import io
import struct
import time
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from cache.errors import InputError, UnreadableImageError
from stages.embed.config import EmbedConfig
from stages.embed.extract import embed
from stages.embed.images import DATASETS
from stages.embed.images.decoding import decode

ORIENTATION = 0x0112
KINDS = ("JPEG", "PNG", "GIF", "WEBP", "TIFF", "BMP", "PPM")


def encode(image: Image.Image, kind: str, **options) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def noise(seed: int = 0, shape: tuple[int, ...] = (64, 48, 3)) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


def png(width: int, height: int, depth: int, color: int, rows: bytes) -> bytes:
    """A PNG of a kind that Pillow reads but does not write. rows : each with its filter byte"""

    def chunk(name: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))

    header = chunk(b"IHDR", struct.pack(">2I5B", width, height, depth, color, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


def open_folder(root: Path):
    return DATASETS.build(f"folder:{root}").open()


@pytest.mark.parametrize("share", [0, 0.05, 0.3, 0.6, 0.95])
@pytest.mark.parametrize("kind", KINDS)
def test_a_truncated_file_is_one_sentence(kind, share):
    content = encode(Image.fromarray(noise()), kind)
    with pytest.raises(UnreadableImageError) as error:
        decode(content[: int(share * len(content))], "cat/7")
    assert "'cat/7' cannot be read: " in str(error.value) and "\n" not in str(error.value)


@pytest.mark.parametrize("kind", KINDS)
def test_flipped_bytes_never_do_worse_than_an_unreadable_image(kind):
    whole, rng = encode(Image.fromarray(noise()), kind), np.random.default_rng(0)
    for _ in range(60):
        content = bytearray(whole)
        for position in rng.integers(0, min(len(whole), 400), 3):
            content[position] = rng.integers(256)
        try:
            assert decode(bytes(content), "a").shape[2] == 3
        except UnreadableImageError as error:
            assert "\n" not in str(error)


def test_a_photo_of_100_megapixels_is_read():
    content = encode(Image.new("L", (10_000, 10_000), 7), "JPEG")
    decoded = decode(content, "panorama.jpg")
    assert decoded.shape == (10_000, 10_000, 3) and decoded[9_999, 9_999].tolist() == [7, 7, 7]


def test_a_decompression_bomb_is_refused_at_once():
    bomb = png(20_000, 20_000, 1, 0, bytes(2501) * 20_000)
    assert len(bomb) < 100_000
    begun = time.perf_counter()
    with pytest.raises(UnreadableImageError, match=r"400000000 pixels.*bomb"):
        decode(bomb, "bomb.png")
    assert time.perf_counter() - begun < 1


@pytest.mark.parametrize("kind", ["JPEG", "TIFF"])
def test_cmyk_is_converted(kind):
    inks = Image.new("CMYK", (16, 8), (0, 255, 255, 0))  # magenta and yellow on paper are red
    inks.paste((0, 0, 0, 0), (8, 0, 16, 8))
    decoded = decode(encode(inks, kind), "print").astype(int)
    assert abs(decoded[4, 2] - [255, 0, 0]).max() < 8 and abs(decoded[4, 13] - 255).max() < 8


@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
def test_16_bit_gray_is_scaled(kind):
    values = np.array([[0, 255, 256, 32768, 65535]], dtype=np.uint16)
    decoded = decode(encode(Image.fromarray(values), kind), "scan")
    assert decoded[0, :, 0].tolist() == [0, 0, 1, 128, 255] and (decoded == decoded[..., :1]).all()


@pytest.mark.parametrize(("color", "channels"), [(2, 3), (4, 2), (6, 4)])
def test_16_bit_color_and_transparency_are_scaled(color, channels):
    """PNG color types: 2 is RGB, 4 gray with alpha, 6 RGB with alpha."""
    values = np.full((2, 3, channels), 200 * 257, dtype=">u2")
    rows = b"".join(b"\x00" + row.tobytes() for row in values)
    assert (decode(png(3, 2, 16, color, rows), "scan") == 200).all()


@pytest.mark.parametrize("kind", ["GIF", "PNG", "WEBP", "TIFF"])
def test_of_an_animation_the_first_frame_is_taken(kind):
    frames = [Image.new("RGB", (8, 8), color) for color in ((250, 0, 0), (0, 250, 0), (0, 0, 250))]
    options = {"lossless": True} if kind == "WEBP" else {}
    content = encode(frames[0], kind, save_all=True, append_images=frames[1:], **options)
    assert Image.open(io.BytesIO(content)).n_frames == 3
    assert decode(content, "dance").reshape(-1, 3).tolist() == [[250, 0, 0]] * 64


UPRIGHT = {
    1: lambda a: a,
    2: lambda a: a[:, ::-1],
    3: lambda a: a[::-1, ::-1],
    4: lambda a: a[::-1],
    5: lambda a: a.swapaxes(0, 1),
    6: lambda a: np.rot90(a, -1),
    7: lambda a: a[::-1, ::-1].swapaxes(0, 1),
    8: lambda a: np.rot90(a),
}


@pytest.mark.parametrize("orientation", UPRIGHT)
@pytest.mark.parametrize("kind", ["PNG", "TIFF", "WEBP"])
def test_exif_orientation_is_applied(kind, orientation):
    exif, pixels = Image.Exif(), noise(shape=(6, 5, 3))
    exif[ORIENTATION] = orientation
    options = {"lossless": True} if kind == "WEBP" else {}
    decoded = decode(encode(Image.fromarray(pixels), kind, exif=exif, **options), "a")
    np.testing.assert_array_equal(decoded, UPRIGHT[orientation](pixels))


def test_exif_orientation_of_16_bits():
    exif, values = Image.Exif(), (np.arange(6).reshape(2, 3) << 8).astype(np.uint16)
    exif[ORIENTATION] = 6
    decoded = decode(encode(Image.fromarray(values), "PNG", exif=exif), "a")
    assert decoded[..., 0].tolist() == [[3, 0], [4, 1], [5, 2]]


@pytest.mark.parametrize("exif", [b"Exif\0\0junkjunkjunk", b"Exif\0\0", b"Exif\0\0II*\0\x08\0\0\0\xff\xff\x12\x01"])
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
def test_a_damaged_exif_record_is_ignored(kind, exif):
    assert decode(encode(Image.fromarray(noise()), kind, exif=exif), "a").shape == (64, 48, 3)


AWKWARD = ("ü 雪 🐈", "a" * 251, "雪" * 83, "line\nbreak", "-rf", "'\"`$(x)", "100%{d}", " spaces ")


@pytest.mark.parametrize("name", AWKWARD, ids=ascii)
def test_awkward_names_are_read_and_named_in_one_line(tmp_path, name):
    file = tmp_path / name[:80] / f"{name}.png"
    file.parent.mkdir()
    file.write_bytes(encode(Image.fromarray(noise()), "PNG"))
    images = open_folder(tmp_path)
    assert list(images.ids) == [f"{name[:80]}/{name}.png"] and images.class_names == (name[:80],)
    np.testing.assert_array_equal(images.load(0), noise())
    file.write_bytes(b"")
    with pytest.raises(InputError, match="has changed since the work began"):
        images.load(0)
    with pytest.raises(UnreadableImageError) as error:
        open_folder(tmp_path).load(0)
    assert "\n" not in str(error.value)


def test_what_may_pass_is_not_recorded_of_an_image(tmp_path, monkeypatch):
    """Too many open files, a disk that does not answer, no memory: the work stops, and the image is tried again."""
    (tmp_path / "1.png").write_bytes(encode(Image.fromarray(noise()), "PNG"))
    images = open_folder(tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr(Path, "read_bytes", lambda self: (_ for _ in ()).throw(OSError(24, "Too many open files")))
        with pytest.raises(OSError, match="Too many open files"):
            images.load(0)
    monkeypatch.setattr(Image, "open", lambda *_: (_ for _ in ()).throw(MemoryError()))
    with pytest.raises(MemoryError):
        images.load(0)


@pytest.mark.parametrize("size", [(4000, 1), (1, 300)])
def test_a_strip_is_refused_before_it_is_resized(tmp_path, size):
    Image.new("RGB", size).save(tmp_path / "strip.png")
    with pytest.raises(UnreadableImageError, match="'strip.png' cannot be read: it has .* 200 times as long as wide"):
        open_folder(tmp_path).load(0)


def test_links_in_circles_are_not_followed(tmp_path):
    for name in ("cat/1.png", "dog/2.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(encode(Image.fromarray(noise()), "PNG"))
    (tmp_path / "cat/up").symlink_to(tmp_path)
    (tmp_path / "cat/other").symlink_to(tmp_path / "dog")
    (tmp_path / "dog/other").symlink_to(tmp_path / "cat")
    (tmp_path / "dog/self").symlink_to(tmp_path / "dog/self")
    (tmp_path / "dog/self.png").symlink_to("self.png")
    (tmp_path / "ping").symlink_to("pong")
    (tmp_path / "pong").symlink_to("ping")
    images = open_folder(tmp_path)
    assert {"cat/1.png", "dog/2.png", "cat/other/2.png", "dog/other/1.png", "dog/self.png"} <= set(images.ids)
    assert len(images) < 12
    with pytest.raises(UnreadableImageError, match="symbolic links"):
        images.load(list(images.ids).index("dog/self.png"))


def test_faulty_images_are_left_out_and_the_rest_embedded(tmp_path):
    root = tmp_path / "photos"
    root.mkdir()
    sound = encode(Image.fromarray(noise()), "PNG")
    for name, content in {"1": sound, "line\nbreak": sound, "empty": b"", "half": sound[:900], "text": b"hi"}.items():
        (root / f"{name}.png").write_bytes(content)
    (root / "loop.png").symlink_to("loop.png")
    config = EmbedConfig(dataset=f"folder:{root}", weights="random", views=("identity",), data_root=tmp_path / "data")
    with pytest.warns(UserWarning, match="leaves out 4 of 6"):  # the backbone, which looks at the images for their size
        done = embed(config)
    assert done.n_images == 6 and set(done.unreadable) == {"empty.png", "half.png", "text.png", "loop.png"}
