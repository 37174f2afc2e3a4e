"""Bad data of every kind, through the command line: one line, exit code 2, nothing left behind.

Each case breaks a small whole data set in the official layout; whole it must pass.
"""

from __future__ import annotations

import copy
import hashlib
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from data_on_disk import pack, write_batches
from official_layouts import (
    jpeg,
    write_hugging_face,
    write_imagenet_lt,
    write_medmnist,
    write_svhn,
    write_tiny,
)
from PIL import Image

from ltrobust.data import load_data
from ltrobust.data.cache import FOLDER, LIMIT_VARIABLE
from ltrobust.data.catalog import medmnist_sets
from ltrobust.data.imagenet_lt import LISTED
from ltrobust.data.svhn import MD5

ROOT = Path("data")
IDS = [f"n{number:08d}" for number in (1443537, 1629819, 1641577)]
DERMA = {"train": [c for c in range(7) for _ in range(9)], "val": list(range(7)) * 2}
DERMA["test"] = DERMA["val"]
DIGITS = {"train": [d for d in range(1, 11) for _ in range(12)], "test": list(range(1, 11)) * 2}
LISTED_TRAIN, LISTED_TEST = [*range(9), *range(4)], [*range(9)]
WHOLE = (".part", ".json", ".u8")
NOT_AN_IMAGE = b"\xff\xd8\xff\xe0 and no more"

Patch = pytest.MonkeyPatch


def cut(path: Path, share: float = 0.6) -> None:
    """Leave the first part of a file."""
    content = path.read_bytes()
    path.write_bytes(content[: int(share * len(content))])


def derma(patch: Patch, labels: dict[str, list[int]] | None = None) -> Path:
    labels = labels or DERMA
    path = ROOT / "medmnist" / "dermamnist.npz"
    write_medmnist(path, labels)
    sets = copy.deepcopy(medmnist_sets())
    sets["dermamnist"]["images"] = {part: len(known) for part, known in labels.items()}
    sets["dermamnist"]["md5"]["28"] = hashlib.md5(path.read_bytes()).hexdigest()
    patch.setattr("ltrobust.data.medmnist.medmnist_sets", lambda: sets)
    return path


def svhn(patch: Patch, labels: dict[str, list[int]] | None = None) -> Path:
    folder = ROOT / "svhn"
    write_svhn(folder, labels or DIGITS)
    for part in MD5:
        content = (folder / f"{part}_32x32.mat").read_bytes()
        patch.setitem(MD5, part, hashlib.md5(content).hexdigest())
    return folder


def imagenet(patch: Patch, train: list[int] | None = None, test: list[int] | None = None) -> Path:
    train, test = train or LISTED_TRAIN, test or LISTED_TEST
    write_imagenet_lt(ROOT, train, test)
    patch.setitem(LISTED, "train", len(train))
    patch.setitem(LISTED, "test", len(test))
    patch.setattr("ltrobust.data.imagenet_lt.CLASSES", 9)  # of 1000
    patch.setattr("ltrobust.data.imagenet_lt._class_names", lambda: tuple("abcdefghi"))
    return ROOT


def tiny(patch: Patch) -> Path:
    return write_tiny(ROOT, IDS, train=6, test=2)


def shards(patch: Patch, labels: list[Any] | None = None, test: list[Any] | None = None) -> Path:
    folder = Path("photos")
    train = [0, 0, 0, 0, 1, 1, 1, 2, 2] if labels is None else labels
    test = [0, 1, 2] if test is None else test
    names = [f"name {c}" for c in range(3)] if all(isinstance(x, int) for x in train) else None
    for part, known in (("train", train), ("test", test)):
        pictures = [jpeg(20 * i, (9, 9)) for i in range(len(known))]
        path = folder / f"{part}-00000-of-00001.parquet"
        write_hugging_face(path, pictures, known, names=names)
    return folder


