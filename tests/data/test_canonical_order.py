"""CIFAR's files in other orders and parts: put into the authors' order, or refused."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from data_on_disk import pixels_of, write_shard

from ltrobust.data import LongTailedData, load_data
from ltrobust.data.canonical import canonical_part
from ltrobust.data.cifar import cifar_source
from ltrobust.data.layouts import CIFAR10, CIFAR100
from ltrobust.errors import UserError

TRAIN = pixels_of(100, 0)
TEST = pixels_of(20, 1)
LABELS = np.random.default_rng(2).permutation(np.repeat(np.arange(10), 10))
TEST_LABELS = np.repeat(np.arange(10), 2)
HUB_ORDER = np.concatenate([np.arange(20 * b, 20 * b + 20) for b in (3, 2, 1, 4, 0)])
"""Rows of five batches in the order 4, 3, 2, 5, 1."""


@pytest.fixture(autouse=True)
def _published(publish: Callable[..., None]) -> None:
    publish("train", TRAIN, LABELS, batches=5, step=1)
    publish("test", TEST, TEST_LABELS)


def write(
    root: Path,
    train: Sequence[int] | np.ndarray = range(100),
    test: Sequence[int] | np.ndarray = range(20),
    *,
    names: tuple[str, str] = ("train-00000-of-00001", "test-00000-of-00001"),
    indexed: Sequence[str] = (),
    **settings: Any,
) -> None:
    """Write the images at `train` and `test`; those parts in `indexed` say which they are."""
    for part, name, rows in zip(("train", "test"), names, (train, test), strict=True):
        pixels, labels = (TRAIN, LABELS) if part == "train" else (TEST, TEST_LABELS)
        index = list(rows) if part in indexed else None
        path = root / "cifar10" / f"{name}.parquet"
        rows = list(rows)
        write_shard(path, pixels[rows], labels[rows], index=index, **settings)


def load(root: Path) -> LongTailedData:
    return load_data("cifar10-lt", data_dir=root, imbalance_ratio=4)


def refused(root: Path) -> str:
    with pytest.raises(UserError) as caught:
        load(root)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def is_canonical(data: LongTailedData) -> bool:
    """Whether every image and label is the one its index names."""
    train, test = data.train_index.numpy(), data.test_index.numpy()
    return all(
        (
            np.array_equal(data.train_images.numpy(), TRAIN[train]),
            np.array_equal(data.train_labels.numpy(), LABELS[train]),
            np.array_equal(data.test_images.numpy(), TEST[test]),
            np.array_equal(data.test_labels.numpy(), TEST_LABELS[test]),
        )
    )


def test_batches_in_the_hubs_order_give_the_same_split(tmp_path: Path):
    write(tmp_path / "official")
    write(tmp_path / "hub", HUB_ORDER)
    official, hub = load(tmp_path / "official"), load(tmp_path / "hub")
    assert hub.split_sha256 == official.split_sha256
    assert np.array_equal(hub.train_images.numpy(), official.train_images.numpy())
    assert is_canonical(hub)
    assert hub.source["train"]["order"] == "batches 4, 3, 2, 5, 1"
    assert official.source["train"]["order"] == "official"
    digest = hashlib.sha256(LABELS.astype("<i8").tobytes()).hexdigest()
    assert [d.source["train"]["labels_sha256"] for d in (official, hub)] == [digest, digest]


@pytest.mark.parametrize("rows", [np.roll(np.arange(100), 1), np.tile(np.arange(20), 5)])
def test_an_unknown_order_is_refused(tmp_path: Path, rows: np.ndarray):
    write(tmp_path, rows)
    assert "training images in" in refused(tmp_path)
    assert "no known order" in refused(tmp_path)


@pytest.mark.parametrize(("train", "test"), [(80, 20), (100, 19)])
def test_a_part_of_the_images_is_refused(tmp_path: Path, train: int, test: int):
    write(tmp_path, range(train), range(test))
    assert ("80 instead of 100" if train < 100 else "19 instead of 20") in refused(tmp_path)


def test_every_image_twice_is_refused(tmp_path: Path):
    write(tmp_path, np.tile(np.arange(100), 2))
    assert "200 instead of 100" in refused(tmp_path)


def test_images_in_another_order_than_their_labels_are_refused(tmp_path: Path):
    first, second = np.flatnonzero(LABELS == 0)[:2].tolist()
    rows = np.arange(100)
    rows[[first, second]] = second, first
    write(tmp_path, rows)
    assert f"image {first} has other pixels" in refused(tmp_path)


def test_an_index_names_a_part_of_the_test_images(tmp_path: Path):
    write(tmp_path, test=[19, 3, 0, 4, 7], indexed=["test"])
    data = load(tmp_path)
    assert data.test_index.tolist() == [0, 3, 4, 7, 19]
    assert is_canonical(data)
    assert data.source["test"]["images"] == 5
    assert data.source["test"]["order"] == "column index"


def test_an_index_puts_training_images_in_order_but_makes_up_for_none(tmp_path: Path):
    shuffled = np.random.default_rng(5).permutation(100)
    write(tmp_path / "all", shuffled, indexed=["train"])
    assert is_canonical(load(tmp_path / "all"))
    write(tmp_path / "part", shuffled[:90], indexed=["train"])
    assert "90 instead of 100" in refused(tmp_path / "part")


@pytest.mark.parametrize(
    ("index", "words"),
    [
        ([0, 2, 4], "row 1 has label 0, but image 2"),
        ([0, 1, 1], "names an image twice"),
        ([0, 1, 20], "numbers from 0 to 19"),
        ([-1, 0, 1], "numbers from 0 to 19"),
    ],
)
def test_an_index_that_does_not_fit_is_refused(tmp_path: Path, index: list[int], words: str):
    write(tmp_path)
    path = tmp_path / "cifar10" / "test-00000-of-00001.parquet"
    write_shard(path, TEST[:3], TEST_LABELS[[0, 1, 4]], index=index)
    assert words in refused(tmp_path)


@pytest.mark.parametrize(
    ("names", "image_column"),
    [
        (("train-00000-of-00001-2df3faab0e3c1c90", "test-00000-of-00001-9a8b7c6d5e4f3a2b"), "img"),
        (("plain_text/train/0000", "plain_text/test/0000"), "img"),
        (("train/0000", "test/0000"), "image"),
        (("data/train-00000-of-00001", "data/test-00000-of-00001"), "image"),
        (("train", "test"), "img"),
    ],
)
def test_names_and_columns_of_the_hub(tmp_path: Path, names: Any, image_column: str):
    write(tmp_path, HUB_ORDER, names=names, image_column=image_column)
    assert is_canonical(load(tmp_path))
    assert is_canonical(load_data("cifar10-lt", data_dir=tmp_path / "cifar10", imbalance_ratio=4))


SHARDS = [f"train-0000{i}-of-00005-{i}2df3faab0e3c1c9" for i in range(5)]


def write_shards(root: Path, names: Sequence[str]) -> None:
    """Write the test images, and each fifth of the training images under each of its names."""
    write(root)
    (root / "cifar10" / "train-00000-of-00001.parquet").unlink()
    for name in names:
        rows = np.arange(20) + 20 * int(name.split("-")[1])
        write_shard(root / "cifar10" / f"{name}.parquet", TRAIN[rows], LABELS[rows])


def test_shards_with_hashes_are_joined_by_their_numbers(tmp_path: Path):
    write_shards(tmp_path, SHARDS)
    assert is_canonical(load(tmp_path))


@pytest.mark.parametrize(
    ("names", "words"),
    [
        (SHARDS[:2], "2 of the 5 train files"),
        (SHARDS[1:], "4 of the 5 train files"),
        ([*SHARDS, SHARDS[2] + "a"], "more than one set of train files"),
        ([*SHARDS, "train-00000-of-00005"], "more than one set of train files"),
        (["train-0-of-00005", *SHARDS[1:]], "more than one set of train files"),
        ([*SHARDS[:4], "train-00004-of-00006-ab"], "more than one set of train files"),
        (["train-00000-of-00002", "train-00002-of-00002"], "1 of the 2 train files"),
        (["train-0000-copy"], "has not the name of a train file"),
    ],
)
def test_missing_and_surplus_shards_are_named(tmp_path: Path, names: list[str], words: str):
    write_shards(tmp_path, names)
    assert words in refused(tmp_path)


def test_numbered_files_have_no_gap(tmp_path: Path):
    write(tmp_path, names=("train/0001", "test/0000"))
    assert "1 of the 2 train files" in refused(tmp_path)


@pytest.mark.parametrize(("height", "width"), [(1, 1), (1, 32), (32, 1), (64, 64)])
def test_an_image_of_another_size_is_not_stretched(tmp_path: Path, height: int, width: int):
    write(tmp_path)
    images = list(TRAIN)
    images[20] = TRAIN[20][:, :1, :1].repeat(height, 1).repeat(width, 2)
    write_shard(tmp_path / "cifar10" / "train-00000-of-00001.parquet", images, LABELS)
    assert f"row 20 of '{tmp_path}" in refused(tmp_path)
    assert f"is {width}x{height} pixels, not 32x32" in refused(tmp_path)


# --- the true sets ----------------------------------------------------------------------------


def test_stored_labels_are_those_of_the_published_code(golden_json: Callable[[str], Any]):
    labels = canonical_part("cifar10", "train").labels
    digest = hashlib.sha256(labels.astype("<i8").tobytes()).hexdigest()
    assert digest == golden_json("long_tail_indices.json")["train_labels_sha256_int64_le"]
    hub = "0 6 0 2 7 2 1 2 4 1 5 6 6 3 1 3 5 5 8 1"  # the first labels of uoft-cs/cifar10
    assert labels[30000:30020].tolist() == [int(label) for label in hub.split()]


@pytest.mark.parametrize(("folder", "classes"), [("cifar10", 10), ("cifar100", 100)])
@pytest.mark.parametrize(("part", "total"), [("train", 50_000), ("test", 10_000)])
def test_stored_labels_are_balanced(folder: str, classes: int, part: str, total: int):
    stored = canonical_part(folder, part)
    assert np.bincount(stored.labels).tolist() == [total // classes] * classes
    assert len(stored.checksums) == total // 500
    assert stored.batches == (5 if (folder, part) == ("cifar10", "train") else 1)


@pytest.mark.parametrize("layout", [CIFAR10, CIFAR100], ids=lambda layout: layout.folder)
def test_real_files_in_the_hubs_order_are_the_same_set(
    layout: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    root = Path(os.environ.get("LTROBUST_DATA_DIR", ""))
    files = sorted((root / layout.folder).glob("train-*.parquet"))
    if not files:
        pytest.skip("set LTROBUST_DATA_DIR to a folder with the real CIFAR as parquet files")
    monkeypatch.setattr("ltrobust.data.cifar.canonical_part", canonical_part)
    real = cifar_source(layout, root)
    assert real is not None
    assert real.train.order == "official"
    if len(files) != 5:
        return
    (tmp_path / layout.folder).mkdir()
    for number, batch in enumerate((4, 3, 2, 5, 1)):
        name = f"train-0000{number}-of-00005-0{number}.parquet"
        (tmp_path / layout.folder / name).symlink_to(files[batch - 1])
    test = root / layout.folder / "test-00000-of-00001.parquet"
    (tmp_path / layout.folder / test.name).symlink_to(test)
    labels = pq.read_table(files[3], columns=["label"]).column(0).to_numpy()
    hub = cifar_source(layout, tmp_path)
    assert hub is not None
    assert hub.train.order == "batches 4, 3, 2, 5, 1"
    assert np.array_equal(hub.train.labels[30_000:40_000], labels)
    at = np.array([0, 10_001, 49_999])
    assert np.array_equal(hub.train.read(at), real.train.read(at))
