"""The data of a plan's runs: loaded once per split, found again, and an identity for test images.

What image folders leave out is kept here for who tells the user.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterable
from dataclasses import replace
from typing import Any

from ltrobust.bench.plan import Plan, PlannedRun
from ltrobust.bench.settings import Settings
from ltrobust.config import DataSpec, Run, TestSpec
from ltrobust.data import LOCAL_PREFIXES, NATURAL, LongTailedData, data_fingerprint, load_data
from ltrobust.data.cache import memory_limit
from ltrobust.data.spec import parse_name
from ltrobust.errors import DataWarning, UserError
from ltrobust.progress import Reporter
from ltrobust.results.digest import images_sha256

KEPT = 2
"""Splits are kept up to so many times what one part of a data set may take in memory."""


class Loader:
    """Loads the split of a planned run; splits that several runs share are loaded once.

    Of many splits those that were asked for last are kept, as far as memory allows.
    """

    def __init__(self, plan: Plan) -> None:
        self._settings = plan.settings
        self._loaded: dict[tuple[DataSpec, TestSpec, bool], LongTailedData] = {}
        self._notes: dict[str, None] = {}

    def __call__(self, planned: PlannedRun) -> LongTailedData:
        """Return the data of a run; UserError when it cannot be loaded."""
        spec, test = planned.run.data, planned.test
        key = (spec, test, planned.run.select in ("best", "val"))
        if key not in self._loaded:
            settings = self._settings
            found = load_quietly(
                **split_of(planned, settings), download=settings.download, hold_out=key[2]
            )
            self._notes.update(dict.fromkeys(found.notes))
            while self._loaded and _bytes([found, *self._loaded.values()]) > KEPT * memory_limit():
                del self._loaded[next(iter(self._loaded))]
            self._loaded[key] = found
        return self._loaded[key]

    def notes(self) -> list[str]:
        """The notes of all data that has been loaded, each once."""
        return list(self._notes)


def _bytes(loaded: Iterable[LongTailedData]) -> int:
    """What images of several splits take, at the most: some may be mapped from files."""
    parts = [(data.train_images, data.val_images, data.test_images) for data in loaded]
    return sum(images.numel() for part in parts for images in part)


def split_of(planned: PlannedRun, settings: Settings) -> dict[str, Any]:
    """What `load_data` or `outline_data` is asked for, for a run of a plan with these settings."""
    spec, test = planned.run.data, planned.test
    local = spec.name.startswith(LOCAL_PREFIXES)
    return {
        "name": (planned.cell or settings).dataset if local else spec.name,
        "data_dir": settings.data_dir,
        "imbalance_ratio": spec.imbalance_ratio or NATURAL,
        "imbalance_type": spec.imbalance_type,
        "split_seed": spec.split_seed,
        "limit_train": spec.limit_train,
        "test_protocol": test.protocol,
        "limit_test": test.limit,
    }


def tell(notes: Iterable[str], reporter: Reporter) -> None:
    """Print the notes of some data."""
    for note in notes:
        reporter.line(f"note: {note}")


def load_quietly(name: str, **arguments: Any) -> LongTailedData:
    """`load_data` for who passes the data's notes on."""
    with warnings.catch_warnings(action="ignore", category=DataWarning):
        return load_data(name, **arguments)


def stored_dataset(run: Run, path: str | None, settings: Settings) -> str:
    """Find the data set of a stored run: an image folder where it lay, or where settings say.

    Args:
        run: what was trained.
        path: where its image folder lay last.
        settings: with a `dataset`, `folder:PATH`, in place of that path.

    Raises:
        UserError: the data is not there or is not the same, or `dataset` is out of place.
    """
    name, given = run.data.name, "dataset" in settings.model_fields_set
    if not name.startswith(LOCAL_PREFIXES):
        if given:
            raise UserError("--dataset: a run directory already says it; leave it out")
        if data_fingerprint(name, settings.data_dir) != run.data.fingerprint:
            raise UserError(f"{name} has changed since {run.run_id} was trained; train again")
        return name
    own = parse_name(name)
    path = path or ""
    if given and not settings.dataset.startswith(f"{own.family}:"):
        raise UserError(
            f"--dataset {settings.dataset}: {run.run_id} was trained on an image folder; give "
            f"{own.family}:PATH"
        )
    if given:
        path = parse_name(settings.dataset).argument
    name = str(replace(own, argument=path))
    way_out = f"say where they are with --dataset {own.family}:PATH"
    try:
        same = data_fingerprint(name) == run.data.fingerprint
    except UserError as error:
        raise UserError(f"no images for {run.run_id}: {error}; {way_out}") from error
    if not same:
        raise UserError(
            f"'{path}' holds other images than {run.run_id} was "
            f"trained on; {way_out}, or train again"
        )
    return name


def test_sha256(data: LongTailedData) -> str:
    """Tells the test images of a data set: see `images_sha256`."""
    return images_sha256(data.test_index, data.test_labels)
