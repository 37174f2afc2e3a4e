"""The records of a run: what each file says, checked when it is read.

A record that is damaged or lacks a key is told in one line where it is read, so that nothing later
on needs to doubt it. Each one carries the number of its schema and a seal over all it says, which
tells a changed file from a whole one. What the keys mean is said in docs/results-format.md.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any, ClassVar, TypeVar

from pydantic import (
    BaseModel,
    ConfigDict,
    Discriminator,
    Tag,
    ValidationError,
    model_validator,
)

from ltrobust.config import DataSpec, Frozen, Run, config_hash
from ltrobust.errors import UserError
from ltrobust.results.digest import Digest
from ltrobust.results.files import read_object

SCHEMA = 1
"""Number of the records' schema: from the first release on, raise it when a key comes, goes or
changes its meaning."""
UPGRADES: dict[int, Callable[[dict[str, Any]], dict[str, Any]]] = {}
"""From a schema's number to what turns content of that schema into content of the next."""
EXTERNAL = "external"
"""Stands for what is unknown of a model that was trained elsewhere."""


class Part(BaseModel):
    """A part of a record; unknown keys are errors."""

    model_config = ConfigDict(frozen=True, extra="forbid", protected_namespaces=())


class Record(Part):
    """A file of its own.

    Attributes:
        remedy: what to do about a damaged one.
    """

    remedy: ClassVar[str]


AnyRecord = TypeVar("AnyRecord", bound=Record)


class ForeignRun(Frozen):
    """A model of somebody else's on one data set, in place of a `Run`.

    Attributes:
        label: what tables call it unless the user says otherwise; no part of its key.
        arch: architecture in words.
        model: what tells it from other models.
        normalize: what its images are normalised with; None: nothing.
        data: the data set it was trained on, as far as that is known.
    """

    label: str
    arch: str
    model: dict[str, Any]
    normalize: str | None
    data: DataSpec

    @property
    def run_id(self) -> str:
        """The key: a hash of all but names, that of an image folder too."""
        content = self.model_dump(mode="json", exclude={"label"})
        return f"{EXTERNAL}-{config_hash(content)}"


def _kind(value: Any) -> str:
    foreign = isinstance(value, ForeignRun) or (isinstance(value, dict) and "model" in value)
    return "foreign" if foreign else "ours"


AnyRun = Annotated[
    Annotated[Run, Tag("ours")] | Annotated[ForeignRun, Tag("foreign")], Discriminator(_kind)
]


class Versions(Part):
    """Package versions; further packages are kept."""

    model_config = ConfigDict(frozen=True, extra="allow")

    torch: str
    ltrobust: str


class Provenance(Part):
    """Where something was made."""

    versions: Versions
    python: str
    git_commit: str
    device: str
    device_name: str
    threads: int


class DataFacts(Part):
    """The training set, and where all images come from."""

    class_names: list[str]
    train_counts: list[int]
    imbalance_ratio: float
    image_shape: list[int]
    split_sha256: str
    source: dict[str, Any] | None

    @model_validator(mode="after")
    def _a_name_each(self) -> DataFacts:
        if len(self.class_names) != len(self.train_counts):
            raise ValueError("class_names and train_counts differ in length")
        return self


class RunRecord(Record):
    """run.json: what is trained or attacked, on what, begun where; written once."""

    remedy = "put the file back from a copy, or delete the run's folder to redo the run"

    run_id: str
    run: AnyRun
    overrides: dict[str, Any]
    data: DataFacts
    provenance: Provenance
    made: str

    @model_validator(mode="after")
    def _is_its_key(self) -> RunRecord:
        check_key(self.run, self.run_id)
        return self


def check_key(run: AnyRun, run_id: str) -> None:
    """Raise ValueError unless a run's key is what a record calls it."""
    if run.run_id != run_id:
        raise ValueError(f"run has the key {run.run_id}, not {run_id}")


class BaseFacts(Part):
    """The trained run that a post-hoc run acts on."""

    run_id: str
    method: str
    train_seconds: float
    train_cpu_seconds: float | None


class FineTuning(Part):
    """What a post-hoc run trained itself."""

    epochs: int
    train_seconds: float
    train_cpu_seconds: float | None


class ThreadsBefore(Part):
    """Epochs that were computed with another number of threads than the last."""

    threads: int
    until_epoch: int


class TrainedRecord(Record):
    """trained.json: how the training went, or what is known of a foreign model; written once."""

    remedy = "put the file back from a copy, or delete the run's folder to redo the run"

    run_id: str
    train_seconds: float | None
    train_cpu_seconds: float | None
    parameters: int
    peak_memory_bytes: int | None
    checkpoint: str
    base: BaseFacts | None
    fine_tuning: FineTuning | None
    threads: int
    earlier_threads: list[ThreadsBefore]
    weights_sha256: str | None
    made: str


