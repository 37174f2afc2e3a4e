"""Would the tests notice? One place of the code is changed at a time, and its tests are run.

The changes are cosmic-ray's (a number, an operator, a comparison, a keyword, a decorator, a loop):
a random sample of all that it can do to the code that numbers depend on, but for those in type
annotations. A change is killed if a test fails or does not end, and survives otherwise. Survivors
that no test can kill are named with their reason in `mutants_equivalent.yaml`, by the change
itself, and do not count.

The tests near the changed code are run once to learn which of them execute which line. A change is
then tried by the tests that execute its line, the quickest first, up to two minutes of them; one to
what is executed on import by the tests of its folder. So a survivor may still be noticed by slower
tests or by those of whole commands, which are not run: the share that is killed is, if anything,
too low.

    pip install '.[dev,mutation]'
    python benchmarks/studies/mutants.py --sample 100 --json results/studies/mutants.json

Works in a copy of the checkout; what is done is kept in the JSON file, and the same command goes on
after it. A quarter of an hour for the tests, then about half a minute a change on one core.
"""

from __future__ import annotations

import argparse
import ast
import difflib
import json
import os
import random
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import coverage
import parso  # noqa: F401  (before cosmic_ray: its plugins import it in a circle)
import yaml
from cosmic_ray.ast import ast_nodes, get_ast
from cosmic_ray.mutating import mutate_code
from cosmic_ray.plugins import get_operator, operator_names
from rich.console import Console

from ltrobust.results.files import write_atomic

CHECKOUT = Path(__file__).resolve().parents[2]
EQUIVALENT = Path(__file__).with_name("mutants_equivalent.yaml")
SUBJECTS = {
    "ltrobust/losses": [
        "losses",
        "golden_tests",
        "methods/test_margin.py",
        "methods/test_robal.py",
    ],
    "ltrobust/attacks": ["attacks", "golden_tests", "test_context.py", "evaluation"],
    "ltrobust/training": [
        "test_context.py",
        "training",
        "bench/test_profile.py",
        "golden_tests",
        "methods",
    ],
    "ltrobust/evaluation": ["evaluation", "test_api.py"],
    "methods": ["golden_tests", "methods"],
    "ltrobust/data/split.py": ["data", "golden_tests"],
    "ltrobust/data/augment.py": ["data", "training/test_plain_loop.py", "models"],
    "ltrobust/models/folded.py": ["training/test_engine.py", "models", "attacks", "evaluation"],
}
"""What is changed, and the tests below tests/ that should notice, the nearest first."""
NO_TESTS = 5
"""Exit code of pytest where nothing was chosen."""
CONTEXTS = """
import sys
import coverage

def _told(item):
    known = coverage.Coverage.current()
    if sys.gettrace() is None:  # an attack of pyautoattack's ends the tracing
        known.stop()
        known.start()
    known.switch_context(item.nodeid)

pytest_runtest_setup = pytest_runtest_call = pytest_runtest_teardown = _told
"""
"""A plugin of pytest: which test is at work. pytest-cov's own tells it in some processes only."""
ENOUGH = 120.0
"""Seconds of tests that a change is tried by."""
DURATION = re.compile(r"^([0-9.]+)s (?:call|setup) +(\S.*)$", re.MULTILINE)
SECONDS = 3600
"""The longest that the tests of one change may take: an endless loop is noticed too."""


@dataclass(frozen=True)
class Mutant:
    """One change: a file, cosmic-ray's operator, and which of the places it fits."""

    path: str
    operator: str
    occurrence: int
    line: int


@dataclass(frozen=True)
class Verdict:
    """What became of a change."""

    mutant: Mutant
    diff: str
    killed: bool
    by: str


def subjects() -> Iterator[tuple[Path, list[str]]]:
    for name, tests in SUBJECTS.items():
        path = CHECKOUT / name
        for file in sorted(path.glob("*.py")) if path.is_dir() else [path]:
            yield file, tests


def annotation_lines(source: str) -> set[tuple[int, int]]:
    """Positions (line, column) inside type annotations: they are never evaluated."""
    found: set[tuple[int, int]] = set()
    for node in ast.walk(ast.parse(source)):
        for part in (getattr(node, "annotation", None), getattr(node, "returns", None)):
            for inner in ast.walk(part) if isinstance(part, ast.AST) else ():
                if isinstance(inner, ast.expr):
                    for column in range(inner.col_offset, (inner.end_col_offset or 0) + 1):
                        found.add((inner.lineno, column))
    return found


def mutants(file: Path) -> Iterator[Mutant]:
    """All that cosmic-ray can do to a file, but for annotations and what takes arguments."""
    source = file.read_text(encoding="utf-8")
    tree, skipped = get_ast(source), annotation_lines(source)
    for name in operator_names():
        operator = get_operator(name)
        if operator.arguments():
            continue
        places = (start for n in ast_nodes(tree) for start, _ in operator().mutation_positions(n))
        for occurrence, start in enumerate(places):
            if start not in skipped:
                yield Mutant(str(file.relative_to(CHECKOUT)), name, occurrence, start[0])


