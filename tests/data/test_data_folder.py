"""A user's own image folder."""

from __future__ import annotations

import os
import shutil
import unicodedata
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.datasets import ImageFolder
from torchvision.datasets.folder import IMG_EXTENSIONS

from ltrobust.data import data_fingerprint, data_label, load_data
from ltrobust.data.listing import SUFFIXES, scan_folder
from ltrobust.errors import DataWarning, UserError


def load(root: Path, **settings: Any) -> Any:
    """Load, and look whether every note was said aloud."""
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        data = load_data(f"folder:{root}", **settings)
    heard = [str(one.message) for one in said if one.category is DataWarning]
    assert heard == list(data.notes)
    assert all("\n" not in note for note in heard)
    return data


def make_folder(root: Path, train: Mapping[str, int], test: Mapping[str, int]) -> Path:
    """An image folder of one grey a class, with these numbers of images."""
    for part, counts in (("train", train), ("test", test)):
        for c, (name, count) in enumerate(counts.items()):
            (root / part / name).mkdir(parents=True)
            image = Image.fromarray(np.full((2, 2), c, dtype=np.uint8))
            for i in range(count):
                image.save(root / part / name / f"{i:04d}.png")
    return root


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


def test_what_is_left_out_is_counted_aloud(image_folder: Path):
    (image_folder / "train" / ".cache").mkdir()
    (image_folder / "train" / "__MACOSX").mkdir()
    (image_folder / "train" / "a" / "._0.png").write_bytes(b"resource fork")
    (image_folder / "train" / "a" / "notes.txt").write_text("mine")
    (image_folder / "test" / "c" / "x.GIF").write_bytes(b"GIF89a")
    (image_folder / "test" / "c" / "y.gif").write_bytes(b"GIF89a")
    (image_folder / "train" / "loose.png").write_bytes(b"")
    (image_folder / "train" / "b" / "gone.png").symlink_to("/nowhere/x.png")
    (image_folder / "train" / "b" / "b").symlink_to("..")
    (image_folder / "val").mkdir()
    data = load(image_folder)
    assert data.train_counts == (6, 4, 3)
    (line,) = data.notes
    assert "3 hidden files or folders (such as train/.cache)" in line
    assert "3 files of other kinds (2 .gif, 1 .txt; such as train/a/notes.txt)" in line
    assert "1 file outside class folders (train/loose.png)" in line
    assert "1 dead link (train/b/gone.png)" in line
    assert "1 link in a circle (train/b/b)" in line
    assert "1 folder beside train and test (val)" in line


def test_a_whole_folder_has_nothing_to_say(image_folder: Path):
    assert load(image_folder).notes == ()


def test_odd_names_stay_in_one_line(image_folder: Path):
    place = os.fsencode(image_folder / "train" / "a")
    Path(os.fsdecode(place + b"/caf\xe9\n.txt")).write_text("mine")
    (line,) = load(image_folder).notes
    line.encode()
    assert "caf\\xe9?.txt" in line


def test_endings_are_those_of_torchvision_and_jfif():
    assert set(SUFFIXES) == {*IMG_EXTENSIONS, ".jfif"}


def test_files_and_their_order_are_those_of_torchvision(image_folder: Path, tmp_path: Path):
    a = image_folder / "train" / "a"
    (a / "deep" / "er").mkdir(parents=True)
    (a / "0.png").rename(a / "deep" / "0.PNG")
    (a / "1.png").rename(a / "deep" / "er" / "1.png")
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (a / "2.png").rename(elsewhere / "2.png")
    (a / "a link").symlink_to(elsewhere)
    (image_folder / "train" / "b" / "5.png").symlink_to(a / "3.png")
    for c, ending in enumerate(SUFFIXES):
        Image.new("RGB", (5, 4)).save(image_folder / "train" / "c" / f"{c}x{ending.upper()}")
    for part in ("train", "test"):
        theirs = ImageFolder(str(image_folder / part), is_valid_file=lambda name: "." in name)
        ours = getattr(scan_folder(image_folder), part)
        found = [(str(path), c) for c, paths in enumerate(ours) for path in paths]
        assert found == theirs.samples
    data = load(image_folder)
    assert data.train_counts == (6, 5, 13)


