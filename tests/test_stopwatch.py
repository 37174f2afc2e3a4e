"""Wall and processor time: what each counts, and where processor time tells nothing."""

import threading
import time

import pytest
import torch

from ltrobust.stopwatch import NOTHING, Stopwatch, Taken, as_taken, as_tensor, of_epochs


def work(seconds: float) -> None:
    """Compute until this thread has had so much of a processor."""
    began = time.thread_time()
    while time.thread_time() - began < seconds:
        sum(range(1000))


def test_waiting_takes_no_processor_time():
    stopwatch = Stopwatch("cpu")
    work(0.1)
    time.sleep(0.3)
    taken = stopwatch.read()
    assert taken.cpu_seconds is not None
    assert 0.1 <= taken.cpu_seconds < 0.3
    assert taken.seconds >= 0.4


def test_processor_time_is_that_of_all_threads():
    stopwatch = Stopwatch(torch.device("cpu"))
    threads = [threading.Thread(target=work, args=(0.1,)) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    taken = stopwatch.read()
    assert taken.cpu_seconds is not None
    assert taken.cpu_seconds >= 0.2


def test_a_watch_runs_from_when_it_was_made_and_may_be_read_twice():
    work(0.1)
    stopwatch = Stopwatch("cpu")
    first = stopwatch.read()
    assert first.cpu_seconds is not None
    assert first.cpu_seconds < 0.1
    work(0.1)
    second = stopwatch.read()
    assert second.cpu_seconds is not None
    assert second.cpu_seconds >= first.cpu_seconds + 0.1


@pytest.mark.parametrize(("device", "alone"), [("cuda", True), ("cuda:1", True), ("cpu", False)])
def test_it_tells_no_processor_time_where_others_compute(device: str, alone: bool):
    taken = Stopwatch(device, alone=alone).read()
    assert taken.cpu_seconds is None
    assert taken.seconds >= 0


def test_processor_time_is_known_of_a_sum_if_it_is_of_both():
    assert Taken(1.0, 2.0) + Taken(10.0, 20.0) == Taken(11.0, 22.0)
    assert Taken(1.0, 2.0) + Taken(10.0, None) == Taken(11.0, None)
    assert Taken(1.0, None) + Taken(10.0, 20.0) == Taken(11.0, None)


def test_epochs_are_summed_and_one_that_lacks_it_leaves_it_unknown():
    history = [{"seconds": 1.0, "cpu_seconds": 2.0}, {"seconds": 3.0, "cpu_seconds": 5.0}]
    assert of_epochs(history, "cpu") == Taken(4.0, 7.0)
    assert of_epochs([*history, {"seconds": 1.0}], "cpu") == Taken(5.0, None)
    assert of_epochs([], torch.device("cpu")) == NOTHING == Taken(0.0, 0.0)


def test_no_epoch_on_an_accelerator_took_no_known_processor_time():
    """So that of a base that was trained on a CPU is not told for both."""
    assert of_epochs([], "cuda") == Taken(0.0, None)
    assert of_epochs([], "cuda") + Taken(1.0, 2.0) == Taken(1.0, None)


@pytest.mark.parametrize("taken", [Taken(1.5, 2.5), Taken(1.5, None)])
def test_what_is_kept_with_a_state_comes_back(taken: Taken):
    assert as_taken(as_tensor(taken)) == taken
