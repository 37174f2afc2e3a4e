"""What run.json must hold before anything is read from it.

A record that lacks a key is told in one line where it is read, so that nothing later on needs to
doubt it. What the keys mean is said in docs/results-format.md.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from ltrobust.errors import UserError

REMEDY = "put the file back from a copy, or delete the run's folder to redo the run"


class _Part(BaseModel):
    """Further keys are left as they are."""

    model_config = ConfigDict(extra="allow", protected_namespaces=())


class _Attack(_Part):
    eps: float


class _Recipe(_Part):
    epochs: int
    batch_size: int
    augment: str
    attack: _Attack


class _DataConfig(_Part):
    name: str
    imbalance_ratio: float | None
    imbalance_type: str
    split_seed: int


class _Config(_Part):
    method: str
    arch: str
    recipe_name: str
    recipe: _Recipe
    seed: int
    select: str
    precision: str
    data: _DataConfig


class _Data(_Part):
    class_names: list[str]
    train_counts: list[int]
    imbalance_ratio: float
    split_sha256: str


class _Versions(_Part):
    torch: str
    ltrobust: str


class _Provenance(_Part):
    versions: _Versions
    git_commit: str
    device_name: str


class _Evaluation(_Part):
    attack: str
    eps: float
    settings: dict[str, Any]
    library: str
    test_protocol: str
    test_sha256: str
    seconds: float


class _Failed(_Part):
    """A run that could not even be begun."""

    run_id: str
    status: Literal["failed"]


class _Record(_Part):
    run_id: str
    status: Literal["running", "failed", "done"]
    config: _Config
    data: _Data
    provenance: _Provenance
    evaluations: dict[str, _Evaluation]
    timings: dict[str, Any] = {}
    overrides: dict[str, Any] = {}
    judged: list[str] = []
    probes: dict[str, Any] = {}
    profile: dict[str, Any] = {}


def check_record(record: dict[str, Any], file: Path) -> None:
    """Look whether a record is whole; one that failed before it was begun may be short.

    Raises:
        UserError: a key is missing or holds something else; the line names file and key.
    """
    short = record.get("status") == "failed" and not {"config", "evaluations"} & record.keys()
    try:
        (_Failed if short else _Record).model_validate(record)
    except ValidationError as error:
        problem = error.errors()[0]
        key = ".".join(str(part) for part in problem["loc"])
        text = problem["msg"][:1].lower() + problem["msg"][1:]
        what = "is missing" if problem["type"] == "missing" else f"is wrong ({text})"
        raise UserError(f"{file} is damaged: {key} {what}; {REMEDY}") from None
    if "data" in record and len(record["data"]["class_names"]) != len(
        record["data"]["train_counts"]
    ):
        raise UserError(
            f"{file} is damaged: data.class_names and data.train_counts differ in length; {REMEDY}"
        )
