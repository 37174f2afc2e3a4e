"""What stands around the code agrees with it: workflows, forms, lock file, container, make."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

import ltrobust.config
from ltrobust.submission import LICENSES

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
DECLARED = [
    Requirement(text)
    for text in (*PROJECT["dependencies"], *PROJECT["optional-dependencies"]["dev"])
]
MAKEFILE = (ROOT / "Makefile").read_text(encoding="utf-8")
TARGETS = set(re.findall(r"^(\w+):", MAKEFILE, re.M))
FORMS = sorted((ROOT / ".github/ISSUE_TEMPLATE").glob("[!c]*.yml"))
WORKFLOWS = sorted((ROOT / ".github/workflows").glob("*.yml"))


def read(file: Path) -> Any:
    return yaml.safe_load(file.read_text(encoding="utf-8"))


def steps(workflow: Path) -> list[dict[str, Any]]:
    return [step for job in read(workflow)["jobs"].values() for step in job["steps"]]


def locked() -> dict[str, str]:
    text = (ROOT / "requirements-ci.lock").read_text(encoding="utf-8")
    lines = [line for line in text.splitlines() if not line.startswith("#")]
    return dict(line.split("==") for line in lines)


@pytest.mark.parametrize("requirement", DECLARED, ids=lambda requirement: requirement.name)
def test_the_lock_file_holds_an_allowed_version(requirement: Requirement) -> None:
    version = locked()[canonicalize_name(requirement.name)]
    assert requirement.specifier.contains(version, prereleases=True)


@pytest.mark.parametrize("workflow", WORKFLOWS, ids=lambda file: file.stem)
def test_workflows_call_what_is_there(workflow: Path) -> None:
    commands = "\n".join(step.get("run", "") for step in steps(workflow))
    assert set(re.findall(r"^make (\w+)", commands, re.M)) <= TARGETS
    for extra in re.findall(r"'\.\[([\w,]+)\]'", commands):
        assert set(extra.split(",")) <= PROJECT["optional-dependencies"].keys()
    assert read(workflow)["permissions"] == {"contents": "read"}
    for job in read(workflow)["jobs"].values():
        assert {"runs-on", "steps"} <= job.keys()


def test_tests_run_on_every_python_that_is_declared() -> None:
    matrix = read(ROOT / ".github/workflows/tests.yml")["jobs"]["tests"]["strategy"]["matrix"]
    tested = {entry["python"] for entry in matrix["include"]}
    classifiers = " ".join(PROJECT["classifiers"])
    assert tested == set(re.findall(r"Python :: (3\.\d+)", classifiers))
    assert min(tested) == PROJECT["requires-python"].removeprefix(">=")
    assert {entry["torch"] for entry in matrix["include"]} == {"lowest", "locked", "newest"}


@pytest.mark.parametrize("form", FORMS, ids=lambda file: file.stem)
def test_issue_forms_are_whole(form: Path) -> None:
    content = read(form)
    assert {"name", "description", "body"} <= content.keys()
    ids = [part["id"] for part in content["body"] if part["type"] != "markdown"]
    assert len(set(ids)) == len(ids)
    for part in content["body"]:
        assert part["type"] in ("markdown", "input", "textarea", "dropdown", "checkboxes")
        assert part["type"] == "markdown" or part["attributes"]["label"]


def test_the_form_for_results_offers_the_licences_that_submit_takes() -> None:
    body = read(ROOT / ".github/ISSUE_TEMPLATE/result.yml")["body"]
    (offered,) = [part for part in body if part.get("id") == "license"]
    assert tuple(offered["attributes"]["options"]) == LICENSES


def test_the_container_installs_what_the_package_asks_for() -> None:
    text = (ROOT / "Dockerfile").read_text(encoding="utf-8")
    for name in ("torch", "torchvision"):
        (declared,) = [text for text in PROJECT["dependencies"] if Requirement(text).name == name]
        assert f'"{declared}"' in text
    copied = (ROOT / ".dockerignore").read_text(encoding="utf-8")
    for name in re.findall(r"^!(\S+)", copied, re.M):
        assert (ROOT / name).exists()


def test_make_help_tells_every_target() -> None:
    told = set(re.findall(r"^#   make (\w+)", MAKEFILE, re.M))
    (phony,) = re.findall(r"^\.PHONY: (.*)$", MAKEFILE, re.M)
    assert told == set(phony.split()) == TARGETS


def test_commit_hooks_are_tools_of_the_development_environment() -> None:
    names = {requirement.name for requirement in DECLARED}
    (local,) = read(ROOT / ".pre-commit-config.yaml")["repos"]
    hooks = {hook["entry"].split()[0] for hook in local["hooks"]}
    assert hooks == {"ruff", "codespell", "mypy"}
    assert hooks <= names
    (check,) = re.findall(r"^check:.*\n((?:\t.*\n)+)", MAKEFILE, re.M)
    assert set(re.findall(r"\$\(BIN\)/(\w+)", check)) == hooks


def test_the_pull_request_template_names_what_is_there() -> None:
    text = (ROOT / ".github/pull_request_template.md").read_text(encoding="utf-8")
    for name in re.findall(r"`([A-Z_]+)`", text):
        assert isinstance(getattr(ltrobust.config, name), int)
