"""Small data sets on disk, in every layout that the package reads."""

from __future__ import annotations

import json
import os
import zlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from data_on_disk import pixels_of, write_shard
from PIL import Image

from ltrobust.data.canonical import CanonicalPart

GOLDEN = Path(__file__).resolve().parents[1] / "golden"


@pytest.fixture(scope="session")
def golden_json() -> Callable[[str], dict[str, Any]]:
    folder = Path(os.environ.get("LTROBUST_GOLDEN_DIR", GOLDEN))
    return lambda name: json.loads((folder / name).read_text())


Publish = Callable[..., None]


@pytest.fixture
def publish(monkeypatch: pytest.MonkeyPatch) -> Publish:
    """A function that puts a small part in the place of what CIFAR's authors published."""
    parts: dict[str, CanonicalPart] = {}
    monkeypatch.setattr("ltrobust.data.cifar.canonical_part", lambda folder, part: parts[part])

    def replace(
        part: str, pixels: np.ndarray, labels: Sequence[int], *, batches: int = 1, step: int = 10
    ) -> None:
        checksums = [zlib.crc32(image.tobytes()) for image in pixels[::step]]
        parts[part] = CanonicalPart(
            np.asarray(labels, np.int64), np.asarray(checksums, np.uint32), batches
        )

    return replace


@pytest.fixture
def parquet_dir(tmp_path: Path, publish: Publish) -> tuple[Path, dict[str, np.ndarray]]:
    """A data directory with CIFAR-10 of 12 training (2 files) and 3 test images a class."""
    folder = tmp_path / "cifar10"
    folder.mkdir()
    train, test = pixels_of(120, 0), pixels_of(30, 1)
    labels = [i % 10 for i in range(120)]
    publish("train", train, labels)
    publish("test", test, labels[:30])
    write_shard(folder / "train-00000-of-00002.parquet", train[:50], labels[:50])
    write_shard(folder / "train-00001-of-00002.parquet", train[50:], labels[50:])
    write_shard(folder / "test-00000-of-00001.parquet", test, labels[:30])
    return tmp_path, {"train": train, "test": test}


@pytest.fixture
def image_folder(tmp_path: Path) -> Path:
    """Classes a, b, c with 6, 4, 3 training and 3, 3, 3 test images of 5x4 pixels."""
    root = tmp_path / "images"
    value = 0
    for part, counts in (("train", (6, 4, 3)), ("test", (3, 3, 3))):
        for name, count in zip("abc", counts, strict=True):
            (root / part / name).mkdir(parents=True)
            for i in range(count):
                value += 1
                image = np.full((4, 5, 3), value, dtype=np.uint8)
                Image.fromarray(image).save(root / part / name / f"{i}.png")
    return root
