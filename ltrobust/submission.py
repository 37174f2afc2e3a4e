"""Check a suite's directory for the leaderboard, and pack it for a pull request.

Every number must follow from the stored outcomes, every key from the stored settings, and every
attacked run must have its reliability report; what a reader should know besides is a remark.
Nothing is trained or attacked here, and nothing is sent anywhere.
"""

from __future__ import annotations

import hashlib
import io
import json
import zipfile
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import pandas as pd
from pydantic import ValidationError

from ltrobust.bench.collect import METRICS_COLUMNS, PER_CLASS_COLUMNS, metrics_table
from ltrobust.bench.csv_files import read_classes, read_metrics
from ltrobust.bench.evaluations import outcomes_there, read_suite
from ltrobust.bench.merge import check_directory
from ltrobust.bench.store import RunStore, SuiteStore, write_atomic
from ltrobust.config import AttackSpec, Run, TestSpec
from ltrobust.errors import UserError, unknown

LICENSES = ("CC0-1.0", "CC-BY-4.0", "MIT")
"""SPDX names of the licences under which results are taken."""
MANIFEST = "submission.json"
SUITE_FILES = ("metrics.csv", "per_class.csv")
RUN_FILES = (
    *("run.json", "history.csv", "outcomes.parquet", "reliability.json", "log.txt"),
    "examples.parquet",
)
WEIGHTS = "model.safetensors"
CLOSE = 1e-9
"""How far a stored number may lie from the one that its outcomes give: the CSV's rounding."""


@dataclass(frozen=True)
class Findings:
    """What a check found.

    Attributes:
        problems: why the directory cannot be taken as it is, one line each.
        remarks: what stands beside the numbers wherever they are shown, one line each.
        runs: how many runs there are.
        evaluations: how many attacks on them.
    """

    problems: tuple[str, ...]
    remarks: tuple[str, ...]
    runs: int
    evaluations: int


def check_submission(directory: Path) -> Findings:
    """Check schema, checksums, keys, numbers and reliability reports of a suite's directory.

    Raises:
        UserError: it is no suite's directory, or a file is damaged.
    """
    check_directory(directory)
    store = SuiteStore(directory)
    runs = store.runs()
    problems, remarks = list(_of_suite(store)), list[str]()
    for run in runs:
        problems += _of_run(run)
        remarks += _remarks(run)
    problems += _of_manifest(directory)
    evaluations = sum(len(run.read().get("evaluations", {})) for run in runs)
    return Findings(tuple(problems), tuple(remarks), len(runs), evaluations)


def _of_suite(store: SuiteStore) -> Iterator[str]:
    """Whether the CSV files have the columns of this version and the numbers of the outcomes."""
    if not store.runs():
        yield "runs/: no run; results without outcomes cannot be checked"
        return
    for name in SUITE_FILES:
        if not (store.path / name).is_file():
            yield f"{name}: is not there; ltrobust report {store.path} writes it"
            return
    metrics, classes = metrics_table(read_suite(store))
    kept = ((metrics, read_metrics, METRICS_COLUMNS), (classes, read_classes, PER_CLASS_COLUMNS))
    for name, (made, read, columns) in zip(SUITE_FILES, kept, strict=True):
        yield from _of_table(name, made, read(store.path), columns)


def _of_table(name: str, made: pd.DataFrame, stored: pd.DataFrame, columns: list[str]) -> list[str]:
    """Where a stored table differs from the one that the outcomes give."""
    missing = [column for column in columns if column not in stored]
    if missing:
        return [f"{name}: lacks {', '.join(missing)}; ltrobust report writes it anew"]
    keys = ["run_id", "attack_id", *(["class_index"] if "class_index" in columns else [])]
    both = made.merge(stored, on=keys, how="outer", suffixes=("", "_stored"), indicator=True)
    if (both["_merge"] != "both").any():
        return [f"{name}: other runs, attacks or classes than outcomes.parquet; report it anew"]
    measured = [c for c in ("n", "n_test", "accuracy", "balanced_accuracy") if c in columns]
    return [
        f"{name}: {column} of {row['run_id']} under {row['attack']} is "
        f"{row[f'{column}_stored']:.6g}, the outcomes give {row[column]:.6g}"
        for row in both.to_dict("records")
        for column in measured
        if not _same(row[column], row[f"{column}_stored"])
    ]


def _same(one: Any, other: Any) -> bool:
    return (pd.isna(one) and pd.isna(other)) or abs(one - other) <= CLOSE


def _of_run(run: RunStore) -> Iterator[str]:
    """Whether a run is done, whole, and what its keys say."""
    name, record = f"runs/{run.run_id}", run.read()
    if record["status"] != "done":
        yield f"{name}: is {record['status']}, not done"
        return
    if record["run_id"] != run.run_id:
        yield f"{name}: run.json is that of {record['run_id']}"
    if record["config"]["recipe_name"] != "external":
        yield from _of_config(name, record)
    there = outcomes_there(run)
    for attack_id, facts in record["evaluations"].items():
        if attack_id not in there:
            yield f"{name}: the outcomes of {attack_id} are gone or of other test images"
        elif _attack_id(facts) != attack_id:
            yield f"{name}: {attack_id} does not follow from the attack's settings"
    if not record["evaluations"]:
        yield f"{name}: was never evaluated"
    unjudged = [
        facts["attack"]
        for attack_id, facts in record["evaluations"].items()
        if facts["attack"] not in ("clean", "noise") and attack_id not in record.get("judged", [])
    ]
    if unjudged or (len(there) > 1 and not run.has_reliability):
        yield (
            f"{name}: reliability of {', '.join(unjudged) or 'its attacks'} not checked; the same "
            "command without --no-checks makes up for it"
        )


