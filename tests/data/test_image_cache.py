"""Images that do not fit into memory come through a file, and are the same."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import signal
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from official_layouts import jpeg, write_tiny
from PIL import Image

from ltrobust.data import load_data
from ltrobust.data.base import Images
from ltrobust.data.cache import (
    FOLDER,
    FOLDER_VARIABLE,
    LIMIT_VARIABLE,
    LOOKED_AT,
    ImageCache,
    memory_limit,
    read_or_map,
)
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


def test_damage_anywhere_is_noticed_once_the_file_was_written_to(tmp_path: Path):
    pixels = np.repeat(PIXELS, 4, axis=0)
    positions = np.arange(len(pixels))

    def found() -> Any:
        images = Images(positions % 3, pixels.__getitem__, at_once=4)
        return read_or_map(images, positions, tmp_path, lambda: "data")

    found()
    (path,) = (tmp_path / FOLDER).glob("*.u8")
    content = path.read_bytes()
    looked_at = set(np.linspace(0, 22, LOOKED_AT).astype(int).tolist())
    for piece in [piece for piece in range(23) if piece not in looked_at][:3]:
        damaged = bytearray(content)
        damaged[4 * 60 * piece] ^= 1
        path.write_bytes(damaged)
        os.utime(path, ns=(piece, piece))
        assert np.array_equal(found(), pixels)


@pytest.mark.parametrize("notes", ["", "[]", "{}", '{"shape": [23, 3, 4, 5, 4]}', "\xff"])
def test_notes_that_say_nothing_are_made_anew(tmp_path: Path, notes: str):
    mapped(Source(), tmp_path)
    (path,) = (tmp_path / FOLDER).glob("*.json")
    path.write_text(notes, encoding="latin-1")
    assert np.array_equal(mapped(Source(), tmp_path), PIXELS[::-1])


def test_a_killed_build_goes_on_to_equal_bytes(tmp_path: Path):
    class Deadly(Source):
        def read(self, positions: Any) -> Any:
            if 8 in positions:
                os.kill(os.getpid(), signal.SIGKILL)
            return super().read(positions)

    child = os.fork()
    if child == 0:
        with contextlib.suppress(BaseException):
            mapped(Deadly(), tmp_path)
        os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL
    assert files(tmp_path) == [".json", ".lock", ".part"]
    (part,) = (tmp_path / FOLDER).glob("*.part")
    content = bytearray(part.read_bytes())
    content[300] ^= 1  # in the second piece of four
    part.write_bytes(content)
    source = Source()
    assert np.array_equal(mapped(source, tmp_path), PIXELS[::-1])
    assert source.reads == [22, *range(18, -1, -1)]
    (file,) = (tmp_path / FOLDER).glob("*.u8")
    assert file.read_bytes() == PIXELS[::-1].tobytes()


def test_two_at_once_build_once(tmp_path: Path):
    both = threading.Barrier(2)
    sources = [Source(), Source()]

    def build(source: Source) -> Any:
        both.wait()
        return mapped(source, tmp_path)

    with ThreadPoolExecutor(2) as pool:
        found = list(pool.map(build, sources))
    assert all(np.array_equal(one, PIXELS[::-1]) for one in found)
    assert sorted(len(source.reads) for source in sources) == [1, 24]


def test_a_damaged_image_leaves_nothing(tmp_path: Path):
    class Damaged(Source):
        def read(self, positions: Any) -> Any:
            if 8 in positions:
                raise UserError("cannot read it")
            return super().read(positions)

    with pytest.raises(UserError, match="cannot read it"):
        mapped(Damaged(), tmp_path)
    assert files(tmp_path) == [".lock"]


def test_a_full_disk_is_told_before_anything_is_decoded_and_left_as_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    with monkeypatch.context() as patch:
        patch.setattr("shutil.disk_usage", lambda path: SimpleNamespace(free=1379))
        source = Source()
        with pytest.raises(UserError, match=r"not enough space.*LTROBUST_CACHE_DIR"):
            mapped(source, tmp_path)
    assert source.reads == [22]
    assert files(tmp_path) == [".lock"]
    flushed = []

    def full(number: int) -> None:
        flushed.append(number)
        if len(flushed) == 3:
            raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(UserError, match="No space left on device"):
        mapped(Source(), tmp_path)
    assert files(tmp_path) == [".lock"]


def test_where_data_may_only_be_read_a_file_is_found_or_goes_elsewhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    mapped(Source(), tmp_path)
    make = Path.mkdir

    def refuse(path: Path, **how: Any) -> None:
        if FOLDER in path.parts:
            raise OSError(errno.EROFS, "Read-only file system")
        make(path, **how)

    monkeypatch.setattr(Path, "mkdir", refuse)
    monkeypatch.setattr("fcntl.flock", refuse)
    assert np.array_equal(mapped(Source(), tmp_path), PIXELS[::-1])
    with pytest.raises(UserError, match=r"Read-only file system.*LTROBUST_CACHE_DIR"):
        mapped(Source(), tmp_path, "other data")
    monkeypatch.undo()
    monkeypatch.setenv(LIMIT_VARIABLE, "0")
    monkeypatch.setenv(FOLDER_VARIABLE, str(tmp_path / "elsewhere"))
    mapped(Source(), tmp_path, "other data")
    assert len(list((tmp_path / "elsewhere").glob("*.u8"))) == 1


def test_data_that_changed_since_is_read_anew(tmp_path: Path):
    folder = write_tiny(tmp_path, ["n01443537", "n01629819"], train=3, test=1)

    def shades() -> Any:
        data = load_data("tiny-imagenet-lt:2", data_dir=tmp_path, imbalance_ratio="natural")
        return data.train_images[:, 0, 32, 32].tolist()

    before = shades()
    image = folder / "train" / "n01629819" / "images" / "n01629819_0.JPEG"
    image.write_bytes(jpeg(200))
    os.utime(image, ns=(1, 1))
    assert [a - b for a, b in zip(shades(), before, strict=True)] == [0, 0, 0, 190, 0, 0]


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
