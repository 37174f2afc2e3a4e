"""Where a result comes from: the device in words."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch

from ltrobust.bench import provenance


@pytest.fixture
def cpuinfo(monkeypatch: pytest.MonkeyPatch) -> None:
    """A processor of two threads whose model the system tells."""
    text = "processor\t: 0\nmodel name\t: Any CPU @ 2.0GHz: new\nflags\t: x\nmodel name\t: Other\n"
    monkeypatch.setattr(Path, "read_text", lambda *_, **__: text)
    monkeypatch.setattr(os, "cpu_count", lambda: 2)
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: "AVX512")


@pytest.mark.usefixtures("cpuinfo")
def test_a_cpu_is_told_by_model_units_and_cores() -> None:
    assert provenance.device_name("cpu") == "Any CPU @ 2.0GHz: new, AVX512 (2 cores)"


@pytest.mark.usefixtures("cpuinfo")
@pytest.mark.parametrize("text", [None, "processor: 0\nmodel name:\n"])
def test_where_its_model_is_not_told_its_kind_stands_for_it(
    text: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    def read(*_: object, **__: object) -> str:
        if text is None:
            raise FileNotFoundError
        return text

    monkeypatch.setattr(Path, "read_text", read)
    monkeypatch.setattr(provenance.platform, "processor", lambda: "")
    monkeypatch.setattr(provenance.platform, "machine", lambda: "riscv64")
    assert provenance.device_name("cpu") == "riscv64, AVX512 (2 cores)"
