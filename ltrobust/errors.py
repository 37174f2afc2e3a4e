"""The kinds of trouble a user can meet.

`UserError` is bad input: the command line prints its one line and exits with 2.
`RunError` is a run that went wrong (a loss that is not finite, memory that ran out): the runner
records it, goes on with the other runs, and the command exits with 1. Programming mistakes are
neither and keep their traceback. `Notice` is a warning: the work goes on.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class UserError(ValueError):
    """Bad input from the user. The message is one line: what is wrong, what is allowed."""


class MissingDataError(UserError):
    """A published data set whose files are not on this machine."""


class RunError(RuntimeError):
    """A training or evaluation run that cannot go on. The message is one line."""


class Notice(UserWarning):
    """Something that the user should know and that stops nothing; shown once, in one line."""


class DataWarning(Notice):
    """Not all of a user's images are taken. The message is one line: what is left out."""


def unknown(kind: str, name: object, known: Iterable[str]) -> UserError:
    """Build the error for a name that is not in a list, with the nearest match and the list."""
    choices = sorted(known)
    near = difflib.get_close_matches(str(name).lower(), choices, n=1, cutoff=0.5)
    hint = f"; did you mean '{near[0]}'?" if near else ";"
    return UserError(f"unknown {kind} '{name}'{hint} known: {', '.join(choices)}")
