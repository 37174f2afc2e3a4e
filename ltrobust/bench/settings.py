"""What a user asks for: the flags of `bench`, the keys of a suite file, checked and typed.

A suite file's keys are the long flags with underscores; flags override it. Every mistake becomes
one `UserError` line. What the settings mean for each run is `plan`'s business.
"""

from __future__ import annotations

import itertools
import math
import re
from collections.abc import Iterable
from importlib.resources import files
from itertools import chain
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, Field, ValidationError, field_validator

from ltrobust.config import Frozen, Radius
from ltrobust.data import DATASETS, DEFAULT_DATASET, LOCAL_PREFIXES, NATURAL, data_label
from ltrobust.data.spec import AugmentPolicy
from ltrobust.errors import UserError, unknown
from ltrobust.plugins import load_plugin
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

SAVED_EVERY, SAVED_EVERY_SHARED = 30.0, 300.0
"""Seconds between two saved states: many machines that write hundreds of megabytes each after every
epoch are too much for the file system that they share."""

Names = Annotated[tuple[str, ...], BeforeValidator(_split_items)]
Seeds = Annotated[tuple[int, ...], BeforeValidator(_seeds), AfterValidator(_once)]
Ratios = Annotated[
    tuple[float | Literal["natural"], ...], BeforeValidator(_split_items), AfterValidator(_once)
]
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
    recipe: Literal["unified", "fast", "paper"] = "unified"
    augment: AugmentPolicy | None = None
    select: Literal["last", "best", "best-on-test", "val"] = "last"
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
    devices_per_run: Positive = 1
    profile: bool = False
    watch: Names | None = None
    watch_every: Positive = 5
    save_every: Annotated[float, Field(ge=0)] | None = None
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
    launcher: Literal["local", "slurm", "ray"] | None = None
    jobs: Positive | None = None
    at_once: Positive | None = None
    detach: bool = False
    slurm: Options = ()

    @field_validator("imbalance_ratio")
    @classmethod
    def _ratio_is_at_least_one(
        cls, ratios: tuple[float | Literal["natural"], ...] | None
    ) -> tuple[float | Literal["natural"], ...] | None:
        for ratio in ratios or ():
            if ratio != NATURAL and not (math.isfinite(ratio) and ratio >= 1):
                raise ValueError(f"must be a number >= 1 (n_max / n_min) or natural, got {ratio}")
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
    def remote(self) -> bool:
        """Whether the runs are done on other machines than the one that plans them."""
        return self.launcher not in (None, "local")

    @property
    def saving(self) -> float:
        """Seconds of training that a kill may cost."""
        if self.save_every is not None:
            return self.save_every
        return SAVED_EVERY_SHARED if self.remote else SAVED_EVERY

    @property
    def output_dir(self) -> Path:
        """The suite's directory."""
        if self.output is not None:
            return self.output
        label = data_label(self.dataset)
        local = label.startswith(LOCAL_PREFIXES)
        return Path("results") / (label.partition(":")[2] if local else label).strip("/").replace(
            ":", "-"
        )


def make_settings(flags: dict[str, Any], suite: Path | None = None) -> Settings:
    """`make_cells` where there must be one cell.

    Raises:
        UserError: as `make_cells`, or there are several.
    """
    cells = make_cells(flags, suite)
    if len(cells) > 1:
        raise UserError(
            f"these settings make a grid of {len(cells)} cells, and one is expected; give one "
            "dataset, one arch and one value of each option"
        )
    return cells[0]


def make_cells(flags: dict[str, Any], suite: Path | None = None) -> tuple[Settings, ...]:
    """Combine a suite file with flags, and multiply out what is given several times.

    Flags win, and those that are None do not count. Data sets, architectures and the values of each
    option multiply; a suite's `grid` is a list of blocks, whose keys win over the suite's own.
    All cells have one output directory. Plugins are loaded.

    Raises:
        UserError: the file is missing or not YAML, a key is unknown, a value is out of range, or a
            plugin cannot be loaded.
    """
    given: dict[str, Any] = {} if suite is None else read_suite(suite)
    blocks = _blocks(given.pop(GRID, [{}]), suite)
    typed = {key: value for key, value in flags.items() if value is not None}
    if suite is not None:
        given.setdefault("output", Path("results") / suite.stem)
    for path in _plugins({**given, **typed}):
        load_plugin(path)
    cells = [cell for block in blocks for cell in _multiplied({**given, **block, **typed})]
    try:
        made = [Settings.model_validate(cell) for cell in cells]
    except ValidationError as error:
        raise _as_user_error(error) from None
    if made[0].output is None and len(made) > 1:
        names = "+".join(dict.fromkeys(cell.output_dir.name for cell in made))
        made = [cell.model_copy(update={"output": Path("results") / names}) for cell in made]
    return _once(made)


