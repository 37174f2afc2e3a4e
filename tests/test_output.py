"""What is printed never fails the work: other encodings, closed pipes, full disks."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from ltrobust.output import PLAIN, encoded, printable

SPEAK = r"""
import sys
from rich.console import Console
from rich.table import Table
from ltrobust.output import guard_streams
from ltrobust.progress import Reporter

lost = guard_streams()
table = Table(title="\u00b1")
table.add_row("\u2020", "caf\u00e9", "n\udce9", "\u732b")
out = Console()
with Reporter(out) as reporter:
    for _ in range(200):
        reporter.line("  \u2020 0.5 \u00b1 0.1 \u2013 caf\u00e9 n\udce9 \u732b")
out.print(table)
print("end")
with open("done", "w") as file:
    file.write(str(lost()))
"""


def speak(tmp_path, redirection: str = "", **variables: str) -> subprocess.CompletedProcess[bytes]:
    """Print what is hard to print in a process of its own; `redirection` is the shell's."""
    env = {**os.environ, "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0", **variables}
    words = ["sh", "-c", f'"$0" -c "$1" {redirection}', sys.executable, SPEAK]
    done = subprocess.run(words, env=env, cwd=tmp_path, capture_output=True, check=False)
    assert (tmp_path / "done").is_file(), done.stderr.decode()
    return done


@pytest.mark.parametrize(
    ("variables", "line"),
    [
        ({"LC_ALL": "C"}, b"  + 0.5 +- 0.1 - cafe n\\xe9 ?"),
        ({"PYTHONIOENCODING": "ascii"}, b"  + 0.5 +- 0.1 - cafe n\\xe9 ?"),
        ({"PYTHONIOENCODING": "latin-1"}, b"  + 0.5 \xb1 0.1 - caf\xe9 n\\xe9 ?"),
        ({"PYTHONIOENCODING": "utf-8"}, "  † 0.5 ± 0.1 – café n\\xe9 猫".encode()),
        ({"PYTHONIOENCODING": "utf-8", "PYTHONUNBUFFERED": "1"}, "  † 0.5".encode()),
    ],
)
def test_what_a_terminal_cannot_show_gets_a_plain_character(tmp_path, variables, line):
    done = speak(tmp_path, **variables)
    assert (done.returncode, done.stderr) == (0, b"")
    assert done.stdout.splitlines()[0].partition(b"] ")[2].startswith(line)
    assert done.stdout.endswith(b"end\n")


@pytest.mark.parametrize(
    "redirection", [">&-", "2>&-", ">&- 2>&-", "<&- >&- 2>&-", "| head -n 1", "2>&1 | true"]
)
def test_work_goes_on_quietly_when_nobody_listens(tmp_path, redirection):
    done = speak(tmp_path, redirection, PYTHONIOENCODING="utf-8")
    assert (done.returncode, done.stderr) == (0, b"")
    assert (tmp_path / "done").read_text() == "None"


def test_a_full_disk_behind_the_output_stops_nothing_and_is_told(tmp_path):
    done = speak(tmp_path, "> /dev/full")
    assert (done.returncode, done.stderr) == (0, b"")
    assert "No space left" in (tmp_path / "done").read_text()


def test_a_list_that_could_not_be_written_is_an_error_in_one_line():
    words = ["sh", "-c", '"$0" -m ltrobust datasets --json > /dev/full', sys.executable]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert done.stderr == "error: the output could not be written (No space left on device)\n"


def test_names_of_files_that_are_no_text_can_be_written_anywhere():
    name = os.fsdecode(b"caf\xe9-\xc3\xa9")
    assert printable(name) == "caf\\xe9-é"
    assert encoded(name) == b"caf\\xe9-\xc3\xa9"
    assert encoded("\ud800") == b"?"
    assert name.encode("ascii", PLAIN) == b"caf\\xe9-e"
    assert "e\u0301".encode("ascii", PLAIN) == b"e"  # a combining accent goes
