"""Every package that is imported is declared, so that an installation has it."""

from __future__ import annotations

import ast
import functools
import re
import sys
import tomllib
from collections.abc import Iterable, Iterator
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]


def distribution(requirement: str) -> str:
    """The normalized name of the distribution that a requirement or a name stands for."""
    match = re.match(r"[\w.-]+", requirement)
    assert match is not None
    return re.sub(r"[-_.]+", "-", match.group()).lower()


def declared(*extras: str) -> set[str]:
    optional = PROJECT["optional-dependencies"]
    parts = [PROJECT["dependencies"], *(optional[extra] for extra in extras)]
    return {distribution(one) for part in parts for one in part}


def imported(files: Iterable[Path]) -> Iterator[tuple[str, str]]:
    """Top-level modules with the place of their import, wherever in a file that stands."""
    for file in files:
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom) and node.level == 0:
                names = [node.module or ""]
            else:
                continue
            for name in names:
                yield name.partition(".")[0], f"{file.relative_to(ROOT)}:{node.lineno}"


PROVIDED_BY = {"mlflow": ["mlflow-skinny"]}
"""Of modules that need not be installed and are not called after their distribution."""
installed = functools.cache(packages_distributions)
"""Names of the distributions that each top-level module comes from."""


def undeclared(folders: Iterable[str], known: set[str]) -> list[str]:
    files = [file for folder in folders for file in sorted((ROOT / folder).rglob("*.py"))]
    scripts = [file for file in files if not (file.parent / "__init__.py").is_file()]
    own = {"ltrobust", *(file.stem for file in scripts)}
    found = {**PROVIDED_BY, **installed()}
    return [
        f"{module} in {place}"
        for module, place in imported(files)
        if module not in sys.stdlib_module_names | own
        and not known
        & {distribution(name) for name in found.get(module, PROVIDED_BY.get(module, [module]))}
    ]


@pytest.mark.parametrize(
    ("folders", "extras"),
    [
        (("ltrobust", "methods"), ("medmnist", "ray", "timm", "trackers")),
        (("tests",), ("dev", "trackers")),
        (("benchmarks",), ("dev", "mutation")),
    ],
)
def test_every_import_is_declared(folders: tuple[str, ...], extras: tuple[str, ...]) -> None:
    assert undeclared(folders, declared(*extras)) == []


@pytest.mark.parametrize("name", ["scipy", "markupsafe", "scikit-learn", "pyyaml"])
def test_an_import_that_is_not_declared_is_found(name: str) -> None:
    assert undeclared(["ltrobust", "methods"], declared("trackers") - {name})