class RoundedRecord(Record):
    """rounded.json: the weights lie there as float16, and what was compared before; written once.

    Attributes:
        weights_sha256: of the rounded file; `TrainedRecord` names the one that was trained.
        unchanged: attack to the test images whose verdicts were compared, and stayed.
    """

    remedy = "put the file back from a copy, or delete it: it tells only how the weights are stored"

    run_id: str
    weights_sha256: str
    unchanged: dict[str, int]
    made: str


class AttackRecord(Record):
    """attacks/<attack_id>.json: one attack, what it found in numbers, and where; written once."""

    remedy = "put the file back from a copy, or delete it and evaluate the run again"

    run_id: str
    attack_id: str
    attack: str
    eps: float
    settings: dict[str, Any]
    library: str
    test_protocol: str
    limit_test: int | None
    test_sha256: str
    seconds: float
    cpu_seconds: float | None
    provenance: Provenance
    digest: Digest
    outcomes_sha256: str
    made: str


class ProbeRecord(Record):
    """probes/<images>-<radius>.json: the experiments behind the reliability checks."""

    remedy = "delete it; the next evaluation of the run makes it again"

    run_id: str
    probe: dict[str, Any]


class FindingRecord(Part):
    """One reliability check; see `evaluation.reliability.Finding`."""

    check: str
    flagged: bool
    value: float | None
    threshold: float | None
    explanation: str
    concerns: str


class ReliabilityRecord(Record):
    """reliability.json: what the checks found, and of which attacks."""

    remedy = "delete it and evaluate the run again"

    run_id: str
    judged: list[str]
    findings: list[FindingRecord]


class FailureRecord(Record):
    """failed.json: why the run could not go on; gone when it has."""

    remedy = "delete it to try the run again"

    run_id: str
    reason: str
    made: str


class PlaceRecord(Record):
    """place.json: what may change without changing any result.

    Attributes:
        path: where the run's image folder lay last.
        notes: what was left out of that folder.
        name: what tables call a foreign model, where the user said.
        threads: with how many CPU threads the training goes on; None: as it began.
        earlier_threads: with how many it went before.
    """

    remedy = "delete it"

    path: str | None = None
    notes: list[str] = []
    name: str | None = None
    threads: int | None = None
    earlier_threads: list[ThreadsBefore] = []


class TuningRecord(Record):
    """tuning.json: of how many settings of its method the run has one, with `--select val`."""

    remedy = "delete it; the same bench writes it again"

    run_id: str
    tried: int
    score: float | None
    chosen: bool
    judged_by: str


class ProfileRecord(Record):
    """profile.json: where the time went, with `--profile`."""

    remedy = "delete it; --profile measures anew what is done anew"

    training: dict[str, Any] | None
    evaluation: dict[str, Any] | None


def now() -> str:
    """The time, UTC, as it stands in records."""
    return datetime.now(UTC).isoformat(timespec="microseconds")


def to_bytes(record: Record) -> bytes:
    """A record as its file's content: a line for each key, the seal last."""
    content = {"schema": SCHEMA, **record.model_dump(mode="json")}
    content["seal"] = seal(content)
    lines = (f"{json.dumps(key)}: {json.dumps(value)}" for key, value in content.items())
    return ("{\n" + ",\n".join(lines) + "\n}\n").encode()


def seal(content: dict[str, Any]) -> str:
    """Sixteen hex digits over everything that a record says but its seal."""
    said = {key: value for key, value in content.items() if key != "seal"}
    text = json.dumps(said, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def read_record(kind: type[AnyRecord], file: Path) -> AnyRecord:
    """Read a record that is there.

    Raises:
        UserError: it is damaged, lacks a key, or was changed; the line names the file and key.
    """
    content = read_object(file, kind.remedy)
    schema = content.pop("schema", None)
    if not isinstance(schema, int) or isinstance(schema, bool) or schema < 1:
        raise _damaged(kind, file, "schema is missing or no number")
    if schema > SCHEMA:
        raise UserError(
            f"{file} has schema {schema}, this ltrobust reads up to {SCHEMA}; use a newer ltrobust"
        )
    sealed = content.pop("seal", None)
    whole = sealed == seal({"schema": schema, **content})
    for number in range(schema, SCHEMA):
        content = UPGRADES[number](content)
    try:
        record = kind.model_validate(content)
    except ValidationError as error:
        raise _damaged(kind, file, _problem(error)) from None
    if not whole:
        raise _damaged(kind, file, "its seal does not fit: it is not what was written")
    return record


def _problem(error: ValidationError) -> str:
    """The first problem in words."""
    problem = error.errors()[0]
    key = ".".join(str(part) for part in problem["loc"] if part not in ("ours", "foreign"))
    text = problem["msg"].removeprefix("Value error, ")
    text = text[:1].lower() + text[1:]
    if problem["type"] == "missing":
        return f"{key} is missing"
    return f"{key} is wrong ({text})" if key else text


def _damaged(kind: type[Record], file: Path, why: str) -> UserError:
    return UserError(f"{file} is damaged: {why}; {kind.remedy}")
