"""Images to look at: clean, adversarial, and the change between them made visible.

The images come from runs' stored examples; this module chooses rows and classes, never images.
"""

from __future__ import annotations

import base64
import hashlib
import io
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from PIL import Image

from ltrobust.report.chart import MANY
from ltrobust.report.groups import Group, format_eps
from ltrobust.report.labels import fit, text_width
from ltrobust.report.marks import sign_of
from ltrobust.report.names import attack_title, method_title
from ltrobust.report.setting import Setting
from ltrobust.report.style import CLEAN_COLOUR, ROBUST_COLOUR, WIDTH, new_figure, short, styled

METHODS, CLASSES = 4, 6
"""Most blocks and columns of a figure; further methods go on to further figures."""
_SHORT = 12
"""Most blocks where many methods have one row of images each."""
_COLUMNS = [
    *("label", "class_name", "pred_clean", "pred_adv", "clean", "adversarial", "eps", "attack")
]
_LEFT, _TITLE, _CAPTION, _GAP, _LINE = 0.78, 0.22, 0.13, 0.05, 0.125
"""Inches: row names, a method's name, a prediction, between images, a line of the footnote."""
_LARGEST = 1.0
_KINDS = ("clean", "adversarial", "change")
_SIZE = 7
"""Points of all text."""
_SCREEN = 64
"""Most pixels of an image's side on the page."""


@dataclass(frozen=True)
class ExampleSheet:
    """One method's images for the page.

    Attributes:
        link: a data link to one picture: clean images, adversarial ones, changes; a column a class.
        columns: class, prediction without and under the attack.
        note: attack, factor of the change, how the picture is stored.
    """

    link: str
    columns: tuple[tuple[str, str, str], ...]
    note: str


def example_rows(
    group: Group, ranked: Sequence[str], facts: Sequence[Any], examples: Mapping[str, pd.DataFrame]
) -> pd.DataFrame:
    """Collect the stored examples of a group's methods, one run each, under one attack.

    Args:
        group: the results; examples under attacks that are not among them are left out.
        ranked: labels, best first.
        facts: the classes, see `classes.ClassFact`.
        examples: run id to its examples (`RunStore.examples`); runs may be missing.

    Returns:
        Columns `label, class_name, pred_clean, pred_adv` (names), `clean, adversarial` (arrays),
        `eps, attack`: best label first, classes from the most frequent to the rarest. Empty without
        examples.
    """
    names = {fact.index: fact.name for fact in facts}
    places = {fact.index: place for place, fact in enumerate(facts)}
    evaluated = {(row["attack"], round(row["eps"], 9)) for row in group.rows}
    by_attack: dict[tuple[str, float], list[pd.DataFrame]] = {}
    for label in ranked:
        stored = next((examples[run] for run in group.runs(label) if run in examples), None)
        if stored is None or stored.empty:
            continue
        attack = str(stored["attack"].iloc[0]), round(float(stored["eps"].iloc[0]), 9)
        if attack in evaluated and set(stored["label"]) <= set(names):
            rows = stored.iloc[np.argsort(stored["label"].map(places), kind="stable")]
            preds = {
                name: [names.get(pred, str(pred)) for pred in rows[name]]
                for name in ("pred_clean", "pred_adv")
            }
            rows = rows.assign(class_name=rows["label"].map(names), label=label, **preds)
            by_attack.setdefault(attack, []).append(rows[_COLUMNS])
    if not by_attack:
        return pd.DataFrame(columns=_COLUMNS)
    return pd.concat(max(by_attack.values(), key=len), ignore_index=True)


@dataclass(frozen=True)
class _Sheet:
    """A figure and where images go on it, in inches from its lower left corner.

    Attributes:
        rows: of images in a block: clean, adversarial and change, or the adversarial alone.
    """

    width: float
    rows: int
    blocks: int
    across: float
    down: float
    foot: float

    @property
    def height(self) -> float:
        return self.blocks * self._block + _CAPTION + self.foot

    @property
    def _block(self) -> float:
        return _TITLE + self.rows * (self.down + _GAP) + min(self.rows, 2) * _CAPTION

    @cached_property
    def figure(self) -> Figure:
        figure = new_figure(self.height, self.width)
        figure.set_layout_engine("none")
        return figure

    def left(self, column: int) -> float:
        return _LEFT + column * (self.across + _GAP)

    def top(self, block: int) -> float:
        """Upper edge of a block."""
        return self.height - _CAPTION - block * self._block

    def bottom(self, block: int, row: int) -> float:
        """Lower edge of a row of images."""
        down = (row + 1) * (self.down + _GAP) - _GAP + min(row, 2) * _CAPTION
        return self.top(block) - _TITLE - down

    def write(self, x: float, y: float, text: str, ha: str = "center", **how: Any) -> None:
        self.figure.text(x / self.width, y / self.height, text, ha=ha, fontsize=_SIZE, **how)

    def caption(self, column: int, y: float, text: str, colour: str | None = None) -> None:
        """Write into the middle of a column, as much as it holds."""
        middle = self.left(column) + self.across / 2
        self.write(middle, y, fit(text, self.across, _SIZE), va="top", color=colour)

    def show(self, column: int, bottom: float, image: np.ndarray) -> None:
        """Show an image (C, H, W) or (H, W); one without colours in grey."""
        size = self.across / self.width, self.down / self.height
        axes = self.figure.add_axes((self.left(column) / self.width, bottom / self.height, *size))
        axes.set_axis_off()
        channels = image.clip(0, 1).reshape(-1, *image.shape[-2:])
        picture = np.moveaxis(channels[:3], 0, -1) if len(channels) >= 3 else channels[0]
        axes.imshow(picture, cmap="gray", vmin=0, vmax=1, interpolation="nearest")


