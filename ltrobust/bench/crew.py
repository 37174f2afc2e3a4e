"""Several devices for one run: starts the processes that help, and tells them what to do.

Process 0 is the one that has claimed the run. It alone reads and writes the suite's directory and
sends the others what they need: settings, saved state, weights. What they do with it is in
`follow`. Under `torchrun` the processes are there already.
"""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from contextvars import ContextVar
from dataclasses import dataclass, replace
from pathlib import Path
from typing import IO, Any

import torch
import torch.distributed as dist

from ltrobust.bench.plan import PlannedRun, check_devices, threads_each
from ltrobust.bench.settings import Settings
from ltrobust.config import AttackSpec, Run, TestSpec
from ltrobust.data import LongTailedData
from ltrobust.errors import RunError, UserError
from ltrobust.results.digest import images_sha256
from ltrobust.team import PATIENCE, LostError, Team

START = 300.0
"""Seconds in which a process that helps must have come up."""
LEAVE = 10.0
"""Seconds in which it must have ended."""
HERE = "here-"
"""Begins the key under which a process that helps says that it is there."""
DEVICE = "device"
"""The key under which the first of the processes of a `torchrun` says where they compute."""


@dataclass(frozen=True)
class Order:
    """What the processes of a team are to do together.

    Attributes:
        planned: the run; of its attacks those that are to be made.
        settings: of its plan.
        device: of its plan; of several each process has its own.
        threads: CPU threads of each process.
        images: tells the images, so that nobody works on others.
        parts: bytes that are needed, by name.
    """

    planned: PlannedRun
    settings: Settings
    device: str
    threads: int
    images: str
    parts: dict[str, bytes]

    def send(self, team: Team) -> None:
        """Tell the others."""
        planned = self.planned
        content = {
            "run": planned.run.model_dump(mode="json"),
            "test": planned.test.model_dump(mode="json"),
            "attacks": [spec.model_dump(mode="json") for spec in planned.attacks],
            "cell": None if planned.cell is None else _dumped(planned.cell),
            "settings": _dumped(self.settings),
            "device": self.device,
            "threads": self.threads,
            "images": self.images,
            "parts": list(self.parts),
        }
        team.told(json.dumps(content).encode())
        for part in self.parts.values():
            team.told(part)

    @classmethod
    def heard(cls, team: Team) -> Order | None:
        """What process 0 says next; None: that is all."""
        text = team.told()
        if not text:
            return None
        content = json.loads(text)
        cell = content["cell"]
        planned = PlannedRun(
            Run.model_validate(content["run"]),
            TestSpec.model_validate(content["test"]),
            tuple(AttackSpec.model_validate(spec) for spec in content["attacks"]),
            cell=None if cell is None else Settings.model_validate(cell),
        )
        parts = {name: team.told() for name in content["parts"]}
        settings = Settings.model_validate(content["settings"])
        return cls(
            planned, settings, content["device"], content["threads"], content["images"], parts
        )


def _dumped(settings: Settings) -> dict[str, Any]:
    return settings.model_dump(mode="json", exclude_defaults=True)


def told_images(data: LongTailedData) -> str:
    """Tells the training and test images of a run from others."""
    return f"{data.split_sha256} {images_sha256(data.test_index, data.test_labels)}"


@dataclass(frozen=True)
class Crew:
    """A team with the settings that it works by.

    Attributes:
        team: its processes, of which this one leads.
        settings: of the plan.
        device: of the plan.
    """

    team: Team
    settings: Settings
    device: str

    @contextmanager
    def training(
        self, planned: PlannedRun, data: LongTailedData, state: bytes | None, base: bytes | None
    ) -> Iterator[Team]:
        """Let all train a run in the block.

        Args:
            planned: what to train.
            data: its images.
            state: what `state_to_bytes` made of the state to go on from.
            base: the weights file of the run that a post-hoc one acts on.
        """
        parts = {"state": state, "base": base}
        given = {name: part for name, part in parts.items() if part is not None}
        with self._doing(replace(planned, attacks=()), data, given):
            yield self.team

    @contextmanager
    def attacks(
        self, planned: PlannedRun, data: LongTailedData, weights: bytes, specs: Sequence[AttackSpec]
    ) -> Iterator[Team]:
        """Let all attack a trained run in the block, with each attack after `resumed`."""
        asked = replace(planned, attacks=tuple(specs))
        with self._doing(asked, data, {"weights": weights}):
            yield self.team

    @contextmanager
    def _doing(
        self, planned: PlannedRun, data: LongTailedData, parts: dict[str, bytes]
    ) -> Iterator[None]:
        threads, images = torch.get_num_threads(), told_images(data)
        Order(planned, self.settings, self.device, threads, images, parts).send(self.team)
        with self.team.together():
            yield


