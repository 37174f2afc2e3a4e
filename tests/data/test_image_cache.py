"""Images that do not fit into memory come through a file, and are the same."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from ltrobust.data import load_data
from ltrobust.data.base import Images
from ltrobust.data.cache import FOLDER, LIMIT_VARIABLE, ImageCache, memory_limit, read_or_map
from ltrobust.errors import UserError

PIXELS = np.random.default_rng(0).integers(0, 256, (23, 3, 4, 5), dtype=np.uint8)


class Source:
    """Images that count how often they are read, and may fail at one."""

    def __init__(self, fails_at: int = -1, at_once: int = 4) -> None:
        self.reads: list[int] = []
        self.fails_at = fails_at
        self.images = Images(np.arange(23) % 3, self.read, at_once=at_once)

    def read(self, positions: Any) -> Any:
        self.reads += positions.tolist()
        if self.fails_at in positions:
            raise KeyboardInterrupt
        return PIXELS[positions]


@pytest.fixture(autouse=True)
def _no_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(LIMIT_VARIABLE, "0")


def mapped(source: Source, root: Path, name: str = "data") -> Any:
    return read_or_map(source.images, np.arange(22, -1, -1), root, lambda: name)


def files(root: Path) -> list[str]:
    return sorted(path.suffix for path in (root / FOLDER).iterdir())


def test_small_data_stays_in_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv(LIMIT_VARIABLE, "0.001")
    assert np.array_equal(mapped(Source(), tmp_path), PIXELS[::-1])
    assert not list(tmp_path.iterdir())


def test_large_data_is_decoded_once_and_found_again(tmp_path: Path):
    source = Source()
    found = mapped(source, tmp_path)
    assert np.array_equal(found, PIXELS[::-1])
    assert files(tmp_path) == [".json", ".lock", ".u8"]
    again = Source()
    assert torch.equal(mapped(again, tmp_path), found)
    assert again.reads == [22]  # the shape alone
    mapped(Source(), tmp_path, "other data")
    assert files(tmp_path).count(".u8") == 2


def test_a_stopped_build_goes_on_where_it_stood(tmp_path: Path):
    with pytest.raises(KeyboardInterrupt):
        mapped(Source(fails_at=8), tmp_path)
    assert ".u8" not in files(tmp_path)
    source = Source()
    assert np.array_equal(mapped(source, tmp_path), PIXELS[::-1])
    assert source.reads == [22, *range(10, -1, -1)]  # three pieces of four were there


def test_damage_is_noticed_and_built_anew(tmp_path: Path):
    mapped(Source(), tmp_path)
    (path,) = (tmp_path / FOLDER).glob("*.u8")
    content = bytearray(path.read_bytes())
    content[100] ^= 1
    path.write_bytes(content)
    source = Source()
    assert np.array_equal(mapped(source, tmp_path), PIXELS[::-1])
    assert len(source.reads) == 24
    path.write_bytes(content[:-1])
    assert np.array_equal(mapped(Source(), tmp_path), PIXELS[::-1])
    path.with_suffix(".json").write_text(json.dumps({"crc32": [1]}))
    assert np.array_equal(mapped(Source(), tmp_path), PIXELS[::-1])


def test_a_file_that_cannot_be_written_is_told(tmp_path: Path):
    (tmp_path / FOLDER).write_text("in the way")
    with pytest.raises(UserError, match=r"cannot keep .* of decoded images") as caught:
        mapped(Source(), tmp_path)
    assert "\n" not in str(caught.value)


def test_the_limit_is_told_in_gigabytes(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv(LIMIT_VARIABLE, "1.5")
    assert memory_limit() == 1_500_000_000
    for wrong in ("much", "-1", "inf"):
        monkeypatch.setenv(LIMIT_VARIABLE, wrong)
        with pytest.raises(UserError, match="no number of gigabytes"):
            memory_limit()
    monkeypatch.delenv(LIMIT_VARIABLE)
    assert memory_limit() > 100_000_000


def test_a_loaded_split_is_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    for part in ("train", "test"):
        for c, name in enumerate("ab"):
            (tmp_path / "set" / part / name).mkdir(parents=True)
            for i in range(5):
                Image.new("RGB", (9, 8), (100 * c, 9 * i, 0)).save(
                    tmp_path / "set" / part / name / f"{i}.png"
                )
    name = f"folder:{tmp_path / 'set'}"
    through_a_file = load_data(name, data_dir=tmp_path)
    monkeypatch.delenv(LIMIT_VARIABLE)
    in_memory = load_data(name, data_dir=tmp_path)
    assert torch.equal(through_a_file.train_images, in_memory.train_images)
    assert torch.equal(through_a_file.test_images, in_memory.test_images)
    assert files(tmp_path).count(".u8") == 2


def test_a_cache_has_one_form(tmp_path: Path):
    first = ImageCache(tmp_path, "key", (23, 3, 4, 5), 4)
    first.opened(Source().images, np.arange(23))
    source = Source()
    ImageCache(tmp_path, "key", (23, 3, 4, 5), 5).opened(source.images, np.arange(23))
    assert source.reads  # other pieces, other checksums
