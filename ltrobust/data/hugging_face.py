"""A local folder of parquet files in Hugging Face's image layouts as a source.

The columns of images and labels and the names of the classes are found in what Hugging Face's
library writes beside the data; columns can be given too. Nothing is fetched.
"""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import yaml
from PIL import Image

from ltrobust.data.base import ImageArray, Images, Source
from ltrobust.data.folder import content_hash
from ltrobust.data.parquet import encoded_images, parquet_shards, read_column, schema
from ltrobust.data.pixels import decode_rgb
from ltrobust.data.reading import stacked
from ltrobust.data.split import IndexArray
from ltrobust.errors import UserError

TEST_PARTS = ("test", "validation", "valid", "val", "dev")
"""What the test part may be called; the first that is there with labels is taken."""
LABEL_COLUMNS = ("label", "labels", "class", "target")
IMAGE_COLUMNS = ("image", "img", "images", "picture", "pixels")
UNLABELLED = -1
"""What Hugging Face writes where a part has no labels."""


@dataclass(frozen=True)
class HuggingFaceFiles:
    """The files of a data set, and which columns hold what.

    Attributes:
        folder: where they lie.
        train: training files in order.
        tests: for each name of a test part its files in order; never empty.
        image: column of the images.
        label: column of the labels.
        class_names: as Hugging Face noted them; empty where it did not.
    """

    folder: Path
    train: tuple[Path, ...]
    tests: dict[str, tuple[Path, ...]]
    image: str
    label: str
    class_names: tuple[str, ...]

    def labels_hash(self) -> str:
        """SHA-256 (hex) of the labels of both parts as they stand in the files."""
        digest = hashlib.sha256()
        for path in (*self.train, *next(iter(self.tests.values()))):
            digest.update(str(read_column(path, self.label).to_pylist()).encode())
        return digest.hexdigest()


def find_parquet(folder: Path, image: str = "", label: str = "") -> HuggingFaceFiles | None:
    """Find the parquet files in a folder, in its folder `data`, or in its only folder that has any.

    Args:
        folder: where to look.
        image: column of the images; "" where it is to be found.
        label: column of the labels.

    Returns:
        None when there are none.

    Raises:
        UserError: a part is missing, or which column is meant is not clear.
    """
    place = _place(folder)
    if place is None:
        return None
    train = tuple(parquet_shards(place, "train"))
    tests = {part: tuple(parquet_shards(place, part)) for part in TEST_PARTS}
    tests = {part: files for part, files in tests.items() if files}
    for what, files in (("train", train), ("test", tests)):
        if not files:
            looked_for = " or ".join(TEST_PARTS if what == "test" else ("train",))
            raise UserError(
                f"'{place}' has no {what} part: no files such as {what}-00000-of-00001.parquet or "
                f"{what}/0000.parquet (looked for {looked_for})"
            )
    features = _features(folder, train[0])
    known = schema(train[0])
    label = _label_column(known, features, label, train[0])
    image = _image_column(known, features, image, train[0])
    noted = features.get(label)
    names = noted.get("names") if isinstance(noted, dict) else None
    names = tuple(map(str, names)) if isinstance(names, list) else ()
    return HuggingFaceFiles(place, train, tests, image, label, names)


def hugging_face_source(folder: Path, size: int | None, image: str, label: str) -> Source:
    """Open a folder.

    Raises:
        UserError: there is no folder or no parquet file in it, or as `find_parquet` and
            `parquet_source`.
    """
    return parquet_source(_found(folder, image, label), size)


def hugging_face_fingerprint(folder: Path, size: int | None, image: str, label: str) -> str:
    """Hash the contents of the files, the columns, and the size that images are brought to."""
    files = _found(folder, image, label)
    listed = [("image", files.image), ("label", files.label)]
    for part, paths in (("train", files.train), *files.tests.items()):
        for number, path in enumerate(paths):
            with path.open("rb") as stream:
                digest = hashlib.file_digest(stream, "sha256").hexdigest()
            listed.append((f"{part}/{number}", digest))
    return content_hash(listed, size)


