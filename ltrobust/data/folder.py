"""A user's own images as a source: PATH/train/<class>/* and PATH/test/<class>/*.

Classes are the sorted folder names; the canonical order goes class by class, file names sorted.
Names are compared in one spelling of their accents (Unicode's NFC), whatever system wrote them.
Images are read as RGB and must all have one size; nothing is resized here.
"""

from __future__ import annotations

import hashlib
import json
import os
import struct
import unicodedata
from dataclasses import dataclass
from functools import partial
from itertools import chain
from pathlib import Path

import numpy as np
from PIL import Image

from ltrobust.data.base import ImageArray, Images, Source
from ltrobust.data.split import IndexArray
from ltrobust.errors import UserError
from ltrobust.output import printable

SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".webp")

# what Pillow's decoders raise on damaged files, besides its own UnidentifiedImageError (an OSError)
DECODE_ERRORS = (
    OSError,
    ValueError,
    SyntaxError,
    EOFError,
    IndexError,
    struct.error,
    Image.DecompressionBombError,
)


@dataclass(frozen=True)
class FolderFiles:
    """The files of an image folder: class names, and for each class its sorted files."""

    root: Path
    class_names: tuple[str, ...]
    train: tuple[tuple[Path, ...], ...]
    test: tuple[tuple[Path, ...], ...]


def scan_folder(root: Path) -> FolderFiles:
    """List an image folder without opening its images.

    Raises:
        UserError: a folder is missing or empty, there are fewer than two classes, or train and
            test have different classes.
    """
    if not root.is_dir():
        raise UserError(f"image folder '{root}' does not exist; give folder:PATH of a folder")
    folders = {split: _class_folders(root / split) for split in ("train", "test")}
    names = tuple(folders["train"])
    if len(names) < 2:
        raise UserError(
            f"'{root / 'train'}' has {len(names)} class folders; at least 2 are needed: "
            "train/<class>/<image>"
        )
    for split, other in (("test", "train"), ("train", "test")):
        missing = sorted(folders[other].keys() - folders[split].keys())
        if missing:
            raise UserError(
                f"class folder '{root / split / missing[0]}' is missing; "
                "train and test must have the same classes"
            )
    train, test = (
        tuple(_image_files(folders[split][name]) for name in names) for split in ("train", "test")
    )
    return FolderFiles(root, names, train, test)


def folder_source(root: Path) -> Source:
    """Open an image folder; images are read when a split asks for them.

    Raises:
        UserError: as `scan_folder`; on reading, an image that cannot be read or has another size.
    """
    files = scan_folder(root)
    first = files.train[0][0]
    width, height = _open_rgb(first).size
    read = partial(_read, size=(width, height), model=first)
    return Source(files.class_names, _images(files.train, read), _images(files.test, read))


def folder_fingerprint(root: Path) -> str:
    """Hash the sorted relative names and the contents of an image folder's files (hex SHA-256).

    Raises:
        UserError: as `scan_folder`.
    """
    files = scan_folder(root)
    listed = sorted(
        (
            _one_spelling(path.relative_to(root).as_posix()),
            hashlib.sha256(path.read_bytes()).hexdigest(),
        )
        for path in chain.from_iterable(files.train + files.test)
    )
    return hashlib.sha256(json.dumps(listed).encode()).hexdigest()


def _class_folders(folder: Path) -> dict[str, Path]:
    """Class folders by their name in NFC, sorted by it; hidden ones do not count."""
    if not folder.is_dir():
        raise UserError(
            f"folder '{folder}' is missing; images are expected as "
            "PATH/train/<class>/<image> and PATH/test/<class>/<image>"
        )
    found: dict[str, Path] = {}
    for path in sorted(folder.iterdir()):
        if not path.is_dir() or path.name.startswith("."):
            continue
        name = _class_name(path)
        if name in found:
            raise UserError(
                f"'{folder}' has two class folders named '{name}', spelled in two ways (NFC and "
                "NFD of Unicode); put their images into one"
            )
        found[name] = path
    return dict(sorted(found.items()))


def _class_name(folder: Path) -> str:
    """The name of a class folder in NFC; UserError when its bytes are no text."""
    try:
        return _one_spelling(os.fsencode(folder.name).decode("utf-8"))
    except UnicodeDecodeError:
        raise UserError(
            f"the name of class folder '{printable(str(folder))}' is not UTF-8; rename the folder"
        ) from None


def _one_spelling(name: str) -> str:
    return unicodedata.normalize("NFC", name)


def _image_files(folder: Path) -> tuple[Path, ...]:
    """Sorted image files of one class; hidden files and other types do not count."""
    files = sorted(
        path
        for path in folder.iterdir()
        if path.suffix.lower() in SUFFIXES and not path.name.startswith(".") and path.is_file()
    )
    if not files:
        raise UserError(
            f"class folder '{folder}' has no images ({', '.join(SUFFIXES)}); "
            "add some or remove the class from train and test"
        )
    return tuple(files)


def _images(classes: tuple[tuple[Path, ...], ...], read: partial[ImageArray]) -> Images:
    """Give every file the index of its class as its label."""
    labels = np.repeat(np.arange(len(classes)), [len(files) for files in classes])
    return Images(labels.astype(np.int64), partial(read, tuple(chain.from_iterable(classes))))


def _read(
    files: tuple[Path, ...], index: IndexArray, *, size: tuple[int, int], model: Path
) -> ImageArray:
    """Read the files at `index`; `size` (width, height) is that of the image `model`."""
    images = np.empty((len(index), 3, size[1], size[0]), dtype=np.uint8)
    for i, position in enumerate(index):
        image = _open_rgb(files[position])
        if image.size != size:
            raise UserError(
                f"image '{files[position]}' is {image.size[0]}x{image.size[1]} pixels but "
                f"'{model}' is {size[0]}x{size[1]}; resize all images to one size"
            )
        images[i] = np.asarray(image).transpose(2, 0, 1)
    return images


def _open_rgb(path: Path) -> Image.Image:
    """Decode one file as RGB; raise UserError when it cannot be read."""
    try:
        with Image.open(path) as image:
            return image.convert("RGB")
    except DECODE_ERRORS as error:
        raise UserError(
            f"cannot read image '{path}' ({type(error).__name__}); replace or remove the file"
        ) from error