@contextmanager
def assembled(settings: Settings, device: str, *, wanted: bool = True) -> Iterator[Crew | None]:
    """The processes that do one run together, for as long as the block lasts.

    Args:
        settings: say how many devices a run has.
        device: of the plan.
        wanted: whether there is anything to do together.

    Yields:
        None where this process is alone.

    Raises:
        UserError: this machine has not so many devices.
        RunError: a process that helps did not come up.
    """
    there = LAUNCHED.get()
    if there is not None:
        _check_launched(settings.devices_per_run, device, there)
        yield Crew(there.team(device), settings, device)
    elif settings.devices_per_run == 1 or not wanted:
        yield None
    else:
        check_devices(settings.devices_per_run, device)
        with _helped(settings.devices_per_run, device) as team:
            yield Crew(team, settings, device)


def _check_launched(number: int, device: str, there: Launched) -> None:
    if ":" in device:
        raise UserError(f"--device {device} under torchrun: each process has its own; use cuda")
    if number not in (1, there.size):
        raise UserError(
            f"--devices-per-run {number} under a torchrun of {there.size} processes; leave it out"
        )


def processes(settings: Settings) -> int:
    """How many processes do each run together."""
    there = LAUNCHED.get()
    return settings.devices_per_run if there is None else there.size


def threads_of(settings: Settings, device: str) -> int | None:
    """CPU threads of each of a run's processes where nobody says a number; None: torch's choice."""
    return threads_each(1, settings.devices_per_run) if device == "cpu" else None


@contextmanager
def _helped(size: int, device: str) -> Iterator[Team]:
    """Start the processes that help; they end with the block, and with this process."""
    with tempfile.TemporaryDirectory(prefix="ltrobust-crew-") as folder, on_loopback():
        file = Path(folder) / "store"
        store = dist.FileStore(str(file), size)
        helpers = [_Helper(rank, size, file, device) for rank in range(1, size)]
        try:
            _wait_for(helpers, store)
            with joined(store, 0, size, device) as team:
                yield _Watched(0, size, helpers)
                with suppress(LostError):
                    team.told()  # nothing: the end
            for helper in helpers:
                helper.wait()
        finally:
            for helper in helpers:
                helper.end()


class _Helper:
    """A process that helps; it ends when its input ends, whatever becomes of this process."""

    def __init__(self, rank: int, size: int, file: Path, device: str) -> None:
        self.rank = rank
        self._errors: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115  (closed in `end`)
        words = ("-m", "ltrobust.bench.follow", rank, size, file, device)
        self._process = subprocess.Popen(
            [sys.executable, *map(str, words)],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=self._errors,
            start_new_session=True,  # a terminal's Ctrl-C is for process 0, which ends the others
        )

    def fate(self) -> str:
        """How it ended, in words; "" while it lives."""
        code = self._process.poll()
        if code is None:
            return ""
        self._errors.seek(0)
        last = self._errors.read().decode(errors="replace").strip().rpartition("\n")[2]
        how = f"signal {-code}" if code < 0 else f"exit code {code}"
        return f"process {self.rank} ended ({how}{': ' + last if last else ''})"

    @property
    def failed(self) -> bool:
        """Whether it ended otherwise than because another was gone."""
        return self._process.poll() not in (None, 0)

    def wait(self) -> None:
        """Give it time to end by itself."""
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(LEAVE)

    def end(self) -> None:
        """End it."""
        self._process.kill()
        self._process.wait()
        if self._process.stdin is not None:
            self._process.stdin.close()
        self._errors.close()