def _plugins(given: dict[str, Any]) -> tuple[Path, ...]:
    """The files of plugins: they may hold data sets, by whose names the rest is read."""
    asked = {key: value for key, value in given.items() if key == "plugin"}
    try:
        return Settings.model_validate(asked).plugin
    except ValidationError as error:
        raise _as_user_error(error) from None


GRID = "grid"
FOR_ALL = (
    *("output", "overwrite", "device", "threads", "plugin", "data_dir", "download"),
    *("profile", "no_checks", "grad_checkpointing", "micro_batch", "devices_per_run"),
    *("watch", "watch_every", "save_every", "no_capture", "no_estimate", "no_report"),
    *("launcher", "jobs", "at_once", "detach", "slurm"),
)
"""Settings that are the same in all blocks of a grid."""


def _blocks(content: Any, suite: Path | None) -> list[dict[str, Any]]:
    """The blocks of a grid; UserError unless they are mappings of settings."""
    if not (isinstance(content, list) and content and all(isinstance(b, dict) for b in content)):
        raise UserError(f"suite {suite}: {GRID} must be a list of blocks such as '- dataset: a,b'")
    allowed = [key for key in Settings.model_fields if key not in FOR_ALL]
    for key in (key for block in content for key in block):
        if key in FOR_ALL:
            raise UserError(f"suite {suite}: '{key}' is one for all blocks; move it above {GRID}")
        if key not in allowed:
            raise unknown(f"key in {GRID} of suite {suite}:", key, allowed)
    return content


def _multiplied(given: dict[str, Any]) -> list[dict[str, Any]]:
    """One mapping for each combination of data set, architecture and values of options."""
    axes: dict[str, list[Any]] = {
        "dataset": [n for item in _listed(given.get("dataset")) for n in _datasets(item)],
        "arch": [a for item in _listed(given.get("arch")) for a in _commas(item, ARCH_COMMA)],
    }
    axes = {key: values for key, values in axes.items() if values}
    options = _listed(given.get("option"))
    if options and all(isinstance(option, str) for option in options):
        texts = [text for option in options for text in OPTION_COMMA.split(option)]
        chosen = itertools.product(*(_values(text) for text in texts))
        axes["option"] = [list(choice) for choice in chosen]
    return [
        {**given, **dict(zip(axes, choice, strict=True))}
        for choice in itertools.product(*axes.values())
    ]


def _listed(value: Any) -> list[Any]:
    return [] if value is None else list(value) if isinstance(value, list | tuple) else [value]


def _commas(item: Any, comma: re.Pattern[str]) -> list[Any]:
    return [part.strip() for part in comma.split(item)] if isinstance(item, str) else [item]


def _datasets(item: Any) -> list[Any]:
    """Split "a,b"; a comma in the path of data of the user's own is one of the path."""
    if not (isinstance(item, str) and any(prefix in item for prefix in LOCAL_PREFIXES)):
        return _commas(item, ARCH_COMMA)
    starts = "|".join([*LOCAL_PREFIXES, *{name.partition(":")[0] for name in DATASETS}])
    return _commas(item, re.compile(rf",(?=\s*(?:{starts}))"))


def _values(option: str) -> list[str]:
    """Each value of "owner.key=1,2" as an option of its own; commas in brackets are the value's."""
    name, equals, values = option.partition("=")
    return [f"{name}{equals}{value.strip()}" for value in VALUE_COMMA.split(values)]


ARCH_COMMA = re.compile(",")
OPTION_COMMA = re.compile(r",(?=\s*[a-z][a-z0-9-]*\.[a-z_.]+\s*=)")
VALUE_COMMA = re.compile(r",(?![^\[{]*[\]}])")


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
    known = [*Settings.model_fields, GRID]
    for key in content:
        if key not in known:
            raise unknown(f"key in suite {path}:", key, known)
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