def tiny_shards(patch: Patch, test: list[int] | None = None) -> Path:
    """Tiny-ImageNet of three classes, as the hub has it."""
    patch.setattr("ltrobust.data.tiny_imagenet.TINY_CLASSES", 3)
    folder = ROOT / "tiny-imagenet-200"
    for part, known in (("train", [c for c in range(3) for _ in range(6)]), ("valid", test)):
        known = [0, 1, 2] if known is None else known
        pictures = [jpeg(10 * i) for i in range(len(known))]
        path = folder / f"{part}-00000-of-00001.parquet"
        write_hugging_face(path, pictures, known, names=IDS)
    return folder


def folder(patch: Patch, counts: tuple[int, ...] = (6, 4, 3)) -> Path:
    root = Path("photos")
    for part in ("train", "test"):
        for c, count in enumerate(counts):
            (root / part / "abc"[c]).mkdir(parents=True)
            for i in range(count):
                Image.new("RGB", (9, 9), (9 * i, 9, 9)).save(root / part / "abc"[c] / f"{i}.png")
    return root


def cifar(patch: Patch) -> Path:
    write_batches(ROOT, train=2, test=1)
    return pack(ROOT)


Break = Callable[[Patch], object]
Case = tuple[str, str, Break | None, tuple[str, ...]]


def broken(path: str, content: bytes = NOT_AN_IMAGE) -> Break:
    """Write other content into a file that is there."""

    def write(_: Patch) -> None:
        file = Path(path)
        assert file.is_file()
        file.unlink()  # others are links to it
        file.write_bytes(content)

    return write


def shortened(path: str) -> Break:
    return lambda _: cut(Path(path))


def gone(path: str) -> Break:
    return lambda _: Path(path).unlink()


def with_row(folder: str, part: str) -> Break:
    """Put a broken image into the second row of a parquet file."""

    def write(_: Patch) -> None:
        path = Path(folder) / f"{part}-00000-of-00001.parquet"
        names = IDS if "tiny" in folder else None
        known = [0, 1, 2] if part != "train" else [c for c in range(3) for _ in range(6)]
        pictures = [jpeg(9, (64, 64) if names else (9, 9)) for _ in known]
        pictures[1] = NOT_AN_IMAGE
        write_hugging_face(path, pictures, known, names=names)

    return write


WITHOUT = {**DIGITS, "test": [d for d in DIGITS["test"] if d != 3]}
DERMA_WITHOUT = {**DERMA, "test": [c for c in DERMA["test"] if c != 2]}
HF, HF_TEST = "photos/train-00000-of-00001.parquet", "photos/test-00000-of-00001.parquet"
HUB = "data/tiny-imagenet-200"
MAT = "data/svhn/train_32x32.mat"
TINY_IMAGE = f"data/tiny-imagenet-200/train/{IDS[1]}/images/{IDS[1]}_0.JPEG"
VAL_IMAGE = "data/tiny-imagenet-200/val/images/val_3.JPEG"
LIST = "data/ImageNet_LT/ImageNet_LT_train.txt"
PICTURE = "data/imagenet/train/n00000007/n00000007_7.JPEG"
NOTED = "data/tiny-imagenet-200/val/val_annotations.txt"

SOUND: dict[str, Case] = {
    "medmnist": ("dermamnist", "2", derma, ()),
    "svhn": ("svhn-lt", "4", svhn, ()),
    "imagenet-lt": ("imagenet-lt@16", "natural", imagenet, ()),
    "tiny": ("tiny-imagenet-lt:3", "2", tiny, ()),
    "tiny parquet": ("tiny-imagenet-lt:3", "2", tiny_shards, ()),
    "parquet": ("hf:photos", "natural", shards, ()),
    "folder": ("folder:photos", "natural", folder, ()),
}


def case(kind: str, breaks: Break | None, *said: str, ratio: str = "", whole: Any = None) -> Case:
    name, usual, make, _ = SOUND[kind]
    made = whole or make

    def do(patch: Patch) -> None:
        assert made is not None
        made(patch)
        if breaks is not None:
            breaks(patch)

    return name, ratio or usual, do, said