def test_pixels_are_those_of_torchvision(image_folder: Path):
    for part in ("train", "test"):
        theirs = [np.asarray(image) for image, _ in ImageFolder(str(image_folder / part))]
        ours = getattr(load(image_folder), f"{part}_images").permute(0, 2, 3, 1).numpy()
        assert np.array_equal(ours, np.stack(theirs))


# counts -----------------------------------------------------------------------------------------

DERMA = {"akiec": 23, "bcc": 36, "bkl": 77, "df": 8, "mel": 78, "nv": 469, "vasc": 10}
DERMA_TEST = {"akiec": 7, "bcc": 10, "bkl": 22, "df": 2, "mel": 22, "nv": 134, "vasc": 3}


@pytest.fixture(scope="module")
def derma(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Class sizes of a tenth of DermaMNIST: long-tailed in train and in test."""
    return make_folder(tmp_path_factory.mktemp("derma") / "derma", DERMA, DERMA_TEST)


def test_the_largest_class_is_the_head(tmp_path: Path):
    few = {"abnormal": 4, "normal": 4}
    root = make_folder(tmp_path / "rare-first", {"abnormal": 10, "normal": 400}, few)
    data = load(root, imbalance_ratio=10)
    assert data.train_counts == (10, 109)
    assert data.notes == (
        "the training set keeps 119 of 410 images (largest and smallest class: 109 of 'normal', "
        "10 of 'abnormal')",
    )
    assert load(root, imbalance_ratio=40).train_counts == (10, 400)
    assert load(root, imbalance_ratio=40).notes == ()


@pytest.mark.parametrize("kind", ["exp", "step"])
def test_classes_are_ranked_by_size_and_the_most_images_stay(derma: Path, kind: Any):
    data = load(derma, imbalance_ratio=10, imbalance_type=kind)
    expected = {
        "exp": {"nv": 74, "mel": 50, "bkl": 34, "bcc": 23, "akiec": 15, "vasc": 10, "df": 7},
        "step": {"nv": 77, "mel": 77, "bkl": 77, "bcc": 7, "akiec": 7, "vasc": 7, "df": 7},
    }[kind]
    assert dict(zip(data.class_names, data.train_counts, strict=True)) == expected
    assert f"keeps {sum(expected.values())} of 701 images" in data.notes[0]


def test_equal_classes_keep_their_order(tmp_path: Path):
    root = make_folder(tmp_path / "equal", {"a": 8, "b": 8, "c": 8}, {"a": 1, "b": 1, "c": 1})
    assert load(root, imbalance_ratio=4).train_counts == (8, 4, 2)


def test_a_ratio_that_cannot_be_met_names_one_that_can(derma: Path):
    with pytest.raises(UserError, match=r"imbalance ratio 1000 .* at most (\d+)$") as caught:
        load(derma, imbalance_ratio=1000)
    most = int(str(caught.value).rsplit(" ", 1)[1])
    assert load(derma, imbalance_ratio=most).imbalance_ratio == most
    with pytest.raises(UserError, match="at most"):
        load(derma, imbalance_ratio=most + 1)


def test_a_ratio_that_leaves_next_to_nothing_is_refused(tmp_path: Path):
    root = make_folder(tmp_path / "x", {"a": 2, "b": 120}, {"a": 1, "b": 1})
    with pytest.raises(UserError, match=r"would keep 4 of 122 training images.*larger ratio"):
        load(root, imbalance_ratio=1)
    assert load(root, imbalance_ratio=3).train_counts == (2, 8)


def test_a_long_tailed_test_set_stays_nearly_as_it_came(derma: Path):
    data = load(derma, test_protocol="long-tailed")
    assert torch.bincount(data.test_labels).tolist() == [6, 10, 22, 2, 22, 134, 2]
    assert "the long-tailed test set keeps 198 of 200 images" in data.notes[0]
    assert len(load(derma).test_labels) == 200


def test_a_balanced_test_set_is_cut_in_the_proportions_of_the_training_set(tmp_path: Path):
    root = make_folder(tmp_path / "x", {"a": 10, "b": 100, "c": 40}, {"a": 50, "b": 50, "c": 50})
    data = load(root, test_protocol="long-tailed")
    assert torch.bincount(data.test_labels).tolist() == [5, 50, 20]
    kept = load(root, test_protocol="long-tailed", imbalance_ratio=4)
    assert kept.train_counts == (10, 43, 21)
    assert torch.bincount(kept.test_labels).tolist() == [11, 50, 24]
    limited = load(root, test_protocol="long-tailed", limit_train=15, limit_test=15)
    assert torch.bincount(limited.test_labels).tolist() == [1, 10, 4]


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


def test_the_fingerprint_knows_class_names(image_folder: Path):
    first = data_fingerprint(f"folder:{image_folder}")
    for part in ("train", "test"):
        (image_folder / part / "a").rename(image_folder / part / "A")
    assert data_fingerprint(f"folder:{image_folder}") != first


def test_what_is_not_read_does_not_count_in_the_fingerprint(image_folder: Path):
    first = data_fingerprint(f"folder:{image_folder}")
    (image_folder / "train" / "a" / "notes.txt").write_text("mine")
    assert data_fingerprint(f"folder:{image_folder}") == first


def test_label_and_path_do_not_depend_on_the_spelling(
    image_folder: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.chdir(image_folder.parent)
    monkeypatch.setenv("HOME", str(image_folder.parent))
    Path("link").symlink_to("images")
    for spelled in ("images", "images/", "./images/../images", "~/images", "link", image_folder):
        assert data_label(f"folder:{spelled}") == "folder:images"
        assert load(Path(spelled)).path == str(image_folder.resolve())


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


def test_photographs_of_any_size_and_mode_are_brought_to_one(image_folder: Path):
    place = image_folder / "train" / "a" / "deep"
    place.mkdir()
    Image.new("L", (40, 30), 200).save(place / "grey.JPG")
    Image.new("CMYK", (30, 50)).save(place / "print.JPEG")
    Image.new("LA", (9, 9), (0, 0)).save(place / "clear.PNG")
    turned = Image.new("RGB", (32, 16), (255, 0, 0))
    turned.paste((0, 0, 255), (0, 0, 8, 16))
    exif = turned.getexif()
    exif[0x0112] = 6
    turned.save(place / "turned.jpg", exif=exif, quality=95)
    assert "resize all images to one size, or let it be done: @64" in refused(image_folder)
    data = load_sized(image_folder, 8)
    assert data.image_shape == (3, 8, 8)
    assert data.train_counts == (10, 4, 3)
    assert data.name == f"folder:{image_folder}@8"
    assert data_label(data.name) == "folder:images@8"
    red, blue = data.train_images[9, 0], data.train_images[9, 2]
    assert red.float().mean() > 200  # the middle square of the upright image has little blue
    assert blue[0].float().mean() < 60


def load_sized(root: Path, size: int) -> Any:
    with warnings.catch_warnings(action="ignore"):
        return load_data(f"folder:{root}@{size}")


def test_the_largest_square_in_the_middle_is_resized(image_folder: Path):
    wide = Image.new("RGB", (30, 10), (255, 0, 0))
    wide.paste((0, 255, 0), (10, 0, 20, 10))
    wide.save(image_folder / "train" / "a" / "0.png")
    data = load_sized(image_folder, 10)
    assert data.train_images[0, 1].min() == 255
    assert data.train_images[0, 0].max() == 0


def test_the_fingerprint_knows_the_size(image_folder: Path):
    names = [f"folder:{image_folder}{ending}" for ending in ("", "@8", "@16")]
    assert len({data_fingerprint(name) for name in names}) == 3
