"""Images that do not fit into memory: how fast the file of decoded images is built and read.

    python benchmarks/studies/image_cache.py --images 115846 --size 224 --cold --json cache.json

Photographs of 500x375 pixels as JPEG, a few hundred different ones under many names, are cut and
resized to SIZE x SIZE and written into the file as a training does; then an epoch of shuffled
batches is read from it as a training does, twice: "first" as it comes after the building, "warm"
right after that. With --cold the system forgets the file's pages before a third reading, which then
comes from the disk; what of the file was still in memory is told too. Peak memory is the largest
RssAnon, sampled: pages of the file itself can be dropped at any time and do not count.
"""

from __future__ import annotations

import argparse
import ctypes
import gc
import json
import mmap
import os
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from ltrobust.data.base import Images
from ltrobust.data.cache import FOLDER, FOLDER_VARIABLE, LIMIT_VARIABLE, read_or_map
from ltrobust.data.reading import file_reader
from ltrobust.training.feed import AHEAD, fed

PHOTOGRAPH = (500, 375)
DIFFERENT = 500
SAMPLED = 0.05
"""Seconds between two looks at the memory."""


def photographs(folder: Path, count: int) -> list[Path]:
    """Write JPEGs of smooth noise, and give them `count` names."""
    random = np.random.default_rng(0)
    folder.mkdir()
    paths = []
    for number in range(count):
        path = folder / f"{number}.JPEG"
        if number < DIFFERENT:
            coarse = random.integers(0, 256, (24, 32, 3), dtype=np.uint8)
            Image.fromarray(coarse).resize(PHOTOGRAPH, Image.Resampling.BICUBIC).save(path)
        else:
            path.hardlink_to(paths[number % DIFFERENT])
        paths.append(path)
    return paths


def anonymous_bytes() -> int:
    """Memory of this process that no file stands behind."""
    line = next(x for x in Path("/proc/self/status").read_text().splitlines() if "RssAnon" in x)
    return 1024 * int(line.split()[1])


@contextmanager
def watched(found: dict[str, Any], count: int) -> Iterator[None]:
    """Note seconds, images a second and peak memory of what is done meanwhile."""
    done, peak = threading.Event(), [anonymous_bytes()]

    def look() -> None:
        while not done.wait(SAMPLED):
            peak.append(max(peak.pop(), anonymous_bytes()))

    thread = threading.Thread(target=look)
    thread.start()
    began = time.perf_counter()
    try:
        yield
    finally:
        seconds = time.perf_counter() - began
        done.set()
        thread.join()
    found.update(
        images=count,
        seconds=round(seconds, 2),
        images_per_second=round(count / seconds, 1),
        peak_memory_gb=round(peak[0] / 1e9, 3),
    )


def resident_share(file: Path) -> float:
    """The share of a file's pages that are in memory."""
    with file.open("rb") as stream, mmap.mmap(stream.fileno(), 0, mmap.MAP_PRIVATE) as pages:
        count = -(-len(pages) // mmap.PAGESIZE)
        flags = (ctypes.c_ubyte * count)()
        start = ctypes.c_ubyte.from_buffer(pages)  # writable, so that it has an address
        libc = ctypes.CDLL(None, use_errno=True)
        failed = libc.mincore(ctypes.c_void_p(ctypes.addressof(start)), len(pages), flags)
        del start
    return float("nan") if failed else float(np.mean(np.frombuffer(flags, np.uint8) & 1))


def forget(file: Path) -> float:
    """Let the system drop a file's pages; return the share that is still in memory."""
    with file.open("rb") as stream:
        os.fsync(stream.fileno())
        os.posix_fadvise(stream.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
    return resident_share(file)


def epoch(images: Tensor, batch: int, most: int | None) -> int:
    """Read shuffled batches as a training does; return how many images that were."""
    order = torch.randperm(len(images), generator=torch.Generator().manual_seed(0))[:most]
    device = torch.device("cpu")
    return sum(len(found) for _, found in fed(images, order.split(batch), device, AHEAD))


def measure(given: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """Build the file and read from it."""
    paths = photographs(folder / "photographs", given.images)
    images = Images(np.zeros(len(paths), np.int64), file_reader(paths, given.size))
    positions = np.arange(len(paths))

    def opened() -> Tensor:
        return read_or_map(images, positions, folder, lambda: "photographs")

    parts: dict[str, dict[str, Any]] = {}
    taken = min(given.read or given.images, given.images)

    def timed(name: str, count: int, work: Callable[[], object]) -> None:
        parts[name] = {}
        with watched(parts[name], count):
            work()
        print(f"{name}: {parts[name]}", flush=True)

    timed("building", len(paths), opened)
    mapped = opened()
    (file,) = (folder / FOLDER).glob("*.u8")
    for name in ("first", "warm"):
        timed(name, taken, lambda: epoch(mapped, given.batch, given.read))
    if given.cold:
        del mapped
        gc.collect()
        mapped = opened()  # which looks at pages, so before they are dropped
        left = forget(file)
        timed("cold", taken, lambda: epoch(mapped, given.batch, given.read))
        parts["cold"]["in_memory_before"] = round(left, 4)
    return {"file_gb": round(file.stat().st_size / 1e9, 3), "batch": given.batch, **parts}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--images", type=int, default=2_000, help="how many photographs")
    parser.add_argument("--size", type=int, default=224, help="side length of the decoded images")
    parser.add_argument("--batch", type=int, default=256, help="images of a batch")
    parser.add_argument("--read", type=int, help="read so many images instead of an epoch")
    parser.add_argument("--cold", action="store_true", help="read once more, from the disk")
    parser.add_argument("--folder", type=Path, help="where the files go; default temporary files")
    parser.add_argument("--json", type=Path, help="write the figures here")
    given = parser.parse_args()
    os.environ[LIMIT_VARIABLE] = "0"
    os.environ.pop(FOLDER_VARIABLE, None)
    with tempfile.TemporaryDirectory(dir=given.folder) as folder:
        found = measure(given, Path(folder))
    print(json.dumps(found, indent=2))
    if given.json is not None:
        given.json.write_text(json.dumps(found, indent=2) + "\n")


if __name__ == "__main__":
    main()
