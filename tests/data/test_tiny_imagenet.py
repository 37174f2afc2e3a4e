"""Tiny-ImageNet: the official folder (real JPEGs where they are) and the parquet layout."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from official_layouts import jpeg, write_hugging_face, write_tiny

from ltrobust.data import data_fingerprint, load_data
from ltrobust.errors import UserError

IDS = [f"n{number:08d}" for number in (1443537, 1629819, 1641577, 2124075)]
REAL = Path(os.environ.get("LTROBUST_DATA_DIR", "nowhere"))


def load(root: Path, name: str = "tiny-imagenet-lt:4", **settings: Any) -> Any:
    return load_data(name, data_dir=root, **{"imbalance_ratio": 2, **settings})


def refused(root: Path, name: str = "tiny-imagenet-lt:4", **settings: Any) -> str:
    with pytest.raises(UserError) as caught:
        load(root, name, **settings)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_official_numbers_name_the_images(tmp_path: Path):
    write_tiny(tmp_path, IDS, train=6, test=2)
    data = load(tmp_path)
    assert data.class_names == tuple(f"name {one}" for one in IDS)
    assert data.train_counts == (6, 4, 3, 3)
    assert data.image_shape == (3, 64, 64)
    shades = data.train_images[:, 0, 32, 32].long()
    assert (shades - (10 * data.train_labels + data.train_index % 500)).abs().max() <= 1
    assert (data.train_index // 500).tolist() == data.train_labels.tolist()
    assert data.test_index.tolist() == list(range(8))
    assert data.test_labels.tolist() == [(7 * number) % 4 for number in range(8)]


def test_the_first_classes_are_taken_and_size_is_a_setting(tmp_path: Path):
    write_tiny(tmp_path, IDS, train=6, test=2)
    data = load(tmp_path, "tiny-imagenet-lt:2@32")
    assert data.name == "tiny-imagenet-lt:2@32"
    assert data.image_shape == (3, 32, 32)
    assert data.train_counts == (6, 3)
    assert len(data.test_labels) == 4
    assert "has 4 of the 20 classes" in refused(tmp_path, "tiny-imagenet-lt:20")


def test_a_part_is_other_data_than_the_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    folder = write_tiny(tmp_path, IDS, train=6, test=2)
    part = data_fingerprint("tiny-imagenet-lt:4", tmp_path)
    assert len(part) == 64
    (folder / "train" / IDS[0] / "images" / f"{IDS[0]}_5.JPEG").unlink()
    assert data_fingerprint("tiny-imagenet-lt:4", tmp_path) not in ("", part)
    monkeypatch.setattr("ltrobust.data.tiny_imagenet.TINY_CLASSES", 4)
    monkeypatch.setattr("ltrobust.data.tiny_imagenet.PER_CLASS", 5)
    monkeypatch.setattr("ltrobust.data.tiny_imagenet.TEST_IMAGES", 8)
    for one in IDS[1:]:
        (folder / "train" / one / "images" / f"{one}_5.JPEG").unlink()
    assert data_fingerprint("tiny-imagenet-lt:4", tmp_path) == ""
    assert data_fingerprint("tiny-imagenet-lt:4", tmp_path / "nowhere") == ""


def test_bad_files_are_named(tmp_path: Path):
    folder = write_tiny(tmp_path, IDS, train=3, test=2)
    place = folder / "train" / IDS[1] / "images"
    (place / "copy.JPEG").write_bytes(b"")
    assert f"'{place / 'copy.JPEG'}' is not named as" in refused(tmp_path)
    (place / "copy.JPEG").unlink()
    (place / f"{IDS[1]}_0.JPEG").write_bytes(jpeg(1)[:60])
    line = refused(tmp_path, imbalance_ratio=1)
    assert f"cannot read image '{place / f'{IDS[1]}_0.JPEG'}'" in line
    annotations = folder / "val" / "val_annotations.txt"
    text = annotations.read_text()
    annotations.write_text(text.replace("\t", " ", 1))
    assert f"line 1 of '{annotations}'" in refused(tmp_path)
    annotations.write_text(text)
    (folder / "val" / "images" / "val_3.JPEG").unlink()
    assert "val_3.JPEG" in refused(tmp_path)
    (folder / "val" / "images" / "val_3.JPEG").write_bytes(jpeg(10))
    annotations.write_text("".join(line for line in text.splitlines(True) if IDS[2] not in line))
    assert f"class 'name {IDS[2]}' has no test images" in refused(tmp_path)


def test_missing_data_says_what_to_do(tmp_path: Path):
    line = refused(tmp_path)
    for words in ("tiny-imagenet-200/", "--data-dir", "--download does not fetch it"):
        assert words in line


def test_the_parquet_layout_is_data_of_its_own(tmp_path: Path):
    ids = [f"n{number:08d}" for number in range(200)]
    rows = [c for c in range(200) for _ in range(2)]
    images = [jpeg(c % 250, (64, 64), "L" if c % 5 else "RGB") for c in rows]
    root = tmp_path / "tiny-imagenet-200" / "data"
    for part in ("train", "valid"):
        path = root / f"{part}-00000-of-00001-1359597a978bc4fa.parquet"
        write_hugging_face(path, images, rows, names=ids, row_group=100)
    data = load(tmp_path, "tiny-imagenet-lt:20")
    assert data.class_names == tuple(ids[:20])
    assert data.train_counts == (2,) + (1,) * 19
    assert data.test_labels.tolist() == rows[:40]
    assert (data.test_images[:, 0, 0, 0].long() - data.test_labels).abs().max() <= 1
    assert len(data_fingerprint("tiny-imagenet-lt:20", tmp_path)) == 64
    for part in ("train", "valid"):
        path = root / f"{part}-00000-of-00001-1359597a978bc4fa.parquet"
        write_hugging_face(path, images[:398], rows[:398], names=ids[:199], row_group=100)
    assert "has 199 classes" in refused(tmp_path, "tiny-imagenet-lt:20")


@pytest.mark.skipif(not (REAL / "tiny-imagenet-200").is_dir(), reason="no real Tiny-ImageNet")
def test_the_real_part_loads():
    data = load_data("tiny-imagenet-lt:20", data_dir=REAL, imbalance_ratio=10)
    assert data.class_names[:3] == ("goldfish", "European fire salamander", "bullfrog")
    assert data.train_counts[0] == 100
    assert data.train_counts[-1] == 10
    assert len(data.test_labels) == 1000
    assert np.bincount(data.test_labels).tolist() == [50] * 20
    mean = data.test_images.float().mean(dim=(0, 2, 3)) / 255
    assert all(0.3 < value < 0.6 for value in mean.tolist())