CASES: dict[str, Case] = {
    "archive cut off": ("cifar100-lt", "2", lambda _: cut(cifar(_)), ("archive", "damaged")),
    "archive of other labels": ("cifar100-lt", "2", cifar, ("cifar-100-python.tar.gz",)),
    "npz cut off": case("medmnist", shortened("data/medmnist/dermamnist.npz"), "dermamnist.npz"),
    "npz no archive": case(
        "medmnist", broken("data/medmnist/dermamnist.npz"), "dermamnist.npz", "damaged"
    ),
    "npz labels": case(
        "medmnist",
        None,
        "labels 0 to 9",
        "expected 0 to 6",
        whole=lambda patch: derma(patch, {**DERMA, "train": [*DERMA["train"], 9]}),
    ),
    "npz class not in test": case(
        "medmnist",
        None,
        "no test images",
        whole=lambda patch: derma(patch, DERMA_WITHOUT),
    ),
    "npz ratio": case("medmnist", None, "ratio 500", ratio="500"),
    "mat cut off": case("svhn", shortened(MAT), "train_32x32.mat", "cut off"),
    "mat gone": case("svhn", gone(MAT), "train_32x32.mat", "missing"),
    "mat labels": case(
        "svhn",
        None,
        "labels 0 to 11",
        whole=lambda patch: svhn(patch, {**DIGITS, "train": [*DIGITS["train"], 11]}),
    ),
    "mat class not in test": case(
        "svhn", None, "class '3' has no test images", whole=lambda patch: svhn(patch, WITHOUT)
    ),
    "mat ratio": case("svhn", None, "ratio 500", ratio="500"),
    "list names what is not there": case("imagenet-lt", gone(PICTURE), PICTURE, "not there"),
    "list cut off": case("imagenet-lt", shortened(LIST), "ImageNet_LT_train.txt"),
    "list is no text": case("imagenet-lt", broken(LIST, b"\xff\xfe\0"), LIST),
    "list of labels": case(
        "imagenet-lt",
        lambda _: Path(LIST).write_text(Path(LIST).read_text().replace(" 8\n", " 9\n")),
        "0 to 8",
    ),
    "list class not in test": case(
        "imagenet-lt",
        None,
        "has no test images",
        whole=lambda patch: imagenet(patch, test=[*range(8), 0]),
    ),
    "list image": case("imagenet-lt", broken(PICTURE), PICTURE),
    "list ratio": case("imagenet-lt", None, "ratio 500", ratio="500"),
    "tiny image": case("tiny", broken(TINY_IMAGE), TINY_IMAGE),
    "tiny test image": case("tiny", broken(VAL_IMAGE), VAL_IMAGE),
    "tiny image gone": case("tiny", gone(VAL_IMAGE), VAL_IMAGE, "not there"),
    "tiny class": case(
        "tiny",
        lambda _: Path(NOTED).write_text(Path(NOTED).read_text().replace(IDS[1], "n99999999")),
        "has no test images",
    ),
    "tiny list is no text": case("tiny", broken(NOTED, b"\xff\xfe\0"), NOTED),
    "tiny words are no text": case(
        "tiny", broken("data/tiny-imagenet-200/words.txt", b"\xff\xfe\0"), "words.txt"
    ),
    "tiny ratio": case("tiny", None, "ratio 500", ratio="500"),
    "hub cut off": case("tiny parquet", shortened(f"{HUB}/train-00000-of-00001.parquet"), "parq"),
    "hub image": case("tiny parquet", with_row(HUB, "train"), "image in row 1 of"),
    "hub test image": case("tiny parquet", with_row(HUB, "valid"), "image in row 1 of"),
    "hub labels": case(
        "tiny parquet",
        None,
        "labels 0 to 3",
        whole=lambda patch: tiny_shards(patch, [0, 1, 2, 3]),
    ),
    "hub class not in test": case(
        "tiny parquet",
        None,
        "has no test images",
        whole=lambda patch: tiny_shards(patch, [0, 1, 1]),
    ),
    "hub ratio": case("tiny parquet", None, "ratio 500", ratio="500"),
    "parquet cut off": case("parquet", shortened(HF), HF, "truncated"),
    "parquet test cut off": case("parquet", shortened(HF_TEST), HF_TEST, "truncated"),
    "parquet image": case("parquet", with_row("photos", "train"), "image in row 1 of"),
    "parquet labels": case(
        "parquet", None, "labels 0 to 7", whole=lambda patch: shards(patch, [0, 1, 2, 7])
    ),
    "parquet class not in test": case(
        "parquet", None, "no test images", whole=lambda patch: shards(patch, test=[0, 1, 1])
    ),
    "parquet unknown text": case(
        "parquet", None, "'c'", whole=lambda patch: shards(patch, ["a", "b", "a"], ["a", "c"])
    ),
    "parquet one class": case(
        "parquet", None, "1 class", whole=lambda patch: shards(patch, ["a", "a"], ["a"])
    ),
    "parquet ratio": case("parquet", None, "ratio 500", ratio="500"),
    "parquet labels are floats": case(
        "parquet", None, "double", whole=lambda patch: shards(patch, [0.5, 1.5], [0.5])
    ),
    "folder image": case("folder", broken("photos/train/b/2.png"), "photos/train/b/2.png"),
    "folder test image": case("folder", broken("photos/test/c/0.png"), "photos/test/c/0.png"),
    "folder one class": case(
        "folder", None, "1 class folder", whole=lambda patch: folder(patch, (4,))
    ),
    "folder ratio": case("folder", None, "ratio 500", ratio="500"),
}


