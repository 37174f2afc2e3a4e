"""ImageNet-LT's lists over ImageNet's folders, on fixtures in the official layout."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from official_layouts import write_imagenet_lt

from ltrobust.data import load_data
from ltrobust.data.imagenet_lt import LISTED
from ltrobust.errors import UserError

TRAIN = [*range(1000), *range(40)]
TEST = list(reversed(range(1000)))


@pytest.fixture
def imagenet(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    write_imagenet_lt(tmp_path, TRAIN, TEST)
    monkeypatch.setitem(LISTED, "train", len(TRAIN))
    monkeypatch.setitem(LISTED, "test", len(TEST))
    return tmp_path


def refused(root: Path, **settings: Any) -> str:
    with pytest.raises(UserError) as caught:
        load_data("imagenet-lt@16", data_dir=root, **settings)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_lists_choose_the_images_and_their_order(imagenet: Path):
    data = load_data("imagenet-lt@16", data_dir=imagenet)
    assert data.class_names[:2] == ("tench", "goldfish")
    assert len(set(data.class_names)) == 1000
    assert data.train_counts == (2,) * 40 + (1,) * 960
    assert data.train_labels.tolist() == [TRAIN[i] for i in data.train_index]
    assert data.test_labels.tolist() == TEST
    assert data.image_shape == (3, 16, 16)
    assert (data.train_images.long() - 77).abs().max() <= 1


def test_the_list_must_be_the_published_one(imagenet: Path):
    path = imagenet / "ImageNet_LT" / "ImageNet_LT_test.txt"
    text = path.read_text()
    path.write_text("".join(text.splitlines(True)[:-1]))
    assert "lists 999 images; the published list has 1,000" in refused(imagenet)
    path.write_text(text.replace(" 999\n", " 1000\n"))
    assert f"line 1 of '{path}' is not '<path> <class>' with a class from 0 to 999" in refused(
        imagenet
    )
    path.write_text(text.replace(" 999\n", " 998\n"))
    assert "has no test images" in refused(imagenet)
    path.unlink()
    assert f"list '{path}' cannot be read" in refused(imagenet)


def test_images_that_are_not_there_are_counted(imagenet: Path):
    gone = imagenet / "imagenet" / "val" / "n00000005" / "ILSVRC2012_val_00000994.JPEG"
    gone.unlink()
    line = refused(imagenet)
    assert "1 of the 1,000 images" in line
    assert str(gone) in line
    (imagenet / "imagenet").rename(imagenet / "elsewhere")
    assert "is not below" in refused(imagenet)


def test_missing_data_says_what_to_do(tmp_path: Path):
    line = refused(tmp_path)
    for words in ("ImageNet_LT_train.txt", "--data-dir", "--download does not fetch it"):
        assert words in line
