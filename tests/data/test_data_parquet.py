"""CIFAR from Hugging Face parquet files."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from data_on_disk import pixels_of, write_shard

from ltrobust.data import load_data
from ltrobust.errors import UserError

Publish = Callable[..., None]
ParquetDir = tuple[Path, dict[str, np.ndarray]]


def refused(data_dir: Path, name: str = "cifar10-lt", ratio: float = 4) -> str:
    """Load, expect a UserError of one line, return the line."""
    with pytest.raises(UserError) as caught:
        load_data(name, data_dir=data_dir, imbalance_ratio=ratio)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_images_of_all_files_are_found_by_their_index(parquet_dir: ParquetDir):
    root, pixels = parquet_dir
    data = load_data("cifar10-lt", data_dir=root, imbalance_ratio=4)
    assert data.train_counts == (12, 10, 8, 7, 6, 5, 4, 4, 3, 3)
    assert np.array_equal(data.train_images.numpy(), pixels["train"][data.train_index])
    assert np.array_equal(data.train_labels.numpy(), data.train_index.numpy() % 10)
    assert {int(i) // 50 for i in data.train_index} == {0, 1, 2}  # both files took part
    assert np.array_equal(data.test_images.numpy(), pixels["test"])
    assert data.test_index.tolist() == list(range(30))


@pytest.mark.parametrize("place", [".", "cifar10/plain_text"])
def test_other_accepted_folders(parquet_dir: ParquetDir, place: str):
    root, pixels = parquet_dir
    (root / place).mkdir(exist_ok=True)
    for path in list((root / "cifar10").glob("*.parquet")):
        path.rename(root / place / path.name)
    data = load_data("cifar10-lt", data_dir=root, imbalance_ratio=4)
    assert np.array_equal(data.train_images.numpy(), pixels["train"][data.train_index])


def test_the_environment_names_the_data_directory(
    parquet_dir: ParquetDir, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("LTROBUST_DATA_DIR", str(parquet_dir[0]))
    assert len(load_data("cifar10-lt", imbalance_ratio=4).test_labels) == 30


def test_cifar100_reads_its_fine_labels(tmp_path: Path, publish: Publish):
    (tmp_path / "cifar100").mkdir()
    pixels = pixels_of(200, 0)
    for part in ("train", "test"):
        publish(part, pixels, [i % 100 for i in range(200)])
        path = tmp_path / "cifar100" / f"{part}-00000-of-00001.parquet"
        write_shard(path, pixels, [i % 100 for i in range(200)], "fine_label")
    data = load_data("cifar100-lt", data_dir=tmp_path, imbalance_ratio=2)
    assert data.num_classes == 100
    assert data.class_names[99] == "worm"
    assert np.array_equal(data.train_images.numpy(), pixels[data.train_index])


def test_only_the_chosen_images_are_decoded(parquet_dir: ParquetDir):
    root = parquet_dir[0]
    data = load_data("cifar10-lt", data_dir=root, imbalance_ratio=4)
    # every tenth image has a checksum and is looked at too
    unused = next(i for i in range(50) if i % 10 and i not in data.train_index.tolist())
    path = root / "cifar10" / "train-00000-of-00002.parquet"
    rows = pq.read_table(path).to_pylist()
    rows[unused]["img"]["bytes"] = b"no image"
    pq.write_table(pa.Table.from_pylist(rows), path)
    load_data("cifar10-lt", data_dir=root, imbalance_ratio=4)
    used = int(data.train_index[data.train_index < 50][0])
    rows[used]["img"]["bytes"] = b"no image"
    pq.write_table(pa.Table.from_pylist(rows), path)
    assert f"row {used} of '{path}'" in refused(root)


def test_missing_data_names_the_folder_the_layouts_and_the_options(tmp_path: Path):
    line = refused(tmp_path / "nowhere")
    for part in (
        str(tmp_path / "nowhere"),
        "no such folder",
        "cifar-10-batches-py",
        "parquet",
        "--download",
        "--data-dir",
    ):
        assert part in line


@pytest.mark.parametrize("name", ["train-00001-of-00002", "test-00000-of-00001"])
def test_a_truncated_file_is_named(parquet_dir: ParquetDir, name: str):
    path = parquet_dir[0] / "cifar10" / f"{name}.parquet"
    path.write_bytes(path.read_bytes()[:-100])
    assert str(path) in refused(parquet_dir[0])


def test_damage_inside_a_file_is_named(parquet_dir: ParquetDir):
    path = parquet_dir[0] / "cifar10" / "train-00000-of-00002.parquet"
    content = bytearray(path.read_bytes())
    content[1000:9000] = bytes(8000)
    path.write_bytes(content)
    assert str(path) in refused(parquet_dir[0])


def test_a_missing_shard_is_not_passed_over(parquet_dir: ParquetDir):
    (parquet_dir[0] / "cifar10" / "train-00001-of-00002.parquet").unlink()
    assert "1 of the 2 train files" in refused(parquet_dir[0])


def test_a_missing_test_part_is_named(parquet_dir: ParquetDir):
    (parquet_dir[0] / "cifar10" / "test-00000-of-00001.parquet").unlink()
    assert "no test-*.parquet" in refused(parquet_dir[0])


def test_another_data_sets_files_are_refused(parquet_dir: ParquetDir):
    (parquet_dir[0] / "cifar10").rename(parquet_dir[0] / "cifar100")
    assert "no column 'fine_label'" in refused(parquet_dir[0], "cifar100-lt")


def test_labels_beyond_the_classes_are_refused(tmp_path: Path):
    (tmp_path / "cifar10").mkdir()
    for part in ("train", "test"):
        write_shard(tmp_path / "cifar10" / f"{part}.parquet", pixels_of(11, 0), list(range(11)))
    assert "labels 0 to 10" in refused(tmp_path)


def test_a_ratio_beyond_the_images_is_refused(parquet_dir: ParquetDir):
    assert "at most 12" in refused(parquet_dir[0], ratio=13)


def test_a_class_with_too_few_images_is_refused(tmp_path: Path, publish: Publish):
    (tmp_path / "cifar10").mkdir()
    labels = [i % 10 for i in range(40)]
    labels[0] = 9  # class 0 has 3 images, n_max is 40 // 10
    for part in ("train", "test"):
        publish(part, pixels_of(40, 0), labels)
        write_shard(tmp_path / "cifar10" / f"{part}.parquet", pixels_of(40, 0), labels)
    assert "class 0 has 3 training images, but the split takes 4" in refused(tmp_path, ratio=2)
