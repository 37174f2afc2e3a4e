"""Local parquet folders in Hugging Face's image layouts."""

from __future__ import annotations

import json
import warnings
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from official_layouts import jpeg, write_hugging_face

from ltrobust.data import data_fingerprint, load_data
from ltrobust.errors import UserError

NAMES = ("ant", "bee", "cow")
LABELS = [0, 1, 2, 0, 1, 0, 0]
IMAGES = [jpeg(20 * i, (16, 16), "RGB" if i % 2 else "L") for i in range(7)]


def write(root: Path, **changes: Any) -> Path:
    """A data set of 7 training images in two files and 7 test images."""
    names = changes.pop("names", NAMES)
    labels = changes.pop("labels", LABELS)
    test = changes.pop("test", "test")
    images = changes.pop("images", IMAGES)
    for number, piece in enumerate((slice(0, 5), slice(5, None))):
        path = root / "data" / f"train-{number:05d}-of-00002.parquet"
        write_hugging_face(path, images[piece], labels[piece], names=names, **changes)
    path = root / "data" / f"{test}-00000-of-00001.parquet"
    write_hugging_face(path, images, labels, names=names, **changes)
    return root


def load(root: Path, ending: str = "", **settings: Any) -> Any:
    with warnings.catch_warnings(action="ignore"):
        return load_data(f"hf:{root}{ending}", **settings)


def refused(root: Path, ending: str = "", **settings: Any) -> str:
    with pytest.raises(UserError) as caught:
        load(root, ending, **settings)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("test", ["test", "validation", "valid", "val"])
def test_columns_names_and_parts_are_found(tmp_path: Path, test: str):
    data = load(write(tmp_path / "set", test=test, image="picture", label="kind"))
    assert data.class_names == NAMES
    assert data.train_counts == (4, 2, 1)
    assert data.image_shape == (3, 16, 16)
    shades = data.train_images[:, 0, 8, 8].long() // 20
    assert (shades - data.train_index).abs().max() <= 1
    assert data.train_labels.tolist() == [LABELS[i] for i in data.train_index]
    assert data.test_labels.tolist() == LABELS
    assert data.path == str((tmp_path / "set").resolve())


def test_names_stand_in_the_card_or_in_the_infos(tmp_path: Path):
    root = write(tmp_path / "set", names=None)
    assert load(root).class_names == ("0", "1", "2")
    features = {"label": {"names": list(NAMES), "_type": "ClassLabel"}, "image": {"_type": "Image"}}
    (root / "dataset_infos.json").write_text(json.dumps({"default": {"features": features}}))
    assert load(root).class_names == NAMES
    card = """---
license: mit
dataset_info:
  features:
  - name: image
    dtype: image
  - name: label
    dtype:
      class_label:
        names:
          '0': ape
          '1': bat
          '2': cat
---
# A card
"""
    (root / "README.md").write_text(card)
    assert load(root).class_names == ("ape", "bat", "cat")


def test_labels_may_be_texts(tmp_path: Path):
    texts = [NAMES[label] for label in LABELS]
    data = load(write(tmp_path / "set", names=None, labels=texts))
    assert data.class_names == NAMES
    assert data.test_labels.tolist() == LABELS
    path = tmp_path / "set" / "data" / "test-00000-of-00001.parquet"
    write_hugging_face(path, IMAGES, [*texts[:-1], "dog"])
    assert "holds 'dog', which is no class of the training images" in refused(tmp_path / "set")


def test_columns_can_be_given(tmp_path: Path):
    root = write(tmp_path / "set", names=None, image="a", label="b")
    line = refused(root)
    assert "does not tell which column holds the labels (it has: a, b)" in line
    assert ":label=COLUMN" in line
    assert load(root, ":label=b").train_counts == (4, 2, 1)
    assert load(root, ":image=a:label=b@8").image_shape == (3, 8, 8)
    assert "has no column 'c' for the labels" in refused(root, ":label=c")
    assert "must hold integers or texts" in refused(root, ":label=a")


def test_mixed_sizes_are_brought_to_one(tmp_path: Path):
    images = [jpeg(100, (16 + 3 * i, 16)) for i in range(7)]
    root = write(tmp_path / "set", images=images)
    line = refused(root)
    assert "x16 pixels but the first of" in line
    assert "@64" in line
    data = load(root, "@8")
    assert data.image_shape == (3, 8, 8)
    assert data.name.endswith("@8")


