"""Which files of an image folder are its images, and which are left out.

Read is what torchvision's ImageFolder reads, in its order, and .jfif; hidden files are not. What is
left out is counted, so that no image goes missing unheard of. Names are compared in one spelling of
their accents (Unicode's NFC), whatever system wrote them. No image is opened here.
"""

from __future__ import annotations

import os
import unicodedata
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

from ltrobust.errors import UserError
from ltrobust.output import printable

SUFFIXES = (".jpg", ".jpeg", ".jfif", ".png", ".ppm", ".pgm", ".bmp", ".tif", ".tiff", ".webp")
PARTS = ("train", "test")
MAC_LEFTOVER = "__MACOSX"

# kinds of things that are left out, one and many
OTHER = ("file of another kind", "files of other kinds")
DEAD = ("dead link", "dead links")
HIDDEN = ("hidden file or folder", "hidden files or folders")
OUTSIDE = ("file outside class folders", "files outside class folders")
CIRCLE = ("link in a circle", "links in a circle")
UNUSED = ("folder beside train and test", "folders beside train and test")
ENDINGS_SHOWN = 4


@dataclass
class LeftOut:
    """What is left out of an image folder: for each kind, where it lies, relative to the root."""

    root: Path
    paths: dict[tuple[str, str], list[str]] = field(default_factory=dict)

    def add(self, kind: tuple[str, str], path: Path) -> None:
        """Note one path."""
        self.paths.setdefault(kind, []).append(path.relative_to(self.root).as_posix())

    def line(self) -> str:
        """One line that counts them, "" when there are none."""
        kinds = [_in_words(kind, paths) for kind, paths in self.paths.items()]
        return f"left out of the image folder: {', '.join(kinds)}" if kinds else ""


def _in_words(kind: tuple[str, str], paths: list[str]) -> str:
    """Such as "3 files of other kinds (2 .txt, 1 .db; such as train/a/notes.txt)"."""
    if len(paths) == 1:
        return f"1 {kind[0]} ({in_one_line(paths[0])})"
    shown = f"such as {in_one_line(paths[0])}"
    if kind == OTHER:
        endings = Counter(Path(path).suffix.lower() or "without ending" for path in paths)
        common = [f"{n} {in_one_line(name)}" for name, n in endings.most_common(ENDINGS_SHOWN)]
        shown = f"{', '.join(common)}{', ...' * (len(endings) > ENDINGS_SHOWN)}; {shown}"
    return f"{len(paths)} {kind[1]} ({shown})"


def in_one_line(path: str | Path) -> str:
    """Write a path so that it fits into one line of any text."""
    return "".join(sign if sign.isprintable() else "?" for sign in printable(str(path)))


@dataclass(frozen=True)
class FolderFiles:
    """The files of an image folder: class names, for each class its files, and what is left out."""

    root: Path
    class_names: tuple[str, ...]
    train: tuple[tuple[Path, ...], ...]
    test: tuple[tuple[Path, ...], ...]
    left_out: LeftOut


def scan_folder(root: Path) -> FolderFiles:
    """List an image folder without opening its images.

    Raises:
        UserError: a folder is missing or empty, there are fewer than two classes, or train and
            test have different classes.
    """
    if not root.is_dir():
        raise UserError(f"image folder '{root}' does not exist; give folder:PATH of a folder")
    left_out = LeftOut(root)
    folders = {part: _class_folders(root / part, left_out) for part in PARTS}
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
    for path in sorted(root.iterdir()):
        if path.is_dir() and path.name not in PARTS and not _hidden(path.name):
            left_out.add(UNUSED, path)
    train, test = (
        tuple(_image_files(folders[part][name], left_out) for name in names) for part in PARTS
    )
    return FolderFiles(root, names, train, test, left_out)


def _hidden(name: str) -> bool:
    return name.startswith(".") or name == MAC_LEFTOVER


def _class_folders(folder: Path, left_out: LeftOut) -> dict[str, Path]:
    """Class folders by their name in NFC, sorted by it."""
    if not folder.is_dir():
        raise UserError(
            f"folder '{folder}' is missing; images are expected as "
            "PATH/train/<class>/<image> and PATH/test/<class>/<image>"
        )
    found: dict[str, Path] = {}
    for path in sorted(folder.iterdir()):
        if _hidden(path.name):
            left_out.add(HIDDEN, path)
        elif path.is_dir():
            name = _class_name(path)
            if name in found:
                raise UserError(
                    f"'{folder}' has two class folders named '{name}', spelled in two ways (NFC "
                    "and NFD of Unicode); put their images into one"
                )
            found[name] = path
        else:
            left_out.add(OUTSIDE if path.exists() else DEAD, path)
    return dict(sorted(found.items()))


def _class_name(folder: Path) -> str:
    """The name of a class folder in NFC; UserError when its bytes are no text."""
    try:
        return one_spelling(os.fsencode(folder.name).decode("utf-8"))
    except UnicodeDecodeError:
        raise UserError(
            f"the name of class folder '{printable(str(folder))}' is not UTF-8; rename the folder"
        ) from None


def one_spelling(name: str) -> str:
    """A name with its accents in Unicode's NFC."""
    return unicodedata.normalize("NFC", name)


def _image_files(folder: Path, left_out: LeftOut) -> tuple[Path, ...]:
    """Image files of one class in ImageFolder's order: by folder, then by name."""
    files = []
    for place, names in sorted(_walk(folder, left_out)):
        for path in (Path(place, name) for name in sorted(names)):
            if _hidden(path.name):
                left_out.add(HIDDEN, path)
            elif not path.exists():
                left_out.add(DEAD, path)
            elif path.suffix.lower() in SUFFIXES and path.is_file():
                files.append(path)
            else:
                left_out.add(OTHER, path)
    if not files:
        raise UserError(
            f"class folder '{folder}' has no images ({', '.join(SUFFIXES)}); "
            "add some or remove the class from train and test"
        )
    return tuple(files)


def _walk(folder: Path, left_out: LeftOut) -> list[tuple[str, list[str]]]:
    """List all folders from `folder` down, links followed, each with the names of its files."""
    found = []
    for place, folders, names in os.walk(folder, followlinks=True, onerror=_raise):
        found.append((place, names))
        here = Path(place)
        above = {os.path.realpath(path) for path in (here, *here.parents)}
        for path in (here / name for name in sorted(folders)):
            circle = os.path.realpath(path) in above
            if circle or _hidden(path.name):
                left_out.add(CIRCLE if circle else HIDDEN, path)
                folders.remove(path.name)
    return found


def _raise(error: OSError) -> None:
    raise error
