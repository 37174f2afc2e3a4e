"""MedMNIST's npz files, on fixtures in the official layout."""

from __future__ import annotations

import copy
import hashlib
import sys
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from official_layouts import write_medmnist

from ltrobust.bench.loader import Loader
from ltrobust.bench.plan import make_plan
from ltrobust.bench.settings import make_settings
from ltrobust.data import load_data
from ltrobust.data.catalog import medmnist_sets
from ltrobust.errors import UserError

LABELS = {
    "train": [5] * 30 + [4] * 8 + [0, 0, 1, 1, 1, 2, 2, 3, 6, 6],
    "val": [0, 1, 2, 3, 4, 5, 5, 6],
    "test": [0, 1, 2, 3, 4, 5, 5, 6],
}
Publish = Callable[..., Path]


@pytest.fixture
def publish(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Publish:
    """Write a file and put it in the place of what MedMNIST's authors published."""
    sets = copy.deepcopy(medmnist_sets())
    monkeypatch.setattr("ltrobust.data.medmnist.medmnist_sets", lambda: sets)

    def write(name: str = "dermamnist", side: int = 28, **changes: Any) -> Path:
        labels = changes.pop("labels", LABELS)
        path = tmp_path / "medmnist" / (f"{name}.npz" if side == 28 else f"{name}_{side}.npz")
        images = write_medmnist(path, labels, side=side, channels=sets[name]["channels"], **changes)
        sets[name]["images"] = {part: len(known) for part, known in labels.items()}
        sets[name]["md5"][str(side)] = hashlib.md5(path.read_bytes()).hexdigest()
        np.savez(tmp_path / "plain.npz", **images)
        return path

    return write


def load(root: Path, name: str = "dermamnist", **settings: Any) -> Any:
    return load_data(name, data_dir=root, **settings)


def refused(root: Path, name: str = "dermamnist", **settings: Any) -> str:
    with pytest.raises(UserError) as caught:
        load(root, name, **settings)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_the_natural_imbalance_is_kept_in_the_authors_order(publish: Publish, tmp_path: Path):
    publish()
    data = load(tmp_path)
    assert data.name == "medmnist:dermamnist"
    assert data.class_names[5] == "melanocytic nevi"
    assert data.train_counts == (2, 3, 2, 1, 8, 30, 2)
    assert data.image_shape == (3, 28, 28)
    with np.load(tmp_path / "plain.npz") as images:
        expected = images["train"].transpose(0, 3, 1, 2)[data.train_index]
        assert np.array_equal(data.train_images.numpy(), expected)
        assert np.array_equal(data.test_images.numpy(), images["test"].transpose(0, 3, 1, 2))
        assert np.array_equal(data.val_images.numpy(), images["val"].transpose(0, 3, 1, 2))
    assert data.train_labels.tolist() == [LABELS["train"][i] for i in data.train_index]
    assert data.val_labels.tolist() == LABELS["val"]
    assert data.source["files"]["dermamnist.npz"].startswith("md5 ")
    assert load(tmp_path, imbalance_ratio="natural").train_counts == data.train_counts


def test_the_authors_validation_part_judges_and_nothing_is_held_out(
    publish: Publish, tmp_path: Path
):
    publish()
    settings = make_settings({"dataset": "dermamnist", "select": "val", "data_dir": str(tmp_path)})
    plan = make_plan(settings.model_copy(update={"methods": ("pgd-at",), "device": "cpu"}))
    data = Loader(plan)(plan.runs[0])
    assert data.train_counts == load(tmp_path).train_counts
    assert data.val_labels.tolist() == LABELS["val"]


def test_it_can_be_cut_further(publish: Publish, tmp_path: Path):
    publish()
    data = load(tmp_path, imbalance_ratio=6)
    assert data.train_counts == (2, 3, 2, 1, 5, 7, 1)
    assert "at most" in refused(tmp_path, imbalance_ratio=40)


@pytest.mark.parametrize(("name", "side"), [("pneumoniamnist", 28), ("dermamnist", 64)])
def test_grey_sets_and_other_sizes(publish: Publish, tmp_path: Path, name: str, side: int):
    publish(name, side, labels={part: [0, 1, 1] for part in ("train", "val", "test")})
    whole = medmnist_sets()[name]["classes"]
    if len(whole) > 2:
        assert "class 'benign keratosis-like lesions' has no training" in refused(
            tmp_path, f"{name}@{side}"
        )
        return
    data = load(tmp_path, f"medmnist:{name}")
    assert data.image_shape == (1, side, side)
    assert data.train_counts == (1, 2)


def test_pieces_of_a_member_are_put_together(
    publish: Publish, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    publish()
    whole = load(tmp_path, imbalance_ratio=6)
    monkeypatch.setattr("ltrobust.data.medmnist.PIECE", 5000)
    assert np.array_equal(load(tmp_path, imbalance_ratio=6).train_images, whole.train_images)


@pytest.mark.parametrize("keep", [0, 50, 0.5, 0.99])
def test_a_truncated_file_is_named(publish: Publish, tmp_path: Path, keep: float):
    path = publish()
    content = path.read_bytes()
    path.write_bytes(content[: int(keep * len(content)) if 0 < keep < 1 else int(keep)])
    assert f"'{path}' cannot be read" in refused(tmp_path)


def test_damage_inside_is_noticed(publish: Publish, tmp_path: Path):
    path = publish()
    content = bytearray(path.read_bytes())
    content[len(content) // 4] ^= 255
    path.write_bytes(content)
    line = refused(tmp_path)
    assert str(path) in line


def test_another_version_is_refused_with_both_checksums(publish: Publish, tmp_path: Path):
    path = publish()
    published = hashlib.md5(path.read_bytes()).hexdigest()
    write_medmnist(path, LABELS, seed=1)
    line = refused(tmp_path)
    assert published in line
    assert hashlib.md5(path.read_bytes()).hexdigest() in line


def test_labels_and_classes_are_checked(publish: Publish, tmp_path: Path):
    publish(labels={**LABELS, "train": [*LABELS["train"][:-1], 7]})
    assert "labels 0 to 7; expected 0 to 6" in refused(tmp_path)
    publish(labels={**LABELS, "test": LABELS["test"][:-1]})
    assert "class 'vascular lesions' has no test images" in refused(tmp_path)


def test_other_files_are_refused(publish: Publish, tmp_path: Path):
    path = publish()
    np.savez(path, train_images=np.zeros(3, np.uint8))
    assert "has no 'train_labels'" in refused(tmp_path)
    np.savez(path, train_labels=np.zeros((48, 1), object))
    assert "object (48, 1), not uint8" in refused(tmp_path)
    publish()
    labels = {**LABELS, "train": LABELS["train"] * 2}
    write_medmnist(path, labels)
    assert "(96, 1), not uint8 (48, 1)" in refused(tmp_path)


def test_missing_files_say_what_to_do(tmp_path: Path):
    line = refused(tmp_path, "medmnist:bloodmnist@64")
    for words in ("bloodmnist_64.npz", str(tmp_path / "medmnist"), "--data-dir", "--download"):
        assert words in line


def test_download_goes_through_the_package(
    publish: Publish, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    path = publish()
    content = path.read_bytes()
    path.unlink()
    info = types.ModuleType("medmnist.info")
    info.INFO = {"dermamnist": {"url": "https://there/x.npz", "MD5": "abc"}}  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "medmnist", types.ModuleType("medmnist"))
    monkeypatch.setitem(sys.modules, "medmnist.info", info)

    def fetch(url: str, root: str, name: str, md5: str) -> None:
        assert (url, name, md5) == ("https://there/x.npz", "dermamnist.npz", "abc")
        (Path(root) / name).write_bytes(content)

    monkeypatch.setattr("torchvision.datasets.utils.download_url", fetch)
    assert load(tmp_path, download=True).train_counts[5] == 30
    assert [p.name for p in path.parent.iterdir()] == ["dermamnist.npz"]


def test_download_without_the_package_says_how_to_get_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setitem(sys.modules, "medmnist.info", None)
    assert "pip install 'ltrobust[medmnist]'" in refused(tmp_path, download=True)


def test_published_facts_are_those_of_the_package():
    info = pytest.importorskip("medmnist.info").INFO
    for name, facts in medmnist_sets().items():
        theirs = info[name]
        assert facts["classes"] == list(theirs["label"].values())
        assert facts["images"] == theirs["n_samples"]
        assert (facts["channels"], facts["licence"]) == (theirs["n_channels"], theirs["license"])
        for side, md5 in facts["md5"].items():
            assert md5 == theirs["MD5" if side == "28" else f"MD5_{side}"]
