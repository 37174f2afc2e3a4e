"""Files of weights of anybody's, read as data only.

Weights often lie beside arguments, numbers of numpy's, schedulers and other objects. Their types
are never imported: an inert stand-in takes the place of each, so that the tensors around it can be
read. What cannot be read is told in one line: what the file is, and what to do.
"""

from __future__ import annotations

import io
import pickletools
import re
import warnings
import zipfile
from _compat_pickle import IMPORT_MAPPING, NAME_MAPPING
from collections import OrderedDict
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar

import torch

from ltrobust.errors import UserError

TORCH_PICKLE = b"\x80\x02\x8a\x0a\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19."
"""How torch files began before they were archives (torch 1.6)."""

SAVE = "save the weights alone: torch.save(model.state_dict(), FILE)"
RESAVE = f"load it where its class is at hand and {SAVE}"
"""What to do about a file that holds objects."""

PLAIN = r"collections\.|_codecs\.|torch\.(\w+$|_utils\.|_tensor\.|storage\.|nn\.parameter\.)"
"""What the types of tensors and plain values begin with."""

STARTS = {
    b"version https://git-lfs": "is a Git LFS pointer, not the file itself; run `git lfs pull`",
    b"\x93NUMPY": f"is a numpy array, not a checkpoint; {SAVE}",
    b"\x89HDF": f"is an HDF5 file (Keras), not a checkpoint of torch; {SAVE}",
    b"\x1f\x8b": "is compressed (gzip); unpack it first",
    b"BZh": "is compressed (bzip2); unpack it first",
    b"\xfd7zXZ": "is compressed (xz); unpack it first",
    b"7z\xbc\xaf": "is a 7z archive; unpack it first",
    b"Rar!": "is a rar archive; unpack it first",
}
"""What a file is that begins in this way."""


class StandIn:
    """An inert object in place of one whose type weights do not need."""

    blocked: ClassVar[str]
    """Name of that type."""

    def __init__(self, *args: object) -> None:
        """Take what the type would be called with, and forget it."""

    def __setstate__(self, state: object) -> None:
        """Take what the object would be filled with, and forget it."""


class DictStandIn:
    """The same for a dict of another type: a plain one, which torch agrees to fill."""

    blocked: ClassVar[str]

    def __new__(cls, *_: object) -> Any:
        """A dict that remembers the type."""
        made: OrderedDict[Any, Any] = OrderedDict()
        made.__dict__["blocked"] = cls.blocked
        return made


def read_file(path: Path) -> bytes:
    """The bytes of a checkpoint file.

    Raises:
        UserError: there is no such file, or it is of another kind.
    """
    if path.is_dir():
        inside = sorted(p.name for p in path.iterdir() if p.suffix in (".pt", ".pth", ".ckpt"))
        hint = f", such as {path / inside[0]}" if inside else ""
        hint = "; a run of ours is given without --checkpoint" if _is_run(path) else hint
        raise UserError(f"checkpoint {path} is a directory; give the file with the weights{hint}")
    if not path.exists():
        raise UserError(f"checkpoint {path}: no such file")
    try:
        content = path.read_bytes()
    except OSError as error:
        raise UserError(f"checkpoint {path} cannot be read: {error.strerror}") from None
    other = _other_kind(content)
    if other is not None:
        raise UserError(f"checkpoint {path} {other}")
    return content


def _is_run(path: Path) -> bool:
    return (path / "run.json").is_file()


def is_safetensors(content: bytes) -> bool:
    """Whether bytes begin as a safetensors file does: with the length of a JSON header."""
    return content[8:9] == b"{" and int.from_bytes(content[:8], "little") <= len(content) - 8


def _other_kind(content: bytes) -> str | None:
    """What a file is, and what to do, where it can be told that it is no checkpoint."""
    if not content:
        return "is empty (0 bytes); copy or download it again"
    for start, told in STARTS.items():
        if content.startswith(start):
            return told
    if content[257:262] == b"ustar":
        return "is a tar archive; unpack it first"
    if re.match(rb"\s*(<!doctype|<html|<\?xml)", content[:200], re.IGNORECASE):
        return "is a web page, not weights; take the link that downloads the file itself"
    if content.startswith(b"PK"):
        return _other_zip(content)
    head = content[:4096]
    if not re.search(rb"[^\x09\x0a\x0d\x20-\x7e\x80-\xff]", head) and b"\n" in head:
        return f"is a text file, not weights; {SAVE}"
    return None


