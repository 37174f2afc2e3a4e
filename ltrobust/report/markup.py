"""A table of scores and its renderings: Markdown, LaTeX, the terminal, and CSV for machines.

Numbers are written in percent with two decimals; in each contest the best value is bold and the
second underlined. What stands in a table is decided in `tables.py`.
"""

from __future__ import annotations

import itertools
import math
import re
import unicodedata
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property

import pandas as pd
from rich import box
from rich.console import JustifyMethod
from rich.table import Table as RichTable
from rich.text import Text

from ltrobust.report.estimate import Estimate, Quantity, number, percent
from ltrobust.report.latex import KEYS, floats
from ltrobust.report.names import writer

_LATEX = {
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    '"': "''",
    "±": r"$\pm$",
    "†": r"\textdagger{}",
    "\n": " ",
    **{sign: f"\\{sign}" for sign in "&%$#_{}"},
}
_ACCENTS = frozenset("\u0300\u0301\u0302\u0303\u0304\u0306\u0307\u0308\u030a\u030b\u030c\u0327")
_LETTERS = frozenset("ßæøłÆØŁœŒ–—‘’“”…")
"""What pdflatex knows beyond ASCII without further packages: these, and letters with an accent."""


@dataclass(frozen=True)
class Table:
    """A titled table of text and scores.

    Attributes:
        name: file name part, such as "balanced".
        title: one line.
        caption: what a reader needs to know to use the numbers.
        frame: cells are text, integers, fractions in [0, 1] (float or Estimate; NaN is missing), or
            Quantity for what is no share.
        ranked: columns of which the largest cell of each section is marked best.
        section: column of which each new value begins a section, under a rule.
        data: the same numbers for machines; None where `frame` itself serves.
        names: registered names to how Markdown and LaTeX write them.
        less: columns of which the smallest cell is best.
        by_row: whether the ranked columns stand against each other in each row instead.
    """

    name: str
    title: str
    caption: str
    frame: pd.DataFrame
    ranked: Sequence[str] = ()
    section: str = ""
    data: pd.DataFrame | None = None
    less: Collection[str] = ()
    by_row: bool = False
    names: Mapping[str, str] = field(default_factory=dict)

    def to_markdown(self) -> str:
        """Render as a GitHub table under its title, the caption below it."""
        marks = {"best": "**{}**", "second": "<u>{}</u>", "": "{}"}
        lines = [_line(_markdown(self._named(str(name))) for name in self.frame.columns)]
        lines.append(_line("---:" if name in self._numeric else "---" for name in self.frame))
        for row in self._cells:
            lines.append(
                _line(marks[mark].format(_markdown(self._named(text))) for text, mark in row)
            )
        body = "\n".join(lines)
        caption = _markdown(self._named(self.caption))
        return f"## {_markdown(self.title)}\n\n{body}\n\n{caption}\n"

    def to_latex(
        self, columns: int = 2, label: str = "", cited: Mapping[str, str] | None = None
    ) -> str:
        """Render as table floats of at most a page that fit; the document must load booktabs.

        Args:
            columns: how many of a two-column page's columns they span, 1 or 2 (`table*`).
            label: what follows "tab:"; default the name.
            cited: text of a cell to the key of its reference.
        """
        heads = [_latex(self._named(str(name))) for name in self.frame]
        marks = {"best": r"\textbf{{{}}}", "second": r"\underline{{{}}}", "": "{}"}
        rows = []
        for row, found in zip(self.frame.to_numpy(), self._cells, strict=True):
            texts = [marks[mark].format(_latex(self._named(text))) for text, mark in found]
            for place, cell in enumerate(row):
                if isinstance(cell, str) and cell in (cited or {}):
                    texts[place] += rf"~\cite{{{(cited or {})[cell]}}}"
            rows.append(texts)
        right = [name in self._numeric for name in self.frame]
        title, caption = _latex(self.title), _latex(self._named(f"{self.title}. {self.caption}"))
        name = re.sub(r"[^A-Za-z0-9.-]", "-", label or self.name)
        return floats(heads, rows, right, self._starts[1:], (title, caption, name), columns)

    def to_csv(self) -> str:
        """Write the numbers in full precision, shares as fractions; an empty cell is missing."""
        data = _spread_out(self.frame) if self.data is None else self.data
        return data.to_csv(index=False, lineterminator="\n")

    def rich_parts(self, width: int) -> list[RichTable]:
        """Render for a terminal of so many characters, with no name or number broken.

        Columns that do not fit stand below, led again by those that name a row.
        """
        room = [self._characters(place) + 2 for place in range(len(self.frame.columns))]
        named = itertools.takewhile(lambda p: self.frame.columns[p] in KEYS, range(len(room)))
        keys = list(named) or list(range(min(1, len(room))))
        blocks: list[list[int]] = [[]]
        for place in range(len(keys), len(room)):
            if blocks[-1] and sum(room[p] for p in (*keys, *blocks[-1], place)) + 1 > width:
                blocks.append([])
            blocks[-1].append(place)
        last = len(blocks) - 1
        return [
            self._rich(
                [*keys, *block],
                self.title if turn == 0 else "",
                self.caption if turn == last else "",
            )
            for turn, block in enumerate(blocks)
        ]

    def _characters(self, place: int) -> int:
        """Width of a column that breaks no word of its head, and no name or number."""
        head = max(map(len, str(self.frame.columns[place]).split()), default=0)
        return max([head, *(len(row[place][0]) for row in self._cells)])

    def _rich(self, columns: Sequence[int], title: str, caption: str) -> RichTable:
        styles = {"best": "bold", "second": "underline", "": ""}
        table = RichTable(
            title=Text(title) if title else None,
            caption=Text(caption) if caption else None,
            box=box.SIMPLE,
            padding=(0, 1, 0, 0),
        )
        table.title_justify = table.caption_justify = "left"
        names = [str(name) for name in self.frame.columns]
        for place in columns:
            side: JustifyMethod = "right" if names[place] in self._numeric else "left"
            # a break at each blank keeps columns as narrow as their words
            header = Text(names[place].replace(" ", "\n"), overflow="fold")
            numbers = all(_is_number(row[place][0]) for row in self._cells)
            table.add_column(header, justify=side, overflow="fold", no_wrap=numbers)
        for position, row in enumerate(self._cells):
            if position in self._starts:
                table.add_section()
            cells = (row[place] for place in columns)
            table.add_row(*(Text(text, style=styles[mark]) for text, mark in cells))
        return table

    @cached_property
    def _named(self) -> Callable[[str], str]:
        """Writes the registered names in a text as papers do."""
        return writer(self.names)

    @cached_property
    def _numeric(self) -> set[str]:
        """Columns that hold no text, which are aligned to the right."""
        return {
            str(name)
            for name, column in self.frame.items()
            if not any(isinstance(cell, str) for cell in column)
        }

    @cached_property
    def _cells(self) -> list[list[tuple[str, str]]]:
        """Text and mark ("best", "second" or "") of every cell, row by row."""
        marks = self._marks()
        return [
            [(cell_text(cell), marks.get((place, str(name)), "")) for name, cell in row.items()]
            for place, row in enumerate(self.frame.to_dict("records"))
        ]

    @cached_property
    def _starts(self) -> list[int]:
        """Positions of the rows with which sections begin."""
        named = self.section in self.frame  # a table without rows may have no columns
        values = list(self.frame[self.section]) if named else [""] * len(self.frame)
        return [n for n, value in enumerate(values) if not n or value != values[n - 1]]

    def _contests(self) -> list[list[tuple[int, str]]]:
        """Sets of cells, by row and column, of which the best is marked."""
        if self.by_row:
            return [[(row, name) for name in self.ranked] for row in range(len(self.frame))]
        ends = [*self._starts[1:], len(self.frame)]
        sections = [range(*span) for span in zip(self._starts, ends, strict=False)]
        return [[(row, name) for row in rows] for rows in sections for name in self.ranked]

    def _marks(self) -> dict[tuple[int, str], str]:
        marks: dict[tuple[int, str], str] = {}
        columns = {str(name): list(column) for name, column in self.frame.items()}
        for contest in self._contests():
            shown = {(row, name): _shown(columns[name][row]) for row, name in contest}
            most = not any(name in self.less for _, name in contest)
            values = sorted({value for value in shown.values() if value is not None}, reverse=most)
            places = dict(zip(values, ("best", "second"), strict=False))
            known = ((cell, value) for cell, value in shown.items() if value is not None)
            marks |= {cell: places[value] for cell, value in known if value in places}
        return marks