def sample(count: int, seed: int) -> list[Mutant]:
    """A random sample over all subjects; a place is drawn before one of its changes."""
    places: dict[tuple[str, int], list[Mutant]] = {}
    for file, _ in subjects():
        for mutant in mutants(file):
            places.setdefault((mutant.path, mutant.line), []).append(mutant)
    draw = random.Random(seed)
    chosen = draw.sample(sorted(places), min(count, len(places)))
    return [draw.choice(places[place]) for place in chosen]


def copy_of_checkout(folder: Path) -> None:
    """The files that tests need, with the packages where `import` finds them."""
    for name in ("ltrobust", "methods", "benchmarks", "tests", "docs"):
        shutil.copytree(CHECKOUT / name, folder / name, ignore=shutil.ignore_patterns("*.pyc"))
    for name in ("pyproject.toml", "README.md", "Makefile"):
        shutil.copy(CHECKOUT / name, folder)
    for name in ("methods", "benchmarks"):
        (folder / "ltrobust" / name).symlink_to(folder / name)


class Coverage:
    """Which tests execute a line, and how long each takes.

    Args:
        folder: a copy of the checkout, where the suite is run.
        kept: where what it tells is kept, and read from if it is there.
    """

    def __init__(self, folder: Path, kept: Path) -> None:
        if not kept.exists():
            self._record(folder, kept)
        facts = json.loads(kept.read_text())
        self._tests: dict[str, dict[str, list[int]]] = facts["tests"]
        self._seconds: list[float] = facts["seconds"]
        self._names: list[str] = facts["names"]

    def of(self, mutant: Mutant) -> list[str]:
        """Node ids, the quickest first; none for a line that is executed on import."""
        found = self._tests.get(mutant.path, {}).get(str(mutant.line), [])
        chosen, total = [], 0.0
        for number in sorted(found, key=lambda n: self._seconds[n]):
            total += self._seconds[number]
            if total > ENOUGH and chosen:
                break
            chosen.append(self._names[number])
        return chosen

    @staticmethod
    def _record(folder: Path, kept: Path) -> None:
        data = folder / ".coverage"
        (folder / "contexts.py").write_text(CONTEXTS)
        command = [sys.executable, "-m", "pytest", "-q", "--durations=0", "--durations-min=0"]
        command += sorted({f"tests/{name}" for tests in SUBJECTS.values() for name in tests})
        command += ["--cov=ltrobust", "--cov=methods", "--cov-report=", "-p", "contexts"]
        done = subprocess.run(
            [*command, "-p", "no:cacheprovider", "-vv"],
            cwd=folder,
            env={**os.environ, "PYTHONPATH": paths(folder), "COVERAGE_FILE": str(data)},
            capture_output=True,
            text=True,
        )
        seconds: dict[str, float] = {}
        for took, name in DURATION.findall(done.stdout):
            seconds[name] = seconds.get(name, 0.0) + float(took)
        names = sorted(seconds)
        if not names:
            raise SystemExit(f"the suite did not run:\n{done.stdout[-3000:]}{done.stderr[-3000:]}")
        numbers = {name: number for number, name in enumerate(names)}
        known = coverage.CoverageData(str(data))
        known.read()
        tests: dict[str, dict[str, list[int]]] = {}
        for file in known.measured_files():
            path = Path(file).resolve().relative_to(folder.resolve()).as_posix()
            lines = tests.setdefault(path, {})
            for line, contexts in known.contexts_by_lineno(file).items():
                lines[str(line)] = sorted(numbers[name] for name in contexts if name in numbers)
        facts = {"tests": tests, "names": names, "seconds": [seconds[n] for n in names]}
        write_atomic(kept, json.dumps(facts).encode())


def paths(folder: Path) -> str:
    """The import path with which a copy's own packages are found first."""
    return os.pathsep.join(p for p in (str(folder), os.environ.get("PYTHONPATH", "")) if p)


def verdict(mutant: Mutant, folder: Path, covered: Coverage) -> Verdict:
    """Change a file of a copy, run the tests that should notice, change it back."""
    file = folder / mutant.path
    source = file.read_text(encoding="utf-8")
    operator = get_operator(mutant.operator)()
    changed = mutate_code(source, operator, mutant.occurrence) or source
    lines = difflib.unified_diff(source.splitlines(), changed.splitlines(), lineterm="", n=0)
    diff = "\n".join(list(lines)[3:])
    if named(mutant.path, diff) in equivalents():
        return Verdict(mutant, diff, False, "")
    tests = next(tests for path, tests in subjects() if str(path).endswith(mutant.path))
    executing = covered.of(mutant)
    tried = [executing] if executing else stages(mutant, tests)
    file.write_text(changed, encoding="utf-8")
    try:
        by = next(filter(None, (failing_test(folder, one) for one in tried)), "")
    finally:
        file.write_text(source, encoding="utf-8")
    return Verdict(mutant, diff, by != "", by)


