"""An entry: one published table or figure as a YAML file, checked and typed.

It names the runs, the published values, how to draw both, and what the published values claim. The
files of a folder share `_scales.yaml` (settings by scale) and `published_numbers.csv`. Nothing here
runs or reads a result.
"""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, ValidationError, model_validator

from ltrobust.config import Frozen
from ltrobust.errors import UserError, unknown
from ltrobust.yaml_files import read_mapping

Scale = Literal["full", "cpu"]
SCALES: tuple[Scale, ...] = ("full", "cpu")
DRAWINGS = (
    *("bars", "ratios", "gains", "overfitting"),
    *("per-class", "scatter", "tail-bars"),
)
PUBLISHED = "published"
"""What a series of published values is called when nothing tells it from another."""
SCALES_FILE, VALUES_FILE = "_scales.yaml", "published_numbers.csv"


def _list(value: Any) -> Any:
    """One item is a list of one."""
    return value if isinstance(value, list | tuple) else (value,)


def _texts(value: Any) -> Any:
    """The same, with plain numbers as text."""
    return tuple(str(v) if isinstance(v, int | float) else v for v in _list(value))


Texts = Annotated[tuple[str, ...], BeforeValidator(_texts)]


class Variant(Frozen):
    """One of our runs within an entry: a method and, where runs differ in more, what tells them.

    Attributes:
        augment: the run's augmentation.
        select: how its epoch was chosen.
        epoch: "last" means the last epoch of a run that keeps the best one, from its history.
    """

    method: str
    augment: str | None = None
    select: str | None = None
    epoch: Literal["last"] | None = None

    @property
    def label(self) -> str:
        """What tables and figures call it."""
        chosen = {"best-on-test": "best epoch", "best": "best held-out epoch"}
        augment = None if self.augment == "none" else self.augment
        epoch = "last epoch" if self.epoch else chosen.get(self.select or "")
        more = (augment, epoch)
        return ", ".join(part for part in (self.method, *more) if part)


def _variant(value: Any) -> Any:
    return {"method": value} if isinstance(value, str) else value


AnyVariant = Annotated[Variant, BeforeValidator(_variant)]


class Selector(Frozen):
    """Which published values an entry shows, and which of our runs stand beside them.

    Attributes:
        where: column of the values' file to the value or values wanted; `notes` is a part of
            `setting_notes`.
        ours: published method to our run; methods that are not named are published only.
        title: what this series of values is called.
        checkpoint: how the paper chose the epoch.
        classes: with it the values of these classes become one: their mean.
        tail: the classes that the paper's tail is made of, for values of its tail as one number.
        reason: why none of them can be a target.
        note: what a reader should know.
    """

    where: dict[str, Texts]
    ours: dict[str, AnyVariant] = Field(default_factory=dict)
    title: str = PUBLISHED
    checkpoint: Literal["last", "best-on-test"] = "last"
    classes: Texts = ()
    tail: Texts = ()
    reason: str = ""
    note: str = ""


class Cell(Variant):
    """One number of a claim: a variant under one attack.

    Attributes:
        method: our name; with `published` set it is left out and the cell has no run of ours.
        published: the paper's name of a method that is not ours.
        attack: our name of it.
        ratio: imbalance ratio; None where the entry has one.
        classes: mean over these classes.
        balanced: mean over all classes instead of over images.
        series: title of the published series; None takes the first that has the value.
    """

    method: str = ""
    published: str | None = None
    attack: str
    ratio: float | None = None
    classes: Texts = ()
    balanced: bool = False
    series: str | None = None

    @property
    def metric(self) -> str:
        """Name of what is counted; as `published.Value.metric`."""
        if self.classes:
            return class_metric(self.classes)
        return "balanced" if self.balanced else "accuracy"

    @property
    def variant(self) -> Variant:
        """The run of ours that is meant."""
        return Variant.model_validate(self.model_dump(include=set(Variant.model_fields)))


Cells = Annotated[tuple[Cell, ...], BeforeValidator(_list), Field(min_length=1, max_length=2)]


class Claim(Frozen):
    """Something that published values say: `more` is larger than `less`.

    Each side is one cell, or two of which the second is subtracted from the first (a gain).
    """

    text: str
    more: Cells
    less: Cells

    @model_validator(mode="after")
    def _sides_are_alike(self) -> Claim:
        if len(self.more) != len(self.less):
            raise ValueError("more and less must both be one cell, or both a gain of two cells")
        return self


class Entry(Frozen):
    """One published table or figure.

    Attributes:
        suites: settings of `ltrobust bench`; the keys `full` and `cpu` hold those of one scale.
        classes: the classes that `tail-bars`, `scatter` and `per-class` draw, in order.
        baseline: the method that `gains` counts from.
        note: what a reader of the comparison should know.
    """

    name: str
    title: str
    method: str
    draw: str
    suites: tuple[dict[str, Any], ...] = Field(min_length=1)
    published: tuple[Selector, ...] = Field(min_length=1)
    claims: tuple[Claim, ...] = ()
    classes: Texts = ()
    baseline: str = "pgd-at"
    note: str = ""

    def settings(self, scales: dict[str, Any], scale: Scale) -> list[dict[str, Any]]:
        """Settings for `make_settings`, one mapping a suite."""
        base = scales.get(scale) or {}
        return [
            {
                **base,
                **{key: value for key, value in suite.items() if key not in SCALES},
                **(suite.get(scale) or {}),
            }
            for suite in self.suites
        ]


def class_metric(classes: tuple[str, ...]) -> str:
    """Name of the mean over some classes, such as "class:dog" or "mean:dog,frog"."""
    names = ",".join(name.casefold() for name in classes)
    return f"class:{names}" if len(classes) == 1 else f"mean:{names}"


def shipped_folder() -> Path:
    """The entries that come with the package."""
    return Path(str(files("ltrobust.benchmarks"))) / "papers"


def entry_names(folder: Path) -> list[str]:
    """Names of a folder's entries, sorted; UserError when it has none."""
    names = sorted(p.stem for p in folder.glob("*.yaml") if not p.name.startswith("_"))
    if not names:
        raise UserError(f"{folder} holds no entry (NAME.yaml); see docs/reproduce.md")
    return names


def read_entry(folder: Path, name: str) -> Entry:
    """Read an entry by its name; UserError when there is none or it is wrong."""
    known = entry_names(folder)
    if name not in known:
        raise unknown("entry", name, [*known, "all"])
    file = folder / f"{name}.yaml"
    content = {**read_mapping(file, str(file)), "name": name}
    try:
        entry = Entry.model_validate(content)
    except ValidationError as error:
        problem = error.errors()[0]
        place = ".".join(str(part) for part in problem["loc"])
        text = problem["msg"].removeprefix("Value error, ")
        raise UserError(f"{file.name}: {place or 'entry'}: {text}") from None
    if entry.draw not in DRAWINGS:
        raise unknown(f"drawing in {file.name}:", entry.draw, DRAWINGS)
    return entry


def read_scales(folder: Path) -> dict[str, Any]:
    """What `_scales.yaml` says; UserError when it is missing or wrong."""
    scales = read_mapping(folder / SCALES_FILE, str(folder / SCALES_FILE))
    for scale in scales:
        if scale not in SCALES:
            raise unknown(f"scale in {SCALES_FILE}:", scale, SCALES)
    return scales
