"""What a process does that helps with another's run: what it is told, until that is all.

It writes no file, prints nothing and claims nothing. `python -m ltrobust.bench.follow` is started
by `crew`; under `torchrun` every process but the first comes here.
"""

from __future__ import annotations

import os
import shutil
import sys
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import torch
import torch.distributed as dist

from ltrobust.bench.crew import (
    HERE,
    LAUNCHED,
    LEAVE,
    Launched,
    Order,
    joined,
    on_loopback,
    told_images,
)
from ltrobust.bench.loader import Loader
from ltrobust.bench.plan import Plan, thrift, use_device
from ltrobust.bench.runner import defended_by, split_model, watch_of
from ltrobust.data import LongTailedData
from ltrobust.errors import RunError, UserError
from ltrobust.evaluation.evaluate import Evaluator, TestSet
from ltrobust.method import load_methods
from ltrobust.team import LostError, Team
from ltrobust.threads import computing_with
from ltrobust.training.checkpoint import from_bytes, state_from_bytes
from ltrobust.training.trainer import train


def follow(team: Team) -> None:
    """Do what process 0 says, until it says no more.

    Raises:
        LostError: a process is gone.
    """
    while True:
        try:
            order = Order.heard(team)
            if order is None:
                return
            with team.together(), computing_with(order.threads):
                _do(order, team)
        except LostError:
            raise
        except Exception:  # told to the others by `together`; process 0 says what is next
            continue


def _do(order: Order, team: Team) -> None:
    load_methods(order.settings.plugin)
    device = use_device(order.device)
    settings = order.settings.model_copy(update={"download": False})  # process 0 has done it
    data = Loader(Plan(settings, device, (order.planned,)))(order.planned)
    if told_images(data) != order.images:
        raise RunError("the data here is not that of process 0; bring the folders into line")
    (_attack if "weights" in order.parts else _train)(order, data, team, torch.device(device))


def _train(order: Order, data: LongTailedData, team: Team, device: torch.device) -> None:
    run, parts, settings = order.planned.run, order.parts, order.settings
    train(
        run,
        data,
        device=device,
        state=state_from_bytes(parts["state"]) if "state" in parts else None,
        thrift=thrift(settings),
        base=split_model(from_bytes(parts["base"], "the base")) if "base" in parts else None,
        watch=watch_of(run, data, settings, device, team),
        team=team,
    )


def _attack(order: Order, data: LongTailedData, team: Team, device: torch.device) -> None:
    run = order.planned.run
    stored = from_bytes(order.parts["weights"], "the weights")
    model = defended_by(run, data.train_counts, data.image_shape, stored, "the weights", device)
    test = TestSet(data.test_images, data.test_labels, data.test_index)
    evaluator = Evaluator(model, test, num_classes=data.num_classes, device=device, team=team)
    for spec in order.planned.attacks:
        begun = team.told()
        resume = from_bytes(begun, "the attack's state") if begun else {}
        resume.pop("taken", None)
        evaluator.run(spec, resume=resume or None)


def led(command: Callable[[], int]) -> int:
    """Under `torchrun`: run a command in process 0, with the others as its team.

    Returns:
        Its exit code; 0 in the other processes.
    """
    launched = Launched(*next(iter(dist.rendezvous("env://"))))
    if launched.rank != 0:
        with _silent(), suppress(LostError):  # torchrun tells which process is gone
            launched.follow(follow)
        return 0
    token = LAUNCHED.set(launched)
    try:
        return command()
    finally:
        LAUNCHED.reset(token)
        launched.end()


@contextmanager
def _silent() -> Iterator[None]:
    with warnings.catch_warnings(action="ignore"):
        yield


def _end_with_input(folder: Path) -> threading.Thread:
    """End this process when its input ends: who started it is gone, and so goes its folder."""

    def wait() -> None:
        sys.stdin.buffer.read()
        until = time.monotonic() + LEAVE
        while folder.exists() and time.monotonic() < until:  # torch may write the file once more
            shutil.rmtree(folder, ignore_errors=True)
        os._exit(1)

    thread = threading.Thread(target=wait, name="ltrobust-input", daemon=True)
    thread.start()
    return thread


def main() -> None:
    """`python -m ltrobust.bench.follow RANK SIZE STORE DEVICE`."""
    rank, size, file, device = int(sys.argv[1]), int(sys.argv[2]), Path(sys.argv[3]), sys.argv[4]
    ending = _end_with_input(file.parent)
    try:
        with _silent(), on_loopback():
            store = dist.FileStore(str(file), size)
            store.set(f"{HERE}{rank}", "")
            with joined(store, rank, size, device) as team:
                follow(team)
    except BaseException as error:
        ending.join(LEAVE / 2)  # where process 0 is gone, its folder goes first
        if not isinstance(error, LostError):  # which process it was, process 0 tells
            raise


if __name__ == "__main__":
    try:
        main()
    except (UserError, RunError) as error:
        sys.exit(str(error))
