"""The Ray launcher against a Ray of this process, and its task as a function."""

from __future__ import annotations

import os
import signal
import sys
import threading
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ltrobust.bench.launch import WITH_PARENT, Launcher, Seen, Site, Task, find_launcher
from ltrobust.bench.launch import ray as ray_module
from ltrobust.errors import UserError


class RayError(Exception):
    pass


class RayTaskError(RayError):
    def __init__(self, cause: Exception) -> None:
        self.cause = cause


class WorkerCrashedError(RayError):
    pass


class FakeRay(types.ModuleType):
    """Ray as far as it is used; tasks end when a test says so."""

    exceptions = types.SimpleNamespace(RayError=RayError, RayTaskError=RayTaskError)

    def __init__(self) -> None:
        super().__init__("ray")
        self.tasks: list[tuple[Any, ...]] = []
        self.options: dict[str, Any] = {}
        self.ends: dict[int, object] = {}
        self.cancelled: list[int] = []
        self.places: dict[int, str] = {}
        self.silent = False
        self.connects: Callable[..., None] = lambda **given: None

    def init(self, **given: Any) -> None:
        self.connects(**given)

    def remote(self, what: Any) -> Any:
        """An actor is `self`, a task the place of its words in the list."""

        def options(**given: Any) -> Any:
            if not isinstance(what, type):
                self.options = given
            return types.SimpleNamespace(remote=self if isinstance(what, type) else submit)

        def submit(*words: Any) -> int:
            self.tasks.append(words)
            return len(self.tasks) - 1

        return types.SimpleNamespace(options=options)

    def __call__(self) -> Any:
        return types.SimpleNamespace(told=types.SimpleNamespace(remote=lambda: "told"))

    def get(self, ref: Any, timeout: float | None = None) -> Any:
        if ref == "told":
            if self.silent:
                raise RayError
            return self.places
        end = self.ends[ref]
        if isinstance(end, Exception):
            raise end
        return end

    def wait(self, refs: list[int], num_returns: int = 1, timeout: float = 0.0) -> Any:
        return [ref for ref in refs if ref in self.ends], []

    def cancel(self, ref: int, recursive: bool) -> None:
        self.cancelled.append(ref)

    def shutdown(self) -> None:
        self.tasks.clear()


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> FakeRay:
    found = FakeRay()
    monkeypatch.setitem(sys.modules, "ray", found)
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    return found


def launcher(tmp_path: Path, **site: Any) -> Launcher:
    return find_launcher("ray", Site(tmp_path, **{"device": "cuda", **site}))


def tasks(*runs: str) -> list[Task]:
    return [Task(run, ("work", run), Path("logs", f"{run}.log")) for run in runs]


