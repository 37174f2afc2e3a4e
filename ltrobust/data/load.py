"""From a data set's name to the tensors of one long-tailed split.

`load_data` opens the source, chooses training and test images, and reads only those. Which images
that are depends on its arguments alone, never on a global generator.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from ltrobust.data.base import Images, LongTailedData, Source
from ltrobust.data.cache import read_or_map
from ltrobust.data.catalog import TINY, checked_ratio, dataset_spec, known_name
from ltrobust.data.digits import digits_pools
from ltrobust.data.holdout import PER_CLASS, held_out
from ltrobust.data.listing import in_one_line
from ltrobust.data.opening import (
    CIFAR_LAYOUTS,
    data_root,
    fingerprint,
    open_source,
    path_of,
)
from ltrobust.data.selection import (
    TestProtocol,
    check_test_protocol,
    ruled_test_counts,
    select_test,
    select_train,
    train_counts,
)
from ltrobust.data.spec import DataName
from ltrobust.data.split import (
    ImbalanceType,
    IndexArray,
    check_imbalance_ratio,
    check_imbalance_type,
    check_split_seed,
    proportional_counts,
    shuffled_classes,
)
from ltrobust.errors import DataWarning, UserError


def load_data(
    name: str,
    *,
    data_dir: Path | None = None,
    download: bool = False,
    imbalance_ratio: float | Literal["natural"] | None = None,
    imbalance_type: ImbalanceType = "exp",
    split_seed: int = 0,
    limit_train: int | None = None,
    test_protocol: TestProtocol = "balanced",
    limit_test: int | None = None,
    hold_out: bool = False,
) -> LongTailedData:
    """Load one long-tailed split of a data set.

    Args:
        name: a registered data set, `folder:PATH` or `hf:PATH`; see docs/data-sets.md.
        data_dir: where the files are; default the environment's LTROBUST_DATA_DIR, then `data`.
        download: fetch published files that are not there; nothing is fetched otherwise.
        imbalance_ratio: largest / smallest training class; default the data set's own, "natural"
            keeps all images. Where classes differ in size as they came, the largest one is the
            head, and as many images stay as can.
        imbalance_type: "exp" or "step".
        split_seed: chooses the training images (0: those of RoBal).
        limit_train: scale the training counts down to about this many images.
        test_protocol: "balanced" (the test set as it is) or "long-tailed" (cut by the same rule;
            data of the user's own in the proportions of its training set).
        limit_test: keep about this many test images.
        hold_out: set validation images apart, where the authors did not: of each class the last
            min(50, n_c / 10) training images, see `ltrobust.data.holdout`.

    Warns:
        DataWarning: of the user's own data, files are not read or images are not kept; the same
            lines stand in the result's `notes`.

    Raises:
        UserError: an argument is out of range, or the files are missing, damaged or too few.
    """
    asked = locals()
    choice = _choose(**asked)
    root = data_root(data_dir)

    def read(part: str, images: Images, at: IndexArray) -> Tensor:
        def told() -> str:
            return f"{choice.name} {data_fingerprint(name, data_dir)} {part}"

        return read_or_map(images, at, root, told)

    return _load(choice, read)


def outline_data(name: str, **arguments: Any) -> LongTailedData:
    """`load_data` without reading images: one of each part stands for all, so their pixels are not
    to be used. Labels, counts, names and checksums are the real ones.

    Raises:
        UserError: as `load_data`, but for images that cannot be read.
    """

    def first_alone(_part: str, images: Images, at: IndexArray) -> Tensor:
        one = torch.from_numpy(images.read(at[:1]))
        return one[:1].expand(len(at), -1, -1, -1)

    return _load(_choose(name, **arguments), first_alone)


@dataclass(frozen=True)
class _Choice:
    """Which images of a source are taken."""

    name: DataName
    given: str
    source: Source
    train: IndexArray
    test: IndexArray
    val: tuple[Images, IndexArray] | None
    notes: tuple[str, ...]


def _choose(
    name: str,
    *,
    data_dir: Path | None = None,
    download: bool = False,
    imbalance_ratio: float | Literal["natural"] | None = None,
    imbalance_type: ImbalanceType = "exp",
    split_seed: int = 0,
    limit_train: int | None = None,
    test_protocol: TestProtocol = "balanced",
    limit_test: int | None = None,
    hold_out: bool = False,
) -> _Choice:
    spec, known = dataset_spec(name), known_name(name)
    ratio = checked_ratio(spec.imbalance_ratio if imbalance_ratio is None else imbalance_ratio)
    if ratio is not None:
        check_imbalance_ratio(ratio)
    check_imbalance_type(imbalance_type)
    check_split_seed(split_seed)
    check_test_protocol(test_protocol)
    with _readable():
        source = open_source(known, data_dir, download)
    pools, tests, n_max = _pools(known, source, ratio, split_seed)
    sizes, test_sizes = [len(pool) for pool in pools], [len(pool) for pool in tests]
    kept = train_counts(sizes, n_max, ratio, imbalance_type)
    test_kept = None
    if test_protocol == "long-tailed":
        test_kept = (
            proportional_counts(test_sizes, kept)
            if ratio is None or n_max is None
            else ruled_test_counts(test_sizes, kept, ratio, imbalance_type)
        )
    notes = _notes(source, (sizes, kept), (test_sizes, test_kept)) if known.local else ()
    for note in notes:
        warnings.warn(note, DataWarning, stacklevel=3)
    train, val = select_train(pools, kept, limit_train), None
    if source.val is not None:
        val = source.val, _validation(source.val, len(sizes))
    elif hold_out:
        held = held_out(torch.from_numpy(source.train.labels[train]), len(sizes)).numpy()
        train, val = train[~held], (source.train, train[held])
    test = select_test(tests, test_kept, limit_test)
    return _Choice(known, name, source, train, test, val, notes)


def _load(choice: _Choice, read: Callable[[str, Images, IndexArray], Tensor]) -> LongTailedData:
    """Read the chosen images and what is known of them."""
    known, source = choice.name, choice.source
    parts: dict[str, Tensor] = {}
    # the test images first: where one of them is damaged the many others are not read in vain
    chosen = {"test": (source.test, choice.test), "val": choice.val}
    chosen["train"] = source.train, choice.train
    for part, taken in chosen.items():
        if taken is not None:
            images, positions = taken
            with _readable():
                parts[f"{part}_images"] = read(part, images, positions)
            parts[f"{part}_labels"] = torch.from_numpy(images.labels[positions])
            parts[f"{part}_index"] = torch.from_numpy(images.named(positions))
    return LongTailedData(
        name=choice.given if known.local else str(known),
        class_names=source.class_names,
        **parts,
        path=str(path_of(known).resolve()) if known.local else "",
        notes=choice.notes,
        source=_facts(source),
    )


def _validation(images: Images, num_classes: int) -> IndexArray:
    """The first images of each class of the authors' own validation part."""
    return np.sort(np.concatenate([pool[:PER_CLASS] for pool in images.by_class(num_classes)]))


def _facts(source: Source) -> dict[str, dict[str, Any]]:
    """What a result must say about where its images come from."""
    parts = {"train": source.train, "val": source.val, "test": source.test}
    facts: dict[str, dict[str, Any]] = {
        part: images.facts() for part, images in parts.items() if images is not None
    }
    return {**facts, "files": dict(source.files)} if source.files else facts


def _notes(
    source: Source,
    train: tuple[Sequence[int], Sequence[int]],
    test: tuple[Sequence[int], Sequence[int] | None],
) -> tuple[str, ...]:
    """What is not taken of an image folder; both parts come as class sizes and counts kept."""
    notes = [source.left_out] if source.left_out else []
    for part, (sizes, kept) in (("training", train), ("long-tailed test", test)):
        if kept is not None and sum(kept) < sum(sizes):
            most, least = kept.index(max(kept)), kept.index(min(kept))
            ends = ", ".join(
                f"{kept[c]:,} of '{in_one_line(source.class_names[c])}'" for c in (most, least)
            )
            notes.append(
                f"the {part} set keeps {sum(kept):,} of {sum(sizes):,} images (largest and "
                f"smallest class: {ends})"
            )
    return tuple(notes)


def data_fingerprint(name: str, data_dir: Path | None = None) -> str:
    """Identify data that a name alone does not: a hash for `folder:PATH` and `hf:PATH`.

    The hash covers class names, file names and contents and the size that images are brought to,
    not the folder's own name and place. Other data sets are checked to be the published ones when
    they are read, and have "", but for Tiny-ImageNet where it is not the official whole.

    Raises:
        UserError: the name is unknown, or the folder is missing or badly laid out.
    """
    known = known_name(name)
    with _readable():
        return fingerprint(known, data_dir)


@contextmanager
def _readable() -> Iterator[None]:
    """Turn a folder that may not be read into the user's error."""
    try:
        yield
    except PermissionError as error:
        raise UserError(f"may not read '{error.filename}'; change its permissions") from error


def data_label(name: str) -> str:
    """Name a data set in results: the one spelling of its name, of a folder its own name alone.

    Raises:
        UserError: the name is unknown.
    """
    known = known_name(name)
    if not known.local:
        return str(known)
    own_name = in_one_line(path_of(known).resolve().name) or "root"
    return str(replace(known, argument=own_name))


def _pools(
    name: DataName, source: Source, ratio: float | None, split_seed: int
) -> tuple[list[IndexArray], list[IndexArray], int | None]:
    """Order each class's training and test candidates; the largest class size where it is fixed."""
    num_classes = len(source.class_names)
    if name.family == "digits-lt":
        train, test = digits_pools(source.train.labels, split_seed)
        return train, test, len(train[0])
    tests = source.test.by_class(num_classes)
    if ratio is None:
        return source.train.by_class(num_classes), tests, None
    pools = shuffled_classes(source.train.labels, num_classes, split_seed)
    fixed = name.family in (*CIFAR_LAYOUTS, TINY)  # as many images of each class
    return pools, tests, len(source.train.labels) // num_classes if fixed else None
