"""The papers' values: facts with their sources, and why some of them can be no target.

They are read from `published_numbers.csv` and selected by an entry; none is typed anywhere else.
"""

from __future__ import annotations

import re
from collections.abc import Hashable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import pandas as pd

from ltrobust.errors import UserError, unknown
from ltrobust.papers.entries import VALUES_FILE, Cell, Entry, Selector, Variant, class_metric

COLUMNS = (
    *("method", "paper_or_source", "dataset", "ir", "test_protocol", "arch", "epochs", "attack"),
    *("metric", "value", "setting_notes", "source"),
)
TORCHATTACKS = "AA (torchattacks standard)"
ATTACKS = {
    "Clean": "clean",
    "FGSM": "fgsm",
    "PGD-20": "pgd20",
    "PGD-20 (inferred)": "pgd20",
    "PGD-100": "pgd100",
    "MIM-20": "mim20",
    "CW-20": "cw20",
    "LSA": "lsa20",
    "AA (APGD-CE+APGD-T)": "aa-apgd",
    TORCHATTACKS: "autoattack",
}
"""What the papers call an attack, and what we call it."""
BALANCED = ("balanced_accuracy", "balanced_robustness")
CLASS = "class_accuracy:"
TAIL = ("tail80_accuracy", "tail_balanced_accuracy", "tail_balanced_robustness")
"""Accuracy on a paper's tail: the mean of its classes, which have as many test images each."""
DOUBTFUL = re.compile(r"\b(SUSPECT|CONFLICT)\b:?\s*(.*)")
PAPERS_AUTOATTACK = (
    "torchattacks' AutoAttack (10 iterations) is another attack than the reference's"
)


@dataclass(frozen=True)
class Value:
    """One published value.

    Attributes:
        method: the paper's name.
        ours: the run of ours beside it; None for a method that is published only.
        attack: our name; `published_attack` is the paper's.
        metric: "accuracy", "balanced", "class:NAME" or "mean:NAME,NAME".
        value: fraction in [0, 1].
        doubt: the note of a SUSPECT or CONFLICT row, "" otherwise.
    """

    method: str
    ours: Variant | None
    ratio: float
    attack: str
    published_attack: str
    metric: str
    value: float
    doubt: str
    arch: str
    epochs: int | None
    test_protocol: str
    notes: str
    source: str
    selector: Selector

    @property
    def label(self) -> str:
        """What tables and figures call the row: our name, or the paper's."""
        return self.ours.label if self.ours else self.method


def read_values(folder: Path) -> pd.DataFrame:
    """Read `published_numbers.csv`: all columns as text, `value` as a number in percent.

    Raises:
        UserError: the file is missing, or a column or value is.
    """
    file = folder / VALUES_FILE
    try:
        frame = pd.read_csv(file, dtype=str, keep_default_na=False)
    except OSError as error:
        raise UserError(f"{file} cannot be read: {error.strerror}") from None
    missing = [name for name in COLUMNS if name not in frame]
    if missing:
        raise UserError(f"{file} lacks the column {missing[0]}; columns: {', '.join(COLUMNS)}")
    value = pd.to_numeric(frame["value"], errors="coerce")
    if value.isna().any():
        line = int(value.isna().to_numpy().argmax()) + 2
        raise UserError(f"{file} line {line}: value '{frame['value'][line - 2]}' is no number")
    return frame.assign(value=value)


def select(entry: Entry, values: pd.DataFrame) -> list[Value]:
    """The published values of an entry, in the order of its selectors.

    Raises:
        UserError: a selector names an unknown column or finds nothing.
    """
    return [value for selector in entry.published for value in _found(entry, selector, values)]


def find(values: list[Value], cell: Cell) -> Value | None:
    """The published value of a claim's cell; doubtful rows and other AutoAttacks never count."""
    for value in values:
        same_method = (
            value.method == cell.published if cell.published else value.ours == cell.variant
        )
        same_cell = (value.attack, value.metric) == (cell.attack, cell.metric)
        same_ratio = cell.ratio in (None, value.ratio)
        same_series = cell.series in (None, value.selector.title)
        usable = not value.doubt and value.published_attack != TORCHATTACKS
        if same_method and same_cell and same_ratio and same_series and usable:
            return value
    return None


def _found(entry: Entry, selector: Selector, values: pd.DataFrame) -> list[Value]:
    rows = values
    for column, wanted in selector.where.items():
        if column == "notes":
            rows = rows[[all(t in note for t in wanted) for note in rows["setting_notes"]]]
            continue
        if column not in COLUMNS:
            raise unknown(f"column in {entry.name}.yaml, published.where:", column, COLUMNS)
        rows = rows[rows[column].isin(wanted)]
    rows = rows[rows["attack"].isin(ATTACKS)]
    if "method" in selector.where:  # shown in the order in which the entry names them
        order = rows["method"].map(selector.where["method"].index)
        rows = rows.loc[order.sort_values(kind="stable").index]
    found = [_value(row, selector) for row in rows.to_dict("records")]
    if selector.classes:
        found = _means(found, selector)
    if not found:
        where = ", ".join(f"{k}: {', '.join(v)}" for k, v in selector.where.items())
        raise UserError(f"{entry.name}.yaml: no published value has {where}")
    return found


def _value(row: Mapping[Hashable, object], selector: Selector) -> Value:
    text = {name: str(row[name]) for name in COLUMNS}
    doubt = DOUBTFUL.search(text["setting_notes"])
    return Value(
        method=text["method"],
        ours=selector.ours.get(text["method"]),
        ratio=float(text["ir"] or "nan"),
        attack=ATTACKS[text["attack"]],
        published_attack=text["attack"],
        metric=_metric(text["metric"], selector.tail),
        value=float(text["value"]) / 100,
        doubt=f"{doubt[1]}: {doubt[2]}" if doubt else "",
        arch=text["arch"],
        epochs=int(text["epochs"]) if text["epochs"].isdecimal() else None,
        test_protocol="long-tailed" if "long-tailed" in text["test_protocol"] else "balanced",
        notes=text["setting_notes"],
        source=text["source"],
        selector=selector,
    )


def _metric(name: str, tail: tuple[str, ...]) -> str:
    if tail and name in TAIL:
        return class_metric(tail)
    if name.startswith(CLASS):
        return class_metric((name.removeprefix(CLASS),))
    return "balanced" if name in BALANCED else name


def _means(found: list[Value], selector: Selector) -> list[Value]:
    """One value a method and attack: the mean over the selector's classes, where all are there."""
    metrics = [class_metric((name,)) for name in selector.classes]
    by_row: dict[tuple[str, str, float], dict[str, Value]] = {}
    for value in found:
        key = (value.method, value.attack, value.ratio)
        by_row.setdefault(key, {})[value.metric] = value
    means = []
    for cells in by_row.values():
        if all(metric in cells for metric in metrics):
            parts = [cells[metric] for metric in metrics]
            doubt = next((part.doubt for part in parts if part.doubt), "")
            mean = sum(part.value for part in parts) / len(parts)
            metric = class_metric(selector.classes)
            means.append(replace(parts[0], metric=metric, value=mean, doubt=doubt))
    return means