def _found(folder: Path, image: str, label: str) -> HuggingFaceFiles:
    if not folder.is_dir():
        raise UserError(f"folder '{folder}' does not exist; give hf:PATH of a folder")
    files = find_parquet(folder, image, label)
    if files is None:
        raise UserError(
            f"'{folder}' has no parquet files; expected are train-00000-of-00001.parquet and "
            "test-00000-of-00001.parquet, there, in its folder data or in one of a configuration"
        )
    return files


def parquet_source(files: HuggingFaceFiles, size: int | None) -> Source:
    """Open the files as a source; images are decoded when they are asked for.

    Raises:
        UserError: labels are missing or name no class; on reading, an image is damaged or, with
            `size` None, has another size than the first.
    """
    train = _labels(files.train, files.label)
    tests = ((paths, _labels(paths, files.label)) for paths in files.tests.values())
    test_files, test = next(((p, x) for p, x in tests if _labelled(x)), ((), []))
    if not test_files:
        raise UserError(f"'{files.folder}': no test part has labels in column '{files.label}'")
    names = files.class_names or _names(train)
    if len(names) < 2:
        raise UserError(f"'{files.folder}' has {len(names)} class; at least 2 are needed")
    model = files.train[0]
    parts = [
        _images(paths, labels, names, files, size, model)
        for paths, labels in ((files.train, train), (test_files, test))
    ]
    return Source(names, parts[0], parts[1]).checked(f"'{files.folder}'")


def _images(
    paths: Sequence[Path],
    labels: Sequence[Sequence[Any]],
    names: tuple[str, ...],
    files: HuggingFaceFiles,
    size: int | None,
    model: Path,
) -> Images:
    sizes = [len(part) for part in labels]
    column = (files.image,)

    def read(positions: IndexArray) -> ImageArray:
        encoded = dict(encoded_images(paths, sizes, positions, column))
        if size is None:
            first = dict(encoded_images([model], [1], np.zeros(1, np.int64), column))
            encoded[-1] = first[0]

        def opener(at: int) -> Image.Image:
            return decode_rgb(io.BytesIO(encoded[at].content), f"image {encoded[at].name}")

        places = np.arange(len(positions))
        return stacked(
            places, opener, lambda at: encoded[at].name, size, (-1, f"the first of '{model}'")
        )

    return Images(_numbers(labels, names, files), read, files=paths)


def _numbers(
    labels: Sequence[Sequence[Any]], names: tuple[str, ...], files: HuggingFaceFiles
) -> IndexArray:
    """Labels as the index of their class, int64 (N,)."""
    flat = [label for part in labels for label in part]
    if all(isinstance(label, int) for label in flat):
        return np.asarray(flat, np.int64)
    index = {name: c for c, name in enumerate(names)}
    wrong = next((label for label in flat if label not in index), None)
    if wrong is not None or None in flat:
        raise UserError(
            f"column '{files.label}' of '{files.folder}' holds {wrong!r}, which is no class of the "
            f"training images ({', '.join(map(repr, names[:5]))}, ...)"
        )
    return np.asarray([index[label] for label in flat], np.int64)


def _labels(paths: Sequence[Path], column: str) -> list[list[Any]]:
    """The labels of each file: integers or text."""
    labels = []
    for path in paths:
        values = read_column(path, column)
        if pa.types.is_dictionary(values.type):
            values = values.cast(values.type.value_type)
        kind = values.type
        whole = (
            pa.types.is_integer(kind) or pa.types.is_string(kind) or pa.types.is_large_string(kind)
        )
        if not whole or values.null_count:
            raise UserError(
                f"column '{column}' of '{path}' must hold integers or texts without gaps, not "
                f"{kind}; name another with :label=COLUMN behind the path"
            )
        labels.append(values.to_pylist())
    return labels


def _labelled(labels: Sequence[Sequence[Any]]) -> bool:
    return any(label != UNLABELLED for part in labels for label in part)


def _names(labels: Sequence[Sequence[Any]]) -> tuple[str, ...]:
    """Class names where nobody noted them: the texts in sorted order, or the numbers."""
    seen = {label for part in labels for label in part}
    if all(isinstance(label, int) for label in seen):
        return tuple(str(c) for c in range(max(seen, default=-1) + 1))
    return tuple(sorted(seen))