def test_each_run_is_a_task_of_its_threads_and_one_gpu(
    fake: FakeRay, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LTROBUST_DATA_DIR", "/data")
    ray = launcher(tmp_path, threads=3)
    assert ray.attach() == set()
    ray.submit(tasks("a"))
    assert fake.options == {"num_cpus": 3, "num_gpus": 1, "max_retries": 0}
    ((number, command, log, environment, _),) = fake.tasks
    assert (number, command, log) == (0, ("work", "a"), Path("logs/a.log"))
    assert environment["LTROBUST_DATA_DIR"] == "/data"
    launcher(tmp_path, device="cpu").submit(tasks("b"))
    assert fake.options == {"num_cpus": 1, "num_gpus": 0, "max_retries": 0}


def test_only_so_many_at_once_and_states_in_words(fake: FakeRay, tmp_path: Path) -> None:
    ray = launcher(tmp_path, at_once=2)
    ray.submit(tasks("a", "b", "c"))
    assert len(fake.tasks) == 2
    fake.places[0] = "n1"
    assert ray.look() == {
        "a": Seen("running", "n1"),
        "b": Seen("waiting", "waits for a free node"),
        "c": Seen("waiting"),
    }
    fake.ends[0] = -9
    assert ray.look()["a"] == Seen("ended", "n1", -9)
    assert len(fake.tasks) == 3
    fake.ends[1] = WorkerCrashedError()
    fake.ends[2] = RayTaskError(FileNotFoundError("no such folder"))
    assert ray.look() == {
        "a": Seen("ended", "n1", -9),
        "b": Seen("ended", "(WorkerCrashedError)"),
        "c": Seen("ended", "(no such folder)"),
    }


def test_a_second_turn_is_not_taken_for_running_where_the_first_was(
    fake: FakeRay, tmp_path: Path
) -> None:
    ray = launcher(tmp_path)
    ray.submit(tasks("a"))
    fake.places[0], fake.ends[0] = "n1", -9
    ray.look()
    ray.submit(tasks("a"))
    assert ray.look() == {"a": Seen("waiting", "waits for a free node")}


def test_silence_is_unknown_where_nothing_was_known(fake: FakeRay, tmp_path: Path) -> None:
    ray = launcher(tmp_path)
    ray.submit(tasks("a", "b"))
    fake.places[0] = "n1"
    ray.look()
    fake.silent = True
    seen = ray.look()
    assert seen["a"] == Seen("running", "n1")
    assert seen["b"] == Seen("unknown", "Ray does not answer (RayError)")


def test_cancel_asks_every_task_and_leaves_the_cluster(fake: FakeRay, tmp_path: Path) -> None:
    ray = launcher(tmp_path, at_once=2)
    ray.submit(tasks("a", "b", "c"))
    ray.cancel()
    assert fake.cancelled == [0, 1]
    assert ray.look.__self__._running == {}  # type: ignore[attr-defined]


def test_no_cluster_is_one_line_and_sigterm_stays_ours(
    fake: FakeRay, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = {}

    def refuse(**given: Any) -> None:
        asked.update(given)
        signal.signal(signal.SIGTERM, signal.SIG_IGN)  # as Ray does, in its way
        raise ConnectionError("Could not find any\nrunning Ray instance.")

    fake.connects = refuse
    before = signal.getsignal(signal.SIGTERM)
    line = r"^no Ray cluster answers at auto \(Could not find any running Ray instance\.\); start"
    with pytest.raises(UserError, match=line):
        launcher(tmp_path).attach()
    assert asked["address"] == "auto"
    assert signal.getsignal(signal.SIGTERM) is before
    monkeypatch.setenv("RAY_ADDRESS", "ray://head:10001")
    with pytest.raises(UserError, match="answers at ray://head:10001 "):
        launcher(tmp_path).attach()


def test_without_ray_it_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(UserError, match=r"^--launcher ray: .*pip install 'ltrobust\[ray\]'"):
        launcher(tmp_path)


def test_the_preview_says_what_a_task_needs(fake: FakeRay, tmp_path: Path) -> None:
    text = launcher(tmp_path, threads=2, at_once=5).preview(tasks("a", "b"))
    assert text == "2 tasks of 2 CPUs and 1 GPU on the Ray cluster auto, at most 5 at once"
    text = launcher(tmp_path, device="cpu").preview(tasks("a"))
    assert text == "1 tasks of 1 CPU on the Ray cluster auto"


# the task -----------------------------------------------------------------------------------------

TOLD: list[tuple[int, str]] = []
BOARD = types.SimpleNamespace(
    tell=types.SimpleNamespace(remote=lambda number, place: TOLD.append((number, place)))
)


def turn(log: Path, *command: str) -> int:
    return ray_module._turn(7, command, log, {"LTROBUST_A": "b"}, BOARD)


def test_a_task_is_the_process_of_its_command(tmp_path: Path) -> None:
    TOLD.clear()
    log = tmp_path / "a.log"
    log.write_text("before\n")
    assert turn(log, "sh", "-c", f"echo $LTROBUST_A ${WITH_PARENT}; echo no >&2; exit 75") == 75
    assert log.read_text() == f"before\nb {os.getpid()}\nno\n"
    assert [number for number, _ in TOLD] == [7]
    assert turn(log, "sh", "-c", "kill -9 $$") == -9
    with pytest.raises(FileNotFoundError):
        turn(tmp_path / "gone" / "a.log", "true")


def test_a_cancelled_task_asks_its_process_to_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = tmp_path / "a.log"
    log.touch()

    def interrupted(seconds: float) -> None:
        if log.read_text() == "ready\n":
            log.write_text("cancelled\n")
            raise KeyboardInterrupt
        threading.Event().wait(0.01)

    monkeypatch.setattr(ray_module.time, "sleep", interrupted)
    script = "trap 'echo saved; exit 130' TERM; echo ready; while :; do sleep 0.01; done"
    with pytest.raises(KeyboardInterrupt):
        turn(log, "sh", "-c", script)
    assert log.read_text() == "cancelled\nsaved\n"