def test_a_part_without_labels_is_passed_over(tmp_path: Path):
    root = write(tmp_path / "set", test="validation")
    path = root / "data" / "test-00000-of-00001.parquet"
    write_hugging_face(path, IMAGES, [-1] * 7, names=NAMES)
    assert load(root).test_labels.tolist() == LABELS


def test_configurations_are_named(tmp_path: Path):
    write(tmp_path / "set" / "small")
    (tmp_path / "set" / "small" / "data").rename(tmp_path / "set" / "tiny")
    (tmp_path / "set" / "small").rmdir()
    assert load(tmp_path / "set").train_counts == (4, 2, 1)
    write(tmp_path / "set" / "large")
    (tmp_path / "set" / "large" / "data").rename(tmp_path / "set" / "huge")
    assert "several data sets, such as 'huge' and 'tiny'" in refused(tmp_path / "set")
    assert load(tmp_path / "set" / "tiny").train_counts == (4, 2, 1)


def test_bad_files_are_named(tmp_path: Path):
    root = write(tmp_path / "set", images=[*IMAGES[:6], IMAGES[6][:80]])
    line = refused(root)
    assert "cannot read image in row 6 of" in line
    assert "test-00000-of-00001.parquet" in line
    path = root / "data" / "train-00000-of-00002.parquet"
    path.write_bytes(path.read_bytes()[:-20])
    assert str(path) in refused(root)
    assert "does not exist" in refused(tmp_path / "nowhere")
    (tmp_path / "empty").mkdir()
    assert "has no parquet files" in refused(tmp_path / "empty")


def test_classes_and_labels_are_checked(tmp_path: Path):
    assert "labels 0 to 2; expected 0 to 1" in refused(write(tmp_path / "a", names=NAMES[:2]))
    assert "class 'dog' has no training images" in refused(
        write(tmp_path / "b", names=(*NAMES, "dog"))
    )
    assert "has 1 class" in refused(write(tmp_path / "c", names=None, labels=[0] * 7))
    root = write(tmp_path / "d")
    write_hugging_face(
        root / "data" / "test-00000-of-00001.parquet", IMAGES[:2], [0, 1], names=NAMES
    )
    assert "class 'cow' has no test images" in refused(root)
    for path in (root / "data").glob("test*"):
        path.unlink()
    assert "has no test part" in refused(root)


def test_the_fingerprint_knows_content_columns_and_size_but_not_the_place(tmp_path: Path):
    root = write(tmp_path / "set")
    first = data_fingerprint(f"hf:{root}")
    root = root.rename(tmp_path / "moved")
    assert data_fingerprint(f"hf:{root}") == data_fingerprint(f"hf:{root}:label=label") == first
    sized = data_fingerprint(f"hf:{root}@8")
    write(root, labels=[0, 1, 2, 0, 1, 0, 1])
    assert len({first, sized, data_fingerprint(f"hf:{root}")}) == 3


CARDS = (
    "---\ndataset_info: [one, two]\n---\n",
    "---\ndataset_info: {features: 3}\n---\n",
    "---\ndataset_info: {features: [label, {dtype: image}]}\n---\n",
    "---\ndataset_info:\n  features:\n  - name: label\n    dtype: {class_label: 3}\n---\n",
    "---\n[ : \n---\n",
)


@pytest.mark.parametrize("card", CARDS)
def test_a_card_that_says_nothing_is_passed_over(tmp_path: Path, card: str):
    write(tmp_path, names=None)
    (tmp_path / "README.md").write_text(card)
    (tmp_path / "dataset_infos.json").write_text('{"default": 3}')
    assert load(tmp_path).class_names == ("0", "1", "2")


@pytest.mark.parametrize(
    "noted", [{"info": None}, {"info": {"features": {"label": {"_type": "ClassLabel"}}}}, 3]
)
def test_features_without_names_leave_the_numbers(tmp_path: Path, noted: Any):
    write(tmp_path, names=None)
    for path in (tmp_path / "data").iterdir():
        table = pq.read_table(path)
        pq.write_table(table.replace_schema_metadata({"huggingface": json.dumps(noted)}), path)
    assert load(tmp_path).class_names == ("0", "1", "2")


def test_numbers_with_gaps_name_the_one_that_is_missing(tmp_path: Path):
    assert "class '1' has no training images" in refused(
        write(tmp_path, names=None, labels=[0, 2, 5, 0, 2, 0, 5])
    )
