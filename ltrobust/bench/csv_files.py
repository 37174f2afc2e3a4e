"""Reads metrics.csv and its companions back, each column with the type it was written with.

A CSV file does not say that `config_id` 1234e5678901 is text: what is a number is decided here.
"""

from __future__ import annotations

import csv
import math
from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from ltrobust.bench.collect import (
    CONFUSION_COLUMNS,
    MAYBE_COUNTS,
    METRICS_COLUMNS,
    PER_CLASS_COLUMNS,
)
from ltrobust.bench.pairs import LEAD_COLUMNS
from ltrobust.errors import UserError
from ltrobust.report.groups import LATER_COLUMNS, REQUIRED

_TEXT = {
    *("run_id", "method", "dataset", "test_protocol", "arch", "recipe", "checkpoint", "attack"),
    *("split_sha256", "augment", "select", "precision", "attack_settings", "attack_library"),
    *("torch", "ltrobust", "git_commit", "device", "attack_id", "imbalance_type", "config_id"),
    *("groups", "reliability", "attack_device", "recipe_changes", "reliability_report"),
    *(
        "attack_code",
        "test_sha256",
        "data_fingerprint",
        "class_name",
        "group",
        "label_name",
        "pred_name",
        "setting",
        "best",
        "other",
    ),
    *("best_run_id", "other_run_id", "verdict", "basis"),
}
_COUNTS = {
    *("seed", "n", "split_seed", "epochs", "n_train", "batch_size", "class_index", "n_test"),
    *("label", "pred", "count"),
}
_SCORES = {"accuracy", "balanced_accuracy", "head", "medium", "tail", "worst_class"}
_ROUNDING = 1e-9


def read_metrics(folder: Path) -> pd.DataFrame:
    """Rows of metrics.csv; columns that an older file lacks are filled in.

    Raises:
        UserError: the file is damaged, lacks columns or counts, or has scores outside [0, 1].
    """
    needed = [name for name in METRICS_COLUMNS if name in REQUIRED and name not in LATER_COLUMNS]
    frame = _read(folder / "metrics.csv", needed)
    for name, value in LATER_COLUMNS.items():
        if name not in frame.columns:
            frame[name] = value
    # an empty cell says that nothing was flagged, unless it is known that nothing was looked at
    looked_at = frame["reliability_report"] != "no"
    frame["reliability"] = frame["reliability"].astype(object).where(looked_at, None)
    return in_order(frame, METRICS_COLUMNS)


def read_classes(folder: Path) -> pd.DataFrame:
    """Rows of per_class.csv; no rows without the file."""
    needed = ["run_id", "attack", "class_index", "class_name", "n_train", "n_test", "accuracy"]
    return _optional(folder / "per_class.csv", needed, PER_CLASS_COLUMNS)


def read_confusion(folder: Path) -> pd.DataFrame:
    """Rows of confusion.csv; no rows without the file."""
    return _optional(folder / "confusion.csv", CONFUSION_COLUMNS, CONFUSION_COLUMNS)


def read_comparisons(folder: Path) -> pd.DataFrame:
    """Rows of comparisons.csv; no rows without the file."""
    needed = [name for name in LEAD_COLUMNS if name != "n"]  # unknown of some tails
    return _optional(folder / "comparisons.csv", needed, LEAD_COLUMNS)


def _optional(file: Path, needed: Sequence[str], columns: Sequence[str]) -> pd.DataFrame:
    if not file.is_file():
        return pd.DataFrame(columns=list(columns))
    return in_order(_read(file, needed), columns)


def in_order(frame: pd.DataFrame, columns: Sequence[str]) -> pd.DataFrame:
    """Known columns in their order (those the file has), then the file's own."""
    known = [name for name in columns if name in frame.columns]
    return frame[[*known, *(name for name in frame.columns if name not in known)]]


def _read(file: Path, needed: Sequence[str]) -> pd.DataFrame:
    try:
        texts = pd.read_csv(file, dtype=str, keep_default_na=False, encoding="utf-8")
    except (OSError, ValueError) as error:  # what pandas raises on a damaged file is a ValueError
        reason = " ".join(str(error).split())
        raise UserError(f"{file} cannot be read ({reason}); write it again") from None
    missing = [name for name in needed if name not in texts.columns]
    if missing:
        raise UserError(
            f"{file} lacks the columns {', '.join(missing)}; see docs/results-format.md"
        )
    known = {*METRICS_COLUMNS, *PER_CLASS_COLUMNS, *CONFUSION_COLUMNS, *LEAD_COLUMNS}
    numbers = [name for name in texts.columns if name in known - _TEXT]
    return texts.assign(**{name: _numbers(texts[name], file, needed) for name in numbers})


def _numbers(texts: pd.Series, file: Path, needed: Sequence[str]) -> pd.Series:
    """Exact floats (as Python reads them), or whole numbers where the column counts."""
    name = str(texts.name)
    values = [_number(text) for text in texts]
    for place, (text, value) in enumerate(zip(texts, values, strict=True)):
        if name in _SCORES and not (math.isnan(value) or -_ROUNDING <= value <= 1 + _ROUNDING):
            _check_is_number(name, text, value, file, place)
            raise UserError(
                f"{file}: accuracies are fractions in [0, 1]; line {_line(file, place)} has "
                f"{name} {text}; divide percent by 100"
            )
        if name in _COUNTS and name in needed and math.isnan(value):
            raise UserError(
                f"{file}, line {_line(file, place)}: {name} is empty; give a whole number"
            )
        _check_is_number(name, text, value, file, place)
    floats = pd.Series(values, index=texts.index, dtype=float)
    if name in MAYBE_COUNTS:
        return floats.astype("Int64")
    return floats.astype("int64") if name in _COUNTS and floats.notna().all() else floats


def _number(text: str) -> float:
    """NaN for an empty cell, infinity for what is no number."""
    try:
        return float(text) if text else math.nan
    except ValueError:
        return math.inf


def _check_is_number(name: str, text: str, value: float, file: Path, place: int) -> None:
    counts = name in _COUNTS or name in MAYBE_COUNTS
    if math.isinf(value) or (counts and value % 1 > 0):
        kind = "whole number" if counts else "number"
        raise UserError(f"{file}, line {_line(file, place)}: {name} '{text}' is no {kind}")


def _line(file: Path, place: int) -> int:
    """The line of a file at which a row begins; cells may span lines, and empty lines are none."""
    starts, last = [], 0
    with file.open(newline="", encoding="utf-8") as stream:
        reader = csv.reader(stream)
        for cells in reader:
            if len(cells) > 1 or any(cell.strip() for cell in cells):
                starts.append(last + 1)
            last = reader.line_num
    return starts[place + 1]  # after the header
