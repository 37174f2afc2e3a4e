"""Do an entry: run what is missing, compare, judge, draw and write.

All entries of one output directory share its `runs/`, as one suite, so that a run which several
figures need is done once. Nothing is printed here but the progress of runs.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from ltrobust.bench.checks import lacks_reliability
from ltrobust.bench.estimate import estimate
from ltrobust.bench.loader import Loader
from ltrobust.bench.plan import Plan, PlannedRun, joined, make_plan
from ltrobust.bench.runner import Failure, run_plan
from ltrobust.bench.settings import make_settings
from ltrobust.errors import UserError, unknown
from ltrobust.papers.claims import judge
from ltrobust.papers.compare import compare
from ltrobust.papers.entries import SCALES, Entry, Scale, entry_names, read_entry, read_scales
from ltrobust.papers.figures import entry_chart, scale_note
from ltrobust.papers.ours import Ours
from ltrobust.papers.page import SHOWN, entry_json, papers_page
from ltrobust.papers.published import read_values
from ltrobust.papers.tables import markdown, short_tables
from ltrobust.progress import Reporter, in_words
from ltrobust.report.markup import Table
from ltrobust.report.printed import draw, figure_bytes
from ltrobust.results.store import SuiteStore

DEFAULT_OUTPUT = Path("results/papers")


@dataclass(frozen=True)
class Job:
    """An entry with the plans of its suites at one scale."""

    entry: Entry
    scale: Scale
    plans: tuple[Plan, ...]

    def runs(self) -> tuple[PlannedRun, ...]:
        """The runs of all suites, each once."""
        return joined(planned for plan in self.plans for planned in plan.runs)


def choose_scale(asked: str | None, device: str | None) -> Scale:
    """The scale that was asked for, else full with a CUDA device and cpu without one.

    Raises:
        UserError: there is no such scale.
    """
    for scale in SCALES:
        if asked == scale:
            return scale
    if asked is not None:
        raise unknown("scale", asked, SCALES)
    if device in (None, "auto"):
        return "full" if torch.cuda.is_available() else "cpu"
    return "cpu" if device == "cpu" else "full"


def make_jobs(names: Sequence[str], folder: Path, scale: Scale, flags: dict[str, Any]) -> list[Job]:
    """Plan entries by name; "all" stands for every entry of the folder.

    Args:
        names: entries; repeated ones count once.
        folder: where the entries lie.
        scale: "full" or "cpu".
        flags: settings that win over the entries' (output, data_dir, device, threads, download);
            None does not count.

    Raises:
        UserError: an unknown name, an entry that is wrong, or settings that do not fit.
    """
    if not names:
        raise UserError("name an entry, or all; ltrobust reproduce --list shows them")
    wanted = [one for name in names for one in (entry_names(folder) if name == "all" else [name])]
    scales = read_scales(folder)
    jobs = []
    for entry in [read_entry(folder, name) for name in dict.fromkeys(wanted)]:
        plans = []
        for settings in entry.settings(scales, scale):
            given = {key: value for key, value in flags.items() if value is not None}
            plans.append(make_plan(make_settings({**settings, **given})))
        jobs.append(Job(entry, scale, tuple(plans)))
    return jobs


def missing(plan: Plan, store: SuiteStore) -> Plan:
    """A plan with the runs only that are not finished or lack an attack.

    What is finished is taken as it is, without its data or its weights, so that figures can be
    drawn again from the stored records alone.
    """
    runs = tuple(planned for planned in plan.runs if not _finished(planned, store))
    return replace(plan, runs=runs)


def run_missing(job: Job, store: SuiteStore, reporter: Reporter) -> list[Failure]:
    """Train and evaluate what an entry lacks; return what is not done."""
    failures: dict[str, Failure] = {}
    for plan in job.plans:
        left = missing(plan, store)
        if not left.runs:
            continue
        load = Loader(left)
        expected = estimate(left, store, load)
        reporter.line(
            f"{job.entry.name}: {len(left.runs)} of {len(plan.runs)} runs to do on {plan.device}, "
            f"about {in_words(expected.seconds)}"
        )
        if expected.warning:
            reporter.line(f"warning: {expected.warning}")
        for failure in run_plan(left, store, load, reporter):
            failures[failure.run_id] = failure
    return list(failures.values())


def write_entry(job: Job, folder: Path, store: SuiteStore) -> tuple[Table, ...]:
    """Compare, judge and draw from what is stored, and write it to `<output>/<entry>/`.

    Files: comparison.csv, .md and .tex, claims.csv, figure.png and .pdf, page.json; and
    `<output>/index.html`, the page of all entries there.

    Returns:
        Tables for the terminal.

    Raises:
        UserError: the published values or a stored file are wrong.
    """
    entry, values, ours = job.entry, read_values(folder), Ours(job.plans, store)
    frame = compare(entry, values, ours, job.scale)
    claims = judge(entry, values, ours)
    note = f"{scale_note(ours)}; shapes compare, values do not." if job.scale == "cpu" else ""
    chart = entry_chart(entry, frame, values, ours, job.scale)
    figure = draw(chart)
    tables = short_tables(entry, frame, claims, note)
    files: dict[str, str | bytes] = {
        "comparison.csv": frame.to_csv(index=False, lineterminator="\n"),
        "comparison.md": markdown(entry, frame, claims, note),
        "comparison.tex": "\n".join(table.to_latex() for table in tables),
        "claims.csv": claims.to_csv(index=False, lineterminator="\n"),
        "figure.png": figure_bytes(figure, "png"),
        "figure.pdf": figure_bytes(figure, "pdf"),
        SHOWN: entry_json(chart, tables),
    }
    for name, content in files.items():
        store.write(f"{entry.name}/{name}", content)
    store.write("index.html", papers_page(store.path))
    return tables


def _finished(planned: PlannedRun, store: SuiteStore) -> bool:
    run = store.run(planned.run.run_id)
    run.check_whole()
    if run.failure is not None or not planned.attack_ids().keys() <= set(run.attack_ids()):
        return False
    return not (run.trained and lacks_reliability(run))
