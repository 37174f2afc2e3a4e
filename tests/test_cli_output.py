"""What commands print: whole names in narrow terminals and pipes, options, the version."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from importlib.metadata import version

import pytest
from rich.console import Console
from typer.testing import CliRunner

from ltrobust import cli
from ltrobust.describe import option_rows
from ltrobust.method import METHODS


def said(*words: str) -> str:
    done = CliRunner().invoke(cli.app, list(words))
    assert done.exit_code == 0, done.output
    return done.output


def test_the_version_is_one_line():
    assert said("--version") == f"ltrobust {version('ltrobust')}\n"


@pytest.mark.parametrize(
    ("asked", "found"),
    [
        ({}, "None 2000"),
        ({"GOMP_SPINCOUNT": "7"}, "None 7"),
        ({"OMP_WAIT_POLICY": "active"}, "active None"),
    ],
)
def test_threads_spin_shortly_unless_the_user_says_otherwise(asked, found):
    """Said before torch is loaded, which reads it once."""
    words = (
        "import os, sys; sys.argv = ['ltrobust', '--version']\n"
        "from ltrobust.cli import main\n"
        "assert 'torch' not in sys.modules\n"
        "try: main()\n"
        "except SystemExit: print(*map(os.environ.get, ('OMP_WAIT_POLICY', 'GOMP_SPINCOUNT')))"
    )
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("OMP_W", "GOMP"))}
    done = subprocess.run(
        [sys.executable, "-c", words],
        env={**environment, **asked},
        check=True,
        capture_output=True,
        text=True,
    )
    assert done.stdout.splitlines()[-1] == found


@pytest.mark.parametrize("width", [60, 80])
def test_lists_break_no_name_in_a_narrow_terminal(width, monkeypatch):
    monkeypatch.setattr(cli, "out", Console(width=width))
    text = said("methods")
    assert max(map(len, text.splitlines())) <= width
    assert "…" not in text
    words = set(re.split(r"[\s│┃]+", text))
    assert set(METHODS) <= words


def test_what_is_piped_has_a_line_for_each_row(monkeypatch):
    monkeypatch.delenv("COLUMNS", raising=False)
    monkeypatch.setattr(cli, "out", cli._console())
    rows = [line for line in said("methods").splitlines() if line.startswith("│")]
    assert len(rows) == len(list(METHODS))


def test_a_methods_options_are_told_with_type_default_and_range(monkeypatch):
    monkeypatch.setattr(cli, "out", Console(width=400))
    text = " ".join(said("methods", "show", "ema").split())
    assert re.search(r"ema.decay │ float │ 0.995 │ at least 0, below 1 │", text)
    assert "share of the average that a step keeps" in text
    rule = next(row for row in option_rows("trades+awp") if row[0] == "awp.rule")
    assert rule[1:4] == ("choice", "proxy", "proxy, optimizer")


def test_every_option_of_every_method_has_a_meaning():
    lacking = [
        (name, option)
        for name in METHODS
        for option, _, _, _, meaning in option_rows(name)
        if not meaning
    ]
    assert lacking == []
