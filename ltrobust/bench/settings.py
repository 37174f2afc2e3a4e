"""What a user asks for: the flags of `bench`, the keys of a suite file, checked and typed.

A suite file's keys are the long flags with underscores; flags override it. Every mistake becomes
one `UserError` line. What the settings mean for each run is `plan`'s business.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable
from importlib.resources import files
from itertools import chain
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, Field, ValidationError, field_validator

from ltrobust.config import Frozen, Radius
from ltrobust.data import DEFAULT_DATASET, FOLDER_PREFIX, data_label
from ltrobust.data.augment import AugmentPolicy
from ltrobust.errors import UserError, unknown
from ltrobust.yaml_files import read_mapping

DEFAULT_ATTACKS = ("clean", "pgd20", "autoattack")


def _items(value: Any) -> Any:
    """Split "a,b" into its items; lists stay; an empty item is an error."""
    if isinstance(value, str):
        value = [item.strip() for item in value.split(",")]
    elif isinstance(value, dict) or not isinstance(value, Iterable):
        value = [value]
    value = list(value)
    if any(isinstance(item, list | tuple | dict | bool) for item in value):
        raise ValueError("must be a plain list such as [a, b]")
    if not value or any(item == "" for item in value):
        raise ValueError("holds an empty item; write a,b without spare commas")
    return _once(value)


def _split_items(value: Any) -> Any:
    """The same, and the items of a list are split too, as those of a flag that is repeated."""
    parts = (_items(item) if isinstance(item, str) else (item,) for item in _items(value))
    return _once(chain.from_iterable(parts))


def _items_or_none(value: Any) -> Any:
    """The items, where an empty list is none at all."""
    return () if value in ([], ()) else _items(value)


def _seeds(value: Any) -> Any:
    """Items, of which "2-4" stands for 2, 3 and 4."""
    seeds: list[Any] = []
    for item in _split_items(value):
        ends = RANGE.fullmatch(item) if isinstance(item, str) else None
        if ends is None:
            seeds.append(item)
            continue
        first, last = int(ends["first"]), int(ends["last"])
        if not first <= last < first + MOST_SEEDS:
            raise ValueError(
                f"'{item}' is no range of seeds; write the smaller first, as in 0-4, and no more "
                f"than {MOST_SEEDS:,} of them"
            )
        seeds += range(first, last + 1)
    return tuple(seeds)


def _once(values: Iterable[Any]) -> tuple[Any, ...]:
    """Leave out what stands there before, however it was written."""
    return tuple(dict.fromkeys(values))


RANGE = re.compile(r"(?P<first>[0-9]{1,18})\s*[-–]\s*(?P<last>[0-9]{1,18})")
MOST_SEEDS = 1000

Names = Annotated[tuple[str, ...], BeforeValidator(_split_items)]
Seeds = Annotated[tuple[int, ...], BeforeValidator(_seeds), AfterValidator(_once)]
Ratios = Annotated[tuple[float, ...], BeforeValidator(_split_items), AfterValidator(_once)]
Paths = Annotated[tuple[Path, ...], BeforeValidator(_items_or_none)]
Options = Annotated[tuple[str, ...], BeforeValidator(_items_or_none)]
Positive = Annotated[int, Field(ge=1)]
Threads = Annotated[int, Field(ge=1, le=1024)]


class Settings(Frozen):
    """Everything `ltrobust bench` can be told. None means: the data set's or recipe's own value."""

    methods: Names = ("core",)
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
    eps: Radius | None = None
    seeds: Seeds = (0,)
    attacks: Names = DEFAULT_ATTACKS
    attack_seed: Annotated[int, Field(ge=0, le=2**32 - 1)] = 0
    search: Literal["fp32", "bf16"] = "fp32"
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    device: str = "auto"
    threads: Threads | None = None
    grad_checkpointing: bool = False
    micro_batch: Positive | None = None
    profile: bool = False
    watch: Names | None = None
    watch_every: Positive = 5
    save_every: Annotated[float, Field(ge=0)] = 30.0
    no_capture: bool = False
    no_checks: bool = False
    no_estimate: bool = False
    no_report: bool = False
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
        names |= {"test_protocol", "limit_test", "search"}  # a further evaluation takes them too
        return self.model_dump(mode="json", include=names, exclude_defaults=True)

    @property
    def output_dir(self) -> Path:
        """The suite's directory."""
        return self.output or Path("results") / data_label(self.dataset).removeprefix(FOLDER_PREFIX)


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
    content = read_mapping(file, f"suite {path}")
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
    hint = "; it is in [0, 1] image units, such as 8/255" if key == "eps" else ""
    return UserError(f"--{key.replace('_', '-')}: {text.removeprefix('input ')}{given}{hint}")
