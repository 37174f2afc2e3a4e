"""The results directory: the only place that knows which file lies where.

Every file is written under a temporary name and renamed, so a reader never meets half a file and a
killed writer leaves the old one. One process at a time holds a suite's lock, where the file system
has locks; the operating system frees it when that process ends, however it ends.
"""

from __future__ import annotations

import errno
import fcntl
import io
import json
import os
import shutil
import tempfile
import time
import warnings
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd
from torch import Tensor

from ltrobust.errors import Notice, UserError
from ltrobust.output import PLAIN, encoded
from ltrobust.training import checkpoint

Status = Literal["queued", "running", "failed", "done"]
EXAMPLE_COLUMNS = [
    *("index", "label", "pred_clean", "pred_adv", "attack", "eps", "shape", "clean"),
    "adversarial",
]
TEMPORARY = ".ltrobust-"
"""How names of files that are being written begin; nobody else's do."""
ABANDONED = 24 * 3600
"""Seconds without a change after which such a file is that of a killed writer."""
LOCKED = {errno.EWOULDBLOCK, errno.EAGAIN, errno.EACCES}
"""Why a lock is not given when another process holds it; anything else: there are no locks."""


def write_atomic(path: Path, content: bytes) -> None:
    """Write a file so that it is either the old one or the whole new one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=TEMPORARY, suffix=".tmp")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(temporary, 0o644)
        os.replace(temporary, path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


class RunStore:
    """The files of one run: `results/<suite>/runs/<run_id>/`."""

    def __init__(self, path: Path) -> None:
        self.path = path

    @property
    def run_id(self) -> str:
        """Name of the run's folder."""
        return self.path.name

    # run.json ---------------------------------------------------------------------------------

    def read(self) -> dict[str, Any]:
        """The record of the run, {} when there is none; UserError when it is damaged."""
        file = self.path / "run.json"
        if not file.is_file():
            return {}
        try:
            record = json.loads(file.read_text(encoding="utf-8"))
        except (json.JSONDecodeError, UnicodeDecodeError) as error:
            raise UserError(f"{file} is damaged ({error}); delete the folder to redo it") from None
        if not isinstance(record, dict):
            raise UserError(f"{file} is damaged (not an object); delete the folder to redo it")
        return record

    def update(self, **changes: Any) -> dict[str, Any]:
        """Merge `changes` into the record and write it."""
        record = {**self.read(), **changes}
        write_atomic(self.path / "run.json", (json.dumps(record, indent=2) + "\n").encode())
        return record

    @property
    def status(self) -> Status:
        """queued (nothing there yet), running (or killed while it was), failed, or done."""
        return self.read().get("status", "queued")

    def clear(self) -> None:
        """Forget everything about the run."""
        shutil.rmtree(self.path, ignore_errors=True)

    # training ---------------------------------------------------------------------------------

    @property
    def trained(self) -> bool:
        """Whether the final weights are there."""
        return (self.path / "model.safetensors").is_file()

    @property
    def begun(self) -> bool:
        """Whether anything of the training is there: the weights, or a state to go on from."""
        return self.trained or (self.path / "state.pt").is_file()

    def save_state(self, state: dict[str, Any]) -> None:
        """Keep what is needed to resume training, and the learning curve so far."""
        write_atomic(self.path / "state.pt", checkpoint.state_to_bytes(state))
        self.write_history(state["history"])

    def load_state(self) -> dict[str, Any] | None:
        """The last resume state, if any."""
        file = self.path / "state.pt"
        return checkpoint.state_from_bytes(file.read_bytes()) if file.is_file() else None

    def write_history(self, rows: list[dict[str, float]]) -> None:
        """Write history.csv."""
        frame = pd.DataFrame(rows)
        write_atomic(self.path / "history.csv", frame.to_csv(index=False).encode())

    def history(self) -> pd.DataFrame:
        """The learning curve; empty when there is none."""
        file = self.path / "history.csv"
        return pd.read_csv(file) if file.is_file() else pd.DataFrame()

    def save_model(self, tensors: dict[str, Tensor], metadata: dict[str, Any]) -> None:
        """Write the final weights, then drop the resume state."""
        write_atomic(self.path / "model.safetensors", checkpoint.to_bytes(tensors, metadata))
        self.drop_state()

    def drop_state(self) -> None:
        """Forget the resume state: the final weights are there."""
        (self.path / "state.pt").unlink(missing_ok=True)

    def load_model(self) -> dict[str, Tensor]:
        """The final weights."""
        file = self.path / "model.safetensors"
        if not file.is_file():
            raise UserError(f"{self.path} has no model.safetensors; train the run first")
        return checkpoint.from_bytes(file.read_bytes(), str(file))

    # evaluation -------------------------------------------------------------------------------

    def outcomes(self) -> pd.DataFrame:
        """All outcomes of the run; empty when there are none."""
        file = self.path / "outcomes.parquet"
        if not file.is_file():
            return pd.DataFrame()
        try:
            # bytes: pyarrow opens no path that is not UTF-8
            return pd.read_parquet(io.BytesIO(file.read_bytes()))
        except (OSError, ValueError):  # what pyarrow raises on a damaged file is a ValueError
            raise UserError(f"{file} is damaged; delete the run's folder to redo it") from None

    def write_outcomes(self, frame: pd.DataFrame) -> None:
        """Write outcomes.parquet."""
        buffer = io.BytesIO()
        frame.to_parquet(buffer, index=False)
        write_atomic(self.path / "outcomes.parquet", buffer.getvalue())

    def reliability(self) -> list[dict[str, Any]]:
        """Findings of the reliability report, [] when there is none; UserError when damaged."""
        file = self._reliability_file
        if not file.is_file():
            return []
        try:
            findings = json.loads(file.read_text(encoding="utf-8"))
        except (json.JSONDecodeError, UnicodeDecodeError) as error:
            raise UserError(f"{file} is damaged ({error}); evaluate the run again") from None
        if not isinstance(findings, list) or not all(
            isinstance(one, dict) and {"check", "flagged"} <= one.keys() for one in findings
        ):
            raise UserError(
                f"{file} is damaged (no list of checks with their flags); evaluate the run again"
            )
        return findings

    @property
    def has_reliability(self) -> bool:
        """Whether the run has a reliability report."""
        return self._reliability_file.is_file()

    def write_reliability(self, findings: list[dict[str, Any]]) -> None:
        """Write reliability.json: `check, flagged, value, threshold, explanation` each."""
        content = json.dumps(findings, indent=2) + "\n"
        write_atomic(self._reliability_file, content.encode())

    @property
    def _reliability_file(self) -> Path:
        return self.path / "reliability.json"

    @property
    def has_examples(self) -> bool:
        """Whether the run has images to look at."""
        return self._examples_file.is_file()

    def write_examples(self, frame: pd.DataFrame) -> None:
        """Write examples.parquet, from what `evaluation.examples.attack_examples` returns."""
        packed = frame.assign(
            shape=frame["adversarial"].map(lambda image: list(image.shape)),
            clean=[image.astype(np.uint8).tobytes() for image in frame["clean"]],
            adversarial=[image.astype("<f4").tobytes() for image in frame["adversarial"]],
        )
        buffer = io.BytesIO()
        packed[EXAMPLE_COLUMNS].to_parquet(buffer, index=False)
        write_atomic(self._examples_file, buffer.getvalue())

    def examples(self) -> pd.DataFrame:
        """Clean and adversarial images as arrays, uint8 and float32 in [0, 1]; empty without any.

        Raises:
            UserError: the file is damaged.
        """
        if not self.has_examples:
            return pd.DataFrame(columns=EXAMPLE_COLUMNS)
        try:
            frame = pd.read_parquet(io.BytesIO(self._examples_file.read_bytes()))
            shapes = [tuple(shape) for shape in frame["shape"]]
            return frame.assign(
                shape=frame["shape"].map(tuple),
                clean=_arrays(frame["clean"], shapes, "u1"),
                adversarial=_arrays(frame["adversarial"], shapes, "<f4"),
            )
        except (OSError, ValueError, KeyError, TypeError):
            raise UserError(
                f"{self._examples_file} is damaged; delete it and evaluate the run again"
            ) from None

    @property
    def _examples_file(self) -> Path:
        return self.path / "examples.parquet"

    def save_attack_state(self, attack_id: str, tensors: dict[str, Tensor]) -> None:
        """Keep where a long attack stands."""
        write_atomic(self._attack_file(attack_id), checkpoint.to_bytes(tensors))

    def load_attack_state(self, attack_id: str) -> dict[str, Tensor] | None:
        """Where a long attack stood, if it was begun."""
        file = self._attack_file(attack_id)
        return checkpoint.from_bytes(file.read_bytes(), str(file)) if file.is_file() else None

    def drop_attack_state(self, attack_id: str) -> None:
        """Forget where a long attack stood."""
        self._attack_file(attack_id).unlink(missing_ok=True)

    def _attack_file(self, attack_id: str) -> Path:
        return self.path / f"{attack_id}.part.safetensors"

    def log(self, line: str) -> None:
        """Append a line to log.txt."""
        with (self.path / "log.txt").open("a", encoding="utf-8", errors=PLAIN) as file:
            file.write(line + "\n")