def cell_text(cell: object) -> str:
    """Write one cell: text as it is, a fraction in percent, a deviation only for n > 1."""
    if isinstance(cell, Quantity):
        value, std = (number(one, cell.digits) for one in (cell.value, cell.std))
        return _with_deviation(value, std, cell)
    if isinstance(cell, Estimate):
        return _with_deviation(percent(cell.value), percent(cell.std), cell)
    if isinstance(cell, float):
        return percent(cell)
    return str(cell)


def _with_deviation(value: str, std: str, cell: Estimate) -> str:
    several = cell.n_seeds > 1 and cell.known
    return (f"{value} ± {std} (n={cell.n_seeds})" if several else value) + cell.sign


def _spread_out(frame: pd.DataFrame) -> pd.DataFrame:
    """Give mean, deviation and n of cells that hold them columns of their own."""
    columns: dict[str, list[object]] = {}
    for name, cells in frame.items():
        if any(isinstance(cell, Estimate) for cell in cells):
            for part, title in (("value", "mean"), ("std", "std"), ("n_seeds", "n")):
                columns[f"{name} {title}"] = [getattr(cell, part, None) for cell in cells]
        else:
            columns[str(name)] = list(cells)
    return pd.DataFrame(columns)


def _is_number(text: str) -> bool:
    """Whether a cell is a short number or interval, which a terminal must not break."""
    return len(text) <= 11 and not any(sign.isalpha() for sign in text)


