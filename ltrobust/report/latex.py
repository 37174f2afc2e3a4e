"""Lays tables out in LaTeX so that they fit a column: heads in two lines, smaller type, then parts.

Widths are measured with the metrics of Times and Computer Modern, the wider of both. Texts come as
LaTeX; what stands in a table is decided elsewhere.
"""

from __future__ import annotations

import itertools
import re
import unicodedata
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import matplotlib as mpl

COLUMN = {1: 234.0, 2: 495.0}
"""Points of one column and of both: 3.25 and 6.875 inches, as CVPR and ICCV have them."""
_ROWS = 48
"""Most rows of a float."""
_SIZES = (
    *((r"\small", 9.0, 6.0), (r"\small", 9.0, 4.0), (r"\footnotesize", 8.0, 3.5)),
    *((r"\scriptsize", 7.0, 3.0), (r"\scriptsize", 7.0, 2.0)),
)
"""Type, its points, and half the room between columns, tried in this order."""
KEYS = frozenset({"rank", "method", "attack", "of", "best", "other", "class"})
"""Heads of columns that name a row."""
_FONTS = ("ptmr8a.afm", "ptmb8a.afm", "cmr10.afm")


def floats(
    heads: Sequence[str],
    rows: Sequence[Sequence[str]],
    right: Sequence[bool],
    rules: Sequence[int],
    words: tuple[str, str, str],
    columns: int,
) -> str:
    """Write a table as floats of at most a page, each no wider than its column.

    Args:
        heads: titles of the columns.
        rows: cells.
        right: whether a column is aligned to the right.
        rules: rows before which a line is drawn.
        words: title, caption, and label without "tab:".
        columns: how many columns of a page they span, 1 or 2.
    """
    grid = _Grid(heads, rows, right, rules)
    blocks, size, gap = grid.fitted(COLUMN[columns])
    pieces = [
        (block, range(start, min(start + _ROWS, len(rows))))
        for block in blocks
        for start in range(0, max(len(rows), 1), _ROWS)
    ]
    title, caption, label = words
    kind = "table*" if columns == 2 else "table"
    made: list[str] = []
    for turn, own in enumerate(_packed(pieces)):
        told = (
            [rf"\caption{{{caption}}}", rf"\label{{tab:{label}}}"]
            if turn == 0
            else [rf"\caption{{{title} (continued).}}"]
        )
        parts = [grid.tabular(*piece) for piece in own]
        body = ("\\par\\medskip\n").join("\n".join(part) + "\n" for part in parts).rstrip("\n")
        space = rf"\setlength{{\tabcolsep}}{{{gap:g}pt}}"
        lines = [rf"\begin{{{kind}}}[htbp]", r"\centering\sloppy", size, space]
        made.append("\n".join([*lines, *told, body, rf"\end{{{kind}}}"]) + "\n")
    return "\n".join(made)


