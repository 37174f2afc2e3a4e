"""Check a suite's directory for the leaderboard, and pack it for a pull request.

Every number must follow from the stored records and these from their outcomes, every key from the
stored settings, and every attacked run must have its reliability report; what a reader should know
besides is a remark. Nothing is trained or attacked here, and nothing is sent anywhere.
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

from ltrobust.config import AttackSpec, Run, TestSpec
from ltrobust.errors import UserError, unknown
from ltrobust.results.collect import collect
from ltrobust.results.digest import digest_of
from ltrobust.results.files import write_atomic
from ltrobust.results.frames import METRICS_COLUMNS, PER_CLASS_COLUMNS, metrics_table
from ltrobust.results.records import AttackRecord
from ltrobust.results.store import RunStore, SuiteStore, are_outcomes_of

LICENSES = ("CC0-1.0", "CC-BY-4.0", "MIT")
"""SPDX names of the licences under which results are taken."""
MANIFEST = "submission.json"
SUITE_FILES = ("metrics.csv", "per_class.csv")
RUN_FILES = (
    *("run.json", "trained.json", "rounded.json", "place.json", "history.csv", "log.txt"),
    *("attacks/*.json", "attacks/*.parquet", "reliability.json", "probes/*.json"),
    *("tuning.json", "examples.parquet"),
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
    store = SuiteStore(directory)
    runs = store.runs()
    if not runs:
        raise UserError(f"{directory} holds no runs; give a suite's directory (results/<suite>)")
    problems, remarks = list(_of_suite(store)), list[str]()
    for run in runs:
        problems += _of_run(run)
        remarks += _remarks(run)
    problems += _of_manifest(directory)
    evaluations = sum(len(run.attack_ids()) for run in runs)
    return Findings(tuple(problems), tuple(remarks), len(runs), evaluations)


def _of_suite(store: SuiteStore) -> Iterator[str]:
    """Whether the CSV files have the columns of this version and the numbers of the records."""
    for name in SUITE_FILES:
        if not (store.path / name).is_file():
            yield f"{name}: is not there; ltrobust report {store.path} writes it"
            return
    frames = metrics_table(collect([store.path]))
    for name, made, columns in zip(
        SUITE_FILES, frames, (METRICS_COLUMNS, PER_CLASS_COLUMNS), strict=True
    ):
        try:
            stored = pd.read_csv(store.path / name, dtype={"run_id": str, "attack_id": str})
        except (OSError, ValueError) as error:
            yield f"{name}: cannot be read ({' '.join(str(error).split())})"
        else:
            yield from _of_table(name, made, stored, columns)


def _of_table(name: str, made: pd.DataFrame, stored: pd.DataFrame, columns: list[str]) -> list[str]:
    """Where a stored table differs from the one that the records give."""
    missing = [column for column in columns if column not in stored]
    if missing:
        return [f"{name}: lacks {', '.join(missing)}; ltrobust report writes it anew"]
    measured = [c for c in ("n", "n_test", "accuracy", "balanced_accuracy") if c in columns]
    whole = ["class_index"] if "class_index" in columns else []
    numbers = {c: pd.to_numeric(stored[c], errors="coerce") for c in (*whole, *measured)}
    stored, keys = stored.assign(**numbers), ["run_id", "attack_id", *whole]
    made, stored = (one[[*keys, *measured, "attack"]] for one in (made, stored))
    both = made.merge(stored, on=keys, how="outer", suffixes=("", "_stored"), indicator=True)
    if (both["_merge"] != "both").any():
        return [f"{name}: other runs, attacks or classes than the records; report it anew"]
    return [
        f"{name}: {column} of {row['run_id']} under {row['attack']} is "
        f"{row[f'{column}_stored']:.6g}, the records give {row[column]:.6g}"
        for row in both.to_dict("records")
        for column in measured
        if not _same(row[column], row[f"{column}_stored"])
    ]


def _same(one: Any, other: Any) -> bool:
    if pd.isna(one) or pd.isna(other):
        return bool(pd.isna(one) and pd.isna(other))
    return bool(abs(one - other) <= CLOSE)


def _of_run(run: RunStore) -> Iterator[str]:
    """Whether a run is done, whole, and what its keys say."""
    name, record, attacks = f"runs/{run.run_id}", run.begun_record(), run.attacks()
    try:
        if run.trained:
            run.weights()
    except UserError as error:
        yield str(error)
    if run.failure is not None or run.training() is None:
        yield f"{name}: is {'running' if run.failure is None else 'failed'}, not done"
        return
    if record.run_id != run.run_id:
        yield f"{name}: run.json is that of {record.run_id}"
    for attack_id, made in attacks.items():
        yield from _of_attack(name, run, made)
        if _attack_id(made) != attack_id:
            yield f"{name}: {attack_id} does not follow from the attack's settings"
    if not attacks:
        yield f"{name}: was never evaluated"
    report = run.reliability()
    judged = set() if report is None else set(report.judged)
    unjudged = [
        made.attack
        for attack_id, made in attacks.items()
        if made.attack not in ("clean", "noise") and attack_id not in judged
    ]
    if unjudged or (len(attacks) > 1 and report is None):
        yield (
            f"{name}: reliability of {', '.join(unjudged) or 'its attacks'} not checked; the same "
            "command without --no-checks makes up for it"
        )


def _of_attack(name: str, run: RunStore, made: AttackRecord) -> Iterator[str]:
    """Whether an attack's counts are those of its outcomes, and these of its test images."""
    outcomes = run.outcomes(made)
    if outcomes is None:
        yield f"{name}: the outcomes of {made.attack_id} are gone"
    elif not are_outcomes_of(outcomes, made.test_sha256):
        yield f"{name}: the outcomes of {made.attack_id} are of other test images"
    elif digest_of(outcomes, len(made.digest.right)) != made.digest:
        yield f"{name}: the counts of {made.attack_id} are not those of its outcomes"


def _attack_id(made: AttackRecord) -> str | None:
    """The id that the stored settings of an attack give; None when they are none."""
    known = AttackSpec.model_fields.keys()
    settings = {key: value for key, value in made.settings.items() if key in known}
    try:
        test = TestSpec.model_validate({"protocol": made.test_protocol, "limit": made.limit_test})
        spec = AttackSpec(name=made.attack, library=made.library, **settings)
    except ValidationError:
        return None
    return spec.attack_id(test)


def _remarks(run: RunStore) -> Iterator[str]:
    """What a reader of a run's numbers should know."""
    record, report = run.begun_record(), run.reliability()
    name = f"runs/{run.run_id}"
    flagged = [one.check for one in report.findings if one.flagged] if report is not None else []
    if flagged:
        yield f"{name}: marked † ({', '.join(flagged)})"
    if isinstance(record.run, Run):
        if record.run.select == "best-on-test":
            yield f"{name}: its epoch was chosen on the test set"
        if record.run.method_source:
            yield f"{name}: add the file of {record.run.method} to the pull request"
    if record.provenance.git_commit.endswith("+dirty"):
        yield f"{name}: trained with code that no commit holds"
    limits = {made.limit_test for made in run.attacks().values()}
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
        found = sorted(path for pattern in chosen for path in run.path.glob(pattern))
        names += [f"runs/{run.run_id}/{path.relative_to(run.path)}" for path in found]
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