def stages(mutant: Mutant, tests: list[str]) -> Iterator[list[str]]:
    """What is run one after the other: each folder of tests, of `methods` those that name it."""
    for name in tests:
        words = [f"tests/{name}"]
        if name == "methods" and mutant.path.startswith("methods/"):
            stem = Path(mutant.path).stem
            words += ["-k", " or ".join({stem, stem.replace("_", "-"), "recipes"})]
        yield words


def failing_test(folder: Path, tests: list[str]) -> str:
    """The first test that fails, "" if none does."""
    command = [sys.executable, "-m", "pytest", "-x", "-n0", "-q", "-p", "no:cacheprovider", *tests]
    environment = {**os.environ, "PYTHONPATH": paths(folder), "PYTHONDONTWRITEBYTECODE": "1"}
    try:
        done = subprocess.run(
            command, cwd=folder, env=environment, capture_output=True, text=True, timeout=SECONDS
        )
    except subprocess.TimeoutExpired:
        return "did not end"
    if done.returncode in (0, NO_TESTS):
        return ""
    failed = [line for line in done.stdout.splitlines() if line.startswith(("FAILED", "ERROR"))]
    return failed[0].split(" - ")[0].replace(str(folder) + "/", "") if failed else "crashed"


def main() -> None:
    flags = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    flags.add_argument("--sample", type=int, default=100, help="how many changes (%(default)s)")
    flags.add_argument("--seed", type=int, default=0, help="of the sample (%(default)s)")
    flags.add_argument("--jobs", type=int, default=1, help="tests run side by side (%(default)s)")
    flags.add_argument("--json", type=Path, required=True, help="where the verdicts are kept")
    flags.add_argument(
        "--coverage",
        type=Path,
        default=Path("mutants-coverage.json"),
        help="which test executes which line, kept from one command to the next (%(default)s)",
    )
    flags.add_argument("--again", action="store_true", help="run the tests of survivors again")
    asked = flags.parse_args()
    kept = json.loads(asked.json.read_text())["verdicts"] if asked.json.exists() else []
    done = {json.dumps(one["mutant"]): one for one in kept if one["killed"] or not asked.again}
    chosen = sample(asked.sample, asked.seed)
    todo = [one for one in chosen if json.dumps(asdict(one)) not in done]
    with tempfile.TemporaryDirectory() as scratch, ThreadPoolExecutor(asked.jobs) as pool:
        folders = [Path(scratch) / str(number) for number in range(asked.jobs)]
        for folder in folders:
            folder.mkdir()
            copy_of_checkout(folder)
        covered = Coverage(folders[0], asked.coverage)

        def work(mutant: Mutant) -> Verdict:
            folder = folders.pop()
            try:
                return verdict(mutant, folder, covered)
            finally:
                folders.append(folder)

        for one in pool.map(work, todo):
            done[json.dumps(asdict(one.mutant))] = asdict(one)
            write(asked.json, [done[k] for k in map(json.dumps, map(asdict, chosen)) if k in done])
    tell(json.loads(asked.json.read_text()))


def equivalents() -> dict[str, str]:
    """Changes that no test can kill, as `named` tells them, and why; they are not tried."""
    return yaml.safe_load(EQUIVALENT.read_text()) if EQUIVALENT.exists() else {}


def named(path: str, diff: str) -> str:
    """A change of a file."""
    return f"{path}\n{diff}"


def write(file: Path, verdicts: list[dict[str, Any]]) -> None:
    reasons = equivalents()
    counted = [
        one
        for one in verdicts
        if one["killed"] or named(one["mutant"]["path"], one["diff"]) not in reasons
    ]
    killed = sum(bool(one["killed"]) for one in counted)
    summary = {
        "sampled": len(verdicts),
        "equivalent": len(verdicts) - len(counted),
        "killed": killed,
        "share_killed": killed / max(1, len(counted)),
    }
    write_atomic(file, (json.dumps({**summary, "verdicts": verdicts}, indent=1) + "\n").encode())


def tell(report: dict[str, object]) -> None:
    console = Console()
    verdicts = report["verdicts"]
    assert isinstance(verdicts, list)
    for one in verdicts:
        if not one["killed"]:
            where = f"{one['mutant']['path']}:{one['mutant']['line']}"
            console.print(f"survives: {where}\n{one['diff']}", markup=False, highlight=False)
    console.print({key: value for key, value in report.items() if key != "verdicts"})


if __name__ == "__main__":
    main()