@pytest.fixture
def place(tmp_path: Path, monkeypatch: Patch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("LTROBUST_DATA_DIR", raising=False)
    return tmp_path


def bench(name: str, ratio: str, patch: Patch, *more: str) -> object:
    """The exit code of a bench, in this process."""
    from ltrobust.cli import main

    words = ["bench", "--methods", "pgd-at", "--dataset", name, "--imbalance-ratio", ratio]
    words += ["--data-dir", "data", "--arch", "small-cnn", "--epochs", "1", "--device", "cpu"]
    patch.setattr(sys, "argv", ["ltrobust", *words, "--attacks", "clean", "--output", "out", *more])
    try:
        main()
    except SystemExit as stop:
        return stop.code
    return 0


def listed() -> list[str]:
    return sorted(os.path.join(place, name) for place, _, names in os.walk(".") for name in names)


@pytest.mark.parametrize(
    ("kind", "in_memory"),
    [
        pytest.param(kind, in_memory, id=f"{name}{'' if in_memory else ', by a file'}")
        for name, kind in CASES.items()
        for in_memory in ((True, False) if "image" in name else (True,))
    ],
)
@pytest.mark.usefixtures("place")
def test_bad_data_is_one_line_and_leaves_nothing(
    kind: Case, in_memory: bool, monkeypatch: Patch, capsys: pytest.CaptureFixture[str]
):
    name, ratio, make, said = kind
    Path("data").mkdir()
    if make is not None:
        make(monkeypatch)
    if not in_memory:
        monkeypatch.setenv(LIMIT_VARIABLE, "0")
    before = listed()
    code = bench(name, ratio, monkeypatch)
    shown = capsys.readouterr()
    assert code == 2, shown
    lines = [line for line in shown.err.splitlines() if line.startswith("error: ")]
    assert len(lines) == 1, shown.err
    assert "Traceback" not in shown.err
    for words in said:
        assert words in lines[0]
    assert [path for path in listed() if Path(path).parent.name != FOLDER] == before
    left = {suffix: {p.stem for p in Path("data", FOLDER).glob(f"*{suffix}")} for suffix in WHOLE}
    assert left.pop(".part") == set()
    assert left[".json"] == left[".u8"]  # of a part that was sound, if any
    assert not Path("out").exists()


@pytest.mark.parametrize("kind", SOUND.values(), ids=SOUND.keys())
@pytest.mark.usefixtures("place")
def test_whole_data_passes(kind: Case, monkeypatch: Patch):
    name, ratio, make, _ = kind
    assert make is not None
    make(monkeypatch)
    ratio_given: Any = ratio if ratio == "natural" else float(ratio)
    data = load_data(name, data_dir=Path("data"), imbalance_ratio=ratio_given)
    assert min(data.train_counts) >= 1
    assert len(data.test_labels) > 0
