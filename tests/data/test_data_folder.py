"""A user's own image folder."""

from __future__ import annotations

import os
import shutil
import unicodedata
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from ltrobust.data import data_fingerprint, load_data
from ltrobust.errors import UserError


def load(root: Path, **settings: Any) -> Any:
    return load_data(f"folder:{root}", **settings)


def refused(root: Path) -> str:
    """Load, expect a UserError of one line, return the line."""
    with pytest.raises(UserError) as caught:
        load(root)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_images_stay_as_they_are_in_sorted_order(image_folder: Path):
    data = load(image_folder)
    assert data.class_names == ("a", "b", "c")
    assert data.train_counts == (6, 4, 3)
    assert data.imbalance_ratio == 2
    assert data.image_shape == (3, 4, 5)
    assert data.train_images[:, 0, 0, 0].tolist() == list(range(1, 14))
    assert data.test_images[:, 2, 3, 4].tolist() == list(range(14, 23))
    assert data.train_index.tolist() == list(range(13))
    assert data.test_labels.tolist() == [0, 0, 0, 1, 1, 1, 2, 2, 2]


def test_a_ratio_takes_the_largest_head_that_all_classes_serve(image_folder: Path):
    data = load(image_folder, imbalance_ratio=2)
    assert data.train_counts == (6, 4, 3)
    assert load(image_folder, imbalance_ratio=1).train_counts == (3, 3, 3)
    assert load(image_folder, imbalance_ratio=6).train_counts == (6, 2, 1)
    values = data.train_images[:, 0, 0, 0] - 1
    assert torch.equal(values.long(), data.train_index)


def test_a_ratio_beyond_the_images_is_refused(image_folder: Path):
    with pytest.raises(UserError, match="at most 6"):
        load(image_folder, imbalance_ratio=7)


@pytest.mark.parametrize(
    ("name", "suffix"), [("BMP", ".BMP"), ("JPEG", ".jpeg"), ("WEBP", ".webp")]
)
def test_other_formats_and_grey_images_become_rgb(image_folder: Path, name: str, suffix: str):
    grey = Image.fromarray(np.full((4, 5), 200, dtype=np.uint8))
    grey.save(image_folder / "train" / "a" / f"0{suffix}", name)
    image = load(image_folder).train_images[:2].float().mean(dim=(2, 3))
    assert (image - 200).abs().amax(dim=1).min() < 3


def test_hidden_files_and_other_types_do_not_count(image_folder: Path):
    (image_folder / "train" / ".cache").mkdir()
    (image_folder / "train" / "a" / "._0.png").write_bytes(b"resource fork")
    (image_folder / "train" / "a" / "notes.txt").write_text("mine")
    assert load(image_folder).train_counts == (6, 4, 3)


def test_long_tailed_test_protocol_follows_the_training_counts(image_folder: Path):
    data = load(image_folder, test_protocol="long-tailed")
    assert torch.bincount(data.test_labels).tolist() == [3, 2, 1]
    (image_folder / "train" / "a").rename(image_folder / "train" / "z")
    (image_folder / "test" / "a").rename(image_folder / "test" / "z")
    turned = load(image_folder, test_protocol="long-tailed")
    assert turned.train_counts == (4, 3, 6)
    assert torch.bincount(turned.test_labels).tolist() == [2, 1, 3]


def test_limit_test_takes_what_small_classes_have(image_folder: Path):
    (image_folder / "test" / "a" / "0.png").unlink()
    (image_folder / "test" / "a" / "1.png").unlink()
    data = load(image_folder, limit_test=7)
    assert torch.bincount(data.test_labels).tolist() == [1, 2, 2]


def test_a_missing_folder_is_named(tmp_path: Path):
    assert f"'{tmp_path / 'no'}' does not exist" in refused(tmp_path / "no")


@pytest.mark.parametrize("part", ["train", "test"])
def test_a_missing_part_is_named(image_folder: Path, part: str):
    shutil.rmtree(image_folder / part)
    assert f"'{image_folder / part}' is missing" in refused(image_folder)


@pytest.mark.parametrize(("lacking", "part"), [("test", "test"), ("train", "train")])
def test_different_classes_are_refused(image_folder: Path, lacking: str, part: str):
    shutil.rmtree(image_folder / lacking / "b")
    assert f"'{image_folder / part / 'b'}' is missing" in refused(image_folder)


