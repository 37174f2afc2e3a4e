"""What the documentation site has besides the pages of this folder; called while mkdocs builds.

The command line's reference is made from the commands, the pages of results from `results/` as it
stands, and files of the repository that pages link to come along. No page is written by hand here.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import typer
import yaml
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.exceptions import PluginError
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).parents[1]
REPOSITORY = "files/"
"""Where files of the repository lie in the site."""
PAGES = {
    "CONTRIBUTING.md": "contributing.md",
    "CHANGELOG.md": "changelog.md",
    "README.md": "index.md",
    "docs/": "",
}
"""Files of the repository that are pages, or hold them, and their place among the pages."""
FROM_THE_TOP = ("contributing.md", "changelog.md")
LINK = re.compile(r"(?P<start>!?\[[^\]]*\]\()(?P<target>[^)\s#]+)(?P<rest>(?:#[^)\s]*)?\))")


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages that are made and the files of the results that they show."""
    made = {
        "cli.md": cli_page(),
        "results.md": results_page(),
        "gallery.md": gallery_page(),
        **{n: (ROOT / n.upper().replace(".MD", ".md")).read_text("utf-8") for n in FROM_THE_TOP},
    }
    for name, content in made.items():
        files.append(File.generated(config, name, content=content))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Turn links out of the folder of pages into links within the site."""
    from_root = page.file.src_uri in FROM_THE_TOP

    def replaced(match: re.Match[str]) -> str:
        target = match["target"]
        if "://" in target or target.startswith("#"):
            return match[0]
        if not from_root and not target.startswith("../"):
            return match[0]
        inside = target.removeprefix("../")
        for place, name in PAGES.items():
            if inside.startswith(place):
                return f"{match['start']}{name}{inside.removeprefix(place)}{match['rest']}"
        return f"{match['start']}{taken_along(inside, config, files)}{match['rest']}"

    return LINK.sub(replaced, markdown)


def taken_along(name: str, config: MkDocsConfig, files: Files) -> str:
    """Add a file of the repository to the site and return its place; of a folder its page."""
    path = ROOT / name
    if path.is_dir():
        listed = "results.md" if name.rstrip("/") != "results/papers" else "gallery.md"
        path = path / "index.html"
        if not path.is_file():
            return listed
    if not path.is_file():
        raise PluginError(f"a page links to {name}, which is not there")
    uri = REPOSITORY + path.relative_to(ROOT).as_posix()
    uri += ".txt" if path.suffix == ".md" else ""  # a file to read, no further page
    if files.get_file_from_path(uri) is None:
        files.append(File.generated(config, uri, abs_src_path=str(path)))
        for table in path.parent.glob("*.csv") if path.name == "index.html" else ():
            taken_along(table.relative_to(ROOT).as_posix(), config, files)  # it links to them
    return uri


def cli_page() -> str:
    """Every command with its arguments, flags and examples, from the commands themselves."""
    from ltrobust.cli import app

    group: Any = typer.main.get_command(app)
    parts = [
        "# Command line",
        "Made from the commands; `ltrobust COMMAND --help` prints the same. `ltrobust "
        "--install-completion` teaches the shell the commands and flags (bash, zsh, fish).",
    ]
    for words, command in _commands(group, ("ltrobust",)):
        parts += _command(words, command)
    return "\n\n".join(parts) + "\n"


def _commands(group: Any, before: tuple[str, ...]) -> Iterable[tuple[tuple[str, ...], Any]]:
    for name, command in group.commands.items():
        words = (*before, name)
        yield words, command
        if hasattr(command, "commands"):
            yield from _commands(command, words)


def _command(words: tuple[str, ...], command: Any) -> list[str]:
    arguments = [p for p in command.params if p.param_type_name == "argument"]
    names = [p.name.upper() if p.required else f"[{p.name.upper()}]" for p in arguments]
    usage = " ".join([*words, *names])
    parts = [f"## {' '.join(words)}", _plain(command.help), f"```console\n$ {usage} [FLAGS]\n```"]
    rows = [_row(parameter) for parameter in command.params if parameter.name != "help"]
    if rows:
        parts.append("\n".join(["| flag | about | meaning |", "|---|---|---|", *rows]))
    examples = re.findall(r"^\s*(ltrobust .*)$", command.epilog or "", re.M)
    if examples:
        parts.append("```console\n" + "\n".join(f"$ {line}" for line in examples) + "\n```")
    return parts


def _row(parameter: Any) -> str:
    names = [*parameter.opts, *parameter.secondary_opts]
    if parameter.param_type_name == "argument":
        names = [str(parameter.name).upper()]
    named = ", ".join(f"`{name}`" for name in names)
    panel = getattr(parameter, "rich_help_panel", None) or ""
    return f"| {named} | {panel} | {_plain(parameter.help)} |"


def _plain(text: str | None) -> str:
    return " ".join((text or "").split()).replace("|", "\\|").replace("<", "&lt;")


def suites() -> list[Path]:
    """Directories of published results, by name."""
    files = [*ROOT.glob("results/*/metrics.csv"), *ROOT.glob("results/submissions/*/metrics.csv")]
    folders = {file.parent for file in files}
    return sorted(folder for folder in folders if folder.name not in ("demo", "digits-lt"))


def results_page() -> str:
    """The leaderboards as they stand, and the interactive page of each suite."""
    parts = [
        "# Leaderboards",
        "The tables of `results/` as they stand in the repository. What the columns and marks "
        "mean: [evaluation](evaluation.md); every file and column: [files](results-format.md).",
    ]
    for folder in suites():
        name = folder.relative_to(ROOT).as_posix()
        parts.append(f"## {folder.name}")
        table = folder / "tables" / "leaderboard.md"
        if table.is_file():
            parts.append(_without_headings(table.read_text(encoding="utf-8")))
        if (folder / "index.html").is_file():
            parts.append(f"[The page alone](../{name}/index.html)")
            source = f"{REPOSITORY}{name}/index.html"
            parts.append(
                f'<iframe src="{source}" title="The interactive page of {folder.name}" '
                'style="width: 100%; height: 80vh; border: 1px solid #8888"></iframe>'
            )
    return "\n\n".join(parts) + "\n"


def _without_headings(text: str) -> str:
    """A table's text with its headings as bold lines, and pages that it names as links."""
    text = re.sub(r"^#+ (.*)$", r"**\1**", text, flags=re.M).replace("\\~", "~")
    return re.sub(r"docs/([a-z-]+\.md)", r"[\1](\1)", text)


def gallery_page() -> str:
    """Every figure of the published results with what it shows."""
    parts = ["# Figures", "Drawn by `ltrobust bench`, `report` and `reproduce`; PDF beside each."]
    for folder in suites():
        parts.append(f"## {folder.name}")
        parts += [_figure(file) for file in sorted((folder / "figures").glob("*.png"))]
    parts.append("## The papers' figures, ours beside the published")
    for file in sorted(ROOT.glob("results/papers/*/figure.png")):
        entry = ROOT / "benchmarks" / "papers" / f"{file.parent.name}.yaml"
        title = yaml.safe_load(entry.read_text(encoding="utf-8"))["title"]
        parts.append(_figure(file, title))
    return "\n\n".join(parts) + "\n"


def _figure(file: Path, title: str = "") -> str:
    name = file.relative_to(ROOT).as_posix()
    there = file.with_suffix(".pdf").is_file()
    pdf = f" ([PDF](../{name.removesuffix('png')}pdf))" if there else ""
    words = title or file.stem.replace("-", " ")
    return f"### {words}\n\n![{words}](../{name}){pdf}"
