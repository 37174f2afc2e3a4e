"""Freed memory stays in the process, so that steps of a training do not fault it in again."""

from __future__ import annotations

import platform
import subprocess
import sys

import pytest

from ltrobust import allocator

FAULTS = """
import resource, sys
import numpy as np
from ltrobust.allocator import keep_freed_memory

if sys.argv[1] == "keep":
    assert keep_freed_memory()
for turn in range(6):
    if turn == 1:
        before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    np.ones(8 * 2**20)  # 64 MiB, beyond any threshold that glibc moves by itself
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def page_faults(what: str) -> int:
    done = subprocess.run(
        [sys.executable, "-c", FAULTS, what], capture_output=True, text=True, check=True
    )
    return int(done.stdout)


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="the setting is one of glibc")
def test_a_block_of_the_same_size_is_not_faulted_in_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MALLOC_ARENA_MAX", raising=False)
    assert page_faults("keep") * 10 < page_faults("leave")


def test_the_users_own_settings_win(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MALLOC_TRIM_THRESHOLD_", "131072")
    assert not allocator.keep_freed_memory()


def test_another_c_library_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(allocator.ctypes, "CDLL", lambda name: object())
    assert not allocator.keep_freed_memory()
