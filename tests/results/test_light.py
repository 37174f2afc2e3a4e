"""Reading results needs no torch and little memory."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from synthetic_runs import attack, write_run

READER = """
import sys
import ltrobust.report
from pathlib import Path
from ltrobust.results.collect import collect
from ltrobust.results.frames import confusion_table, metrics_table

runs = collect([Path(sys.argv[1])])
assert len(metrics_table(runs)[0]) == len(confusion_table(runs)["attack_id"].unique()) == 2
assert runs[0].evaluations[0].outcomes() is not None
assert "torch" not in sys.modules
(peak,) = (line for line in open("/proc/self/status") if line.startswith("VmHWM"))
print(int(peak.split()[1]) / 1024)
"""


def test_reports_and_results_are_read_without_torch_below_200_mib(tmp_path: Path) -> None:
    right = [True, False, True, True]
    write_run(tmp_path, "one", [attack("clean", correct=right), attack(correct=right)])
    done = subprocess.run(
        [sys.executable, "-c", READER, str(tmp_path)], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert float(done.stdout) < 200
