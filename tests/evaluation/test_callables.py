"""Models that are found by name in a user's own file, and what their outputs may look like."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import ltrobust
from ltrobust.errors import UserError
from ltrobust.evaluation.callables import load_model, parse_arguments
from ltrobust.evaluation.foreign import check_outputs, model_sha256

ZOO = """
import sys
import torch
from torch import nn

seen = list(sys.argv)
torch.set_default_dtype(torch.float64)


class Net(nn.Module):
    def __init__(self, width=3, name="a", *, scale=1.0):
        super().__init__()
        self.width, self.name, self.scale = width, name, scale


class Holder:
    net = Net(5)


net = Net(4)


def needs(depth):
    return Net(depth)


def gives_pair():
    return Net(), None


def parses():
    import argparse

    parser = argparse.ArgumentParser()
    parser.add_argument("--data", required=True)
    parser.parse_args()
"""


@pytest.fixture
def zoo(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """Path of a file of models in the current folder."""
    monkeypatch.chdir(tmp_path)
    before = list(sys.path), set(sys.modules)
    Path("zoo_for_tests.py").write_text(ZOO)
    yield "zoo_for_tests.py"
    sys.path[:] = before[0]
    for name in set(sys.modules) - before[1]:
        if "zoo_for_tests" in name or name.startswith("ltrobust_model_"):
            del sys.modules[name]


def test_instances_classes_and_files(zoo: str) -> None:
    module = zoo.removesuffix(".py")
    for spec in (f"{module}:net", f"{zoo}:net", f"./{zoo}:net", f"{Path(zoo).resolve()}:net"):
        found = load_model(spec)
        assert found.model.width == 4
        assert found.name == f"{module}:net"
        assert Path(str(found.file)).resolve() == Path(zoo).resolve()
    assert load_model(f"{zoo}:Holder.net").model.width == 5
    assert load_model(f"{zoo}:Net").model.width == 3
    given = load_model(f"{zoo}:Net", ["width=28,name=wide", "scale=1e-3"]).model
    assert (given.width, given.name, given.scale) == (28, "wide", 0.001)
    assert load_model(f"{zoo}:needs", {"depth": 7}).model.width == 7


def test_what_a_file_does_to_the_program_is_undone(zoo: str) -> None:
    arguments, before = sys.argv, set(sys.modules)
    load_model(f"{zoo}:net")
    (name,) = [n for n in set(sys.modules) - before if n.startswith("ltrobust_model_")]
    module = sys.modules[name]
    assert module.seen == [zoo]
    assert sys.argv is arguments
    assert torch.get_default_dtype() == torch.float32


def test_values_of_arguments_are_literals_and_never_run() -> None:
    texts = ["a=28", "b=0.5,c=true", "d=[1, 2]", "e=None f='x y'", "g=__import__('os')", "h=-1"]
    assert parse_arguments(texts) == {
        "a": 28,
        "b": 0.5,
        "c": True,
        "d": [1, 2],
        "e": None,
        "f": "x y",
        "g": "__import__('os')",
        "h": -1,
    }
    for wrong in (["depth"], ["=3"], ["2x=3"], ["a=1", "a=2"]):
        with pytest.raises(UserError, match="--model-args"):
            parse_arguments(wrong)


@pytest.mark.parametrize(
    ("spec", "arguments", "parts"),
    [
        ("{zoo}:needs", [], ["(depth)", "missing a required argument: 'depth'", "--model-args"]),
        ("{zoo}:needs", ["width=3"], ["missing a required argument"]),
        ("{zoo}:net", ["width=3"], ["takes no arguments"]),
        ("{zoo}:gives_pair", [], ["must return a torch.nn.Module, got tuple"]),
        ("{zoo}:absent", [], ["no callable", "'absent'"]),
        ("{zoo}:parses", [], ["arguments are required: --data", "__name__"]),
        ("no_such_file.py:net", [], ["no such file"]),
        ("script.py:net", [], ["cannot be imported", "arguments are required: --data"]),
        ("script:net", [], ["cannot be imported", "arguments are required: --data"]),
        ("broken.py:net", [], ["RuntimeError: two lines"]),
        ("exits.py:net", [], ["ends the program"]),
    ],
)
def test_what_goes_wrong_is_one_line(
    zoo: str, capfd: pytest.CaptureFixture[str], spec: str, arguments: list[str], parts: list[str]
) -> None:
    parser = "import argparse\nparser = argparse.ArgumentParser()\n"
    parser += "parser.add_argument('--data', required=True)\nargs = parser.parse_args()\n"
    Path("script.py").write_text(parser)
    Path("broken.py").write_text("raise RuntimeError('two\\nlines')")
    Path("exits.py").write_text("raise SystemExit")
    with pytest.raises(UserError) as caught:
        load_model(spec.format(zoo=zoo), arguments)
    assert all(part in str(caught.value) for part in parts), str(caught.value)
    assert "\n" not in str(caught.value)
    assert capfd.readouterr() == ("", "")


def test_addresses_do_not_make_a_model_a_new_one() -> None:
    class Activated(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.function = lambda x: x

        def extra_repr(self) -> str:
            return repr(self.function)

    assert model_sha256(Activated(), "a:f") == model_sha256(Activated(), "a:f")


class Answers(nn.Module):
    """A linear net whose logits come out in some form."""

    def __init__(self, form: str) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.form, self.linear = form, nn.Linear(192, 4)

    def forward(self, x: torch.Tensor) -> Any:
        logits = self.linear(x.flatten(1)) * 3
        if self.form in ("float16", "bfloat16", "float64"):
            return logits.to(getattr(torch, self.form))
        if self.form == "dict":
            return {"logits": logits, "hidden": x}
        if self.form == "output":
            return type("Output", (), {"logits": logits})()
        return (logits, x) if self.form == "tuple" else logits


@pytest.mark.usefixtures("short_autoattack")
def test_logits_in_other_forms_are_attacked_as_plain_ones() -> None:
    torch.manual_seed(1)
    images = torch.rand(8, 3, 8, 8)
    with torch.no_grad():
        labels = Answers("plain")(images).argmax(1)

    def accuracies(form: str) -> Any:
        attacks = "clean,pgd2,autoattack"
        words = {"eps": 0.01, "device": "cpu", "no_checks": True}
        return ltrobust.evaluate(Answers(form), (images, labels), attacks, **words)["accuracy"]

    plain = accuracies("plain")
    assert plain.tolist()[0] == 1
    for form in ("float16", "bfloat16", "float64", "dict", "output"):
        assert (plain - accuracies(form)).abs().max() <= 1 / 8, form


def test_a_tuple_is_refused_with_the_way_out() -> None:
    with pytest.raises(UserError, match="got tuple; return the logits alone"):
        check_outputs(Answers("tuple"), torch.rand(2, 3, 8, 8), None)