class _Watched(Team):
    """A team that tells how a process that is gone has ended."""

    def __init__(self, rank: int, size: int, helpers: Sequence[_Helper]) -> None:
        super().__init__(rank, size)
        self._helpers = helpers

    def _exchange(self, exchange: Callable[[], object]) -> None:
        try:
            super()._exchange(exchange)
        except LostError as error:
            for helper in self._helpers:
                helper.wait()
            fates = [helper.fate() for helper in self._helpers if helper.failed]
            raise LostError("; ".join(fates) or str(error)) from error


def _wait_for(helpers: Sequence[_Helper], store: dist.Store) -> None:
    """Wait until all processes that help are there.

    Raises:
        RunError: one of them ended, or takes too long.
    """
    until = time.monotonic() + START
    for helper in helpers:
        while not store.check([f"{HERE}{helper.rank}"]):
            if fate := helper.fate():
                raise RunError(f"this run's {fate} before it could help")
            if time.monotonic() > until:
                raise RunError(f"this run's process {helper.rank} did not come up in {START:.0f} s")
            time.sleep(0.02)


@contextmanager
def joined(store: dist.Store, rank: int, size: int, device: str) -> Iterator[Team]:
    """Take part in a team for as long as the block lasts.

    Args:
        store: where its processes find each other.
        rank: the number of this one.
        size: how many there are.
        device: where they compute; of a machine's CUDA devices each process has one, by its number
            there, and on a CPU none is touched.
    """
    backend, own = "gloo", int(os.environ.get("LOCAL_RANK", rank))
    if device != "cpu" and own < torch.cuda.device_count() and dist.is_nccl_available():
        torch.cuda.set_device(own)
        backend = "cpu:gloo,cuda:nccl"
    dist.init_process_group(backend, store=store, rank=rank, world_size=size, timeout=PATIENCE)
    try:
        yield Team(rank, size)
    finally:
        dist.destroy_process_group()


@contextmanager
def on_loopback() -> Iterator[None]:
    """Let processes of one machine talk over its loopback interface, unless told otherwise."""
    name, before = "GLOO_SOCKET_IFNAME", os.environ.get("GLOO_SOCKET_IFNAME")
    own = next((face for _, face in socket.if_nameindex() if face.startswith("lo")), None)
    if before is None and own is not None:
        os.environ[name] = own
    try:
        yield
    finally:
        if before is None:
            os.environ.pop(name, None)


class Launched:
    """The processes that `torchrun` has started, which become a team when it is known where they
    are to compute: process 0 decides that, and tells the others.

    Args:
        store: where they find each other.
        rank: the number of this one.
        size: how many there are.
    """

    def __init__(self, store: dist.Store, rank: int, size: int) -> None:
        self._store, self.rank, self.size = store, rank, size
        self._device = ""
        self._team: Team | None = None
        self._leaving = ExitStack()

    def team(self, device: str) -> Team:
        """The team, from the first call on; called by process 0.

        Raises:
            UserError: it has begun on another device.
        """
        if self._team is None:
            self._store.set(DEVICE, device)
            self._device = device
            own = joined(self._store, self.rank, self.size, device)
            self._team = self._leaving.enter_context(own)
        if device != self._device:
            raise UserError(
                f"--device {device} after {self._device} under one torchrun; give a command each"
            )
        return self._team

    def follow(self, work: Callable[[Team], None]) -> None:
        """Do something as the other processes of the team, if there is ever to be one."""
        try:
            self._store.wait([DEVICE], PATIENCE)
            device = self._store.get(DEVICE).decode()
        except RuntimeError:  # process 0 is gone
            return
        if device:
            with joined(self._store, self.rank, self.size, device) as team:
                work(team)

    def end(self) -> None:
        """Tell the others that this is all; called by process 0."""
        if self._team is None:
            self._store.set(DEVICE, "")
        else:
            with suppress(RunError):
                self._team.told()
        self._leaving.close()


LAUNCHED: ContextVar[Launched | None] = ContextVar("launched", default=None)
"""What `torchrun` made this process one of, while a command works in it."""