def examples_digest(setting: Setting) -> str:
    """What tells one collection of examples from another: a digest of all that is drawn."""
    marked = [label + sign_of(setting, label, *setting.attacks) for label in setting.labels]
    found = hashlib.sha256(Path(__file__).read_bytes() + "|".join(marked).encode())
    for row in setting.examples.to_dict("records"):
        texts = (str(row[name]) for name in _COLUMNS if name not in ("clean", "adversarial"))
        found.update("|".join(texts).encode())
        found.update(np.ascontiguousarray(row["clean"]).tobytes())
        found.update(np.ascontiguousarray(row["adversarial"]).tobytes())
    return found.hexdigest()


def adversarial_figures(setting: Setting, width: float = WIDTH) -> dict[str, Figure]:
    """Draw all methods that have examples; a footnote names the others.

    At most 4 stand on a figure; of more than `chart.MANY` only the adversarial images are shown,
    12 methods on a figure.

    Returns:
        File name part to figure; further ones are numbered from 2 on.
    """
    examples = setting.examples
    known = list(dict.fromkeys(examples["label"]))
    attacks = [str(name) for name in examples["attack"].unique()]
    titles = {one: method_title(one) + sign_of(setting, one, *attacks) for one in setting.labels}
    names = [titles[label] for label in setting.labels if label not in known]
    without = f"No stored examples under this attack: {', '.join(names)}." if names else ""
    figures: dict[str, Figure] = {}
    many = len(known) > MANY
    size = _SHORT if many else METHODS
    for start in range(0, len(known), size):
        own = known[start : start + size]
        first, last = start + 1, start + len(own)
        place = f"Methods {first} to {last}" if last > first else f"Method {first}"
        place = f"{place} of {len(known)}."
        note = f"{place if len(known) > size else ''} {without}".strip()
        part = examples[examples["label"].isin(own)]
        name = f"adversarial-{len(figures) + 1}" if figures else "adversarial"
        figures[name] = adversarial_figure(part, titles, note, alone=many, width=width)
    return figures


@styled()
def adversarial_figure(
    examples: pd.DataFrame,
    shown: Mapping[str, str] | None = None,
    note: str = "",
    alone: bool = False,
    width: float = WIDTH,
) -> Figure:
    """Grid of clean image, adversarial image and the change, a block of rows for each method.

    The change is scaled so that +-eps (L2: the largest change of a pixel) fills the range of
    colours, with no change as mid-grey; the factor stands under the figure.

    Args:
        examples: columns `label` (method), `class_name`, `pred_clean`, `pred_adv`, `clean` (uint8
            array C, H, W or H, W), `adversarial` (float32 array in [0, 1], same shape), `eps`,
            `attack`, as from `example_rows`. Of the classes at most 6 are drawn, evenly spaced over
            the order in which they come; a footnote says so.
        shown: label to label as written; default as it is.
        note: what else the footnote says.
        alone: whether the adversarial images stand alone.
        width: of the figure in inches.
    """
    labels = list(dict.fromkeys(examples["label"]))
    known = list(dict.fromkeys(examples["class_name"]))
    picked = np.linspace(0, len(known) - 1, min(CLASSES, len(known))).round().astype(int)
    classes = [known[place] for place in picked]
    drawn = examples[examples["class_name"].isin(classes)]
    largest = 0.0 if alone else _largest_change(drawn)
    kinds = _KINDS[1:2] if alone else _KINDS
    if len(classes) < len(known):
        note = f"{len(classes)} of {len(known)} stored classes, evenly spaced. {note}".strip()
    foot = _footnote(drawn, largest, note, alone, width)
    across = min(_LARGEST, (width - _LEFT - 0.06) / len(classes) - _GAP)
    steepest = max(image.shape[-2] / image.shape[-1] for image in drawn["clean"])
    foot_height = 0.09 + _LINE * len(foot)
    sheet = _Sheet(width, len(kinds), len(labels), across, across * steepest, foot_height)
    cells = {(row["label"], row["class_name"]): row for row in drawn.to_dict("records")}
    for column, name in enumerate(classes):
        sheet.caption(column, sheet.height - 0.02, str(name))
    for block, label in enumerate(labels):
        title = fit((shown or {}).get(label, label), width - _LEFT - 0.1, _SIZE, "bold")
        at = sheet.top(block) - _TITLE + 0.03
        sheet.write(_LEFT, at, title, ha="left", va="bottom", fontweight="bold")
        for row, text in enumerate(kinds):
            middle = sheet.bottom(block, row) + sheet.down / 2
            sheet.write(_LEFT - 0.06, middle, text, ha="right", va="center")
        for column, name in enumerate(classes):
            if (label, name) in cells:
                _draw_cell(sheet, block, column, cells[label, name], largest)
    sheet.write(0.06, 0.05, "\n".join(foot), ha="left", va="bottom")
    return sheet.figure


