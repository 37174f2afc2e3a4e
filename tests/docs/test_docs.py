"""What the documentation says can be done: commands parse, examples run, links lead somewhere."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest
import typer
import yaml
from pages import (
    ROOT,
    anchors,
    blocks,
    ltrobust_commands,
    pages,
    python_file,
    relative_links,
    shell_lines,
)
from smoke import small

from ltrobust import cli
from ltrobust.method import METHODS, load_builtin_methods
from ltrobust.testing import check_method

README = ROOT / "README.md"
ADD_A_METHOD = ROOT / "docs" / "add-a-method.md"
MODIFIERS = ROOT / "docs" / "modifiers.md"
COMMANDS = [
    pytest.param(page, words, id=f"{page.stem}: {' '.join(words)}")
    for page in pages()
    for words in ltrobust_commands(page)
]
TINY = [
    *("--epochs", "1", "--limit-train", "60", "--limit-test", "20", "--attacks", "clean,pgd2"),
    "--no-checks",
]


@pytest.fixture
def page_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """An empty working folder with the Python files that a page shows; registered methods go."""
    monkeypatch.chdir(tmp_path)
    load_builtin_methods()
    before, modules = METHODS.names(), set(sys.modules)

    def write(page: Path) -> None:
        for block in blocks(page, "python"):
            name = re.match(r"# (\w+\.py)\n", block.body)
            if name:
                (tmp_path / name[1]).write_text(block.body, encoding="utf-8")

    yield write
    for name in set(METHODS.names()) - set(before):
        METHODS.discard(name)
    for module in set(sys.modules) - modules:
        if module.startswith("ltrobust_plugin_"):
            del sys.modules[module]


def test_the_example_of_a_modifier_conforms(page_files) -> None:
    page_files(MODIFIERS)
    check_method("smooth", plugin="smooth_logits.py")


@pytest.mark.parametrize(("page", "words"), COMMANDS)
def test_every_command_parses(page: Path, words: list[str]) -> None:
    group = typer.main.get_command(cli.app)
    assert words[0] in group.commands
    if "--help" not in words:
        group.commands[words[0]].make_context(words[0], words[1:])


@pytest.mark.usefixtures("without_memory")
@pytest.mark.parametrize(
    ("page", "words"), [p for p in COMMANDS if p.values[1][0] == "bench" and "--help" not in p.id]
)
def test_every_bench_makes_a_plan(page, words, page_files, monkeypatch, capsys) -> None:
    page_files(page)
    # engines that are not installed here
    monkeypatch.setattr("ltrobust.bench.launch.slurm.check_installed", lambda: None)
    monkeypatch.setitem(sys.modules, "ray", ModuleType("ray"))
    dry = [word for word in words if word != "--dry-run"]
    monkeypatch.setattr(sys, "argv", ["ltrobust", *dry, "--dry-run", "--json"])
    with pytest.raises(SystemExit) as stopped:
        cli.main()
    assert stopped.value.code == 0, capsys.readouterr().err
    assert '"runs": [' in capsys.readouterr().out


def test_readme_names_the_commands_of_the_makefile() -> None:
    targets = set(re.findall(r"^(\w+):", (ROOT / "Makefile").read_text(), re.M))
    named = {
        line.split()[1] for page in pages() for line in shell_lines(page) if "make" in line[:5]
    }
    assert {"demo", "test"} <= named <= targets


def test_readme_begins_with_the_two_commands() -> None:
    assert [line.split("#")[0].strip() for line in shell_lines(README)[:2]] == [
        "make demo",
        "make test",
    ]


def test_readme_python_example_runs_with_fewer_images_and_epochs(capsys) -> None:
    examples = [b.body for b in blocks(README, "python") if b.body.startswith("import ltrobust")]
    (example,) = [body for body in examples if "torchattacks" not in body]  # not installed here
    assert "epochs=5" in example
    less = example.replace("epochs=5", "epochs=1, limit_train=60, limit_test=20")
    exec(compile(less, "README.md", "exec"), {})
    assert "balanced_accuracy" in capsys.readouterr().out


@pytest.mark.usefixtures("without_page")
def test_the_worked_example_trains_beside_the_shipped_methods(
    tmp_path: Path, page_files, monkeypatch, capsys
) -> None:
    # most of a tiny bench's time
    monkeypatch.setattr("ltrobust.report._draw_all", lambda *args: None)
    page_files(ADD_A_METHOD)
    listing, bench = ltrobust_commands(ADD_A_METHOD)
    for words in (listing, [*bench, *TINY]):
        monkeypatch.setattr(sys, "argv", ["ltrobust", *words])
        with pytest.raises(SystemExit) as stopped:
            cli.main()
        assert stopped.value.code == 0, capsys.readouterr().err
        if words is listing:
            assert "ldam-at" in capsys.readouterr().out
    board = (tmp_path / "results/ldam/leaderboard.csv").read_text()
    assert {line.split(",")[1] for line in board.splitlines()[1:]} == {"pgd-at", "ldam-at"}


@pytest.mark.slow
def test_the_worked_example_passes_its_own_test(tmp_path: Path) -> None:
    for name in ("ldam_at.py", "test_ldam_at.py"):
        (tmp_path / name).write_text(python_file(ADD_A_METHOD, name))
    assert "python -m pytest test_ldam_at.py" in shell_lines(ADD_A_METHOD)
    assert "1 passed" in _run(tmp_path, "-m", "pytest", "test_ldam_at.py", "-p", "no:cacheprovider")


def _run(folder: Path, *words: str) -> str:
    done = subprocess.run(
        [sys.executable, *words],
        cwd=folder,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.parametrize("page", [*pages(), ROOT / "CHANGELOG.md"], ids=lambda page: page.name)
def test_relative_links_lead_somewhere(page: Path) -> None:
    for target in relative_links(page):
        name, _, anchor = target.partition("#")
        file = (page.parent / name).resolve() if name else page
        assert file.exists(), f"{page.name} links to {target}"
        assert not anchor or anchor in anchors(file), f"{page.name} links to {target}"


@pytest.mark.parametrize("page", [*pages(), ROOT / "CHANGELOG.md"], ids=lambda page: page.name)
def test_files_that_are_named_are_there(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    folders = "benchmarks|docs|ltrobust|methods|tests"
    named = set(re.findall(rf"`((?:{folders})/[\w./-]+)`", text))
    assert [name for name in sorted(named) if not (ROOT / name).exists()] == []


def test_citation_tells_the_version_that_the_changelog_is_at() -> None:
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert citation["title"] == "ltrobust"
    newest = re.search(r"^## \[(\d[^]]*)\]", (ROOT / "CHANGELOG.md").read_text(), re.M)
    assert newest is not None
    assert citation["version"] == newest[1]
    assert citation["license"] == "MIT"


def test_citation_refers_to_the_papers_of_the_shipped_methods() -> None:
    from ltrobust.combination import SETS

    load_builtin_methods()
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    referred = {(r["title"], r["year"], r["url"]) for r in citation["references"]}
    papers = [METHODS.get(name).paper for name in SETS["core"]]
    assert {(paper.title, paper.year, paper.url) for paper in papers} <= referred


def test_results_format_describes_every_column() -> None:
    from ltrobust.results.frames import METRICS_COLUMNS, PER_CLASS_COLUMNS

    text = (ROOT / "docs" / "results-format.md").read_text(encoding="utf-8")
    sections = dict(re.findall(r"^## (\S+)\n(.*?)(?=^## |\Z)", text, re.M | re.S))
    for file, columns in (
        ("metrics.csv", METRICS_COLUMNS),
        ("per_class.csv", PER_CLASS_COLUMNS),
        ("attacks/*.parquet", ["index", "label", "attack", "attack_id", "pred", "correct", "fell"]),
    ):
        first_cells = " ".join(re.findall(r"^\| (.*?) \|", sections[file], re.M))
        assert re.findall(r"`(\w+)`", first_cells) == columns


def test_smoke_mode_changes_scale_only() -> None:
    assert small("ltrobust methods") == "ltrobust methods"
    line = small("ltrobust bench --methods pgd-at,mine --plugin my_method.py --dataset cifar10-lt")
    assert "--methods pgd-at,mine --plugin my_method.py" in line
    assert "--dataset cifar10-lt" not in line
    assert "--epochs 1" in line


def test_every_modifier_and_all_that_take_feedback_stand_in_their_page() -> None:
    load_builtin_methods()
    page = MODIFIERS.read_text(encoding="utf-8")
    parts = [METHODS.get(name) for name in METHODS]
    unnamed = [
        part.name for part in parts if part.kind != "defense" and f"`{part.name}`" not in page
    ]
    assert unnamed == []
    (feedback,) = re.findall(r"\(class errors for ([^)]*)\)", page)
    assert set(re.findall(r"`(.*?)`", feedback)) == {p.name for p in parts if p.needs_held_out}
