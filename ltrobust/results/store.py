"""The results directory: the only place that knows which file lies where.

    results/<suite>/runs/<run_id>/  run.json  trained.json  attacks/<attack_id>.json + .parquet ...

Records are created once and never rewritten; what can be made again is replaced whole. Nothing here
needs torch: weights and states of a training go through as bytes.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import shutil
import tempfile
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from pyarrow import ArrowException

from ltrobust.errors import RunError, UserError
from ltrobust.output import PLAIN, encoded
from ltrobust.results.digest import OUTCOME_COLUMNS, images_sha256, outcomes_sha256
from ltrobust.results.files import (
    TEMPORARY,
    create,
    sweep,
    write_atomic,
    write_changed,
    writing,
)
from ltrobust.results.records import (
    AnyRecord,
    AttackRecord,
    FailureRecord,
    PlaceRecord,
    ProbeRecord,
    ProfileRecord,
    Record,
    ReliabilityRecord,
    RoundedRecord,
    RunRecord,
    TrainedRecord,
    TuningRecord,
    now,
    read_record,
    to_bytes,
)

EXAMPLE_COLUMNS = [
    *("index", "label", "pred_clean", "pred_adv", "attack", "eps", "shape", "clean"),
    "adversarial",
]
HISTORY_COLUMNS = ["epoch", "train_loss"]
REPORT_FOLDERS = ("tables", "figures")
WRITTEN = ".written.json"
"""Beside a report: which of the files in tables/ and figures/ are the report's own."""


_LAST = {"trained.json": 1, "run.json": 2}
"""Records that go after all else when a run is cleared."""