def example_sheet(examples: pd.DataFrame) -> ExampleSheet | None:
    """Put one method's rows of `example_rows` into one picture; None without any."""
    if not len(examples):
        return None
    picked = np.linspace(0, len(examples) - 1, min(CLASSES, len(examples))).round().astype(int)
    drawn = examples.iloc[picked]
    largest = _largest_change(drawn)
    side = min(_SCREEN, max(drawn["clean"].iloc[0].shape[-2:]))
    columns = []
    for row in drawn.to_dict("records"):
        pictures = (_picture(image) for image in _images(row, largest))
        tiles = [one.resize((side, side), Image.Resampling.NEAREST) for one in pictures]
        columns.append(np.vstack([np.asarray(tile) for tile in tiles]))
    kept = io.BytesIO()
    Image.fromarray(np.hstack(columns)).save(kept, "WEBP", quality=80)
    first = drawn.iloc[0]
    return ExampleSheet(
        f"data:image/webp;base64,{base64.b64encode(kept.getvalue()).decode()}",
        tuple(zip(drawn["class_name"], drawn["pred_clean"], drawn["pred_adv"], strict=True)),
        f"{attack_title(str(first['attack']))}, eps {format_eps(first['eps'])}. Change magnified "
        f"{1 / (2 * largest or 1):.1f} times, grey is none. The picture is compressed: the exact "
        "images are in the run's examples.parquet.",
    )


def _picture(image: np.ndarray) -> Image.Image:
    """An image (C, H, W) or (H, W) in [0, 1] as 8-bit RGB."""
    channels = image.clip(0, 1).reshape(-1, *image.shape[-2:])
    colours = channels[:3] if len(channels) >= 3 else channels[[0, 0, 0]]
    return Image.fromarray((255 * np.moveaxis(colours, 0, -1)).round().astype(np.uint8))


def _images(row: Mapping[Any, Any], largest: float) -> list[np.ndarray]:
    """Clean image, adversarial image and the change, in [0, 1] where it is no larger than that."""
    change = 0.5 + _change(row) / (2 * largest or 1)
    return [np.asarray(row["clean"]) / 255, np.asarray(row["adversarial"]), change]


def _largest_change(examples: pd.DataFrame) -> float:
    """The change of a pixel that fills the range: eps, in the L2 ball the largest there is."""
    if not any("-l2" in str(attack) for attack in examples["attack"]):
        return float(examples["eps"].max())
    return max(float(np.abs(_change(row)).max()) for row in examples.to_dict("records"))


def _change(row: Mapping[Any, Any]) -> np.ndarray:
    """Adversarial minus clean image, in image units."""
    return np.asarray(row["adversarial"], dtype=float) - np.asarray(row["clean"]) / 255


def _draw_cell(
    sheet: _Sheet, block: int, column: int, row: Mapping[Any, Any], largest: float
) -> None:
    """Three images under each other, the predictions below the first two."""
    images = _images(row, largest)
    preds = [row["pred_clean"], row["pred_adv"]]
    if sheet.rows == 1:
        images, preds = images[1:2], preds[1:]
    for place, image in enumerate(images):
        sheet.show(column, sheet.bottom(block, place), image)
    for place, pred in enumerate(preds):
        right = pred == row["class_name"]
        colour = CLEAN_COLOUR if right else ROBUST_COLOUR
        at = sheet.bottom(block, place) - 0.015
        sheet.caption(column, at, str(pred) if right else f"✗ {pred}", colour)


def _footnote(
    examples: pd.DataFrame, largest: float, note: str, alone: bool, width: float
) -> list[str]:
    """Lines under the figure, each as wide as the figure at most."""
    attacks = {
        f"{short(attack_title(str(attack)), 30)}, eps {format_eps(eps)}"
        for attack, eps in zip(examples["attack"], examples["eps"], strict=True)
    }
    factor = 1 / (2 * largest) if largest else math.nan
    change = (
        f"Change magnified {factor:.1f} times: ±{format_eps(largest)} fills the range, grey is "
    )
    text = (
        f"{'' if alone else f'{change}none. '}Under each image its prediction, ✗ a wrong one. "
        f"Attack: {'; '.join(sorted(attacks))}. {note}"
    )
    lines = [""]
    for word in text.split():
        longer = f"{lines[-1]} {word}".strip()
        if lines[-1] and text_width(longer, _SIZE) > width - 0.12:
            lines.append(fit(word, width - 0.12, _SIZE))
        else:
            lines[-1] = longer
    return lines
