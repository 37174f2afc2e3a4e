"""What the page tells about a method: its paper, recipe, quirks and BibTeX, from the registry.

Names that the registry does not know, and foreign checkpoints, have no card.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ltrobust.errors import UserError
from ltrobust.report.across import EXTERNAL

if TYPE_CHECKING:
    from ltrobust.method import Citation  # imports torch, which a report without cards does without
    from ltrobust.report.board import Board

_STOP_WORDS = {"a", "an", "the", "on", "of", "for", "in", "to", "towards", "toward", "and", "with"}
_JOURNALS = ("journal", "transactions", "tmlr", "jmlr", "tpami", "ijcv", "nature", "letters")
_BIBTEX = {
    "\\": r"\textbackslash{}",
    # BibTeX counts braces even behind a backslash
    "{": r"\textbraceleft{}",
    "}": r"\textbraceright{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    **{sign: f"\\{sign}" for sign in "&%$#_"},
}


@dataclass(frozen=True)
class Card:
    """A method as its file describes it.

    Attributes:
        title: one line.
        explanation: the equations in short, several lines.
        paper: the citation as text.
        url: where to read it; "" unless it is a web address.
        bibtex: the same for a reference list.
        recipe: rows of the authors' recipe: what, value, and where the value was read, "" for
            those of `source`.
        source: where the recipe was read.
        options: names and defaults of the method's options.
        quirks: where the released code departs from the paper.
    """

    title: str
    explanation: str
    paper: str
    url: str
    bibtex: str
    recipe: tuple[tuple[str, str, str], ...]
    source: str
    options: tuple[tuple[str, str], ...]
    quirks: tuple[str, ...]


def method_card(name: str) -> Card | None:
    """Look up a method by its registered name or alias; None where the registry lacks it."""
    # the registry imports torch, which whoever only reads CSV files does without
    from ltrobust.combination import find
    from ltrobust.describe import describe_method, recipe_rows

    try:
        papers = find(name).papers
    except UserError:
        return None
    facts = describe_method(name)
    source = (facts["paper_recipe"] or {}).get("source", "")
    return Card(
        title=facts["title"],
        explanation=facts["explanation"],
        paper=facts["paper"],
        url=web_address(facts["url"]),
        bibtex="\n\n".join(map(bibtex, papers)),
        recipe=tuple(
            (what, value, "" if where == source else where)
            for what, value, where in recipe_rows(name)
        ),
        source=source,
        options=tuple((str(key), str(value)) for key, value in facts["options"].items()),
        quirks=tuple(facts["quirks"]),
    )


def cited_methods(board: Board) -> dict[str, tuple[str, str]]:
    """Labels of registered methods to key and BibTeX entry of their first paper."""
    from ltrobust.combination import find

    found = {}
    for setting in board.settings:
        for label, rows in setting.records.items():
            if rows[0]["recipe"] != EXTERNAL:  # such files may be called like a method
                try:
                    paper = find(rows[0]["method"]).papers[0]
                except UserError:
                    continue
                found[label] = _key(paper), bibtex(paper)
    return found


def references(cited: Iterable[tuple[str, str]]) -> str:
    """The BibTeX file of these keys and entries, each once."""
    return "\n\n".join(entry for _, entry in sorted(dict(cited).items())) + "\n"


def web_address(text: str) -> str:
    """Return `text` if it is an http or https address, else "": a link must not run code."""
    return text if re.match(r"https?://[^\s]+$", text) else ""


def bibtex(citation: Citation) -> str:
    """Write a citation as a BibTeX entry.

    The key is first author, year and the title's first telling word, in [a-z0-9]; braces and
    special signs in the fields are escaped, so that an odd title cannot end its field.
    """
    kind, where = _entry_kind(citation.venue)
    fields = {
        "title": f"{{{_escape(citation.title)}}}",
        "author": _escape(" and ".join(_authors(citation.authors))),
        where: _escape(citation.venue),
        "year": str(citation.year),
        # \url and DOI fields take an address as it is; braces alone could end the field
        "url": re.sub(r"[{}\\\s]", "", citation.url),
    }
    lines = [
        f"  {name} = {{{value}}}," for name, value in fields.items() if value not in ("", "{}")
    ]
    return "\n".join([f"@{kind}{{{_key(citation)},", *lines, "}"])


def _entry_kind(venue: str) -> tuple[str, str]:
    """Entry type and the name of the field that holds the venue."""
    words = venue.lower()
    if words.startswith("arxiv"):
        return "misc", "howpublished"
    if any(word in words for word in _JOURNALS):
        return "article", "journal"
    return "inproceedings", "booktitle"


def _authors(text: str) -> list[str]:
    """Names; "et al." becomes "others"."""
    named = re.sub(r"\bet al\.?\s*$", ", others", text.strip())
    return [name for name in re.split(r"\s*,\s*(?:and\s+)?|\s+and\s+", named) if name]


def _key(citation: Citation) -> str:
    family = " ".join(_authors(citation.authors)[:1]).split(" ")[-1]
    words = [_plain(word) for word in re.split(r"[\s:/-]+", citation.title)]
    telling = next((word for word in words if word and word not in _STOP_WORDS), "")
    return f"{_plain(family) or 'unknown'}{citation.year}{telling}"


def _plain(text: str) -> str:
    decomposed = unicodedata.normalize("NFKD", text).lower()
    return re.sub(r"[^a-z0-9]", "", decomposed)


def _escape(text: str) -> str:
    return "".join(_BIBTEX.get(sign, sign) for sign in " ".join(text.split()))
