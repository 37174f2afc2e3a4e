"""Methods from outside the package: files and installed entry points."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import ltrobust
from ltrobust.bench.plan import make_plan
from ltrobust.bench.settings import make_settings
from ltrobust.errors import UserError
from ltrobust.method import METHODS, load_builtin_methods
from ltrobust.plugins import load_plugin

PLUGIN = '''
from dataclasses import dataclass
import torch.nn.functional as F
from ltrobust.method import Citation, Method, register_method

NOBODY = Citation(authors="Nobody", title="None", venue="none", year=2000)

@register_method("{name}", paper=NOBODY, aliases=("{name}-alias",))
@dataclass
class Mine(Method):
    """Cross-entropy on attacked images, {note}."""

    weight: float = {weight}

    def loss(self, model, x, y, x_adv, ctx):
        return self.weight * F.cross_entropy(model(x_adv), y)
'''


@pytest.fixture(autouse=True)
def _as_before() -> Iterator[None]:
    """Take out of the registry and of sys.modules what a test brought in."""
    load_builtin_methods()
    methods, modules = METHODS.names(), set(sys.modules)
    yield
    for name in set(METHODS.names()) - set(methods):
        METHODS.discard(name)
    for module in set(sys.modules) - modules:
        if module.startswith(("ltrobust_plugin_", "outside_")):
            del sys.modules[module]


def write(path: Path, name: str = "mine", weight: float = 1.0, note: str = "weighted") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(PLUGIN.format(name=name, weight=weight, note=note))
    return path


def planned_id(plugin: Path, method: str = "mine") -> str:
    flags = {"methods": method, "plugin": [plugin], "device": "cpu"}
    return make_plan(make_settings(flags)).runs[0].run.run_id


def test_a_file_joins_the_registry_and_trains(tmp_path: Path) -> None:
    plugin = write(tmp_path / "mine.py")
    trained = ltrobust.train(
        "mine-alias", plugin=plugin, epochs=1, limit_train=40, batch_size=16, device="cpu"
    )
    assert trained.run_id.startswith("mine-")
    assert len(trained.history) == 1
    assert "mine" in METHODS


def test_loading_a_file_twice_is_harmless(tmp_path: Path) -> None:
    plugin = write(tmp_path / "mine.py")
    load_plugin(plugin)
    load_plugin(tmp_path / "." / "mine.py")
    assert METHODS.names().count("mine") == 1


def test_two_files_of_one_name_in_two_folders_are_two_plugins(tmp_path: Path) -> None:
    load_plugin(write(tmp_path / "a" / "m.py", name="one"))
    load_plugin(write(tmp_path / "b" / "m.py", name="two"))
    assert {"one", "two"} <= set(METHODS)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("x = (", "cannot be loaded: SyntaxError"),
        ("import no_such_module_here", "cannot be loaded: ModuleNotFoundError"),
        (PLUGIN.format(name="half", weight=1.0, note="x") + "\n1 / 0\n", "ZeroDivisionError"),
        (PLUGIN.format(name="trades", weight=1.0, note="x"), "'trades' is registered twice"),
        ("answer = 42", "registers no method"),
        ("", "registers no method"),
    ],
)
def test_a_broken_file_is_one_line_and_leaves_the_registry_as_it_was(
    tmp_path: Path, text: str, message: str
) -> None:
    plugin = tmp_path / "broken.py"
    plugin.write_text(text)
    before = METHODS.names(), METHODS.get("trades"), set(sys.modules)
    with pytest.raises(UserError, match=message) as caught:
        load_plugin(plugin)
    assert "\n" not in str(caught.value)
    assert str(plugin) in str(caught.value)
    assert (METHODS.names(), METHODS.get("trades")) == before[:2]
    assert "half-alias" not in METHODS
    assert not any(m.startswith("ltrobust_plugin_") for m in set(sys.modules) - before[2])


def test_a_broken_file_can_be_mended_and_loaded(tmp_path: Path) -> None:
    plugin = tmp_path / "mine.py"
    plugin.write_text(PLUGIN.format(name="mine", weight=1.0, note="x") + "\n1 / 0\n")
    with pytest.raises(UserError):
        load_plugin(plugin)
    load_plugin(write(plugin))
    assert "mine" in METHODS


def test_a_file_that_is_not_there_or_no_python_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no such file"):
        load_plugin(tmp_path / "none.py")
    with pytest.raises(UserError, match="no such file"):
        load_plugin(tmp_path)
    (tmp_path / "mine.txt").write_text("hello")
    with pytest.raises(UserError, match=r"must end in \.py"):
        load_plugin(tmp_path / "mine.txt")


def test_an_edited_plugin_gets_a_new_run_id(tmp_path: Path) -> None:
    plugin = write(tmp_path / "mine.py", note="one way")
    first = planned_id(plugin)
    assert planned_id(plugin) == first
    write(plugin, note="another way")
    assert planned_id(plugin) != first
    write(plugin, note="one way")
    assert planned_id(plugin) == first


def test_an_edited_plugin_is_loaded_anew_in_the_same_process(tmp_path: Path) -> None:
    plugin = write(tmp_path / "mine.py", weight=1.0)
    planned_id(plugin)
    write(plugin, weight=2.0)
    planned_id(plugin)
    assert METHODS.get("mine").option_defaults() == {"weight": 2.0}


def test_the_place_of_a_plugin_has_no_part_in_its_run_id(tmp_path: Path) -> None:
    first = planned_id(write(tmp_path / "a" / "mine.py"))
    METHODS.discard("mine")
    assert planned_id(write(tmp_path / "b" / "mine.py")) == first


def install(folder: Path, module: str, text: str, point: str) -> None:
    """Lay a distribution with one entry point on a folder of sys.path."""
    (folder / f"{module}.py").write_text(text)
    info = folder / f"{module}-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {module}\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(f"[ltrobust.methods]\n{point} = {module}\n")


def test_an_installed_entry_point_joins_the_registry(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = PLUGIN.format(name="from-outside", weight=1.0, note="installed")
    install(tmp_path, "outside_one", text, "from-outside")
    monkeypatch.syspath_prepend(tmp_path)
    load_builtin_methods()
    load_builtin_methods()
    assert METHODS.get("from-outside").__module__ == "outside_one"
    first = make_plan(make_settings({"methods": "from-outside", "device": "cpu"})).runs[0].run
    assert first.method_source


def test_a_broken_entry_point_is_one_line_and_leaves_the_registry_as_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = PLUGIN.format(name="half-outside", weight=1.0, note="installed") + "\n1 / 0\n"
    install(tmp_path, "outside_two", text, "half-outside")
    monkeypatch.syspath_prepend(tmp_path)
    before = METHODS.names()
    with pytest.raises(UserError, match=r"entry point half-outside \(outside_two\)") as caught:
        load_builtin_methods()
    assert "\n" not in str(caught.value)
    assert METHODS.names() == before
