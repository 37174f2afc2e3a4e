"""Decode one image of a user's into 8-bit RGB as a person sees it.

Deep greys are scaled, transparency lies on white, and EXIF orientation is applied. What has no
defined look is refused; images are resized only by `fitted`.
"""

from __future__ import annotations

import struct
import warnings
from pathlib import Path
from typing import BinaryIO

import numpy as np
from PIL import ExifTags, Image, ImageOps

from ltrobust.errors import UserError

# what Pillow's decoders raise on damaged files, besides its own UnidentifiedImageError (an OSError)
DECODE_ERRORS = (
    OSError,
    ValueError,
    SyntaxError,
    EOFError,
    IndexError,
    struct.error,
    Image.DecompressionBombError,
)

TIFF_BITS, TIFF_PHOTOMETRIC, WHITE_IS_ZERO = 258, 262, 0
BACKGROUND = (255, 255, 255, 255)
"""What shows through transparent pixels: white."""


def open_rgb(path: Path) -> Image.Image:
    """Decode a file, see `decode_rgb`.

    Raises:
        UserError: the file cannot be read, or has no defined look in 8 bits.
    """
    what = f"image '{path}'"
    try:
        # from a file object: given a path, Pillow maps plain TIFFs into memory and garbles the
        # turned ones
        with path.open("rb") as file:
            return decode_rgb(file, what)
    except OSError as error:
        raise _unreadable(what, error) from error


def decode_rgb(file: BinaryIO, what: str) -> Image.Image:
    """Decode the first frame of an image as upright 8-bit RGB.

    Greys of more than 8 bits keep their upper 8 bits, as Pillow does with deep colours; float
    greys are taken as [0, 1].

    Args:
        file: the encoded image.
        what: names it in errors, such as "image 'a.png'".

    Raises:
        UserError: it cannot be read, or has no defined look in 8 bits.
    """
    try:
        # what Pillow warns of is metadata; what is wrong with pixels is raised
        with warnings.catch_warnings(action="ignore"), Image.open(file) as image:
            image.load()
            return _upright(_on_white(_eight_bit(image, what)), _orientation(image))
    except UserError:
        raise
    except DECODE_ERRORS as error:
        raise _unreadable(what, error) from error


def fitted(image: Image.Image, size: int | None) -> Image.Image:
    """Cut out the largest square in the middle and resize it to `size` pixels (bilinear).

    None, and images that have this size, stay as they are.
    """
    if size is None or image.size == (size, size):
        return image
    return ImageOps.fit(image, (size, size), Image.Resampling.BILINEAR)


def _unreadable(what: str, error: Exception) -> UserError:
    return UserError(f"cannot read {what} ({type(error).__name__}); replace or remove the file")


def _orientation(image: Image.Image) -> int:
    """Read the EXIF orientation; 1, upright, where there is none that can be read."""
    try:
        return int(image.getexif().get(ExifTags.Base.Orientation, 1))
    except (*DECODE_ERRORS, TypeError):
        return 1


def _upright(pixels: Image.Image, orientation: int) -> Image.Image:
    """Turn pixels as an EXIF orientation says."""
    pixels.info.clear()  # of all metadata only the orientation counts from here on
    pixels.getexif()[ExifTags.Base.Orientation] = orientation
    return ImageOps.exif_transpose(pixels)


def _on_white(image: Image.Image) -> Image.Image:
    """Convert to RGB, with what is transparent over white."""
    if not image.has_transparency_data:
        return image.convert("RGB")
    ground = Image.new("RGBA", image.size, BACKGROUND)
    return Image.alpha_composite(ground, image.convert("RGBA")).convert("RGB")


def _eight_bit(image: Image.Image, what: str) -> Image.Image:
    """Scale a grey image of 16 or 32 bits or of floats to 8 bits; leave any other as it is."""
    if image.mode == "F":
        return Image.fromarray(_from_floats(np.asarray(image), what))
    if not image.mode.startswith("I"):
        return image
    values = np.asarray(image).astype(np.int64)
    if image.mode == "I" and image.format not in ("PNG", "PPM"):  # where "I" stands for 16 bits
        _check_32_bit(values, what)
    tags = getattr(image, "tag_v2", {})
    bits = 12 if tags.get(TIFF_BITS) == (12,) else 16
    if tags.get(TIFF_PHOTOMETRIC) == WHITE_IS_ZERO:
        values = 2**bits - 1 - values
    grey = (values >> (bits - 8)).astype(np.uint8)
    clear = image.info.get("transparency")
    if clear is None:
        return Image.fromarray(grey)
    alpha = np.where(values == clear, 0, 255).astype(np.uint8)
    return Image.merge("LA", [Image.fromarray(grey), Image.fromarray(alpha)])


def _check_32_bit(values: np.ndarray, what: str) -> None:
    """Refuse integers whose white is not clear: only those that need 9 to 16 bits are taken."""
    low, high = int(values.min()), int(values.max())
    if low < 0 or 0 < high < 2**8 or high >= 2**16:
        raise UserError(
            f"{what} holds 32-bit integers from {low} to {high}, of which nothing says "
            "what is white; save it with 8 or 16 bits"
        )


def _from_floats(values: np.ndarray, what: str) -> np.ndarray:
    """Scale floats in [0, 1] to 0 .. 255."""
    low, high = float(values.min()), float(values.max())
    if not (low >= 0 and high <= 1):
        raise UserError(
            f"{what} holds floats from {low:.4g} to {high:.4g}, of which nothing says "
            "what is white; scale them to [0, 1], or save it with 8 or 16 bits"
        )
    return np.rint(values * 255).astype(np.uint8)
