"""The one registry: names, aliases, and errors that help."""

from __future__ import annotations

import subprocess
import sys

import pytest

from ltrobust.combination import SETS
from ltrobust.data import DATASETS
from ltrobust.errors import UserError
from ltrobust.method import METHODS, load_builtin_methods
from ltrobust.models import ARCHS
from ltrobust.registry import Registry


@pytest.fixture
def fruits() -> Registry[int]:
    registry: Registry[int] = Registry("fruit")
    registry.add("apple", 1, aliases=("pomme", "malus"))
    registry.add("banana", 2)
    return registry


def test_names_and_aliases_find_the_same_thing(fruits: Registry[int]) -> None:
    assert fruits.get("apple") == fruits.get("pomme") == 1
    assert fruits.canonical("malus") == "apple"
    assert fruits.names() == list(fruits) == ["apple", "banana"]
    assert fruits.aliases("apple") == ["pomme", "malus"]
    assert "pomme" in fruits
    assert "cherry" not in fruits


def test_decorator_registers_and_returns_what_it_decorates() -> None:
    registry: Registry[type] = Registry("thing")

    @registry.register("mine", aliases=("own",))
    class Mine:
        pass

    assert registry.get("own") is Mine


def test_unknown_name_tells_the_nearest_match_and_all_that_are_known(
    fruits: Registry[int],
) -> None:
    with pytest.raises(UserError) as caught:
        fruits.get("aple")
    message = "unknown fruit 'aple'; did you mean 'apple'? known: apple, banana, malus, pomme"
    assert str(caught.value) == message


def test_a_name_like_none_of_them_gets_no_guess(fruits: Registry[int]) -> None:
    with pytest.raises(UserError) as caught:
        fruits.get("xyz")
    assert str(caught.value) == "unknown fruit 'xyz'; known: apple, banana, malus, pomme"


@pytest.mark.parametrize(
    ("name", "aliases"), [("apple", ()), ("pomme", ()), ("cherry", ("banana",)), ("c", ("malus",))]
)
def test_a_taken_name_is_refused_and_nothing_is_added(
    fruits: Registry[int], name: str, aliases: tuple[str, ...]
) -> None:
    with pytest.raises(UserError, match="registered twice"):
        fruits.add(name, 3, aliases=aliases)
    assert fruits.names() == ["apple", "banana"]
    assert fruits.get("apple") == 1
    assert "cherry" not in fruits


def test_discard_forgets_a_name_with_its_aliases_and_only_those(fruits: Registry[int]) -> None:
    fruits.discard("apple")
    fruits.discard("apple")
    assert fruits.names() == ["banana"]
    assert "pomme" not in fruits
    fruits.add("pomme", 5)


def test_it_is_filled_once_before_the_first_lookup() -> None:
    calls = []

    def fill() -> None:
        calls.append("apple" in registry)
        if len(calls) == 1:
            raise UserError("a plugin is broken")
        registry.add("apple", 1)

    registry: Registry[int] = Registry("fruit", fill)
    registry.add("banana", 2)
    assert not calls
    with pytest.raises(UserError, match="broken"):
        registry.names()
    assert registry.get("apple") == 1
    assert "apple" in registry
    assert list(registry) == ["banana", "apple"]
    assert len(calls) == 2


def test_what_ships_is_found_without_anything_imported() -> None:
    program = "from ltrobust.method import METHODS; METHODS.get('taet')"
    subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, timeout=300)


def test_what_ships_is_registered() -> None:
    assert {"pgd-at", "trades", "robal-n", "robal-r", "at-bsl", "taet"} <= set(METHODS)
    assert METHODS.canonical("robal") == "robal-r"
    assert all(name in METHODS for name in SETS["core"])
    assert {"digits-lt", "cifar10-lt", "cifar100-lt"} <= set(DATASETS)
    assert {"small-cnn", "resnet18", "preactresnet18", "wrn-28-10", "wrn-34-10"} <= set(ARCHS)


def test_loading_the_built_in_methods_twice_is_harmless() -> None:
    load_builtin_methods()
    before = METHODS.names()
    load_builtin_methods()
    assert METHODS.names() == before
