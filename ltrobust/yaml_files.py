"""YAML as a person reads it: the files of suites and of published entries, and `--option` values.

Plain numbers are decimal, only true and false are truth values, and everything else is text, as
YAML 1.2 has it (PyYAML's own rules turn 010 into 8, 1:40 into 100, no into false and 1e-3 into
text). A key that stands twice is an error. What the values mean is not known here.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import yaml
from yaml.constructor import ConstructorError

from ltrobust.errors import UserError

PLAIN = (
    ("null", r"~|null|Null|NULL|", "~nN"),
    ("bool", r"true|True|TRUE|false|False|FALSE", "tTfF"),
    ("int", r"[-+]?[0-9]+", "-+0123456789"),
    (
        "float",
        r"[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?"
        r"|[-+]?\.inf|\.nan",
        "-+.0123456789",
    ),
    ("merge", r"<<", "<"),
)
"""What unquoted text stands for: kind, all of the text, first characters."""


class PersonsLoader(yaml.SafeLoader):
    """A safe loader with the rules of this module."""

    def compose_mapping_node(self, anchor: Any) -> yaml.MappingNode:
        """Read a mapping; raise ConstructorError when a key stands twice."""
        node: yaml.MappingNode = super().compose_mapping_node(anchor)
        seen: dict[tuple[str, str], int] = {}
        for key, _ in node.value:
            name, line = (key.tag, str(key.value)), key.start_mark.line + 1
            if name in seen:
                raise ConstructorError(
                    problem=f"key '{key.value}' stands twice, in lines {seen[name]} and {line}; "
                    "keep one"
                )
            seen[name] = line
        return node

    def construct_number(self, node: yaml.ScalarNode) -> int | float:
        """Build a number; leading zeros have no meaning."""
        text = str(self.construct_scalar(node))
        if node.tag.endswith(":int"):
            return int(text)
        return float(text.replace(".inf", "inf").replace(".nan", "nan"))


PersonsLoader.yaml_implicit_resolvers = {}
for _kind, _pattern, _first in PLAIN:
    PersonsLoader.add_implicit_resolver(
        f"tag:yaml.org,2002:{_kind}", re.compile(f"(?:{_pattern})$"), list(_first)
    )
PersonsLoader.yaml_implicit_resolvers[""] = PersonsLoader.yaml_implicit_resolvers["~"]
for _kind in ("int", "float"):
    PersonsLoader.add_constructor(f"tag:yaml.org,2002:{_kind}", PersonsLoader.construct_number)


def parse(text: str) -> Any:
    """Read one YAML document from text.

    Raises:
        yaml.YAMLError: it is not valid, or a key stands twice.
    """
    try:
        return yaml.load(text, PersonsLoader)
    except (ValueError, LookupError, AttributeError, RecursionError) as error:
        # what PyYAML lets through where an explicit tag does not fit, or nesting is too deep
        raise yaml.YAMLError(f"{type(error).__name__}: {error}") from error


def read_mapping(file: Path, name: str) -> dict[Any, Any]:
    """Read a file that holds one mapping; an empty file is an empty one.

    Args:
        file: the file.
        name: what errors call it.

    Raises:
        UserError: the file cannot be read, is not valid YAML, or holds something else.
    """
    try:
        content = parse(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise UserError(f"{name} cannot be read: {error.strerror}") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise UserError(f"{name} is not valid YAML: {' '.join(str(error).split())}") from None
    if content is None:
        return {}
    if not isinstance(content, dict):
        raise UserError(f"{name} must be a mapping such as 'key: value'")
    return content
