"""Post-hoc methods through the command line: the base is trained once, and rows name it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch
from bench_helpers import QUICK, TINY, Cli, content, error_of, is_done, write_plugin
from safetensors.torch import load_file

NAMES = ("pgd-at", "pgd-at+tau-norm", "pgd-at+crt")
pytestmark = pytest.mark.usefixtures("without_reports")


def folder(method: str) -> Path:
    (found,) = (p for p in Path("suite/runs").iterdir() if p.name.rpartition("-")[0] == method)
    return found


def record(method: str) -> dict[str, Any]:
    return content(folder(method) / "trained.json")


def weights(method: str) -> dict[str, torch.Tensor]:
    return load_file(folder(method) / "model.safetensors")


def trained_at(method: str) -> int:
    return (folder(method) / "model.safetensors").stat().st_mtime_ns


def bench(cli: Cli, *methods: str, words: tuple[str, ...] = (*QUICK, "--no-checks")) -> Any:
    return cli("bench", "--methods", ",".join(methods), *words, "--output", "suite")


def test_the_base_is_trained_once_and_the_rows_name_it(cli: Cli) -> None:
    assert bench(cli, *NAMES).code == 0
    base = record("pgd-at")
    assert base["base"] is None
    for name, epochs in (("pgd-at+tau-norm", 0), ("pgd-at+crt", 1)):
        own = record(name)
        assert own["base"]["run_id"] == base["run_id"]
        assert own["fine_tuning"]["epochs"] == epochs
        assert own["checkpoint"] == f"epoch {2 + epochs}"
        # what the base took counts as well
        for time in ("train_seconds", "train_cpu_seconds"):
            before, after = base[time], own[time]
            assert own["base"][time] == before
            assert after == pytest.approx(before + own["fine_tuning"][time], rel=1e-12)
            assert after == before if not epochs else after > before
    assert pd.read_csv(folder("pgd-at+crt") / "history.csv")["epoch"].tolist() == [3]
    assert not (folder("pgd-at+tau-norm") / "history.csv").exists()

    rows = pd.read_csv("suite/metrics.csv").drop_duplicates("method").set_index("method")
    assert rows["fine_tuning_epochs"].fillna(-1).to_dict() == {
        "pgd-at": -1,
        "pgd-at+tau-norm": 0,
        "pgd-at+crt": 1,
    }

    # done is done, and another trick takes the same base
    times = [trained_at(name) for name in NAMES]
    assert bench(cli, *NAMES, "pgd-at+lws").code == 0
    assert [trained_at(name) for name in NAMES] == times
    assert record("pgd-at+lws")["base"]["run_id"] == base["run_id"]


def test_a_post_hoc_method_alone_brings_its_base_and_takes_its_weights(cli: Cli) -> None:
    assert bench(cli, "pgd-at+tau-norm").code == 0
    before, after = weights("pgd-at"), weights("pgd-at+tau-norm")
    assert torch.equal(after["linear.fc.weight"], before["linear.weight"])
    assert "linear.fc.bias" not in after
    body = [name for name in before if not name.startswith("linear.")]
    assert body
    assert all(torch.equal(after[name], before[name]) for name in body)


def test_a_failed_base_fails_what_acts_on_it_and_nothing_else(cli: Cli, tmp_path: Path) -> None:
    plugin = write_plugin(tmp_path / "mine.py", "broken", change=" * float('nan')")
    words = (*QUICK, "--no-checks", "--plugin", str(plugin))
    outcome = bench(cli, "broken", "broken+posthoc-la", "at-bsl", words=words)
    assert outcome.code == 1
    error = str(error_of(folder("broken+posthoc-la")))
    assert f"acts on {folder('broken').name}, which is not trained" in error
    assert "the loss is not finite" in error
    assert is_done(folder("at-bsl"))


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("at-cosine+tau-norm", "a linear last layer, and that of at-cosine is a TDEHead"),
        ("robal+lws", "a linear last layer, and that of robal-r is a CosineHead"),
        ("pgd-at+tau-norm+lws", "a linear last layer, and that of tau-norm is a TauNormHead"),
        ("pgd-at+tde", "write at-cosine+tde"),
        ("at-tde+tde", "takes the direction away already"),
        ("taet+drw", "the loss of taet is no mean over images"),
        ("pgd-at+crt+resample", "resample must stand left of it"),
    ],
)
def test_what_does_not_fit_is_one_line(cli: Cli, name: str, reason: str) -> None:
    outcome = bench(cli, name, words=(*TINY, "--attacks", "clean"))
    assert outcome.code == 2
    assert reason in outcome.stderr
    assert len(outcome.stderr.strip().splitlines()) == 1
    assert not Path("suite").exists()