@dataclass(frozen=True)
class _Grid:
    """The cells of a table and what is known of its columns."""

    heads: Sequence[str]
    rows: Sequence[Sequence[str]]
    right: Sequence[bool]
    rules: Sequence[int]

    def fitted(self, room: float) -> tuple[list[list[int]], str, float]:
        """Columns of each part, the type and half the room between columns.

        The largest type with which all columns stand side by side; where none is small enough,
        the columns go into parts, each led by the first ones.
        """
        everything = list(range(len(self.heads)))
        for size, points, gap in _SIZES:
            if self.width(everything, points, gap) <= room:
                return [everything], size, gap
        size, points, gap = _SIZES[2]
        keys = self._keys()
        if self.width(keys, points, gap) > 0.7 * room:
            size, points, gap = _SIZES[-1]
        blocks: list[list[int]] = []
        for place in everything[len(keys) :]:
            if blocks and self.width([*blocks[-1], place], points, gap) <= room:
                blocks[-1].append(place)
            else:
                blocks.append([*keys, place])
        return blocks or [keys], size, gap

    def _keys(self) -> list[int]:
        """The columns that name a row, which every part has; at least the first."""
        named = itertools.takewhile(lambda place: self.heads[place] in KEYS, range(len(self.heads)))
        return list(named) or [0]

    def width(self, columns: Sequence[int], points: float, gap: float) -> float:
        """Points that these columns take side by side."""
        found = {place: self._cells_width(place, points) for place in columns}
        total = sum(found.values()) + 2 * gap * (len(columns) - 1)
        for text, span in self._tops(columns):
            inner = sum(found[place] for place in span) + 2 * gap * (len(span) - 1)
            total += max(0.0, text_points(text, points) - inner)
        return total

    def _cells_width(self, place: int, points: float) -> float:
        texts = [_split(self.heads[place])[1], *(row[place] for row in self.rows)]
        return max(text_points(text, points) for text in texts)

    def _tops(self, columns: Sequence[int]) -> list[tuple[str, list[int]]]:
        """First lines of the heads, with the columns that share one."""
        tops = itertools.groupby(columns, key=lambda place: _split(self.heads[place])[0])
        return [(text, list(span)) for text, span in tops]

    def tabular(self, columns: Sequence[int], rows: range) -> list[str]:
        """Write these columns of these rows."""
        align = "".join("r" if self.right[place] else "l" for place in columns)
        lines = [rf"\begin{{tabular}}{{@{{}}{align}@{{}}}}", r"\toprule", *self._head(columns)]
        lines.append(r"\midrule")
        for place in rows:
            if place in self.rules and place > rows.start:
                lines.append(r"\midrule")
            lines.append(_row(self.rows[place][column] for column in columns))
        return [*lines, r"\bottomrule", r"\end{tabular}"]

    def _head(self, columns: Sequence[int]) -> list[str]:
        tops = self._tops(columns)
        lines = []
        if any(text for text, _ in tops):
            cells, rules, start = [], [], 1
            for text, span in tops:
                end = start + len(span) - 1
                if len(span) > 1 and text:
                    cells.append(rf"\multicolumn{{{len(span)}}}{{c}}{{{text}}}")
                    rules.append(rf"\cmidrule(lr){{{start}-{end}}}")
                else:
                    cells += [text] * len(span)
                start = end + 1
            lines += [_row(cells), *([" ".join(rules)] if rules else [])]
        return [*lines, _row(_split(self.heads[place])[1] for place in columns)]


def _split(head: str) -> tuple[str, str]:
    """First and second line of a head: its last word is the second."""
    first, _, last = head.rpartition(" ")
    return first, last


def _row(cells: Iterable[str]) -> str:
    return rf"{' & '.join(cells)} \\"


def _packed(pieces: Sequence[tuple[list[int], range]]) -> list[list[tuple[list[int], range]]]:
    """Pieces that share a float: as many as a page holds."""
    found: list[list[tuple[list[int], range]]] = []
    left = 0
    for piece in pieces:
        needed = len(piece[1]) + 4
        if needed > left:
            found.append([])
            left = _ROWS + 4
        found[-1].append(piece)
        left -= needed
    return found


def text_points(text: str, size: float) -> float:
    """Width in points of LaTeX text as tables have it, on the safe side."""
    shown = re.sub(r"~?\\cite\{[^}]*\}", " [00]", text)
    shown = re.sub(r"\$\\pm\$", "M", shown)
    shown = re.sub(r"\\text[a-z]+\{\}", "M", shown)
    shown = re.sub(r"\\(?:textbf|underline)|(?<!\\)[{}]|\\(?=[&%$#_{}])", "", shown)
    return size * sum(_wide(sign) for sign in shown)


@cache
def _wide(sign: str) -> float:
    """The widest that a font has a sign or the letter below its accent, as a share of the size."""
    base = unicodedata.normalize("NFD", sign)[0]
    return max((font[base] for font in _fonts() if base in font), default=0.9)


@cache
def _fonts() -> tuple[dict[str, float], ...]:
    """Signs of each font to their width, from the metrics that come with matplotlib."""
    folder = Path(mpl.get_data_path()) / "fonts" / "afm"
    texts = [(folder / name).read_text("latin-1") for name in _FONTS]
    pattern = re.compile(r"^C (\d+) ; WX ([\d.]+)", re.MULTILINE)
    return tuple({chr(int(c)): float(wide) / 1000 for c, wide in pattern.findall(t)} for t in texts)