def _other_zip(content: bytes) -> str | None:
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            names = archive.namelist()
    except zipfile.BadZipFile:
        return "is cut off or damaged; copy or download it again"
    if any(name.endswith("/constants.pkl") for name in names):
        return (
            "is a TorchScript archive, which is code, not weights; give the model by --model "
            "module:callable with a function that returns torch.jit.load(FILE)"
        )
    if any(name.endswith("data.pkl") for name in names):
        return None
    if any(name.endswith(".npy") for name in names):
        return f"is a numpy archive (.npz), not a checkpoint of torch; {SAVE}"
    return "is a zip archive without weights of torch; unpack it and give the file inside"


def read_torch(content: bytes, what: str) -> Any:
    """What a torch file holds, read with `weights_only=True`, with stand-ins for its objects.

    Raises:
        UserError: it is damaged or no torch file; the line begins with `what`.
    """
    names = _type_names(content)
    objects = {name: type("StandIn", (StandIn,), {"blocked": name}) for name in names}
    dicts = {name: type("DictStandIn", (DictStandIn,), {"blocked": name}) for name in names}
    dicts |= {name: objects[name] for name in names if name.startswith("numpy")}
    if content.startswith(b"\x80") and not content.startswith(TORCH_PICKLE):
        kinds = _listed(names) or "plain values"
        raise UserError(
            f"{what} cannot be read as weights only: it is a pickle ({kinds}), not a file of "
            f"torch.save; {RESAVE}"
        )
    reason = ""
    for replaced in (objects, dicts):
        allowed: list[Any] = [(stand_in, name) for name, stand_in in replaced.items()]
        try:
            with torch.serialization.safe_globals(allowed), warnings.catch_warnings():
                warnings.simplefilter("ignore")  # about pickle protocols
                return torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
        except Exception as error:  # a damaged file can fail anywhere in the reader
            reason = reason or _reason(error, names)
    raise UserError(f"{what} cannot be read as weights only: {reason}")


def blocked_type(value: object) -> str | None:
    """Name of the type that a stand-in stands for; None for plain data."""
    name = getattr(value, "blocked", None) if isinstance(value, StandIn | OrderedDict) else None
    return None if name is None else printable(str(name))


def _listed(names: set[str]) -> str:
    first = [printable(name) for name in sorted(names)[:3]]
    return ", ".join(first + ["..."] * (len(names) > 3))


def _reason(error: Exception, names: set[str]) -> str:
    """Why a torch file could not be read, without torch's advice and escape codes."""
    objects = {name for name in names if not re.match(PLAIN, name)}
    if objects:
        return f"it holds objects ({_listed(objects)}), which are code; {RESAVE}"
    text = re.sub(r"\x1b\[[0-9;]*m", "", str(error)).strip()
    inner = re.search(r"\n\n(.+)\n\nCheck the documentation", text)
    line = inner.group(1) if inner else (text.splitlines() or [type(error).__name__])[0]
    line = line if " " in line else "it is no file of torch.save"
    return f"{printable(line).rstrip('.')}; {SAVE}"


def printable(text: str) -> str:
    """Text of a stranger's on one line, without control characters."""
    return "".join(c if c.isprintable() else "?" for c in text)


def _type_names(content: bytes) -> set[str]:
    """Full names of all types and functions that a torch file refers to, read without calling."""
    names: set[str] = set()
    words: list[str] = []
    memo: list[str] = []  # of protocol 4, which names a type by the last two strings
    for stream in _pickles(content):
        try:
            for opcode, word, _ in pickletools.genops(stream):
                if opcode.name == "GLOBAL":
                    names.add(_type_name(*str(word).split(" ", 1)))
                elif opcode.name == "STACK_GLOBAL" and len(words) > 1:
                    names.add(_type_name(*words[-2:]))
                elif opcode.name == "MEMOIZE":
                    memo.append(words[-1] if words else "")
                elif opcode.name in ("BINGET", "LONG_BINGET") and int(str(word)) < len(memo):
                    words.append(memo[int(str(word))])
                elif isinstance(word, str):
                    words.append(word)
        except ValueError:
            break  # the reader tells what is damaged
    return names


def _type_name(module: str, name: str) -> str:
    """A type's full name; those of Python 2 are read as torch reads them."""
    if (module, name) in NAME_MAPPING:
        module, name = NAME_MAPPING[module, name]
    return f"{IMPORT_MAPPING.get(module, module)}.{name}"


def _pickles(content: bytes) -> Iterator[io.BytesIO]:
    """The pickles of a torch file: one in an archive; four, one after another, before 1.6."""
    if content.startswith(b"PK"):
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            for name in archive.namelist():
                if name.endswith("data.pkl"):
                    yield io.BytesIO(archive.read(name))
        return
    stream = io.BytesIO(content)
    for _ in range(4):
        yield stream
