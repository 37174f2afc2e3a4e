"""What a run is: frozen, validated settings, and the keys made from them.

A `Run` holds everything that changes the weights, and its id is a hash of exactly that. An
`AttackSpec` holds everything that changes verdicts. This module loads no data and builds no model.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationInfo,
    field_validator,
)

from ltrobust.data.augment import AugmentPolicy
from ltrobust.data.spec import LOCAL_PREFIXES
from ltrobust.training.schedule import Schedule

SCHEMA = 1
"""Part of every key: raise it when the meaning of a stored field changes."""
ATTACK_PROTOCOL = 1
"""Raise it by hand when an attack of the same name and settings gives other verdicts than before.

Results of different numbers are never compared. The version of the package says nothing of that: it
changes with every commit.
"""

Start = Literal["uniform", "uniform-clipped", "one-sided", "gaussian", "none"]
"""uniform(-eps, eps), of which the first gradient is taken as it is, or clipped to [0, 1];
uniform(0, eps) as RoBal's code; 0.001 * N(0, 1) as TRADES; no offset."""


NUMBER = r"-?(?:[0-9]+\.?[0-9]*|\.[0-9]+)"
FRACTION = re.compile(rf"\s*({NUMBER})\s*/\s*({NUMBER})\s*")


def fraction(value: Any) -> Any:
    """Turn text such as "8/255" into its value and leave all else as it is.

    Raises:
        ValueError: it divides by 0.
    """
    match = FRACTION.fullmatch(value) if isinstance(value, str) else None
    if match is None:
        return value
    over, under = map(float, match.groups())
    if under == 0:
        raise ValueError(f"'{value}' divides by 0")
    return over / under


Radius = Annotated[float, BeforeValidator(fraction), Field(ge=0, le=1)]
"""An L-inf radius in [0, 1] image units; text such as "8/255" is taken too."""


