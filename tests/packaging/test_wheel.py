"""The built wheel is complete: it works outside the checkout and carries nothing that is not code.

Building needs setuptools and setuptools-scm from the package index (pip's build isolation); without
it these skip.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SCM = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools_scm"]
VERSION = SCM["fallback_version"]
"""Of sources without git; a checkout's comes from its tags."""
NOT_FETCHED = ("No matching distribution found", "Could not find a version")
PROBE = """
import json, ltrobust, ltrobust.benchmarks, ltrobust.methods
from importlib.metadata import version
files = [ltrobust.__file__, ltrobust.methods.__file__, ltrobust.benchmarks.__file__]
print(json.dumps({"files": files, "version": version("ltrobust")}))
"""


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, built from a copy so that no build folder of the checkout gets in or is left."""
    folder = tmp_path_factory.mktemp("wheel")
    source = folder / "source"
    skipped = shutil.ignore_patterns("__pycache__", "*.egg-info", ".*", "build", "dist")
    for name in ("ltrobust", "methods", "benchmarks", "tests", "docs", "results"):
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, source / name, ignore=skipped)
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source / name)
    command = [sys.executable, "-m", "pip", "wheel", str(source), "--no-deps", "-w", str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    if done.returncode and any(text in done.stderr for text in NOT_FETCHED):
        pytest.skip("setuptools and setuptools-scm cannot be fetched from the index")
    assert done.returncode == 0, done.stdout + done.stderr
    (built,) = folder.glob("*.whl")
    return built


@pytest.fixture(scope="module")
def site(wheel: Path) -> Path:
    """A folder with the wheel installed, without its dependencies."""
    target = wheel.parent / "site"
    command = [sys.executable, "-m", "pip", "install", "--no-deps", "--quiet"]
    subprocess.run([*command, "--target", str(target), str(wheel)], check=True, timeout=300)
    return target


def run(site: Path, folder: Path, *words: str) -> str:
    """Run Python outside the checkout with the installed wheel first on its path."""
    env = {**os.environ, "PYTHONPATH": str(site), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, *words]
    done = subprocess.run(command, cwd=folder, env=env, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.slow
def test_wheel_has_the_suites_the_methods_and_the_typing_marker(wheel: Path) -> None:
    names = set(zipfile.ZipFile(wheel).namelist())
    shipped = [
        ("ltrobust", "*.py"),
        ("ltrobust", "*.yaml"),
        ("ltrobust", "templates/*"),
        ("ltrobust", "data/*.npz"),
        ("methods", "*.py"),
        ("benchmarks", "*.yaml"),
        ("benchmarks", "*.csv"),
    ]
    expected = {"ltrobust/py.typed"}
    for folder, pattern in shipped:
        inside = "ltrobust" if folder == "ltrobust" else f"ltrobust/{folder}"
        for file in (ROOT / folder).rglob(pattern):
            expected.add(f"{inside}/{file.relative_to(ROOT / folder).as_posix()}")
    assert "ltrobust/methods/pgd_at.py" in expected
    assert "ltrobust/benchmarks/cifar10-lt-cpu.yaml" in expected
    assert "ltrobust/benchmarks/papers/published_numbers.csv" in expected
    assert "ltrobust/report/templates/page.html.j2" in expected
    assert expected <= names


@pytest.mark.slow
def test_wheel_has_no_tests_and_no_results(wheel: Path) -> None:
    names = zipfile.ZipFile(wheel).namelist()
    assert {name.split("/")[0] for name in names} == {"ltrobust", f"ltrobust-{VERSION}.dist-info"}
    kinds = {Path(name).suffix for name in names if name.startswith("ltrobust/")}
    assert kinds == {".py", ".typed", ".yaml", ".csv", ".npz", ".json", ".j2", ".css", ".js"}
    assert not [name for name in names if "test_" in name or "conftest" in name]


@pytest.mark.slow
def test_installed_package_comes_from_the_wheel(site: Path, tmp_path: Path) -> None:
    found = json.loads(run(site, tmp_path, "-c", PROBE))
    assert all(Path(file).is_relative_to(site) for file in found["files"]), found
    assert found["version"] == VERSION


@pytest.mark.slow
def test_installed_bench_plans_all_methods(site: Path, tmp_path: Path) -> None:
    plan = json.loads(run(site, tmp_path, "-m", "ltrobust", "bench", "--dry-run", "--json"))
    methods = {planned["config"]["method"] for planned in plan["runs"]}
    assert methods == {"pgd-at", "trades", "robal-r", "at-bsl", "taet"}
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_installed_bench_finds_the_shipped_suite(site: Path, tmp_path: Path) -> None:
    words = ("bench", "--suite", "cifar10-lt-cpu", "--dry-run", "--json")
    plan = json.loads(run(site, tmp_path, "-m", "ltrobust", *words))
    assert {planned["config"]["data"]["name"] for planned in plan["runs"]} == {"cifar10-lt"}
    assert Path(plan["output"]) == Path("results/cifar10-lt-cpu")
