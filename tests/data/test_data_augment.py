"""Batch augmentation: windows of the padded originals, one draw an image, reproducible."""

from __future__ import annotations

import pytest
import torch

from ltrobust.data import random_crop_flip, to_float


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def distinct(batch: int, height: int = 6, width: int = 5) -> torch.Tensor:
    """Images whose pixels all differ and are nowhere zero, uint8 (B, 2, H, W)."""
    image = torch.arange(1, 2 * height * width + 1, dtype=torch.uint8)
    return image.view(1, 2, height, width).repeat(batch, 1, 1, 1)


def windows(image: torch.Tensor, padding: int) -> dict[bytes, tuple[int, int, bool]]:
    """Every crop of one zero-padded image (C, H, W), plain and mirrored."""
    channels, height, width = image.shape
    padded = torch.zeros((channels, height + 2 * padding, width + 2 * padding), dtype=image.dtype)
    padded[:, padding : padding + height, padding : padding + width] = image
    found = {}
    for y in range(2 * padding + 1):
        for x in range(2 * padding + 1):
            crop = padded[:, y : y + height, x : x + width]
            found[crop.contiguous().numpy().tobytes()] = (y, x, False)
            found[crop.flip(2).contiguous().numpy().tobytes()] = (y, x, True)
    return found


@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32])
def test_each_image_is_a_window_of_its_padded_self(dtype: torch.dtype):
    images = distinct(4000).to(dtype)
    out = random_crop_flip(images, padding=2, flip=True, generator=generator())
    assert (out.dtype, out.shape) == (dtype, images.shape)
    table = windows(images[0], 2)
    draws = [table[image.numpy().tobytes()] for image in out]
    counts = torch.tensor([draws.count(key) for key in table.values()], dtype=torch.float)
    # all 50 outcomes are equally likely: 80 each, standard deviation about 9
    assert len(counts) == 50
    assert (counts - 80).abs().max() < 40


def test_images_keep_their_place_in_the_batch():
    images = torch.arange(1, 9, dtype=torch.uint8).view(8, 1, 1, 1).expand(8, 3, 9, 9)
    out = random_crop_flip(images, padding=4, flip=True, generator=generator())
    for value, image in enumerate(out, start=1):
        assert set(image.unique().tolist()) <= {0, value}
        assert (image == value).sum() >= 3 * 5 * 5


def test_the_generator_decides_everything():
    images = distinct(64)
    first = random_crop_flip(images, padding=4, flip=True, generator=generator(1))
    torch.manual_seed(99)
    again = random_crop_flip(images, padding=4, flip=True, generator=generator(1))
    other = random_crop_flip(images, padding=4, flip=True, generator=generator(2))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_the_global_generator_is_left_alone():
    torch.manual_seed(3)
    expected = torch.rand(1)
    torch.manual_seed(3)
    random_crop_flip(distinct(8), padding=4, flip=True, generator=generator())
    assert torch.equal(torch.rand(1), expected)


def test_without_flip_no_image_is_mirrored():
    images = distinct(500)
    out = random_crop_flip(images, padding=1, flip=False, generator=generator())
    table = windows(images[0], 1)
    assert {table[image.numpy().tobytes()][2] for image in out} == {False}


def test_flip_without_padding_only_mirrors():
    images = distinct(1000)
    out = random_crop_flip(images, padding=0, flip=True, generator=generator())
    mirrored = (out == images.flip(3)).flatten(1).all(dim=1)
    assert torch.equal(out[~mirrored], images[~mirrored])
    assert 400 < int(mirrored.sum()) < 600


def test_no_padding_and_no_flip_change_nothing():
    images = distinct(8)
    out = random_crop_flip(images, padding=0, flip=False, generator=generator())
    assert torch.equal(out, images)


def test_the_input_is_not_written_to():
    images = distinct(8)
    before = images.clone()
    random_crop_flip(images, padding=2, flip=True, generator=generator())
    assert torch.equal(images, before)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_to_float_divides_by_255_in_the_asked_precision(dtype: torch.dtype):
    images = torch.arange(256, dtype=torch.uint8)
    out = to_float(images, dtype)
    assert out.dtype == dtype
    assert torch.equal(out, torch.arange(256, dtype=dtype) / 255)
