"""Text on its way out: no terminal, pipe or file may fail the work that it is told of.

A stream that cannot hold a character gets a plain one in its place, and what can no longer be
written (a closed pipe, a full disk) is dropped. Files of results raise their own errors.
"""

from __future__ import annotations

import codecs
import errno
import io
import os
import select
import sys
import unicodedata
from collections.abc import Callable
from typing import TextIO

PLAIN = "ltrobust.plain"
"""Name of the error handler, for any `errors=`: plain characters for those that do not fit."""

_LOOKALIKES = {"†": "+", "±": "+-", "–": "-", "—": "-", "−": "-", "✗": "x", "’": "'"}


def printable(text: str) -> str:
    r"""The text with bytes that were no UTF-8 (of a file's name) spelled out, such as \xe9."""
    return encoded(text).decode()


def encoded(text: str) -> bytes:
    """The text in UTF-8, as `printable` has it."""
    return text.encode("utf-8", PLAIN)


def guard_streams() -> Callable[[], OSError | None]:
    """Make stdout and stderr streams that never fail; those that a caller put there stay.

    Returns:
        Flushes stdout and tells what kept it from being written whole; None where nothing did, or
        where its reader had enough (`| head`).
    """
    for number in (0, 1, 2):  # a file opened later must not get the number of a closed stream
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)
    outlet = None
    if sys.stdout is sys.__stdout__:
        sys.stdout, outlet = _guarded(sys.stdout, 1)
    if sys.stderr is sys.__stderr__:
        sys.stderr, _ = _guarded(sys.stderr, 2)

    def lost() -> OSError | None:
        sys.stdout.flush()
        error = outlet.lost if outlet is not None else None
        return None if error is None or error.errno == errno.EPIPE else error

    return lost


class _Outlet(io.FileIO):
    """The end of a stream; after an error it takes everything and keeps nothing."""

    lost: OSError | None = None

    def write(self, data: bytes | memoryview, /) -> int:  # type: ignore[override]
        size = memoryview(data).nbytes
        if self.lost is not None:
            return size
        try:
            while (written := super().write(data)) is None:  # a pipe that does not block is full
                select.select([], [self], [])
            return written
        except OSError as error:
            self.lost = error
            return size


def _guarded(stream: TextIO | None, number: int) -> tuple[TextIO, _Outlet]:
    """A stream to a file number that is written as `stream` is; None: it was closed."""
    if stream is not None:
        stream.flush()
    outlet = _Outlet(number if stream is not None else os.devnull, "w", closefd=stream is None)
    lines = getattr(stream, "line_buffering", True) or getattr(stream, "write_through", False)
    encoding = getattr(stream, "encoding", None) or "utf-8"
    raw: io.FileIO = outlet
    text = io.TextIOWrapper(
        io.BufferedWriter(raw), encoding=encoding, errors=PLAIN, line_buffering=lines
    )
    return text, outlet


def _plain(error: UnicodeError) -> tuple[str, int]:
    if not isinstance(error, UnicodeEncodeError):
        raise error
    part = error.object[error.start : error.end]
    return "".join(map(_plain_character, part)), error.end


def _plain_character(character: str) -> str:
    """ASCII that stands for a character: looks like it, is its base letter, or "?"."""
    if "\udc80" <= character <= "\udcff":  # how Python keeps a byte that is no text
        return f"\\x{ord(character) - 0xDC00:02x}"
    if character in _LOOKALIKES:
        return _LOOKALIKES[character]
    base = unicodedata.normalize("NFKD", character).encode("ascii", "ignore").decode()
    return base if base or unicodedata.combining(character) else "?"


codecs.register_error(PLAIN, _plain)