class Frozen(BaseModel):
    """Immutable settings; unknown keys and wrong types are errors."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    @field_validator("*", mode="before")
    @classmethod
    def _true_is_no_number(cls, value: Any, info: ValidationInfo) -> Any:
        """Keep pydantic from reading true as 1."""
        if (
            isinstance(value, bool)
            and cls.model_fields[str(info.field_name)].annotation is not bool
        ):
            raise ValueError(f"must not be {str(value).lower()}")
        return value


class TrainingAttack(Frozen):
    """The inner maximisation of adversarial training, in [0, 1] image units.

    Attributes:
        eps: radius of the ball.
        step_size: length of a step.
        steps: number of gradient steps.
        start: kind of random start.
        start_scale: factor of a uniform start.
        project: keep images within eps; False clips them to [0, 1] only, which with one step of
            eps from a start of 2 eps is N-FGSM (de Jorge et al., NeurIPS 2022, eq. 5).
    """

    eps: Radius
    step_size: Annotated[float, BeforeValidator(fraction), Field(ge=0)]
    steps: int = Field(ge=0)
    start: Start = "uniform"
    start_scale: float = Field(default=1.0, gt=0)
    project: bool = True


class Recipe(Frozen):
    """Everything about optimisation that is not the defense itself."""

    epochs: int = Field(ge=1)
    batch_size: int = Field(ge=1)
    lr: float = Field(gt=0)
    momentum: float = Field(ge=0, lt=1)
    nesterov: bool
    weight_decay: float = Field(ge=0)
    schedule: Schedule
    attack: TrainingAttack
    augment: AugmentPolicy = "none"
    drop_last: bool = True


class DataSpec(Frozen):
    """Which training images a run sees.

    The `name` of a user's own data is there to be read: the content, `fingerprint`, counts. Without
    `imbalance_ratio` all images are kept.
    """

    name: str
    imbalance_ratio: float | None
    imbalance_type: Literal["exp", "step"] = "exp"
    split_seed: int = 0
    limit_train: int | None = None
    fingerprint: str = ""


class TestSpec(Frozen):
    """Which test images a run is judged on."""

    __test__ = False  # pytest: not a test class

    protocol: Literal["balanced", "long-tailed"] = "balanced"
    limit: int | None = None


class Run(Frozen):
    """One training run. Two runs with equal fields end with equal weights (same machine kind).

    `select_on` is set only where the test images themselves choose the checkpoint. `method_source`
    and `arch_source` are SHA-256 of files that do not ship with the package.
    """

    method: str
    options: dict[str, Any] = {}
    method_source: str = ""
    data: DataSpec
    arch: str
    arch_source: str = ""
    recipe_name: str
    recipe: Recipe
    seed: int
    precision: Literal["fp32", "bf16"]
    select: Literal["last", "best", "best-on-test", "val"] = "last"
    select_on: TestSpec | None = None

    @property
    def run_id(self) -> str:
        """Method name and a hash of every field; independent of the order of keys."""
        return f"{self.method}-{config_hash(_chosen(self))}"


class AttackSpec(Frozen):
    """One evaluation attack with every setting that changes its verdicts.

    `kind` is "clean", "first-order" (a setting of the PGD core), "autoattack" or "custom" (somebody
    else's attack, whose file's SHA-256 is `source`). `restarts` counts
    starts or seeds of which an image keeps the worst (None: one), `search` is the precision in
    which adversarial images are looked for (None: float32; verdicts always are), `alpha` the factor
    of the logits in LSA. `asked` is what a user typed, such as "pgd20@16/255", for messages; it is
    no part of the settings, of the key or of a dump. `protocol` is `ATTACK_PROTOCOL` (None: 1).
    """

    name: str
    asked: str = Field(default="", exclude=True, repr=False)
    kind: Literal["clean", "first-order", "autoattack", "custom"]
    eps: float = Field(ge=0)
    norm: Literal["Linf", "L2"] = "Linf"
    loss: Literal["ce", "cw", "lsa", "dlr", "targeted"] | None = None
    alpha: float | None = None
    steps: int | None = None
    step_size: float | None = None
    start: Start | None = None
    momentum: float | None = None
    restarts: int | None = None
    search: Literal["bf16"] | None = None
    version: str | None = None
    protocol: int | None = None
    source: str | None = None
    library: str
    batch_size: int | None = None
    seed: int = 0

    @property
    def title(self) -> str:
        """What messages call the attack: as it was asked for."""
        return self.asked or self.name

    def attack_id(self, test: TestSpec) -> str:
        """Attack name and a hash of its settings and of the choice of test images."""
        chosen = _chosen(self)
        if self.kind != "autoattack":
            del chosen["library"]  # ours: the protocol says when its meaning changes
        return f"{self.name}-{stable_hash({'attack': chosen, 'test': _chosen(test)})}"

    def settings(self) -> dict[str, Any]:
        """The settings that stand in a result row: those that are set, without name and library."""
        return self.model_dump(mode="json", exclude_none=True, exclude={"name", "library"})


def _chosen(settings: Frozen) -> dict[str, Any]:
    """The fields that differ from their default, so that a new field leaves old keys alone.

    A default must therefore never change its value; if it has to, SCHEMA goes up.
    """
    return settings.model_dump(mode="json", exclude_defaults=True)


def config_hash(config: Mapping[str, Any]) -> str:
    """`stable_hash` of a run's settings, to which the name of a user's folder does not belong."""
    data = config["data"]
    if data["name"].startswith(LOCAL_PREFIXES):
        data = {**data, "name": data["name"].partition(":")[0] + ":"}
    return stable_hash({**config, "data": data})


def stable_hash(content: dict[str, Any]) -> str:
    """Twelve hex digits of the SHA-256 of `content` (with the schema number) as canonical JSON."""
    text = json.dumps({"schema": SCHEMA, **content}, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:12]