def _of_config(name: str, record: dict[str, Any]) -> Iterator[str]:
    """Whether the run id follows from the settings."""
    try:
        run_id = Run.model_validate(record["config"]).run_id
    except ValidationError as error:
        problem = error.errors()[0]
        where = ".".join(str(part) for part in problem["loc"])
        yield f"{name}: config.{where} is not of this version ({problem['msg']})"
        return
    if run_id != record["run_id"]:
        yield f"{name}: the run id does not follow from its settings, which give {run_id}"


def _attack_id(facts: dict[str, Any]) -> str | None:
    """The id that the stored settings of an attack give; None when they are none."""
    known = AttackSpec.model_fields.keys()
    settings = {key: value for key, value in facts["settings"].items() if key in known}
    test = TestSpec(protocol=facts["test_protocol"], limit=facts.get("limit_test"))
    try:
        spec = AttackSpec(name=facts["attack"], library=facts["library"], **settings)
    except ValidationError:
        return None
    return spec.attack_id(test)


def _remarks(run: RunStore) -> Iterator[str]:
    """What a reader of a run's numbers should know."""
    record = run.read()
    name, config = f"runs/{run.run_id}", record.get("config", {})
    flagged = [str(one["check"]) for one in run.reliability() if one["flagged"]]
    if flagged:
        yield f"{name}: marked † ({', '.join(flagged)})"
    if config.get("select") == "best-on-test":
        yield f"{name}: its epoch was chosen on the test set"
    if config.get("method_source"):
        yield f"{name}: add the file of {config['method']} to the pull request"
    if record.get("provenance", {}).get("git_commit", "").endswith("+dirty"):
        yield f"{name}: trained with code that no commit holds"
    limits = {facts.get("limit_test") for facts in record.get("evaluations", {}).values()}
    for limit in sorted(filter(None, limits)):
        yield f"{name}: attacked on about {limit} test images only"


def _of_manifest(directory: Path) -> list[str]:
    """Whether files are still those that were packed; nothing to say where none were."""
    file = directory / MANIFEST
    if not file.is_file():
        return []
    try:
        listed = json.loads(file.read_text(encoding="utf-8"))["files"]
        known = {str(name): str(sha) for name, sha in listed.items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return [f"{MANIFEST}: is damaged; pack the directory again"]
    return [
        f"{name}: is not the file that was packed"
        for name, sha in known.items()
        if not (directory / name).is_file() or _sha256((directory / name).read_bytes()) != sha
    ]


def pack_submission(
    directory: Path,
    findings: Findings,
    *,
    license_name: str,
    by: str,
    output: Path | None = None,
    weights: bool = True,
) -> Path:
    """Write a zip file with what a leaderboard needs of a checked directory.

    Equal contents give equal bytes. Tables, figures and the page are left out: whoever takes the
    numbers makes them anew.

    Args:
        directory: a suite's directory.
        findings: what `check_submission` found there.
        license_name: one of `LICENSES`.
        by: who submits, as it shall be shown.
        output: the zip file; default `<suite>.zip` in the working directory.
        weights: whether the networks come along.

    Raises:
        UserError: there are problems, the licence is none of ours, nobody is named, or the file
            cannot be written.
    """
    if license_name not in LICENSES:
        raise unknown("licence", license_name, LICENSES)
    if not by.strip():
        raise UserError("--by is empty; say who submits, such as --by 'A. Author'")
    if findings.problems:
        raise UserError(f"{directory} cannot be submitted yet: {findings.problems[0]}")
    root = directory.resolve()
    chosen = (*RUN_FILES, *([WEIGHTS] if weights else []))
    names = [name for name in SUITE_FILES if (root / name).is_file()]
    for run in SuiteStore(directory).runs():
        names += [f"runs/{run.run_id}/{n}" for n in chosen if (run.path / n).is_file()]
    contents = {name: (root / name).read_bytes() for name in names}
    manifest = {
        "license": license_name,
        "by": by.strip(),
        **{key: value for key, value in asdict(findings).items() if key != "problems"},
        "files": {name: _sha256(content) for name, content in contents.items()},
    }
    contents[MANIFEST] = (json.dumps(manifest, indent=2, ensure_ascii=False) + "\n").encode()
    target = output or Path(f"{root.name}.zip")
    write_atomic(target, _zipped(root.name, contents))
    return target


def _zipped(folder: str, contents: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as file:
        for name in sorted(contents):
            member = zipfile.ZipInfo(f"{folder}/{name}")  # of 1980: no time stamps of this machine
            member.compress_type = zipfile.ZIP_DEFLATED
            member.external_attr = 0o644 << 16
            file.writestr(member, contents[name])
    return buffer.getvalue()


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()
