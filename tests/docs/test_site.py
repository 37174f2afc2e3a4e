"""The documentation site builds without a warning, and every link in it leads somewhere."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from html import unescape
from pathlib import Path
from urllib.parse import unquote

import pytest
from pages import ROOT

from ltrobust import cli

pytest.importorskip("mkdocs", reason="mkdocs-material and mkdocstrings are not installed")
pytest.importorskip("material", reason="mkdocs-material is not installed")
pytest.importorskip("mkdocstrings_handlers.python", reason="mkdocstrings is not installed")

LINK = re.compile(r'(?:href|src)="([^"]+)"')


def build(config: Path, output: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "-f", str(config), "-d", str(output)],
        cwd=config.parent,
        env={**os.environ, "NO_MKDOCS_2_WARNING": "1"},
        capture_output=True,
        text=True,
        timeout=300,
    )


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("site")
    done = build(ROOT / "mkdocs.yml", folder)
    assert done.returncode == 0, done.stdout + done.stderr
    return folder


def pages(site: Path) -> list[Path]:
    return [file for file in site.glob("*.html") if file.name != "404.html"]


def test_every_link_leads_somewhere(site: Path) -> None:
    broken = []
    for page in pages(site):
        for target in LINK.findall(page.read_text(encoding="utf-8")):
            name = unquote(unescape(target)).split("#")[0].split("?")[0]
            outside = "://" in name or name.startswith(("data:", "mailto:"))
            if name and not outside and not (page.parent / name).exists():
                broken.append(f"{page.name}: {target}")
    assert broken == []


def test_the_command_line_is_told_command_by_command(site: Path) -> None:
    text = unescape((site / "cli.html").read_text(encoding="utf-8"))
    for command in cli.app.registered_commands:
        name = command.name or command.callback.__name__
        assert f'id="ltrobust-{name}"' in text
    assert "--grad-checkpointing" in text
    assert "methods show" in text


def test_the_python_interface_is_told_from_its_docstrings(site: Path) -> None:
    text = (site / "python.html").read_text(encoding="utf-8")
    for name in ("api.train", "api.evaluate", "method.Method.loss", "testing.check_method"):
        assert f'id="ltrobust.{name}"' in text


def test_published_results_are_there_as_they_stand(site: Path) -> None:
    text = (site / "results.html").read_text(encoding="utf-8")
    assert '<iframe src="files/results/cifar10-lt-cpu/index.html"' in text
    table = (ROOT / "results/cifar10-lt-cpu/tables/leaderboard.md").read_text(encoding="utf-8")
    first = next(line for line in table.splitlines() if line.startswith("| 1 |"))
    for cell in re.findall(r"\d+\.\d\d", first):
        assert cell in text
    page = site / "files/results/cifar10-lt-cpu/index.html"
    assert page.read_bytes() == (ROOT / "results/cifar10-lt-cpu/index.html").read_bytes()
    assert page.with_name("leaderboard.csv").is_file()  # the page links to it
    assert "\\~" not in text
    figures = list((ROOT / "results/cifar10-lt-cpu/figures").glob("*.png"))
    gallery = (site / "gallery.html").read_text(encoding="utf-8")
    assert all(f"figures/{file.name}" in gallery for file in figures)


@pytest.mark.slow
def test_a_page_with_a_dead_link_does_not_build(tmp_path: Path) -> None:
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs/index.md").write_text("[nowhere](nowhere.md)")
    (tmp_path / "mkdocs.yml").write_text("site_name: x\nvalidation: {anchors: warn}\n")
    done = build(tmp_path / "mkdocs.yml", tmp_path / "out")
    assert done.returncode != 0
    assert "nowhere.md" in done.stdout + done.stderr


@pytest.mark.slow
def test_the_tutorial_runs(tmp_path: Path) -> None:
    nbformat = pytest.importorskip("nbformat", reason="nbformat is not installed")
    nbclient = pytest.importorskip("nbclient", reason="nbclient is not installed")
    pytest.importorskip("ipykernel", reason="ipykernel is not installed")
    notebook = nbformat.read(ROOT / "docs/tutorial.ipynb", as_version=4)
    assert not [cell for cell in notebook.cells if cell.get("outputs")]  # committed without
    runner = nbclient.NotebookClient(
        notebook, timeout=600, resources={"metadata": {"path": str(tmp_path)}}
    )
    runner.execute()
    assert (tmp_path / "results/tutorial/index.html").is_file()
