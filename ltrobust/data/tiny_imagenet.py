"""Read Tiny-ImageNet: the official folder, or parquet files in Hugging Face's layout.

The official test images have no labels; the validation images are the test set, as in the field.
Classes are taken in the sorted order of their WordNet ids. In the official layout an image is
called by its class and number there (training: 500 class + number; test: number). Parquet files
tell no numbers: their rows stand for themselves, and so make data of another identity.
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import replace
from pathlib import Path

import numpy as np

from ltrobust.data.base import Images, Source
from ltrobust.data.catalog import TINY_CLASSES
from ltrobust.data.hugging_face import HuggingFaceFiles, find_parquet, parquet_source
from ltrobust.data.reading import file_reader
from ltrobust.errors import MissingDataError, UserError

FOLDER = "tiny-imagenet-200"
PER_CLASS, TEST_IMAGES = 500, 10_000
SIZE = 64
WORDNET_ID = re.compile(r"n[0-9]{8}")
TRAIN_FILE = re.compile(r"(?P<class>n[0-9]{8})_(?P<number>[0-9]{1,3})\.JPEG")
TEST_FILE = re.compile(r"val_(?P<number>[0-9]{1,4})\.JPEG")


def tiny_source(classes: int, size: int | None, data_dir: Path) -> Source | None:
    """Open the first `classes` classes; None when the data set is not there.

    Looked at: the folders `tiny-imagenet-200` and `tiny-imagenet` of `data_dir`, and itself.

    Raises:
        UserError: files are missing, damaged or of another data set.
    """
    root = official_root(data_dir)
    if root is not None:
        return _official(root, classes, size)
    files = _parquet(data_dir)
    if files is None:
        return None
    source = parquet_source(files, size or SIZE)
    return _first_classes(source, classes, f"'{files.folder}'")


def missing_tiny(data_dir: Path) -> UserError:
    """Build the error for a data directory without the data set."""
    return UserError(
        f"no Tiny-ImageNet in '{data_dir}'; put there {FOLDER}/ (official, extracted from "
        f"http://cs231n.stanford.edu/{FOLDER}.zip; --download does not fetch it), or its parquet "
        f"files as {FOLDER}/train-*.parquet and valid-*.parquet, or name another folder with "
        "--data-dir"
    )


def tiny_fingerprint(data_dir: Path) -> str:
    """What tells a part of the data set, or its parquet layout, from the official whole ("").

    "" too where nothing is there: reading will tell.
    """
    root = official_root(data_dir)
    if root is None:
        files = _parquet(data_dir)
        return "" if files is None else files.labels_hash()
    train = sorted(path.name for path in root.glob("train/n*/images/*.JPEG"))
    test = sorted(path.name for path in root.glob("val/images/*.JPEG"))
    if (len(train), len(test)) == (TINY_CLASSES * PER_CLASS, TEST_IMAGES):
        return ""
    return hashlib.sha256("\n".join([*train, *test]).encode()).hexdigest()


def official_root(data_dir: Path) -> Path | None:
    """The official folder, if it is there."""
    places = (data_dir / FOLDER, data_dir)
    return next((p for p in places if (p / "val" / "val_annotations.txt").is_file()), None)


def _parquet(data_dir: Path) -> HuggingFaceFiles | None:
    for folder in (data_dir / FOLDER, data_dir / "tiny-imagenet"):
        files = find_parquet(folder)
        if files is not None:
            return files
    return None


def _official(root: Path, classes: int, size: int | None) -> Source:
    train_root = root / "train"
    ids = sorted(p.name for p in train_root.glob("n*") if WORDNET_ID.fullmatch(p.name))
    if len(ids) < classes:
        raise UserError(
            f"'{train_root}' has {len(ids)} of the {classes} classes; get the archive again, or "
            f"take fewer: tiny-imagenet-lt:{max(len(ids), 2)}"
        )
    ids = ids[:classes]
    source = Source(
        _words(root, ids), _train(train_root, ids, size), _test(root / "val", ids, size)
    )
    return source.checked(f"Tiny-ImageNet in '{root}'")


def _train(root: Path, ids: list[str], size: int | None) -> Images:
    files: list[Path] = []
    index: list[int] = []
    for c, wordnet_id in enumerate(ids):
        numbered = {}
        for path in (root / wordnet_id / "images").glob("*.JPEG"):
            match = TRAIN_FILE.fullmatch(path.name)
            if match is None or match["class"] != wordnet_id or int(match["number"]) >= PER_CLASS:
                raise UserError(
                    f"'{path}' is not named as the official archive names its images, such as "
                    f"{wordnet_id}_0.JPEG to {wordnet_id}_{PER_CLASS - 1}.JPEG; move it away"
                )
            numbered[int(match["number"])] = path
        files += [numbered[number] for number in sorted(numbered)]
        index += [PER_CLASS * c + number for number in sorted(numbered)]
    positions = np.asarray(index, np.int64)
    read = file_reader(files, size or SIZE)
    return Images(positions // PER_CLASS, read, index=positions, order="official", files=files)


def _test(root: Path, ids: list[str], size: int | None) -> Images:
    """The validation images of some classes, by number."""
    annotations = root / "val_annotations.txt"
    classes = {wordnet_id: c for c, wordnet_id in enumerate(ids)}
    labels: dict[int, int] = {}
    for number, line in enumerate(_lines(annotations), 1):
        name, _, rest = line.partition("\t")
        wordnet_id = rest.partition("\t")[0]
        match = TEST_FILE.fullmatch(name)
        if match is None or not WORDNET_ID.fullmatch(wordnet_id):
            raise UserError(
                f"line {number} of '{annotations}' is not '<image> <class> <box>' with tabs "
                "between; get the archive again"
            )
        if wordnet_id in classes:
            labels[int(match["number"])] = classes[wordnet_id]
    index = np.asarray(sorted(labels), np.int64)
    files = [root / "images" / f"val_{number}.JPEG" for number in index]
    missing = next((path for path in files if not path.is_file()), None)
    if missing is not None:
        raise MissingDataError(
            f"'{missing}' of '{annotations}' is not there; get the archive again"
        )
    known = np.asarray([labels[number] for number in index.tolist()], np.int64)
    read = file_reader(files, size or SIZE)
    return Images(known, read, index=index, order="official", files=files)


def _words(root: Path, ids: list[str]) -> tuple[str, ...]:
    """What `words.txt` calls the classes, shortly; their ids where it is not there."""
    file = root / "words.txt"
    words = {}
    if file.is_file():
        for line in _lines(file):
            wordnet_id, _, text = line.partition("\t")
            words[wordnet_id] = text.partition(",")[0].strip()
    names = [words.get(wordnet_id) or wordnet_id for wordnet_id in ids]
    return tuple(
        name if names.count(name) == 1 else f"{name} ({wordnet_id})"
        for name, wordnet_id in zip(names, ids, strict=True)
    )


def _lines(file: Path) -> list[str]:
    """The lines of a text; UserError when it is none."""
    try:
        return file.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"'{file}' cannot be read; get the archive again") from error


def _first_classes(source: Source, classes: int, where: str) -> Source:
    """The first classes by WordNet id of a source whose class names are these ids."""
    names = source.class_names
    if len(names) != TINY_CLASSES or list(names) != sorted(names):
        raise UserError(
            f"{where} has {len(names)} classes, such as '{names[0]}'; Tiny-ImageNet has "
            f"{TINY_CLASSES}, named by WordNet ids in sorted order: use hf:PATH for other data"
        )
    parts = [_below(part, classes) for part in (source.train, source.test)]
    return replace(source, class_names=names[:classes], train=parts[0], test=parts[1])


def _below(images: Images, classes: int) -> Images:
    kept = np.flatnonzero(images.labels < classes)
    return replace(
        images,
        labels=images.labels[kept],
        read=lambda at: images.read(kept[at]),
        index=images.named(kept),
    )
