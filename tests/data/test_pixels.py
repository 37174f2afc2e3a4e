"""One image file as 8-bit RGB: what Pillow and torchvision see, and where a person sees more."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image
from torchvision.datasets.folder import default_loader

from ltrobust.data.pixels import open_rgb
from ltrobust.errors import UserError

Array = npt.NDArray[np.uint8]
RNG = np.random.default_rng(0)
COLOURS = RNG.integers(0, 256, (6, 9, 3)).astype(np.uint8)
CLEAR = np.concatenate([COLOURS, RNG.integers(0, 256, (6, 9, 1)).astype(np.uint8)], axis=2)
DEEP = RNG.integers(0, 2**16, (6, 9)).astype(np.uint16)
TURNS = {
    1: lambda x: x,
    2: lambda x: x[:, ::-1],
    3: lambda x: x[::-1, ::-1],
    4: lambda x: x[::-1],
    5: lambda x: x.swapaxes(0, 1),
    6: lambda x: np.rot90(x, -1),
    7: lambda x: x[::-1, ::-1].swapaxes(0, 1),
    8: lambda x: np.rot90(x),
}


def pixels(path: Path) -> Array:
    return np.asarray(open_rgb(path))


def grey(values: npt.NDArray[np.integer]) -> Array:
    return np.repeat(values.astype(np.uint8)[:, :, None], 3, axis=2)


def on_white(colours: Array, alpha: Array) -> Array:
    share = alpha[..., None] / 255
    return np.rint(colours * share + 255 * (1 - share)).astype(np.uint8)


@pytest.mark.parametrize("mode", ["1", "L", "P", "RGB", "CMYK"])
@pytest.mark.parametrize("name", ["x.png", "x.jpg", "x.jfif", "x.bmp", "x.tif", "x.pgm", "x.webp"])
def test_plain_images_are_read_as_torchvision_reads_them(tmp_path: Path, mode: str, name: str):
    path = tmp_path / name
    try:
        Image.fromarray(COLOURS).convert(mode).save(path)
    except OSError:
        pytest.skip(f"Pillow writes no {mode} as {path.suffix}")
    assert np.array_equal(pixels(path), np.asarray(default_loader(str(path))))


@pytest.mark.parametrize(
    ("name", "kind"), [("x.png", "<u2"), ("x.tif", "<u2"), ("x.tif", ">u2"), ("x.pgm", "<u2")]
)
def test_grey_of_16_bits_keeps_its_upper_half(tmp_path: Path, name: str, kind: str):
    Image.fromarray(DEEP.astype(kind)).save(tmp_path / name)
    assert np.array_equal(pixels(tmp_path / name), grey(DEEP >> 8))


def test_grey_of_16_bits_whose_white_is_zero_is_turned_over(tmp_path: Path):
    Image.fromarray(DEEP).save(tmp_path / "x.tif", tiffinfo={262: 0})
    assert np.array_equal(pixels(tmp_path / "x.tif"), grey((65535 - DEEP) >> 8))


def test_32_bit_integers_in_the_range_of_16_bits_are_read_as_such(tmp_path: Path):
    Image.fromarray(DEEP.astype(np.int32)).save(tmp_path / "x.tif")
    assert np.array_equal(pixels(tmp_path / "x.tif"), grey(DEEP >> 8))


@pytest.mark.parametrize("value", [-1, 255, 65536])
def test_32_bit_integers_without_a_known_white_are_refused(tmp_path: Path, value: int):
    Image.fromarray(np.full((4, 5), value, np.int32)).save(tmp_path / "x.tif")
    with pytest.raises(UserError, match=r"x\.tif' holds 32-bit integers.*8 or 16 bits"):
        open_rgb(tmp_path / "x.tif")


def test_floats_are_taken_from_0_to_1(tmp_path: Path):
    floats = np.linspace(0, 1, 54, dtype=np.float32).reshape(6, 9)
    Image.fromarray(floats).save(tmp_path / "x.tif")
    assert np.array_equal(pixels(tmp_path / "x.tif"), grey(np.rint(floats * 255)))


@pytest.mark.parametrize("value", [-0.01, 1.01, 255.0, np.nan])
def test_other_floats_are_refused(tmp_path: Path, value: float):
    floats = np.zeros((4, 5), np.float32)
    floats[1, 1] = value
    Image.fromarray(floats).save(tmp_path / "x.tif")
    with pytest.raises(UserError, match=r"x\.tif' holds floats.*\[0, 1\]"):
        open_rgb(tmp_path / "x.tif")


@pytest.mark.parametrize("name", ["x.png", "x.tif", "x.webp"])
def test_transparency_lies_on_white(tmp_path: Path, name: str):
    lossless = {"lossless": True, "exact": True} if name.endswith("webp") else {}
    Image.fromarray(CLEAR).save(tmp_path / name, **lossless)
    assert np.array_equal(pixels(tmp_path / name), on_white(COLOURS, CLEAR[..., 3]))


def test_grey_with_transparency_lies_on_white(tmp_path: Path):
    Image.fromarray(CLEAR[..., 2:]).save(tmp_path / "x.png")
    assert Image.open(tmp_path / "x.png").mode == "LA"
    assert np.array_equal(pixels(tmp_path / "x.png"), on_white(grey(CLEAR[..., 2]), CLEAR[..., 3]))


@pytest.mark.parametrize("alpha", [3, bytes([0, 128, 255, 7])])
def test_transparent_colours_of_a_palette_show_white(tmp_path: Path, alpha: int | bytes):
    image = Image.fromarray(COLOURS).quantize(4)
    image.save(tmp_path / "x.png", transparency=alpha)
    table = [0 if c == 3 else 255 for c in range(4)] if isinstance(alpha, int) else list(alpha)
    opaque = np.asarray(table, dtype=np.uint8)[np.asarray(image)]
    expected = on_white(np.asarray(image.convert("RGB")), opaque)
    assert np.array_equal(pixels(tmp_path / "x.png"), expected)


@pytest.mark.parametrize("kind", ["RGB", "L", "I;16"])
def test_a_single_transparent_colour_shows_white(tmp_path: Path, kind: str):
    values = {"RGB": COLOURS, "L": COLOURS[..., 0], "I;16": DEEP}[kind]
    clear = values[2, 3]
    chosen = tuple(int(v) for v in clear) if kind == "RGB" else int(clear)
    Image.fromarray(values).save(tmp_path / "x.png", transparency=chosen)
    seen = COLOURS if kind == "RGB" else grey(values >> 8 if kind == "I;16" else values)
    hit = (values == clear).all(axis=-1) if kind == "RGB" else values == clear
    assert np.array_equal(pixels(tmp_path / "x.png"), np.where(hit[..., None], 255, seen))


@pytest.mark.parametrize("orientation", list(TURNS))
@pytest.mark.parametrize("name", ["x.jpg", "x.png", "x.webp", "x.tif", "deep.png", "deep.tif"])
def test_exif_orientation_is_applied(tmp_path: Path, name: str, orientation: int):
    image = Image.fromarray(DEEP if name.startswith("deep") else COLOURS)
    for tag in (1, orientation):
        exif = Image.Exif()
        exif[0x0112] = tag
        extra = {"lossless": True} if name.endswith("webp") else {}
        image.save(tmp_path / f"{tag}{name}", exif=exif, **extra)
    upright = pixels(tmp_path / f"1{name}")
    turned = TURNS[orientation](upright)
    assert np.array_equal(pixels(tmp_path / f"{orientation}{name}"), turned)


@pytest.mark.parametrize("mode", ["L", "RGBA", "CMYK"])
def test_plain_tiffs_are_turned_too(tmp_path: Path, mode: str):
    exif = Image.Exif()
    exif[0x0112] = 6
    image = Image.fromarray(COLOURS).convert(mode)
    image.save(tmp_path / "x.tif", exif=exif)
    assert np.array_equal(
        pixels(tmp_path / "x.tif"), np.rot90(np.asarray(image.convert("RGB")), -1)
    )


def test_unreadable_exif_says_nothing(tmp_path: Path):
    Image.fromarray(COLOURS).save(tmp_path / "x.jpg", exif=b"Exif\0\0garbage!!")
    Image.fromarray(COLOURS).save(tmp_path / "y.jpg")
    assert np.array_equal(pixels(tmp_path / "x.jpg"), pixels(tmp_path / "y.jpg"))


@pytest.mark.parametrize("name", ["x.png", "x.jpg", "x.bmp", "x.tif", "x.ppm", "x.webp"])
@pytest.mark.parametrize("share", [0, 0.02, 0.5, 0.97])
def test_a_file_cut_short_is_named(tmp_path: Path, name: str, share: float):
    noise = np.random.default_rng(1).integers(0, 256, (40, 50, 3)).astype(np.uint8)
    path = tmp_path / name
    Image.fromarray(noise).save(path)
    path.write_bytes(path.read_bytes()[: int(share * path.stat().st_size)])
    with pytest.raises(UserError, match=rf"cannot read image '.*{name}'"):
        open_rgb(path)
