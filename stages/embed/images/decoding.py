"""From the bytes of an image file to an RGB array, by Pillow. A damaged file becomes one clear sentence."""

import io
import logging
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
from jaxtyping import UInt8
from PIL import Image, ImageOps

from cache.errors import UnreadableImageError

LONGEST_STRIP = 200
logging.getLogger("PIL").addHandler(logging.NullHandler())


def decode(content: bytes, image_id: str) -> UInt8[np.ndarray, "height width 3"]:
    """Decode an image file as a person would see it.

    Of an animation or a file of several pages the first; turned and mirrored as its EXIF record says, which is ignored
    where it is damaged; CMYK and palettes converted, color profiles ignored; transparency dropped; 16 bits scaled to 8.
    Up to 178,956,970 pixels (Pillow's limit: cameras of 150 megapixels are read, decompression bombs are not).

    Raises UnreadableImageError, naming the image and the reason: empty, truncated, too large, 200 times as
    long as wide, 32-bit pixels, no image.
    """
    if not content:
        raise UnreadableImageError(f"image {image_id!r} cannot be read: it is empty (0 bytes)")
    try:
        with _pillow_silenced(), Image.open(io.BytesIO(content)) as image:
            _refuse_strip(image)
            return np.array(_to_rgb(_upright(image)))
    except MemoryError:  # says nothing of the image
        raise
    except Image.UnidentifiedImageError as error:
        raise UnreadableImageError(
            f"image {image_id!r} cannot be read: it is not an image of a known format"
        ) from error
    except Exception as error:  # decoders meet hostile bytes here: Pillow raises about ten unrelated types
        reason = " ".join(str(error).split()) or type(error).__name__
        raise UnreadableImageError(f"image {image_id!r} cannot be read: {reason}") from error


def _refuse_strip(image: Image.Image) -> None:
    """Resizing the shorter side of a strip to a network's input would take gigabytes."""
    if max(image.size) > LONGEST_STRIP * min(image.size):
        raise ValueError(f"it has {image.width}x{image.height} pixels, more than {LONGEST_STRIP} times as long as wide")


def _upright(image: Image.Image) -> Image.Image:
    image.load()  # a damaged image is an error, a damaged EXIF record is not
    try:
        return ImageOps.exif_transpose(image)
    except Exception:  # reading hostile bytes again: SyntaxError, struct.error, ...
        return image


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I;16"):  # Pillow's own conversion would clip at 255 instead of scaling
        return Image.fromarray((np.asarray(image) >> 8).astype(np.uint8)).convert("RGB")
    if image.mode in ("I", "F"):
        raise ValueError("it has 32-bit pixels; save it with 8 or 16 bits")
    return image.convert("RGB")


_silence_lock = threading.Lock()
_silent_decoders = 0
_silence = warnings.catch_warnings()


@contextmanager
def _pillow_silenced() -> Iterator[None]:
    """Ignore Pillow's warnings. Nested use by several threads is safe, which `warnings.catch_warnings` alone is not."""
    global _silent_decoders, _silence
    with _silence_lock:
        if _silent_decoders == 0:
            _silence = warnings.catch_warnings()
            _silence.__enter__()
            warnings.filterwarnings("ignore", module=r"PIL\.")
        _silent_decoders += 1
    try:
        yield
    finally:
        with _silence_lock:
            _silent_decoders -= 1
            if _silent_decoders == 0:
                _silence.__exit__(None, None, None)
