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
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd
from pyarrow import ArrowException
from torch import Tensor

from ltrobust.bench.record import REMEDY, check_record
from ltrobust.errors import Notice, RunError, UserError
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
OUTCOME_COLUMNS = ["index", "label", "attack", "attack_id", "pred", "correct"]
HISTORY_COLUMNS = ["epoch", "train_loss"]
REPORT_FOLDERS = ("tables", "figures")
WRITTEN = ".written.json"
"""Beside a report: which of the files in tables/ and figures/ are the report's own."""


def write_atomic(path: Path, content: bytes) -> None:
    """Write a file so that it is either the old one or the whole new one.

    Raises:
        RunError: it cannot be written, such as on a full disk; the old one is still there.
    """
    with _writing(path):
        _replace(path, content)


@contextmanager
def _writing(path: Path) -> Iterator[None]:
    """Say in one line which file cannot be written, and why."""
    try:
        yield
    except OSError as error:
        raise RunError(
            f"{path} cannot be written ({error.strerror or error}); once it can be, the same "
            "command goes on from what is stored"
        ) from error


def _replace(path: Path, content: bytes) -> None:
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
        record = self._record()
        if self._record_file.is_file():
            check_record(record, self._record_file)
        return record

    @property
    def _record_file(self) -> Path:
        return self.path / "run.json"

    def _record(self) -> dict[str, Any]:
        """The record, whatever it lacks."""
        file = self._record_file
        if not file.is_file():
            return {}
        try:
            record = json.loads(file.read_text(encoding="utf-8"))
        except (OSError, ValueError, RecursionError) as error:
            raise UserError(f"{file} is damaged ({error}); {REMEDY}") from None
        if not isinstance(record, dict):
            raise UserError(f"{file} is damaged (not an object); {REMEDY}")
        return record

    def update(self, **changes: Any) -> dict[str, Any]:
        """Merge `changes` into the record and write it."""
        record = {**self._record(), **changes}
        write_atomic(self.path / "run.json", (json.dumps(record, indent=2) + "\n").encode())
        return record

    @property
    def status(self) -> Status:
        """queued (nothing there yet), running (or killed while it was), failed, or done."""
        return self._record().get("status", "queued")

    def clear(self) -> None:
        """Forget everything about the run.

        Raises:
            RunError: something of it cannot be removed.
        """
        try:
            for part in self.path.iterdir() if self.path.is_dir() else ():
                shutil.rmtree(part) if part.is_dir() and not part.is_symlink() else part.unlink()
        except OSError as error:
            reason = error.strerror or error
            raise RunError(f"{error.filename} cannot be removed ({reason})") from None

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
        """The last resume state, if any; UserError when it is damaged."""
        file = self.path / "state.pt"
        if not file.is_file():
            return None
        try:
            return checkpoint.state_from_bytes(file.read_bytes())
        except Exception:  # a damaged file can fail anywhere in the reader
            raise UserError(f"{file} is damaged; delete it to train from epoch 1") from None

    def write_history(self, rows: list[dict[str, float]]) -> None:
        """Write history.csv."""
        frame = pd.DataFrame(rows)
        write_atomic(self.path / "history.csv", frame.to_csv(index=False).encode())

    def history(self) -> pd.DataFrame:
        """The learning curve; empty when there is none, UserError when the file is damaged."""
        file = self.path / "history.csv"
        if not file.is_file():
            return pd.DataFrame()
        try:
            frame = pd.read_csv(file)
        except (OSError, ValueError) as error:  # what pandas raises is a ValueError
            raise _damaged_history(file, str(error)) from None
        missing = [name for name in HISTORY_COLUMNS if name not in frame]
        texts = [name for name in frame if not pd.api.types.is_numeric_dtype(frame[name])]
        if missing or frame.empty:
            raise _damaged_history(file, f"no {missing[0]}" if missing else "no epochs")
        if texts:
            raise _damaged_history(file, f"{texts[0]} holds more than numbers")
        return frame

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
            raise UserError(
                f"{self.path} has no model.safetensors; put it back, or train the run again"
            )
        return checkpoint.from_bytes(file.read_bytes(), str(file))

    # evaluation -------------------------------------------------------------------------------

    def outcomes(self) -> pd.DataFrame:
        """All outcomes of the run; no rows when there are none.

        Raises:
            UserError: the file is damaged or holds something else.
        """
        file = self.path / "outcomes.parquet"
        if not file.is_file():
            return pd.DataFrame(columns=OUTCOME_COLUMNS)
        try:
            # bytes: pyarrow opens no path that is not UTF-8
            frame = pd.read_parquet(io.BytesIO(file.read_bytes()))
        except (OSError, ValueError, ArrowException):
            raise _damaged_outcomes(file, "no readable Parquet file") from None
        missing = [name for name in OUTCOME_COLUMNS if name not in frame]
        if missing:
            raise _damaged_outcomes(file, f"no column {', '.join(missing)}")
        wrong = [name for name in ("index", "label", "pred") if frame[name].dtype.kind != "i"]
        wrong += [name for name in ("correct",) if frame[name].dtype.kind != "b"]
        if wrong:
            raise _damaged_outcomes(file, f"column {wrong[0]} is of another type")
        return frame

    def write_outcomes(self, frame: pd.DataFrame) -> None:
        """Write outcomes.parquet."""
        buffer = io.BytesIO()
        frame.to_parquet(buffer, index=False)
        write_atomic(self.path / "outcomes.parquet", buffer.getvalue())

    def drop_findings(self) -> None:
        """Forget what was looked at with other weights than those that are about to come."""
        record = self._record()
        stale: dict[str, Any] = {"judged": [], "probes": {}}
        if any(record.get(name) for name in stale):
            self.update(**stale)
        for file in (self._examples_file, *self.path.glob("*.part.safetensors")):
            file.unlink(missing_ok=True)

    def reliability(self) -> list[dict[str, Any]]:
        """Findings of the reliability report, [] when there is none; UserError when damaged."""
        file = self._reliability_file
        if not file.is_file():
            return []
        try:
            findings = json.loads(file.read_text(encoding="utf-8"))
        except (OSError, ValueError, RecursionError) as error:
            raise UserError(
                f"{file} is damaged ({error}); delete it and evaluate the run again"
            ) from None
        if not isinstance(findings, list) or not all(
            isinstance(one, dict) and {"check", "flagged"} <= one.keys() for one in findings
        ):
            raise UserError(
                f"{file} is damaged (no list of checks with their flags); delete it and evaluate "
                "the run again"
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
        except (OSError, ValueError, KeyError, TypeError, ArrowException):
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
        path = self.path / "log.txt"
        with _writing(path), path.open("a", encoding="utf-8", errors=PLAIN) as file:
            file.write(line + "\n")


class SuiteStore:
    """The files of one suite: `results/<suite>/`.

    Args:
        path: the suite's directory; created on the first write.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._started_over: set[str] = set()

    def start_over(self, run_id: str) -> None:
        """Clear a run, once in the life of this store, however often a command comes by."""
        if run_id not in self._started_over:
            self.run(run_id).clear()
            self._started_over.add(run_id)

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

    def folders(self) -> list[str]:
        """Names of all runs that have a folder, with a record or without one."""
        folder = self.path / "runs"
        return sorted(p.name for p in folder.iterdir() if p.is_dir()) if folder.is_dir() else []

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

    def write_reports(
        self,
        files: Mapping[str, str | bytes],
        *,
        spare: Sequence[str] = (),
        drawn: Mapping[str, str] | None = None,
    ) -> None:
        """Write the files of a report and remove those of earlier ones that it no longer gives.

        Only files that a report has written are removed; a user's own stay.

        Args:
            files: content by name, such as `tables/balanced.md`.
            spare: how names begin that are not removed, such as "figures/".
            drawn: figures of the report, with what they were drawn from; those that are not among
                `files` are there and stay.
        """
        drawn = drawn or {}
        known = self._written()
        given = {name for name in (*files, *drawn) if _is_listed(name)}
        self._list_written(known | given)
        for name, content in files.items():
            self.write(name, content)
        kept = {name for name in known if name.startswith(tuple(spare))}
        for name in known - given - kept:
            (self.path / name).unlink(missing_ok=True)
        self._list_written(given | kept, drawn)

    def drawn(self) -> dict[str, str]:
        """Figures that are there, with what they were drawn from.

        Where one of the files that were drawn from the same is gone, none of them counts.
        """
        found = self._read_written().get("drawn")
        known = {str(k): str(v) for k, v in found.items()} if isinstance(found, dict) else {}
        gone = {made_of for name, made_of in known.items() if not (self.path / name).is_file()}
        return {name: made_of for name, made_of in known.items() if made_of not in gone}

    def _written(self) -> set[str]:
        """Names of tables and figures that reports have written; none where that is not known."""
        names = self._read_written().get("files")
        names = names if isinstance(names, list) else []
        return {name for name in names if isinstance(name, str) and _is_listed(name)}

    def _read_written(self) -> dict[str, Any]:
        """What the last report told of itself; {} where that is not known."""
        try:
            content = json.loads((self.path / WRITTEN).read_text(encoding="utf-8"))
        except (OSError, ValueError, RecursionError):
            return {}
        return content if isinstance(content, dict) else {}

    def _list_written(self, names: Collection[str], drawn: Mapping[str, str] | None = None) -> None:
        if names or (self.path / WRITTEN).exists():
            content = {"files": sorted(names), "drawn": dict(sorted((drawn or {}).items()))}
            self.write(WRITTEN, json.dumps(content, indent=0) + "\n")


def _is_listed(name: str) -> bool:
    """Whether a name is that of a file right in one of a report's folders."""
    folder, _, file = name.partition("/")
    return folder in REPORT_FOLDERS and file not in ("", ".", "..") and "/" not in file


def _damaged_outcomes(file: Path, why: str) -> UserError:
    return UserError(
        f"{file} is damaged ({why}); delete it, then bench or evaluate runs its attacks again"
    )


def _damaged_history(file: Path, why: str) -> UserError:
    reason = " ".join(why.split())
    return UserError(f"{file} is damaged ({reason}); delete it to go on without its curve")


def _arrays(contents: Iterable[bytes], shapes: list[tuple[int, ...]], kind: str) -> list[Any]:
    """Arrays of these shapes from their bytes."""
    return [
        np.frombuffer(content, dtype=kind).reshape(shape)
        for content, shape in zip(contents, shapes, strict=True)
    ]


def write_file(path: Path, content: str) -> None:
    """Write a file that the user named; UserError when it cannot be written."""
    try:
        _replace(path, encoded(content))
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
