"""Reads docstrings as this project writes them, for mkdocstrings: ``Args`` and ``Attributes`` stand in running text.

    Args:
        costs: (Q, D) uint32. first, last: rows of ``costs``,
            both included.

has three rows, two of which say the same.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

from griffe import Class, Extension, Function, Object

SECTION = re.compile(r"^(Args|Attributes):\n((?:(?: {4}.*)?(?:\n|\Z))+)", re.MULTILINE)


class Rows(Extension):
    """Gives every name a row of its own."""

    def on_function(self, *, func: Function, **kwargs: Any) -> None:
        split(func, (parameter.name for parameter in func.parameters))

    def on_class(self, *, cls: Class, **kwargs: Any) -> None:
        init = cls.members.get("__init__")
        split(
            cls,
            [*cls.members, *(p.name for p in init.parameters if isinstance(init, Function))] if init else cls.members,
        )


def split(of: Object, names: Iterable[str]) -> None:
    """Rewrites the sections of an object's docstring that begin with one of some names."""
    name = "|".join(sorted(map(re.escape, names), key=len, reverse=True))
    if of.docstring is None or not name:
        return
    head = re.compile(rf"(?:^|(?<=[.;:] ))((?:{name})(?:, (?:{name}))*): ")

    def rows(section: re.Match[str]) -> str:
        before, *parts = head.split(" ".join(section[2].split()))
        if before:
            return section[0]
        said = zip(parts[::2], parts[1::2], strict=True)
        return (
            f"{section[1]}:\n"
            + "".join(f"    {one}: {text}\n" for names, text in said for one in names.split(", "))
            + "\n"
        )

    of.docstring.value = SECTION.sub(rows, of.docstring.value).rstrip()
