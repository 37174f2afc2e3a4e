"""Several processes write one run, another reads it: nothing is lost, nothing is half there."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from synthetic_runs import write_run

from ltrobust.results.collect import collect
from ltrobust.results.frames import metrics_table

WRITER = """
import sys
from pathlib import Path
sys.path.insert(0, sys.argv[1])
from synthetic_runs import add_attack, attack
from ltrobust.results.store import RunStore

run, own = RunStore(Path(sys.argv[2])), int(sys.argv[3])
print("ready", flush=True)
sys.stdin.readline()
for number in range(20):
    # every second attack is made by both
    name = f"pgd{number}" if number % 2 else f"pgd{100 * own + number}"
    add_attack(run, attack(name, correct=[True, False, bool(number % 3), True]), number)
"""


def test_two_processes_that_add_twenty_evaluations_each_lose_none(tmp_path: Path) -> None:
    run = write_run(tmp_path, "one", [])
    words = [sys.executable, "-c", WRITER, str(Path(__file__).parent), str(run.path)]
    pipe = subprocess.PIPE
    writers = [
        subprocess.Popen([*words, str(own)], stdin=pipe, stdout=pipe, text=True) for own in (1, 2)
    ]
    for writer in writers:
        assert writer.stdout is not None
        assert writer.stdout.readline() == "ready\n"
    for writer in writers:
        assert writer.stdin is not None
        writer.stdin.write("go\n")
        writer.stdin.flush()
    seen = [0]
    while any(writer.poll() is None for writer in writers):
        (found,) = collect([tmp_path])
        for evaluation in found.evaluations:
            assert evaluation.outcomes() is not None
        seen.append(len(found.evaluations))
    assert [writer.wait() for writer in writers] == [0, 0]
    for writer in writers:
        writer.communicate()
    assert seen == sorted(seen)
    (found,) = collect([tmp_path])
    assert len(found.evaluations) == 30
    assert found.lost == ()
    assert len(metrics_table([found])[0]) == 30
    assert {path.suffix for path in (run.path / "attacks").iterdir()} == {".json", ".parquet"}
