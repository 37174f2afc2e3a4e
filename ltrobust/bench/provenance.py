"""Where a result comes from: versions, commit, device, memory. Facts only, no decisions."""

from __future__ import annotations

import os
import platform
import resource
import subprocess
from importlib.metadata import version
from pathlib import Path

import torch

import ltrobust
from ltrobust.results.records import Provenance, Versions

PACKAGES = ("ltrobust", "torch", "torchvision", "pyautoattack", "numpy", "pandas")


def provenance(device: str, processes: int = 1) -> Provenance:
    """Package versions, git commit with dirty flag ("" outside a checkout), machine and device.

    Args:
        device: what is computed on.
        processes: how many compute one run together, each on such a device.
    """
    times = f"{processes} x " if processes > 1 else ""
    return Provenance(
        versions=Versions.model_validate({name: version(name) for name in PACKAGES}),
        python=platform.python_version(),
        git_commit=git_commit(),
        device=device,
        device_name=times + device_name(device),
        threads=torch.get_num_threads(),
    )


def git_commit() -> str:
    """Commit of the checkout that the package runs from, "+dirty" if changed; "" if installed."""
    folder = Path(ltrobust.__file__).parent

    def git(*words: str) -> str:
        done = subprocess.run(
            ["git", "-C", str(folder), *words], capture_output=True, text=True, check=True
        )
        return done.stdout.strip()

    try:
        git("ls-files", "--error-unmatch", "registry.py")  # not some other repository around it
        code = (":/ltrobust", ":/methods", ":/pyproject.toml")
        return git("rev-parse", "HEAD") + ("+dirty" if git("status", "-s", "--", *code) else "")
    except (OSError, subprocess.CalledProcessError):
        return ""


def device_name(device: str) -> str:
    """The device in words."""
    if device.startswith("cuda"):
        return torch.cuda.get_device_name(torch.device(device))
    units = torch.backends.cpu.get_cpu_capability()  # AVX2, AVX512: times and last bits hang on it
    return f"{_cpu_name()}, {units} ({os.cpu_count()} cores)"


def _cpu_name() -> str:
    """The CPU's model where the system tells it, else its kind."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        lines = []
    models = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(models, "") or platform.processor() or platform.machine()


def device_memory(device: str) -> int | None:
    """Bytes of memory that a CUDA device has in all; None for a CPU."""
    if not device.startswith("cuda"):
        return None
    return torch.cuda.get_device_properties(torch.device(device)).total_memory


def restart_peak_memory(device: str) -> None:
    """Forget a CUDA device's peak; that of a process cannot be forgotten."""
    if device.startswith("cuda"):
        torch.cuda.reset_peak_memory_stats(torch.device(device))


def peak_memory(device: str) -> int:
    """Most memory used so far in bytes: of the device's allocator, or of this process."""
    if device.startswith("cuda"):
        return torch.cuda.max_memory_allocated(torch.device(device))
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
