"""Ranking across recipes, architectures and epochs: what may differ in a table, and how it shows.

Test images and the settings of attacks never differ within a table. A model that was trained
elsewhere stands in the table of every choice of training images, because its own are unknown.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from ltrobust.errors import UserError, unknown
from ltrobust.report.rows import Row, alike, key_of

EXTERNAL = "external"
"""What stands in `recipe` for a model that was trained elsewhere."""
SEVERAL = "several"
"""Stands in a group's key for a value in which its rows differ."""
ACROSS: Mapping[str, tuple[str, ...]] = {
    "recipe": (
        *("recipe", "recipe_changes", "select", "augment", "precision", "batch_size"),
        "train_eps",
    ),
    "arch": ("arch",),
    "epochs": ("epochs",),
}
"""What a report may rank across, and the keys that may differ then."""
_ALL = "all"
_UNKNOWN_OF_FOREIGN = ("epochs", "split_seed", "split_sha256")
_SHOWN_FOR_FOREIGN = ("recipe", "arch", "epochs")


def parse_across(given: str | Sequence[str] | None) -> tuple[str, ...]:
    """Read what to rank across: `recipe,arch,epochs`, a list of these, or `all`; None is nothing.

    Raises:
        UserError: an unknown name or an empty item.
    """
    if given is None:
        return ()
    names = [part.strip() for part in given.split(",")] if isinstance(given, str) else list(given)
    for name in names:
        if not name:
            raise UserError(f"--across holds an empty item; write {','.join(ACROSS)} or {_ALL}")
        if name not in (*ACROSS, _ALL):
            raise unknown("--across", name, (*ACROSS, _ALL))
    return tuple(name for name in ACROSS if name in names or _ALL in names)


def across_blocks(
    rows: Sequence[Row], keys: Sequence[str], across: Sequence[str]
) -> Iterator[tuple[list[Row], tuple[str, ...]]]:
    """Yield the rows that agree in all keys but those ranked across, and the keys that may differ.

    Args:
        rows: metric rows.
        keys: all keys of a group but those of attacks.
        across: from `parse_across`.
    """
    free = tuple(key for name in across for key in ACROSS[name])
    fixed = [key for key in keys if key not in free]
    shared = [key for key in fixed if key not in _UNKNOWN_OF_FOREIGN]
    strangers = [row for row in rows if row["recipe"] == EXTERNAL and "recipe" in across]
    homeless = {id(row): row for row in strangers}
    for block in alike([row for row in rows if id(row) not in homeless], *fixed).values():
        wanted = key_of(block[0], shared)
        guests = [row for row in strangers if key_of(row, shared) == wanted]
        guests = [row for row in guests if _same_classes(row, block[0])]
        for row in guests:
            homeless.pop(id(row), None)
        yield [*block, *guests], tuple(dict.fromkeys([*free, "epochs"])) if guests else free
    for block in alike(homeless.values(), *fixed).values():
        yield block, free


def common_key(
    rows: Sequence[Row], keys: Sequence[str], free: Sequence[str]
) -> tuple[dict[str, Any], tuple[str, ...]]:
    """The key of rows that may differ in some values, and in which of them they do.

    Values that only models trained elsewhere lack are no difference, except those that say so.

    Args:
        rows: of one block.
        keys: all keys of a group but those of attacks.
        free: those that may differ.
    """
    ours = [row for row in rows if row["recipe"] != EXTERNAL] or rows
    differing = tuple(
        key
        for key in keys
        if key in free and len(alike(rows if key in _SHOWN_FOR_FOREIGN else ours, key)) > 1
    )
    return {name: SEVERAL if name in differing else ours[0][name] for name in keys}, differing


def shown_value(name: str, value: Any) -> str:
    """A value of a key as in a table; "-" for what is not known of a model trained elsewhere."""
    if value in ("", 0) or (value == EXTERNAL and name != "recipe"):
        return "-"
    return f"{value:.4g}" if isinstance(value, float) else str(value).replace(";", ", ")


def config_names(rows: Sequence[Row], differing: Sequence[str]) -> dict[tuple[str, str], str]:
    """What tells the configurations of one method apart, in words: by method and `config_id`.

    Methods of which two configurations agree in all that differs are left out.
    """
    names: dict[tuple[str, str], str] = {}
    for (method,), own in alike(rows, "method").items() if differing else ():
        varied = [key for key in differing if len(alike(own, key)) > 1]
        texts = {
            (str(method), str(config)): _in_words(rows[0], varied)
            for (config,), rows in alike(own, "config_id").items()
        }
        if len(set(texts.values())) == len(texts) > 1:
            names |= texts
    return names


def _in_words(row: Row, varied: Sequence[str]) -> str:
    known = [(key, shown_value(key, row[key])) for key in varied]
    words = [f"{text} epochs" if key == "epochs" else text for key, text in known if text != "-"]
    return ", ".join(words) or "no changes"


def _same_classes(guest: Row, own: Row) -> bool:
    """Whether head and tail mean the same classes: limits in images hang on the training images."""
    return "/" not in str(guest["groups"]) or guest["split_sha256"] == own["split_sha256"]
