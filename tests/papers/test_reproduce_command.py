"""`ltrobust reproduce`: list, mistakes, dry run, and one tiny entry from training to files."""

from __future__ import annotations

import csv
import re
import sys
from pathlib import Path

import pytest
import yaml

from ltrobust.papers.entries import entry_names, shipped_folder

ENTRY = {
    "title": "A tiny table",
    "method": "at-bsl",
    "draw": "bars",
    "suites": [
        {
            "dataset": "digits-lt",
            "imbalance_ratio": 10,
            "methods": ["pgd-at", "at-bsl"],
            "attacks": ["clean", "pgd20"],
            "cpu": {"limit_test": 30},
        },
    ],
    "published": [{"where": {"dataset": "Digits-LT"}, "ours": {"PGD-AT": "pgd-at", "X": "at-bsl"}}],
    "claims": [
        {
            "text": "X above PGD-AT",
            "more": {"method": "at-bsl", "attack": "pgd20"},
            "less": {"method": "pgd-at", "attack": "pgd20"},
        }
    ],
}
SCALES = {"cpu": {"epochs": 1, "limit_train": 60, "precision": "fp32", "arch": "small-cnn"}}
VALUES = """\
method,paper_or_source,dataset,ir,test_protocol,arch,epochs,attack,metric,value,setting_notes,source
PGD-AT,A paper,Digits-LT,10,balanced test set,ResNet-18,100,Clean,accuracy,62.33,Table 1,a|b
PGD-AT,A paper,Digits-LT,10,balanced test set,ResNet-18,100,PGD-20,accuracy,29.30,Table 1,a|b
X,A paper,Digits-LT,10,balanced test set,ResNet-18,100,PGD-20,accuracy,36.93,Table 1,a|b
Y,A paper,Digits-LT,10,balanced test set,ResNet-18,100,PGD-20,accuracy,40,SUSPECT: odd,a|b
"""


@pytest.fixture
def entries(tmp_path: Path) -> Path:
    """A folder with one entry on digits-lt."""
    folder = tmp_path / "entries"
    folder.mkdir()
    (folder / "tiny-table.yaml").write_text(yaml.safe_dump(ENTRY))
    (folder / "_scales.yaml").write_text(yaml.safe_dump(SCALES))
    (folder / "published_numbers.csv").write_text(VALUES)
    return folder


@pytest.fixture
def reproduce(monkeypatch, capsys, tmp_path):
    """Run the command here; returns exit code, stdout and stderr."""
    monkeypatch.chdir(tmp_path)

    def call(*words: object) -> tuple[object, str, str]:
        from ltrobust.cli import main

        monkeypatch.setattr(sys, "argv", ["ltrobust", "reproduce", *map(str, words)])
        capsys.readouterr()
        with pytest.raises(SystemExit) as stopped:
            main()
        said = capsys.readouterr()
        return stopped.value.code, said.out, said.err

    return call


def test_list_prints_one_plain_line_an_entry(reproduce) -> None:
    code, said, _ = reproduce("--list")
    assert code == 0
    lines = said.splitlines()
    assert [line.split("  ", 1)[0] for line in lines] == entry_names(shipped_folder())
    assert all(re.fullmatch(r"[a-z][a-z-]+  \S.*", line) for line in lines)
    assert "\x1b" not in said


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["robal-tabel"], "did you mean 'robal-table'"),
        (["robal-table", "--scale", "half"], "unknown scale 'half'"),
        ([], "--list"),
        (["all", "--entries", "nowhere"], "holds no entry"),
    ],
)
def test_a_mistake_is_one_line_and_exit_code_2(reproduce, words, message) -> None:
    code, _, error = reproduce(*words)
    assert code == 2
    assert message in error
    assert len(error.strip().splitlines()) == 1


