"""What a user asks for: the flags of `bench`, the keys of a suite file, checked and typed.

A suite file's keys are the long flags with underscores; flags override it. Every mistake becomes
one `UserError` line. What the settings mean for each run is `plan`'s business.
"""

from __future__ import annotations

import math
import re
from importlib.resources import files
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import BeforeValidator, Field, ValidationError, field_validator

from ltrobust.config import Frozen
from ltrobust.data import DEFAULT_DATASET
from ltrobust.data.augment import AugmentPolicy
from ltrobust.errors import UserError, unknown

DEFAULT_ATTACKS = ("clean", "pgd20", "autoattack")


def _items(value: Any) -> Any:
    """Split "a,b" into its items; lists stay; an empty item is an error."""
    if isinstance(value, str):
        value = [item.strip() for item in value.split(",")]
    elif not isinstance(value, list | tuple):
        value = [value]
    if any(isinstance(item, list | dict) for item in value):
        raise ValueError("must be a plain list such as [a, b]")
    if not value or any(item == "" for item in value):
        raise ValueError("holds an empty item; write a,b without spare commas")
    return tuple(dict.fromkeys(value))


def _items_or_none(value: Any) -> Any:
    """The same, and an empty list is none at all."""
    return () if value in ([], ()) else _items(value)


Names = Annotated[tuple[str, ...], BeforeValidator(_items)]
Seeds = Annotated[tuple[int, ...], BeforeValidator(_items)]
Ratios = Annotated[tuple[float, ...], BeforeValidator(_items)]
Paths = Annotated[tuple[Path, ...], BeforeValidator(_items_or_none)]
Options = Annotated[tuple[str, ...], BeforeValidator(_items_or_none)]
Positive = Annotated[int, Field(ge=1)]


class Settings(Frozen):
    """Everything `ltrobust bench` can be told. None means: the data set's or recipe's own value."""

    methods: Names = ("all",)
    dataset: str = DEFAULT_DATASET
    imbalance_ratio: Ratios | None = None
    imbalance_type: Literal["exp", "step"] = "exp"
    split_seed: Annotated[int, Field(ge=0, le=2**32 - 1)] = 0
    limit_train: Positive | None = None
    limit_test: Positive | None = None
    test_protocol: Literal["balanced", "long-tailed"] = "balanced"
    arch: str | None = None
    recipe: Literal["unified", "paper"] = "unified"
    augment: AugmentPolicy | None = None
    select: Literal["last", "best", "best-on-test"] = "last"
    epochs: Positive | None = None
    batch_size: Positive | None = None
    eps: Annotated[float, Field(ge=0, le=1)] | None = None
    seeds: Seeds = (0,)
    attacks: Names = DEFAULT_ATTACKS
    attack_seed: Annotated[int, Field(ge=0, le=2**32 - 1)] = 0
    search: Literal["fp32", "bf16"] = "fp32"
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    device: str = "auto"
    grad_checkpointing: bool = False
    micro_batch: Positive | None = None
    profile: bool = False
    no_checks: bool = False
    data_dir: Path | None = None
    download: bool = False
    option: Options = ()
    plugin: Paths = ()
    output: Path | None = None
    overwrite: Literal["never", "failed", "all"] = "failed"

    @field_validator("imbalance_ratio")
    @classmethod
    def _ratio_is_at_least_one(cls, ratios: tuple[float, ...] | None) -> tuple[float, ...] | None:
        for ratio in ratios or ():
            if not (math.isfinite(ratio) and ratio >= 1):
                raise ValueError(f"must be a number >= 1 (n_max / n_min), got {ratio}")
        return ratios

    @field_validator("seeds")
    @classmethod
    def _seeds_are_not_negative(cls, seeds: tuple[int, ...]) -> tuple[int, ...]:
        if min(seeds) < 0:
            raise ValueError(f"must be integers >= 0, got {min(seeds)}")
        return seeds

    def overrides(self) -> dict[str, Any]:
        """The values the user set in place of the recipe's or the data set's own."""
        names = {"arch", "epochs", "batch_size", "eps", "augment", "option", "imbalance_ratio"}
        return self.model_dump(mode="json", include=names, exclude_defaults=True)

    @property
    def output_dir(self) -> Path:
        """The suite's directory."""
        return self.output or Path("results") / _slug(self.dataset)


def _slug(dataset: str) -> str:
    """A folder's name for a data set: its own, or that of the image folder."""
    if dataset.startswith("folder:"):
        return Path(dataset.removeprefix("folder:")).expanduser().resolve().name or "folder"
    return dataset


def make_settings(flags: dict[str, Any], suite: Path | None = None) -> Settings:
    """Combine a suite file with flags; flags win, and flags that are None do not count.

    Raises:
        UserError: the file is missing or not YAML, a key is unknown, or a value is out of range.
    """
    given = {} if suite is None else read_suite(suite)
    given.update({key: value for key, value in flags.items() if value is not None})
    if suite is not None and "output" not in given:
        given["output"] = Path("results") / suite.stem
    try:
        return Settings.model_validate(given)
    except ValidationError as error:
        raise _as_user_error(error) from None


def read_suite(path: Path) -> dict[str, Any]:
    """Read a suite file: a mapping of setting names to values.

    A bare name such as `cifar10-lt-cpu` means the suite of that name that ships with the package.
    """
    file = path if path.is_file() else _shipped(path)
    if file is None:
        raise UserError(
            f"suite {path}: no such file; shipped suites: {', '.join(shipped_suites()) or 'none'}"
        )
    try:
        content = yaml.safe_load(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise UserError(f"suite {path} cannot be read: {error.strerror}") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        reason = " ".join(str(error).split())
        raise UserError(f"suite {path} is not valid YAML: {reason}") from None
    if content is None:
        return {}
    if not isinstance(content, dict):
        raise UserError(f"suite {path} must be a mapping such as 'dataset: digits-lt'")
    for key in content:
        if key not in Settings.model_fields:
            raise unknown(f"key in suite {path}:", key, Settings.model_fields)
    return content


def shipped_suites() -> list[str]:
    """Names of the suites that ship with the package."""
    return sorted(path.stem for path in _shipped_folder().glob("*.yaml"))


def _shipped_folder() -> Path:
    return Path(str(files("ltrobust.benchmarks")))


def _shipped(path: Path) -> Path | None:
    file = _shipped_folder() / f"{path.name.removesuffix('.yaml')}.yaml"
    return file if path.parent == Path() and file.is_file() else None


def _as_user_error(error: ValidationError) -> UserError:
    """The first problem, in one line and in the user's words."""
    problem = error.errors()[0]
    key = str(problem["loc"][0])
    if problem["type"] == "extra_forbidden":
        return unknown("setting", key, Settings.model_fields)
    if problem["type"] == "literal_error":
        choices = re.findall(r"'([^']*)'", problem["ctx"]["expected"])
        return unknown(key.replace("_", " "), problem["input"], choices)
    text = problem["msg"].removeprefix("Value error, ")
    given = "" if problem["type"] == "value_error" else f", got {problem['input']!r}"
    text = text[0].lower() + text[1:]
    return UserError(f"--{key.replace('_', '-')}: {text.removeprefix('input ')}{given}")
