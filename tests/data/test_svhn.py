"""SVHN's MATLAB files, on fixtures in the official layout."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from official_layouts import write_svhn
from scipy.io import savemat
from torchvision.datasets import SVHN

from ltrobust.data import load_data
from ltrobust.data.svhn import MD5
from ltrobust.errors import UserError

LABELS = {
    "train": [1] * 12 + [2] * 9 + [d for d in range(3, 11) for _ in range(4)],
    "test": [d for d in range(1, 11) for _ in range(2)],
}


@pytest.fixture
def svhn(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, np.ndarray]:
    images = write_svhn(tmp_path / "svhn", LABELS)
    take_for_published(tmp_path / "svhn", monkeypatch)
    return images


def take_for_published(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for part in LABELS:
        content = (folder / f"{part}_32x32.mat").read_bytes()
        monkeypatch.setitem(MD5, part, hashlib.md5(content).hexdigest())


def refused(root: Path, **settings: Any) -> str:
    with pytest.raises(UserError) as caught:
        load_data("svhn-lt", data_dir=root, **{"imbalance_ratio": 4, **settings})
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_images_and_digits_are_those_of_torchvision(
    svhn: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    data = load_data("svhn-lt", data_dir=tmp_path, imbalance_ratio="natural")
    split = [["", f"{part}_32x32.mat", MD5[part]] for part in MD5]
    monkeypatch.setattr(SVHN, "split_list", dict(zip(MD5, split, strict=True)))
    for part in ("train", "test"):
        theirs = SVHN(str(tmp_path / "svhn"), part)
        images, labels = (getattr(data, f"{part}_{what}") for what in ("images", "labels"))
        order = data.train_index if part == "train" else data.test_index
        assert np.array_equal(images, theirs.data[order])
        assert np.array_equal(labels, theirs.labels[order])
    assert data.train_counts == (4, 12, 9, 4, 4, 4, 4, 4, 4, 4)


def test_the_largest_class_is_the_head(svhn: Any, tmp_path: Path):
    data = load_data("svhn-lt", data_dir=tmp_path, imbalance_ratio=4)
    assert data.train_counts == (4, 6, 5, 3, 3, 2, 2, 2, 1, 1)


def test_published_checksums_are_those_of_torchvision():
    assert {part: SVHN.split_list[part][2] for part in ("train", "test")} == MD5


@pytest.mark.parametrize("keep", [0, 100, 0.7])
@pytest.mark.parametrize("part", ["train", "test"])
def test_a_truncated_file_is_named(svhn: Any, tmp_path: Path, part: str, keep: float):
    path = tmp_path / "svhn" / f"{part}_32x32.mat"
    content = path.read_bytes()
    path.write_bytes(content[: int(keep * len(content)) if 0 < keep < 1 else int(keep)])
    assert str(path) in refused(tmp_path)


def test_a_missing_part_and_other_files_are_named(svhn: Any, tmp_path: Path):
    path = tmp_path / "svhn" / "test_32x32.mat"
    path.unlink()
    assert f"'{path}' cannot be read" in refused(tmp_path)
    savemat(path, {"X": np.zeros((28, 28, 3, 2), np.uint8), "y": np.ones((2, 1), np.uint8)})
    assert "not uint8 (32, 32, 3, N)" in refused(tmp_path)


def test_other_images_are_refused(svhn: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    # the train file alone would differ in the time that stands in it
    write_svhn(tmp_path / "other", {**LABELS, "test": list(reversed(LABELS["test"]))})
    (tmp_path / "other" / "test_32x32.mat").replace(tmp_path / "svhn" / "test_32x32.mat")
    assert f"not {MD5['test']}" in refused(tmp_path)
    write_svhn(tmp_path / "svhn", {**LABELS, "test": LABELS["test"][:-2]})
    assert "class '0' has no test images" in refused(tmp_path)
    write_svhn(tmp_path / "svhn", {**LABELS, "train": [*LABELS["train"], 11]})
    assert "labels 0 to 11" in refused(tmp_path)


def test_missing_files_say_what_to_do(tmp_path: Path):
    line = refused(tmp_path)
    for words in ("train_32x32.mat", "--data-dir", "--download"):
        assert words in line