@pytest.mark.usefixtures("without_memory")
def test_a_dry_run_shows_the_runs_and_writes_nothing(reproduce, tmp_path, monkeypatch) -> None:
    monkeypatch.setattr("ltrobust.bench.cells.cell_rows", lambda *args: ([], 7200.0, []))
    code, said, _ = reproduce("all", "--dry-run", "--scale", "cpu")
    assert said.endswith("about 2.0 h in all\n")
    assert code == 0
    assert said.startswith("scale: cpu")
    assert "robal-table: 4 runs, 4 to do" in said
    assert said.count("to do  taet-") == 4
    assert not list(tmp_path.iterdir())


def test_the_scale_follows_the_device_when_it_is_not_said(reproduce, monkeypatch) -> None:
    import torch

    monkeypatch.setattr("ltrobust.bench.cells.needs_in_words", lambda *args: "")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert reproduce("robal-table", "--dry-run")[1].startswith("scale: cpu (")
    from ltrobust.papers.reproduce import choose_scale

    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert choose_scale(None, None) == "full"
    assert choose_scale(None, "cpu") == "cpu"
    assert choose_scale("full", "cpu") == "full"


def test_an_entry_is_run_written_and_found_again(reproduce, entries, tmp_path) -> None:
    out = tmp_path / "out"
    words = ("tiny-table", "--entries", entries, "--output", out, "--scale", "cpu")
    code, said, error = reproduce(*words)
    assert code == 0, error
    assert "2 of 2 runs to do" in said
    folder = out / "tiny-table"
    names = {"comparison.csv", "comparison.md", "comparison.tex", "claims.csv"}
    assert {p.name for p in folder.iterdir()} == names | {"figure.png", "figure.pdf", "page.json"}
    html = (out / "index.html").read_text()
    assert "tiny-table-0" in html
    assert "const filter" in html

    rows = list(csv.DictReader((folder / "comparison.csv").open()))
    assert [row["label"] for row in rows] == ["pgd-at", "pgd-at", "at-bsl", "Y"]
    assert [row["verdict"] for row in rows[:3]] == ["not comparable: cpu scale"] * 3
    assert rows[3]["verdict"] == "not comparable: SUSPECT: odd"
    assert all(0 <= float(row["ours"]) <= 1 and int(row["n"]) > 0 for row in rows[:3])
    (claim,) = csv.DictReader((folder / "claims.csv").open())
    assert float(claim["published"]) == pytest.approx(0.0763)
    assert claim["basis"] == "paired images"

    page = (folder / "comparison.md").read_text()
    assert "another training seed" in page
    assert "CPU scale" in page
    assert "X above PGD-AT" in page
    assert r"a\|b" in page
    assert r"\toprule" in (folder / "comparison.tex").read_text()

    times = {p: p.stat().st_mtime_ns for p in (out / "runs").rglob("*") if p.is_file()}
    for weights in (out / "runs").glob("*/model.safetensors"):
        weights.unlink()  # figures need the outcomes only
        times.pop(weights)
    code, said, _ = reproduce(*words)
    assert code == 0
    assert "to do" not in said
    assert {p: p.stat().st_mtime_ns for p in (out / "runs").rglob("*") if p.is_file()} == times


def test_a_run_that_fails_is_told_and_the_rest_is_written(
    reproduce, entries, tmp_path, monkeypatch
) -> None:
    from ltrobust.errors import RunError
    from ltrobust.method import METHODS, load_builtin_methods

    load_builtin_methods()

    def broken(self, *given):
        raise RunError("the loss is not finite")

    monkeypatch.setattr(METHODS.get("pgd-at"), "loss", broken)
    out = tmp_path / "out"
    words = ("tiny-table", "--entries", entries, "--output", out, "--scale", "cpu")
    code, _, error = reproduce(*words)
    assert code == 1
    assert "failed: pgd-at" in error
    rows = list(csv.DictReader((out / "tiny-table" / "comparison.csv").open()))
    assert [row["ours"] != "" for row in rows] == [False, False, True, False]
    (claim,) = csv.DictReader((out / "tiny-table" / "claims.csv").open())
    assert claim["verdict"] == "not measured"