class SuiteStore:
    """The files of one suite: `results/<suite>/`.

    Args:
        path: the suite's directory; created on the first write.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    def run(self, run_id: str) -> RunStore:
        """The store of one run."""
        return RunStore(self.path / "runs" / run_id)

    def runs(self) -> list[RunStore]:
        """All runs that have a record, by name; a link to one of them is not another."""
        folder = self.path / "runs"
        if not folder.is_dir():
            return []
        paths = [path for path in sorted(folder.iterdir()) if (path / "run.json").is_file()]
        paths.sort(key=Path.is_symlink)
        once = {path.resolve(): path for path in reversed(paths)}
        return [RunStore(path) for path in sorted(once.values())]

    def prepare(self) -> None:
        """Make the directory, or raise UserError when it cannot be written."""
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=self.path):
                pass
        except OSError as error:
            reason = error.strerror or str(error)
            raise UserError(
                f"output directory {self.path} cannot be written ({reason}); choose another with "
                "--output"
            ) from None

    @contextmanager
    def lock(self) -> Iterator[None]:
        """Hold the suite alone, as far as the file system has locks: a `Notice` where it has none.

        Raises:
            UserError: another process holds it, or the directory cannot be written.
        """
        self.prepare()
        try:
            file = (self.path / ".lock").open("w")
        except OSError as error:
            raise UserError(
                f"{self.path / '.lock'} cannot be written ({error.strerror or error}); change its "
                "permissions or choose another directory with --output"
            ) from None
        with file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError as error:
                if error.errno in LOCKED:
                    raise UserError(
                        f"another ltrobust is working in {self.path}; wait for it or choose "
                        "another directory with --output"
                    ) from None
                notice = (
                    f"the file system of {self.path} has no locks ({error.strerror or error}); "
                    "let no second ltrobust work in this directory at the same time"
                )
                warnings.warn(notice, Notice, stacklevel=1)
            self._sweep()
            yield

    def _sweep(self) -> None:
        """Remove what killed writers left in the suite's own folders.

        Elsewhere, and younger, lies what others may still be writing: a lock of this suite says
        nothing of other suites, of folders behind links, or of machines that do not see the lock.
        """
        runs = self.path / "runs"
        folders = [self.path, *(self.path / name for name in ("tables", "figures"))]
        folders += runs.iterdir() if runs.is_dir() and not runs.is_symlink() else []
        for folder in folders:
            if folder.is_symlink() and folder != self.path:
                continue
            for file in folder.glob(f"{TEMPORARY}*.tmp"):
                with suppress(OSError):
                    if time.time() - file.stat().st_mtime > ABANDONED:
                        file.unlink()

    def write(self, name: str, content: str | bytes) -> Path:
        """Write a report file, such as `tables/balanced.md`."""
        path = self.path / name
        write_atomic(path, encoded(content) if isinstance(content, str) else content)
        return path

    def drop_reports(self, keep: set[str]) -> None:
        """Remove tables and figures that the present results no longer give."""
        for folder in ("tables", "figures"):
            for file in (self.path / folder).glob("*"):
                if f"{folder}/{file.name}" not in keep:
                    file.unlink()


def _arrays(contents: Iterable[bytes], shapes: list[tuple[int, ...]], kind: str) -> list[Any]:
    """Arrays of these shapes from their bytes."""
    return [
        np.frombuffer(content, dtype=kind).reshape(shape)
        for content, shape in zip(contents, shapes, strict=True)
    ]


def write_file(path: Path, content: str) -> None:
    """Write a file that the user named; UserError when it cannot be written."""
    try:
        write_atomic(path, encoded(content))
    except OSError as error:
        raise UserError(
            f"{path} cannot be written ({error.strerror or error}); choose another file"
        ) from None


def stored_run(run_directory: Path) -> RunStore:
    """The store of a run directory given by its path; UserError when it is none."""
    if not (run_directory / "run.json").is_file():
        raise UserError(
            f"{run_directory} is no run directory (no run.json); give results/<suite>/runs/<run_id>"
        )
    return RunStore(run_directory)


def suite_of(run_directory: Path) -> tuple[SuiteStore, RunStore]:
    """The stores of a run directory and of its suite: the one the path names, links as they are.

    Only a path that names none, such as a link beside the results, is followed to where it leads.

    Raises:
        UserError: it is no run directory, or lies in no suite.
    """
    stored_run(run_directory)
    for path in (Path(os.path.abspath(run_directory)), run_directory.resolve()):
        if path.parent.name == "runs" and path.is_dir() and path.samefile(run_directory):
            return SuiteStore(path.parent.parent), RunStore(path)
    raise UserError(f"{run_directory} lies in no suite; move it to results/<suite>/runs/<run_id>")
