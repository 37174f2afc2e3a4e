"""Validation images come from the training set, as balanced as the tail allows."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from ltrobust.data import load_data
from ltrobust.data.cache import LIMIT_VARIABLE
from ltrobust.data.holdout import PER_CLASS, hold_out


def test_held_out_images_are_training_images_and_never_trained_on() -> None:
    whole = load_data("digits-lt")
    parted = hold_out(whole)
    kept, held = set(parted.train_index.tolist()), set(parted.val_index.tolist())
    assert kept | held == set(whole.train_index.tolist())
    assert not kept & held
    assert not held & set(whole.test_index.tolist())
    assert torch.equal(parted.test_images, whole.test_images)


def test_every_class_gives_a_tenth_at_most_and_one_at_least() -> None:
    whole = load_data("digits-lt")
    parted = hold_out(whole)
    held = torch.bincount(parted.val_labels, minlength=10).tolist()
    for count, share in zip(whole.train_counts, held, strict=True):
        assert share == min(PER_CLASS, max(1, count // 10))
    assert parted.train_counts == tuple(
        count - share for count, share in zip(whole.train_counts, held, strict=True)
    )


def test_a_class_of_one_image_keeps_it() -> None:
    tiny = load_data("digits-lt", limit_train=10)
    assert 1 in tiny.train_counts
    parted = hold_out(tiny)
    assert min(parted.train_counts) == 1


def test_another_part_is_trained_on_so_the_split_checksum_differs() -> None:
    whole = load_data("digits-lt")
    assert hold_out(whole).split_sha256 != whole.split_sha256


@pytest.mark.parametrize("memory", ["1", "0"])
def test_held_out_while_loading_it_is_the_same(
    memory: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(LIMIT_VARIABLE, memory)
    loaded = load_data("digits-lt", limit_train=90, data_dir=tmp_path, hold_out=True)
    expected = hold_out(load_data("digits-lt", limit_train=90))
    assert loaded.train_counts == expected.train_counts
    for part in ("train", "val", "test"):
        for what in ("images", "labels", "index"):
            name = f"{part}_{what}"
            assert torch.equal(getattr(loaded, name), getattr(expected, name)), name
