"""Keys: the order of keys never matters, every field does."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Literal, Union, get_args, get_origin

import pytest
from pydantic import BaseModel, ValidationError

from ltrobust.attacks.suite import attack_spec
from ltrobust.config import AttackSpec, DataSpec, Recipe, Run, TestSpec, TrainingAttack, stable_hash
from ltrobust.training.schedule import Schedule

RUN = Run(
    method="pgd-at",
    options={"beta": 6.0, "alpha": True},
    method_source="ab12",
    data=DataSpec(
        name="digits-lt", imbalance_ratio=10.0, split_seed=3, limit_train=60, fingerprint="cd34"
    ),
    arch="small-cnn",
    recipe_name="unified",
    recipe=Recipe(
        epochs=5,
        batch_size=32,
        lr=0.1,
        momentum=0.9,
        nesterov=True,
        weight_decay=5e-4,
        schedule=Schedule(
            kind="robal-compounding",  # the kind that allows all other fields but `factors`
            milestones=(3, 4),
            counted_from=1,
            published_epochs=5,
        ),
        attack=TrainingAttack(eps=0.1, step_size=0.025, steps=10),
    ),
    seed=1,
    precision="fp32",
    select_on=TestSpec(protocol="long-tailed", limit=40),
)
ATTACK = AttackSpec(
    name="mine",
    kind="autoattack",
    eps=0.1,
    loss="ce",
    alpha=10.0,
    restarts=2,
    steps=10,
    step_size=0.02,
    start="uniform",
    momentum=1.0,
    version="standard",
    protocol=2,
    source="ab",
    library="pyautoattack 0.2.0",
    batch_size=250,
    seed=1,
)
TEST = TestSpec(limit=100)


def leaves(model: BaseModel, path: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    """Paths of all fields, down into nested settings."""
    for name in type(model).model_fields:
        value = getattr(model, name)
        if isinstance(value, BaseModel):
            yield from leaves(value, (*path, name))
        else:
            yield (*path, name)


def field_at(model: BaseModel, path: tuple[str, ...]) -> tuple[Any, Any]:
    """Value and annotation of a field."""
    for name in path[:-1]:
        model = getattr(model, name)
    return getattr(model, path[-1]), type(model).model_fields[path[-1]].annotation


def choices(annotation: Any) -> list[Any]:
    """What a Literal allows, also inside a union with None."""
    if get_origin(annotation) is Literal:
        return list(get_args(annotation))
    if get_origin(annotation) is Union or type(annotation).__name__ == "UnionType":
        return [choice for part in get_args(annotation) for choice in choices(part)]
    return []


def other(value: Any, annotation: Any) -> Any:
    """Another value that the field allows."""
    allowed = [choice for choice in choices(annotation) if choice != value]
    if allowed:
        return allowed[0]
    if isinstance(value, bool):
        return not value
    if isinstance(value, int):
        return value + 1
    if isinstance(value, float):
        return value / 2
    if isinstance(value, str):
        return value + "x"
    if isinstance(value, dict):
        return {**value, "more": 1}
    if isinstance(value, tuple):
        return (*value, value[-1] + 1)
    raise AssertionError(f"give the example a value for {annotation}")


def changed(model: BaseModel, path: tuple[str, ...]) -> Any:
    """A validated copy with another value in one field."""
    content = model.model_dump()
    inner = content
    for name in path[:-1]:
        inner = inner[name]
    inner[path[-1]] = other(*field_at(model, path))
    copy = type(model).model_validate(content)
    assert copy != model
    return copy


def shuffled(content: Any) -> Any:
    """The same content with every mapping in reverse order."""
    if isinstance(content, dict):
        return {key: shuffled(content[key]) for key in reversed(content)}
    return content


RUN_FIELDS = [".".join(path) for path in leaves(RUN) if path[-1] != "factors"]
"""All fields, but for one that only the other kind of schedule allows."""
ATTACK_FIELDS = [".".join(path) for path in leaves(ATTACK) if path != ("asked",)]


def test_the_walk_reaches_every_kind_of_settings() -> None:
    assert {"method", "seed", "data.split_seed", "recipe.lr"} <= set(RUN_FIELDS)
    assert {"recipe.attack.eps", "recipe.schedule.gamma"} <= set(RUN_FIELDS)
    for model in (RUN, RUN.data, RUN.recipe, RUN.recipe.attack, RUN.recipe.schedule):
        for name in set(type(model).model_fields) - {"factors"}:
            assert any(name in field.split(".") for field in RUN_FIELDS)


@pytest.mark.parametrize("field", RUN_FIELDS)
def test_every_field_of_a_run_changes_its_id(field: str) -> None:
    assert changed(RUN, tuple(field.split("."))).run_id != RUN.run_id


@pytest.mark.parametrize("field", ATTACK_FIELDS)
def test_every_field_of_an_attack_changes_its_id(field: str) -> None:
    other_id = changed(ATTACK, tuple(field.split("."))).attack_id(TEST)
    assert other_id.rpartition("-")[2] != ATTACK.attack_id(TEST).rpartition("-")[2]


def test_how_an_attack_was_asked_for_is_no_part_of_its_id() -> None:
    other = ATTACK.model_copy(update={"asked": "another spelling"})
    assert other.attack_id(TEST) == ATTACK.attack_id(TEST)
    assert "asked" not in other.settings()


@pytest.mark.parametrize("field", TestSpec.model_fields)
def test_the_choice_of_test_images_changes_an_attacks_id(field: str) -> None:
    assert ATTACK.attack_id(changed(TEST, (field,))) != ATTACK.attack_id(TEST)


def test_factors_of_a_schedule_change_the_id() -> None:
    plain = RUN.recipe.schedule.model_copy(update={"kind": "multistep"})
    ids = set()
    for factors in ((), (0.3, 0.1), (0.3, 0.03)):
        schedule = plain.model_copy(update={"factors": factors})
        recipe = RUN.recipe.model_copy(update={"schedule": schedule})
        ids.add(RUN.model_copy(update={"recipe": recipe}).run_id)
    assert len(ids) == 3


def test_all_these_ids_differ_from_each_other() -> None:
    ids = [changed(RUN, tuple(field.split("."))).run_id for field in RUN_FIELDS]
    assert len(set(ids)) == len(ids)


def test_ids_do_not_depend_on_the_order_of_keys() -> None:
    run = Run.model_validate(shuffled(RUN.model_dump()))
    assert list(run.options) != list(RUN.options)
    assert run.run_id == RUN.run_id
    attack = AttackSpec.model_validate(shuffled(ATTACK.model_dump()))
    assert attack.attack_id(TEST) == ATTACK.attack_id(TEST)


def test_ids_survive_a_record_on_disk() -> None:
    assert Run.model_validate_json(RUN.model_dump_json()).run_id == RUN.run_id
    copy = AttackSpec.model_validate_json(ATTACK.model_dump_json())
    assert copy.attack_id(TEST) == ATTACK.attack_id(TEST)


def test_ids_name_what_they_belong_to() -> None:
    assert RUN.run_id.startswith("pgd-at-")
    assert len(RUN.run_id.removeprefix("pgd-at-")) == 12
    assert attack_spec("pgd20", 0.1).attack_id(TEST).startswith("pgd20-")


def test_a_field_that_may_be_missing_changes_the_id_by_being_there() -> None:
    assert RUN.model_copy(update={"select_on": None}).run_id != RUN.run_id
    unlimited = RUN.data.model_copy(update={"limit_train": None})
    assert RUN.model_copy(update={"data": unlimited}).run_id != RUN.run_id


def test_a_field_at_its_default_leaves_old_keys_alone() -> None:
    content = RUN.model_dump()
    del content["select"]
    assert Run.model_validate(content).run_id == RUN.run_id


def test_our_own_version_does_not_invalidate_our_attacks_but_the_references_does() -> None:
    for name, same in (("pgd20", True), ("clean", True), ("autoattack", False)):
        spec = attack_spec(name, 0.1)
        newer = spec.model_copy(update={"library": "newer 9"})
        assert (newer.attack_id(TEST) == spec.attack_id(TEST)) is same


def test_the_attack_protocol_and_not_the_package_version_says_what_may_be_compared(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    first = {name: attack_spec(name, 0.1) for name in ("pgd20", "autoattack")}
    assert first["pgd20"].library == "ltrobust"
    assert "protocol" not in first["pgd20"].settings()  # the first number is left out of keys
    monkeypatch.setattr("ltrobust.attacks.suite.ATTACK_PROTOCOL", 2)
    for name, before in first.items():
        later = attack_spec(name, 0.1)
        assert later.attack_id(TEST) != before.attack_id(TEST)
        assert later.settings()["protocol"] == 2


def test_hash_is_that_of_canonical_json() -> None:
    assert stable_hash({"b": 1, "a": [1.5, None]}) == stable_hash({"a": [1.5, None], "b": 1})
    assert stable_hash({"a": 1}) != stable_hash({"a": 2})
    # published results are found by these keys: a change here needs a higher SCHEMA
    assert stable_hash({"a": 1}) == "d6a6b3ac7866"


@pytest.mark.parametrize("model", [RUN, RUN.data, RUN.recipe, RUN.recipe.attack, ATTACK, TEST])
def test_unknown_keys_are_rejected(model: BaseModel) -> None:
    with pytest.raises(ValidationError, match="Extra inputs"):
        type(model).model_validate({**model.model_dump(), "epoch": 5})


def test_settings_cannot_be_changed_in_place() -> None:
    with pytest.raises(ValidationError, match="frozen"):
        RUN.seed = 2  # type: ignore[misc]


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("recipe.epochs", 0),
        ("recipe.batch_size", 0),
        ("recipe.lr", 0.0),
        ("recipe.lr", float("nan")),
        ("recipe.momentum", 1.0),
        ("recipe.weight_decay", -1e-4),
        ("recipe.attack.eps", -0.1),
        ("recipe.attack.eps", 1.1),
        ("recipe.attack.eps", float("nan")),
        ("recipe.attack.steps", -1),
        ("recipe.attack.start", "middle"),
        ("recipe.schedule.gamma", 0.0),
        ("precision", "fp16"),
        ("data.imbalance_type", "linear"),
    ],
)
def test_values_out_of_range_are_rejected(path: str, value: Any) -> None:
    content = RUN.model_dump()
    *parents, last = path.split(".")
    inner = content
    for name in parents:
        inner = inner[name]
    inner[last] = value
    with pytest.raises(ValidationError):
        Run.model_validate(content)