def _shown(cell: object) -> float | None:
    """Value as the reader sees it, so that cells which look equal share their mark."""
    value = cell.value if isinstance(cell, Estimate) else cell
    if not isinstance(value, float) or math.isnan(value):
        return None
    return round(value, cell.digits) if isinstance(cell, Quantity) else float(percent(value))


def _line(cells: Iterable[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _markdown(text: object) -> str:
    escaped = re.sub(r"([\\`*|<\[\]~])", r"\\\1", str(text)).replace("\n", " ")
    return re.sub(r"(?<![A-Za-z0-9])_|_(?![A-Za-z0-9])", r"\\_", escaped)


def _latex(text: object) -> str:
    composed = unicodedata.normalize("NFC", str(text))
    escaped = "".join(_LATEX.get(sign) or _latex_letter(sign) for sign in composed)
    # a row that begins with one of these would be read as an argument of the row end before it
    return f"{{}}{escaped}" if escaped.startswith(("[", "*")) else escaped


def _latex_letter(sign: str) -> str:
    """The sign itself where pdflatex can set it, else its code point."""
    if sign.isspace():
        return " "
    plain = sign.isascii() and sign.isprintable()
    return sign if plain or sign in _LETTERS or _accented(sign) else f"[U+{ord(sign):04X}]"


def _accented(sign: str) -> bool:
    """Whether a sign is a letter of ASCII with one of the accents that LaTeX has."""
    parts = unicodedata.normalize("NFD", sign)
    base, accent = parts[:1], parts[1:]
    return base.isascii() and base.isalpha() and accent in _ACCENTS
