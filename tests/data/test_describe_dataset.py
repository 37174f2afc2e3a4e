"""What `datasets show` tells."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from ltrobust.data import DATASETS, data_fingerprint, load_data, outline_data
from ltrobust.data.describe import describe_dataset, lines_of
from ltrobust.errors import UserError


def test_a_split_is_told_with_its_checksums():
    data = load_data("digits-lt", imbalance_ratio=4)
    text = "\n".join(lines_of(describe_dataset("digits-lt", imbalance_ratio=4)))
    for words in (
        data.split_sha256,
        data.source["train"]["labels_sha256"],
        "CC BY 4.0",
        "(ratio 4)",
    ):
        assert words in text


@pytest.mark.parametrize("name", DATASETS.names()[1:])
def test_files_that_are_not_there_leave_the_terms(name: str, tmp_path: Path):
    facts = describe_dataset(name, tmp_path)
    text = "\n".join(lines_of(facts))
    about = DATASETS.get(name).about
    for words in (about.citation, about.licence, about.checksum, about.defaults, about.tried_on):
        assert words in text
    assert "not read: no " in text
    assert all("\n" not in line for line in lines_of(facts))
    json.dumps(facts)


def test_users_folders_are_told_with_what_is_left_out(image_folder: Path):
    (image_folder / "train" / "notes.txt").write_text("mine")
    text = "\n".join(lines_of(describe_dataset(f"folder:{image_folder}")))
    assert "classes (3): a, b, c" in text
    assert "left out of the image folder" in text
    assert data_fingerprint(f"folder:{image_folder}") in text
    with pytest.raises(UserError):
        describe_dataset("nothing")


def test_an_outline_reads_one_image_of_each_part(image_folder: Path):
    for path in sorted(image_folder.glob("*/*/*.png"))[1:]:
        if path.name != "0.png" or path.parent.name != "a":
            path.write_bytes(b"no image")
    whole = outline_data(f"folder:{image_folder}")
    assert whole.train_counts == (6, 4, 3)
    assert whole.image_shape == (3, 4, 5)
    assert len(whole.train_images) == 13