@pytest.mark.parametrize("part", ["train", "test"])
def test_an_empty_class_is_named(image_folder: Path, part: str):
    for path in (image_folder / part / "c").iterdir():
        path.unlink()
    assert f"'{image_folder / part / 'c'}' has no images" in refused(image_folder)


def test_one_class_is_too_few(image_folder: Path):
    for part in ("train", "test"):
        for name in "bc":
            shutil.rmtree(image_folder / part / name)
    assert "1 class folders; at least 2" in refused(image_folder)


@pytest.mark.parametrize("place", ["train/a/0.png", "train/b/1.png", "test/c/2.png"])
@pytest.mark.parametrize("keep", [0, 40])
def test_an_unreadable_image_is_named(image_folder: Path, place: str, keep: int):
    path = image_folder / place
    path.write_bytes(path.read_bytes()[:keep])
    assert f"cannot read image '{path}'" in refused(image_folder)


@pytest.mark.parametrize("place", ["train/b/1.png", "test/c/2.png"])
def test_an_image_of_another_size_is_named_with_both_sizes(image_folder: Path, place: str):
    Image.new("RGB", (7, 6)).save(image_folder / place)
    line = refused(image_folder)
    assert f"'{image_folder / place}' is 7x6" in line
    assert "5x4" in line


def test_the_fingerprint_knows_names_and_contents_but_not_the_place(image_folder: Path):
    name = f"folder:{image_folder}"
    first = data_fingerprint(name, None)
    moved = image_folder.rename(image_folder.with_name("moved"))
    name = f"folder:{moved}"
    assert data_fingerprint(name, None) == first
    (moved / "train" / "a" / "0.png").rename(moved / "train" / "a" / "00.png")
    renamed = data_fingerprint(name, None)
    Image.effect_noise((5, 4), 9).convert("RGB").save(moved / "train" / "a" / "1.png")
    assert len({first, renamed, data_fingerprint(name, None)}) == 3


def test_the_fingerprint_refuses_what_loading_refuses(tmp_path: Path):
    with pytest.raises(UserError) as caught:
        data_fingerprint(f"folder:{tmp_path / 'no'}", None)
    assert str(caught.value) == refused(tmp_path / "no")


def test_canonical_data_sets_have_no_fingerprint(tmp_path: Path):
    assert data_fingerprint("cifar10-lt", tmp_path) == ""
    assert data_fingerprint("digits-lt", None) == ""


def rename_class(root: Path, old: str, new: str | bytes, *parts: str) -> None:
    for part in parts or ("train", "test"):
        os.rename(root / part / old, os.path.join(os.fsencode(root / part), os.fsencode(new)))


NFC, NFD = (unicodedata.normalize(form, "caf\u00e9") for form in ("NFC", "NFD"))


def test_a_class_is_the_same_in_either_spelling_of_its_accents(image_folder: Path):
    rename_class(image_folder, "b", NFC)
    plain = load(image_folder)
    fingerprint = data_fingerprint(f"folder:{image_folder}")
    rename_class(image_folder, NFC, NFD, "test")
    mixed = load(image_folder)
    assert mixed.class_names == plain.class_names == ("a", "c", NFC)
    assert torch.equal(mixed.test_images, plain.test_images)
    rename_class(image_folder, NFC, NFD, "train")
    assert load(image_folder).class_names == ("a", "c", NFC)
    assert data_fingerprint(f"folder:{image_folder}") == fingerprint


def test_two_spellings_of_a_class_in_one_place_are_refused(image_folder: Path):
    rename_class(image_folder, "b", NFC)
    rename_class(image_folder, "c", NFD)
    assert f"two class folders named '{NFC}'" in refused(image_folder)


@pytest.mark.parametrize("part", ["train", "test"])
def test_a_class_folder_whose_name_is_no_text_is_refused(image_folder: Path, part: str):
    rename_class(image_folder, "b", b"caf\xe9", part)
    line = refused(image_folder)
    assert "caf\\xe9' is not UTF-8; rename the folder" in line
    line.encode()


def test_a_folder_whose_path_is_no_text_is_refused(image_folder: Path):
    name = os.fsencode(image_folder) + b"-\xe9"
    os.rename(image_folder, name)
    assert "-\\xe9' is not UTF-8" in refused(Path(os.fsdecode(name)))