class RunStore:
    """The files of one run: `results/<suite>/runs/<run_id>/`."""

    def __init__(self, path: Path) -> None:
        self.path = path

    @property
    def run_id(self) -> str:
        """Name of the run's folder."""
        return self.path.name

    # what it is -------------------------------------------------------------------------------

    def record(self) -> RunRecord | None:
        """What the run is, None before it was begun; UserError when run.json is damaged."""
        return self._read(RunRecord, "run.json")

    def begun_record(self) -> RunRecord:
        """The same of a run that was begun.

        Raises:
            UserError: it was not, or run.json is damaged.
        """
        record = self.record()
        if record is None:
            self.check_whole()
            raise UserError(
                f"{self.path} is no run directory (no run.json); give results/<suite>/runs/<run_id>"
            )
        return record

    def check_whole(self) -> None:
        """Look for the records that what is there was written after.

        Raises:
            UserError: one of them is gone.
        """
        of_training = "trained.json" if self.trained else ""
        for name in ("run.json" if self.trained or self.attack_ids() else "", of_training):
            if name and not self._exists(name):
                raise UserError(
                    f"{self.path / name} is gone; put it back, or delete the folder to do the run "
                    "again"
                )

    def begin(self, record: RunRecord, *, anew: bool = False) -> RunRecord:
        """Say what the run is, unless that is said; return what stands.

        Args:
            record: what the run is.
            anew: for who has claimed the run: where nothing is trained and nothing attacked, it
                begins here and now, whoever began it before.
        """
        if anew and not (self.begun or self.attack_ids()):
            (self.path / "run.json").unlink(missing_ok=True)
        self._create("run.json", record)
        return self.begun_record()

    def place(self) -> PlaceRecord:
        """What may change without changing results."""
        return self._read(PlaceRecord, "place.json") or PlaceRecord()

    def write_place(self, place: PlaceRecord) -> None:
        """Write place.json, where it says something."""
        if place != PlaceRecord() or self._exists("place.json"):
            write_changed(self.path / "place.json", to_bytes(place))

    @property
    def failure(self) -> str | None:
        """Why the run could not go on the last time; None where it could."""
        failed = self.failure_record()
        return None if failed is None else failed.reason

    def failure_record(self) -> FailureRecord | None:
        """The same with its time."""
        return self._read(FailureRecord, "failed.json")

    def fail(self, reason: str) -> None:
        """Record why the run cannot go on."""
        failed = FailureRecord(run_id=self.run_id, reason=reason, made=now())
        write_atomic(self.path / "failed.json", to_bytes(failed))

    def succeed(self) -> None:
        """Forget an earlier failure."""
        (self.path / "failed.json").unlink(missing_ok=True)

    def clear(self) -> None:
        """Forget everything about the run.

        Raises:
            RunError: something of it cannot be removed.
        """
        try:
            parts = list(self.path.iterdir()) if self.path.is_dir() else []
            # killed in between, what is left is a run with less, and never things without a record
            for part in sorted(parts, key=lambda part: _LAST.get(part.name, 0)):
                shutil.rmtree(part) if part.is_dir() and not part.is_symlink() else part.unlink()
        except OSError as error:
            reason = error.strerror or error
            raise RunError(f"{error.filename} cannot be removed ({reason})") from None

    def sweep(self) -> None:
        """Remove what killed writers left in the run's folders, if it is no link."""
        sweep([self.path, self.path / "attacks", self.path / "probes"])

    # training ---------------------------------------------------------------------------------

    @property
    def trained(self) -> bool:
        """Whether the final weights are there."""
        return self._exists("model.safetensors")

    @property
    def begun(self) -> bool:
        """Whether anything of the training is there: the weights, or a state to go on from."""
        return self.trained or self._exists("state.pt")

    def training(self) -> TrainedRecord | None:
        """How the training went; None before its end, UserError when trained.json is damaged."""
        return self._read(TrainedRecord, "trained.json")

    def save_state(self, state: bytes, history: list[dict[str, float]]) -> None:
        """Keep what is needed to resume training, and the learning curve so far."""
        write_atomic(self.path / "state.pt", state)
        self.write_history(history)

    def state(self) -> bytes | None:
        """The last resume state, if any."""
        file = self.path / "state.pt"
        return file.read_bytes() if file.is_file() else None

    def drop_state(self) -> None:
        """Forget the resume state: the final weights are there."""
        (self.path / "state.pt").unlink(missing_ok=True)

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

    def finish(self, trained: TrainedRecord, weights: bytes | None) -> None:
        """Say how the training went and write the weights, None for a foreign model's.

        The record is created first, and weights that are not those it names are never written. The
        resume state goes last.

        Raises:
            RunError: the run has been trained to other weights.
        """
        sha = None if weights is None else hashlib.sha256(weights).hexdigest()
        trained = trained.model_copy(update={"weights_sha256": sha})
        if not self._create("trained.json", trained):
            known = self.training()
            if known is not None and known.weights_sha256 != sha:
                raise RunError(
                    f"{self.path / 'trained.json'} is of other weights than those trained here "
                    f"({_short(known.weights_sha256)}, {_short(sha)}): another ltrobust trained "
                    "this run too; what is stored stays"
                )
        if weights is not None:
            write_atomic(self.path / "model.safetensors", weights)
            self.drop_state()

    def rounded(self) -> RoundedRecord | None:
        """How the weights were rounded; None where they are as trained."""
        return self._read(RoundedRecord, "rounded.json")

    def round(self, weights: bytes, unchanged: Mapping[str, int]) -> None:
        """Put rounded weights in the place of the final ones, for who has claimed the run.

        The record is created first, so that weights which are not those trained always have one.

        Args:
            weights: the file.
            unchanged: attack to the test images whose verdicts stay.

        Raises:
            RunError: they have been rounded to other weights.
        """
        sha = hashlib.sha256(weights).hexdigest()
        made = {"run_id": self.run_id, "weights_sha256": sha, "made": now()}
        if not self._create("rounded.json", RoundedRecord(**made, unchanged=dict(unchanged))):
            known = self.rounded()
            if known is not None and known.weights_sha256 != sha:
                raise RunError(
                    f"{self.path / 'rounded.json'} is of other weights than those rounded here; "
                    "what is stored stays"
                )
        write_atomic(self.path / "model.safetensors", weights)

    def forget_training(self) -> None:
        """Forget how weights came about of which nothing is left."""
        nothing = PlaceRecord()
        begun = {"threads": nothing.threads, "earlier_threads": nothing.earlier_threads}
        self.write_place(self.place().model_copy(update=begun))
        for name in ("trained.json", "rounded.json", "examples.parquet", "reliability.json"):
            (self.path / name).unlink(missing_ok=True)
        for folder in ("probes", "attacks"):
            for file in (self.path / folder).glob("*"):
                file.unlink(missing_ok=True)

    def weights(self) -> bytes:
        """The final weights.

        Raises:
            UserError: they are gone, or not those that were trained, or rounded.
        """
        file = self.path / "model.safetensors"
        if not file.is_file():
            raise UserError(
                f"{self.path} has no model.safetensors; put it back, or train the run again"
            )
        content, rounded = file.read_bytes(), self.rounded()
        known = [one.weights_sha256 for one in (self.training(), rounded) if one is not None]
        if not known:
            self.check_whole()
        if hashlib.sha256(content).hexdigest() not in known:
            raise UserError(
                f"{file} is not what was trained{' or rounded' if rounded else ''}: its SHA-256 is "
                f"another than trained.json has; put it back, or delete {self.path} to train again"
            )
        return content

    # attacks ----------------------------------------------------------------------------------

    def attack_ids(self) -> list[str]:
        """Ids of the attacks that have a record, by name."""
        return sorted(file.stem for file in (self.path / "attacks").glob("*.json"))

    def attacks(self, only: Collection[str] | None = None) -> dict[str, AttackRecord]:
        """The attacks by id (`only` these), as they were made one after the other.

        Raises:
            UserError: a record is damaged, or belongs to another run or attack.
        """
        ids = [one for one in self.attack_ids() if only is None or one in only]
        run = self.begun_record() if ids else None
        found = {one: self._attack(one, run) for one in ids if run is not None}
        return dict(sorted(found.items(), key=lambda item: (item[1].made, item[0])))

    def _attack(self, attack_id: str, run: RunRecord) -> AttackRecord:
        file = self._attack_file(attack_id)
        record = read_record(AttackRecord, file)
        if (record.run_id, record.attack_id) != (run.run_id, attack_id):
            raise UserError(
                f"{file} is the record of {record.attack_id} on {record.run_id}; put it back where "
                "it belongs, or delete it"
            )
        if len(record.digest.right) != len(run.data.train_counts):
            raise UserError(
                f"{file} counts {len(record.digest.right)} classes, run.json "
                f"{len(run.data.train_counts)}; delete it and evaluate the run again"
            )
        return record

    def add_attack(self, record: AttackRecord, outcomes: pd.DataFrame) -> None:
        """Add an attack with its outcomes; whoever comes second with the same adds nothing.

        Args:
            record: its digest and checksum are those of the outcomes.
            outcomes: columns `OUTCOME_COLUMNS`, one row per test image.

        Raises:
            RunError: the attack stands there with other outcomes, or a file cannot be written.
        """
        buffer = io.BytesIO()
        outcomes[OUTCOME_COLUMNS].to_parquet(buffer, index=False)
        content = buffer.getvalue()
        file, rows = self._attack_file(record.attack_id), self._outcomes_file(record.attack_id)
        if not file.exists():
            ours = create(rows, content)
            if create(file, to_bytes(record)):
                if not ours:  # what lay there has no record: that of a killed writer
                    write_atomic(rows, content)
                return
        known = read_record(AttackRecord, file)
        if (known.digest, known.outcomes_sha256) != (record.digest, record.outcomes_sha256):
            raise RunError(
                f"{file} says {_counted(known)}, made on {known.provenance.device_name}; the same "
                f"attack made here says {_counted(record)}: what is stored stays"
            )
        create(rows, content)

    def has_outcomes(self, attack_id: str) -> bool:
        """Whether the outcomes of an attack are there."""
        return self._outcomes_file(attack_id).is_file()

    def outcomes(self, record: AttackRecord) -> pd.DataFrame | None:
        """The outcomes of an attack, None where they are gone.

        Raises:
            UserError: they are damaged or not what the record says.
        """
        file = self._outcomes_file(record.attack_id)
        if not file.is_file():
            return None
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
        if outcomes_sha256(frame) != record.outcomes_sha256:
            raise _damaged_outcomes(file, f"not what {record.attack_id}.json says")
        return frame

    def _attack_file(self, attack_id: str) -> Path:
        return self.path / "attacks" / f"{attack_id}.json"

    def _outcomes_file(self, attack_id: str) -> Path:
        return self.path / "attacks" / f"{attack_id}.parquet"

    def save_attack_state(self, part: str, content: bytes) -> None:
        """Keep where a long attack stands."""
        write_atomic(self.attack_state_file(part), content)

    def drop_attack_state(self, part: str) -> None:
        """Forget where a long attack stood."""
        self.attack_state_file(part).unlink(missing_ok=True)

    def attack_state_file(self, part: str) -> Path:
        """Where it is kept how far a long attack is."""
        return self.path / f"{part}.part.safetensors"

    def drop_attack_states(self) -> None:
        """Forget where all long attacks stood."""
        for file in self.path.glob("*.part.safetensors"):
            file.unlink(missing_ok=True)

    # what can be made again -------------------------------------------------------------------

    def probes(self) -> dict[str, dict[str, Any]]:
        """The experiments behind the reliability checks, by test images and radius."""
        files = sorted((self.path / "probes").glob("*.json"))
        return {file.stem: read_record(ProbeRecord, file).probe for file in files}

    def add_probe(self, key: str, probe: dict[str, Any]) -> None:
        """Add experiments, unless they were made."""
        self._create(f"probes/{key}.json", ProbeRecord(run_id=self.run_id, probe=probe))

    def reliability(self) -> ReliabilityRecord | None:
        """The reliability report, if there is one; UserError when it is damaged."""
        return self._read(ReliabilityRecord, "reliability.json")

    def write_reliability(
        self, findings: Iterable[Mapping[str, Any]], judged: Iterable[str]
    ) -> None:
        """Write reliability.json: the findings, and the ids of the attacks that they know."""
        content = {
            "run_id": self.run_id,
            "judged": sorted(judged),
            "findings": [dict(one) for one in findings],
        }
        record = ReliabilityRecord.model_validate(content)
        write_changed(self.path / "reliability.json", to_bytes(record))

    def tuning(self) -> TuningRecord | None:
        """Of how many settings the run has one, if that was asked; UserError when it is damaged."""
        return self._read(TuningRecord, "tuning.json")

    def write_tuning(self, tuning: TuningRecord) -> None:
        """Write tuning.json."""
        write_changed(self.path / "tuning.json", to_bytes(tuning))

    def profile(self) -> ProfileRecord:
        """Where the time went, as far as it was measured."""
        nothing = ProfileRecord(training=None, evaluation=None)
        return self._read(ProfileRecord, "profile.json") or nothing

    def write_profile(self, profile: ProfileRecord) -> None:
        """Write profile.json."""
        write_atomic(self.path / "profile.json", to_bytes(profile))

    @property
    def has_examples(self) -> bool:
        """Whether the run has images to look at."""
        return self._exists("examples.parquet")

    def write_examples(self, frame: pd.DataFrame) -> None:
        """Write examples.parquet, from what `evaluation.examples.attack_examples` returns."""
        packed = frame.assign(
            shape=frame["adversarial"].map(lambda image: list(image.shape)),
            clean=[image.astype(np.uint8).tobytes() for image in frame["clean"]],
            adversarial=[image.astype("<f4").tobytes() for image in frame["adversarial"]],
        )
        buffer = io.BytesIO()
        packed[EXAMPLE_COLUMNS].to_parquet(buffer, index=False)
        write_atomic(self.path / "examples.parquet", buffer.getvalue())

    def examples(self) -> pd.DataFrame:
        """Clean and adversarial images as arrays, uint8 and float32 in [0, 1]; empty without any.

        Raises:
            UserError: the file is damaged.
        """
        file = self.path / "examples.parquet"
        if not file.is_file():
            return pd.DataFrame(columns=EXAMPLE_COLUMNS)
        try:
            frame = pd.read_parquet(io.BytesIO(file.read_bytes()))
            shapes = [tuple(shape) for shape in frame["shape"]]
            return frame.assign(
                shape=frame["shape"].map(tuple),
                clean=_arrays(frame["clean"], shapes, "u1"),
                adversarial=_arrays(frame["adversarial"], shapes, "<f4"),
            )
        except (OSError, ValueError, KeyError, TypeError, ArrowException):
            raise UserError(f"{file} is damaged; delete it and evaluate the run again") from None

    def log(self, line: str) -> None:
        """Append a line to log.txt."""
        path = self.path / "log.txt"
        with writing(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            with path.open("a", encoding="utf-8", errors=PLAIN) as file:
                file.write(line + "\n")

    # files ------------------------------------------------------------------------------------

    def _exists(self, name: str) -> bool:
        return (self.path / name).is_file()

    def _read(self, kind: type[AnyRecord], name: str) -> AnyRecord | None:
        file = self.path / name
        return read_record(kind, file) if file.is_file() else None

    def _create(self, name: str, record: Record) -> bool:
        return create(self.path / name, to_bytes(record))


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

    @property
    def claims(self) -> Path:
        """Where it is said who does which run."""
        return self.path / "claims"

    @property
    def plan_file(self) -> Path:
        """What is to be done here, for `status`."""
        return self.path / "plan.json"

    @property
    def plans(self) -> Path:
        """What each driver's workers do, a file a plan."""
        return self.path / "plans"

    @property
    def logs(self) -> Path:
        """What workers printed, a file a run."""
        return self.path / "logs"

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

    def lost(self) -> list[Path]:
        """Folders of runs whose record is gone, which nobody can tell any more what they are."""
        folder = self.path / "runs"
        paths = sorted(folder.iterdir()) if folder.is_dir() else []
        runs = [RunStore(path) for path in paths if not (path / "run.json").exists()]
        return [one.path for one in runs if one.trained or one.attack_ids()]

    def prepare(self) -> None:
        """Make the directory, or raise UserError when it cannot be written."""
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryDirectory(dir=self.path, prefix=TEMPORARY) as folder:
                _try_rename(Path(folder))
        except OSError as error:
            reason = error.strerror or str(error)
            raise UserError(
                f"output directory {self.path} cannot be written ({reason}); choose another with "
                "--output"
            ) from None

    def write(self, name: str, content: str | bytes) -> Path:
        """Write a report file, such as `tables/balanced.md`, where it says something else."""
        path = self.path / name
        write_changed(path, encoded(content) if isinstance(content, str) else content)
        return path

    def write_reports(
        self,
        files: Mapping[str, str | bytes],
        made_of: str = "",
        drawn: Mapping[str, str] | None = None,
    ) -> None:
        """Write the files of a report and remove those of earlier ones that it no longer gives.

        Only files that a report has written are removed; a user's own stay.

        Args:
            files: content by name, such as `tables/balanced.md`.
            made_of: tells what they were made of; see `holds_report`.
            drawn: figures of the report, with what each was drawn from; those that are not among
                `files` are there and stay.
        """
        drawn = drawn or {}
        sweep([self.path, *(self.path / name for name in REPORT_FOLDERS)])
        before = self._written()
        known = {name for name in before if _is_listed(name)}
        staying = {name: before[name] for name in drawn if name in before and name not in files}
        self._list_written({**before, **dict.fromkeys(filter(_is_listed, files), "")})
        for name, content in files.items():
            self.write(name, content)
        for name in known - files.keys() - staying.keys():
            (self.path / name).unlink(missing_ok=True)
        written = {name: _checksum(content) for name, content in files.items()}
        self._list_written({**written, **staying}, made_of, drawn)

    def drawn(self) -> dict[str, str]:
        """Figures that are there as they were written, with what each was drawn from.

        Where one of the files that were drawn from the same is gone, none of them counts.
        """
        found, written = self._list().get("drawn"), self._written()
        known = {str(k): str(v) for k, v in found.items()} if isinstance(found, dict) else {}
        gone = {
            made_of
            for name, made_of in known.items()
            if not _is_listed(name) or self._checksum_of(name) != written.get(name)
        }
        return {name: made_of for name, made_of in known.items() if made_of not in gone}

    def holds_report(self, made_of: str) -> bool:
        """Whether the last report was made of the same, and its files are there as written."""
        written = self._written()
        return (
            bool(written)
            and self._list().get("made_of") == made_of
            and all(self._checksum_of(name) == checksum for name, checksum in written.items())
        )

    def _checksum_of(self, name: str) -> str:
        try:
            return _checksum((self.path / name).read_bytes())
        except OSError:
            return ""

    def _list(self) -> dict[str, Any]:
        """What the last report said about itself; {} where that is not known."""
        try:
            content = json.loads((self.path / WRITTEN).read_text(encoding="utf-8"))
        except (OSError, ValueError, RecursionError):
            return {}
        return content if isinstance(content, dict) else {}

    def _written(self) -> dict[str, str]:
        """Names and checksums of what reports have written; none where that is not known."""
        files = self._list().get("files")
        return {k: str(v) for k, v in files.items()} if isinstance(files, dict) else {}

    def _list_written(
        self,
        files: Mapping[str, str],
        made_of: str = "",
        drawn: Mapping[str, str] | None = None,
    ) -> None:
        content = {
            "made_of": made_of,
            "files": dict(sorted(files.items())),
            "drawn": dict(sorted((drawn or {}).items())),
        }
        self.write(WRITTEN, json.dumps(content, indent=0) + "\n")


def _try_rename(folder: Path) -> None:
    """Rename a file over another, as every write does; UserError where that is not possible."""
    first, second = folder / "first", folder / "second"
    first.write_bytes(b"1")
    second.write_bytes(b"2")
    try:
        os.replace(first, second)
    except OSError as error:
        raise UserError(
            f"the file system of {folder.parent} cannot rename a file over another "
            f"({error.strerror or error}), as every save does; choose a directory on a local disk, "
            "NFS, Lustre or GPFS with --output"
        ) from None


def _checksum(content: str | bytes) -> str:
    whole = encoded(content) if isinstance(content, str) else content
    return hashlib.sha256(whole).hexdigest()[:16]


def _is_listed(name: str) -> bool:
    """Whether a name is that of a file right in one of a report's folders."""
    folder, _, file = name.partition("/")
    return folder in REPORT_FOLDERS and file not in ("", ".", "..") and "/" not in file


def are_outcomes_of(outcomes: pd.DataFrame, sha: str) -> bool:
    """Whether outcomes are those of the test images with this checksum, in whatever order."""
    orders = (outcomes, outcomes.sort_values("index", kind="stable"))
    return any(images_sha256(one["index"], one["label"]) == sha for one in orders)


def _counted(record: AttackRecord) -> str:
    """What a record's digest says, and a few digits of its checksum."""
    digest = record.digest
    return f"{sum(digest.right)} of {digest.n} right ({record.outcomes_sha256[:8]})"


def _short(sha: str | None) -> str:
    return "none" if sha is None else sha[:8]


def _damaged_outcomes(file: Path, why: str) -> UserError:
    return UserError(
        f"{file} is damaged ({why}); put it back from a copy, or delete it: the numbers stay"
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


def stored_run(run_directory: Path) -> RunStore:
    """The store of a run directory given by its path; UserError when it is none."""
    store = RunStore(run_directory)
    if not (run_directory / "run.json").is_file():
        store.begun_record()  # tells whether it is lost or never was
    return store


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
