"""Models found by name: a callable, a class or a module in a Python file of the user's.

This runs the user's own code. Whatever goes wrong in it is told in one line; what it does to the
program's arguments and to torch's global settings is undone. Checkpoint files are not read here.
"""

from __future__ import annotations

import ast
import hashlib
import importlib
import importlib.util
import inspect
import io
import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stderr
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from torch import nn

from ltrobust.errors import UserError

FORM = "give module:callable or file.py:callable, such as my_models:robust_net"
WORDS = {"true": True, "false": False, "null": None, "none": None}


@dataclass(frozen=True)
class FoundModel:
    """A model of the user's.

    Attributes:
        model: the model.
        name: `module:name`, the same however its file was given.
        file: the module's file, if it has one.
    """

    model: nn.Module
    name: str
    file: str | None


def parse_arguments(given: Sequence[str] | Mapping[str, Any] | None) -> dict[str, Any]:
    """Arguments for a callable, from texts such as "depth=28" or "depth=28,name=wide".

    Values are Python's plain literals, true, false or null, and text otherwise; nothing is run.

    Raises:
        UserError: a text has no name and "=", or a name stands there twice.
    """
    if isinstance(given, Mapping):
        return dict(given)
    arguments: dict[str, Any] = {}
    for text in given or ():
        for part in re.split(r"[,\s]+(?=[^\W\d]\w*=)", text.strip()):
            key, equals, value = part.partition("=")
            if not (equals and key.isidentifier()):
                raise UserError(f"--model-args: give name=value, such as depth=28; got '{part}'")
            if key in arguments:
                raise UserError(f"--model-args: '{key}' is given twice")
            arguments[key] = _literal(value)
    return arguments


def _literal(text: str) -> Any:
    if text.lower() in WORDS:
        return WORDS[text.lower()]
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
        return text


def load_model(spec: str, arguments: Sequence[str] | Mapping[str, Any] | None = None) -> FoundModel:
    """The model that `module:name` or `file.py:name` stands for.

    A name is a `torch.nn.Module`, or a class or function that gives one when it is called with
    `arguments` (see `parse_arguments`). The current folder is importable.

    Raises:
        UserError: the module cannot be imported, has no such name, or calling it fails or gives
            no `nn.Module`.
    """
    words = parse_arguments(arguments)
    where, _, name = spec.rpartition(":")
    if not (where and name):
        raise UserError(f"--model: {FORM}; got '{spec}'")
    is_file = where.endswith(".py") or "/" in where
    with _guarded(f"--model: module {where} cannot be imported", where):
        module = _module_of_file(Path(where).with_suffix(".py")) if is_file else _module(where)
    found: Any = module
    for part in name.split("."):
        found = getattr(found, part, None)
    if isinstance(found, nn.Module):
        if words:
            raise UserError(f"--model-args: {spec} is a model already and takes no arguments")
        model: Any = found
    elif callable(found):
        model = _called(found, words, spec, where)
    else:
        raise UserError(f"--model: module {where} has no callable '{name}', nor such a model")
    if not isinstance(model, nn.Module):
        raise UserError(
            f"--model: {spec}() must return a torch.nn.Module, got {type(model).__name__}"
        )
    stem = Path(where).stem if is_file else where
    return FoundModel(model, f"{stem}:{name}", getattr(module, "__file__", None))


def _called(found: Any, words: dict[str, Any], spec: str, where: str) -> Any:
    try:
        inspect.signature(found).bind(**words)
    except TypeError as error:
        try_it = "; give its arguments by --model-args name=value" if not words else ""
        signature = " ".join(str(inspect.signature(found)).split())
        raise UserError(f"--model: {spec}{signature}: {error}{try_it}") from None
    except ValueError:  # it tells no signature
        pass
    with _guarded(f"--model: {spec}() failed", where):
        return found(**words)


def _module(name: str) -> ModuleType:
    _importable(Path.cwd())
    return importlib.import_module(name)


def _module_of_file(file: Path) -> ModuleType:
    file = file.expanduser()
    if not file.is_file():
        raise UserError(f"--model: no such file: {file}")
    _importable(file.resolve().parent)
    # the name holds the content: an edited file is another module, loaded anew
    identity = str(file.resolve()).encode() + b"\0" + file.read_bytes()
    name = "ltrobust_model_" + hashlib.sha256(identity).hexdigest()[:12]
    if name in sys.modules:
        return sys.modules[name]
    spec = importlib.util.spec_from_file_location(name, file)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise
    return module


def _importable(folder: Path) -> None:
    if str(folder) not in sys.path:
        sys.path.insert(0, str(folder))


@contextmanager
def _guarded(what: str, program: str) -> Iterator[None]:
    """Run code of the user's: its end is no end of ours, and it finds no arguments of ours.

    What it writes to stderr comes out afterwards, but not the usage text of a parser that ends the
    program: its last line is the reason.
    """
    arguments, dtype, grad = sys.argv, torch.get_default_dtype(), torch.is_grad_enabled()
    sys.argv = [program]
    told = io.StringIO()
    try:
        with redirect_stderr(told):
            yield
    except SystemExit as error:
        lines = told.getvalue().strip().splitlines() or [str(error)]
        raise UserError(
            f"{what} (it ends the program: {_one_line(lines[-1])}); put what reads arguments or "
            "trains under if __name__ == '__main__'"
        ) from error
    except UserError:
        raise
    except Exception as error:
        raise UserError(f"{what} ({type(error).__name__}: {_one_line(str(error))})") from error
    else:
        sys.stderr.write(told.getvalue())
    finally:
        sys.argv = arguments
        torch.set_default_dtype(dtype)
        torch.set_grad_enabled(grad)


def _one_line(text: str) -> str:
    return " ".join(text.split())