def _place(folder: Path) -> Path | None:
    """Where the training files are; an error when two folders have some."""
    for place in (folder, folder / "data"):
        if parquet_shards(place, "train"):
            return place
    inner = [p for p in sorted(folder.glob("*")) if p.is_dir() and parquet_shards(p, "train")]
    if len(inner) > 1:
        raise UserError(
            f"'{folder}' has several data sets, such as '{inner[0].name}' and '{inner[1].name}'; "
            "name one in the path"
        )
    if inner:
        return inner[0]
    return folder if any(parquet_shards(folder, part) for part in TEST_PARTS) else None


def _features(folder: Path, path: Path) -> dict[str, Any]:
    """What Hugging Face noted of the columns: in the file, README.md or dataset_infos.json."""
    noted = (schema(path).metadata or {}).get(b"huggingface")
    places: list[Any] = []
    if noted is not None:
        info = _json(noted.decode(errors="replace")).get("info")
        places.append(info.get("features") if isinstance(info, dict) else None)
    for root in (folder, folder.parent):
        readme, infos = root / "README.md", root / "dataset_infos.json"
        if readme.is_file():
            places += _of_readme(readme.read_text(encoding="utf-8", errors="replace"))
        if infos.is_file():
            content = _json(infos.read_text(encoding="utf-8", errors="replace"))
            places += [info.get("features") for info in content.values() if isinstance(info, dict)]
    return next((place for place in places if isinstance(place, dict) and place), {})


def _json(text: str) -> dict[str, Any]:
    try:
        content = json.loads(text)
    except ValueError:
        return {}
    return content if isinstance(content, dict) else {}


def _of_readme(text: str) -> Iterator[dict[str, Any]]:
    """Features in the YAML head of a data set's card, in the form that the files have."""
    if not text.startswith("---"):
        return
    try:
        head = yaml.safe_load(text.split("---")[1])
    except yaml.YAMLError:
        return
    infos = head.get("dataset_info", []) if isinstance(head, Mapping) else []
    for info in infos if isinstance(infos, list) else [infos]:
        listed = info.get("features") if isinstance(info, Mapping) else None
        features = {}
        for feature in listed if isinstance(listed, list) else ():
            if not isinstance(feature, Mapping) or "name" not in feature:
                continue
            dtype = feature.get("dtype")
            label = dtype.get("class_label") if isinstance(dtype, dict) else None
            names = label.get("names") if isinstance(label, dict) else None
            if isinstance(names, dict):
                names = [names[key] for key in sorted(names, key=lambda key: (len(key), key))]
            kind = "ClassLabel" if names else "Image" if dtype == "image" else "Value"
            features[feature["name"]] = {"_type": kind, "names": names or []}
        yield features


def _label_column(known: pa.Schema, features: dict[str, Any], given: str, path: Path) -> str:
    noted = [name for name, f in features.items() if _kind(f) == "ClassLabel"]
    return _column(known, given, noted, LABEL_COLUMNS, "label", path)


def _image_column(known: pa.Schema, features: dict[str, Any], given: str, path: Path) -> str:
    noted = [name for name, f in features.items() if _kind(f) == "Image"]
    if not noted:
        structs = [field.name for field in known if pa.types.is_struct(field.type)]
        noted = structs if len(structs) == 1 else []
    return _column(known, given, noted, IMAGE_COLUMNS, "image", path)


def _kind(feature: Any) -> str:
    return str(feature.get("_type", "")) if isinstance(feature, dict) else ""


def _column(
    known: pa.Schema,
    given: str,
    noted: Sequence[str],
    usual: Sequence[str],
    what: str,
    path: Path,
) -> str:
    """The column that was given, else the only one that is noted, else the only usual name."""
    there = ", ".join(known.names)
    if given:
        if given not in known.names:
            raise UserError(f"'{path}' has no column '{given}' for the {what}s (it has: {there})")
        return given
    for names in (noted, usual):
        found = [name for name in names if name in known.names]
        if len(found) == 1:
            return found[0]
        if found:
            break
    raise UserError(
        f"'{path}' does not tell which column holds the {what}s (it has: {there}); say so with "
        f":{what}=COLUMN behind the path, such as hf:PATH:{what}={(found or known.names)[0]}"
    )
