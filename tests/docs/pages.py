"""The documentation as data: fenced code blocks, the commands in them, and links."""

from __future__ import annotations

import re
import shlex
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
FENCE = re.compile(
    r"^(?P<indent> *)```(?P<language>\w*)\n(?P<body>.*?)^(?P=indent)```$", re.M | re.S
)
LINK = re.compile(r"(?<!!)\[[^\]]*\]\(([^)\s]+)\)")


@dataclass(frozen=True)
class Block:
    """A fenced block: its language and its text."""

    language: str
    body: str


def pages() -> list[Path]:
    """README, the other pages beside it, and docs/."""
    return [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]


def blocks(page: Path, language: str) -> list[Block]:
    """The fenced blocks of a page in one language."""
    found = FENCE.finditer(page.read_text(encoding="utf-8"))
    return [Block(language, m["body"]) for m in found if m["language"] == language]


def shell_lines(page: Path) -> list[str]:
    """The command lines of a page's bash blocks, continued lines joined, comments kept."""
    text = "\n".join(block.body for block in blocks(page, "bash")).replace("\\\n", " ")
    return [line.strip() for line in text.splitlines() if line.strip()]


def ltrobust_commands(page: Path) -> list[list[str]]:
    """The words after `ltrobust` of each such command of a page."""
    split = [shlex.split(line, comments=True) for line in shell_lines(page)]
    return [words[1:] for words in split if words and words[0] == "ltrobust"]


def python_file(page: Path, name: str) -> str:
    """The text of the Python block whose first line is `# name`."""
    for block in blocks(page, "python"):
        if block.body.startswith(f"# {name}\n"):
            return block.body
    raise AssertionError(f"{page.name} shows no file {name}")


def relative_links(page: Path) -> list[str]:
    """The link targets of a page that are not on the web."""
    text = FENCE.sub("", page.read_text(encoding="utf-8"))
    return [target for target in LINK.findall(text) if "://" not in target]


def anchors(page: Path) -> set[str]:
    """The anchors of a page's headings, as code hosts make them."""
    headings = re.findall(r"^#+ (.+)$", FENCE.sub("", page.read_text(encoding="utf-8")), re.M)
    return {
        re.sub(r"[^\w\- ]", "", heading.lower()).strip().replace(" ", "-") for heading in headings
    }
