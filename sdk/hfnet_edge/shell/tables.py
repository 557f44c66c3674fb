"""This module prints tables and styled lines, of text that others may have written."""

from __future__ import annotations

from collections.abc import Iterable
from typing import IO, Any

from rich.console import Console, ConsoleOptions, RenderableType
from rich.segment import Segment
from rich.text import Text

from hfnet_edge.shell.printing import printable


class PrintableConsole(Console):
    """rich's console without markup and emoji codes, of `printable` text: the styles of a command are all that steers
    the terminal.

    Args:
        stderr: writes there. file: instead of stdout or stderr. width: columns, if not the terminal's.
    """

    def __init__(self, stderr: bool = False, file: IO[str] | None = None, width: int | None = None):
        super().__init__(stderr=stderr, file=file, width=width, markup=False, emoji=False)

    @property
    def file(self) -> IO[str]:
        file = super().file
        return getattr(file, "plain", file)  # behind `PrintableOutput`, which would show the styles

    @file.setter
    def file(self, new_file: IO[str]) -> None:
        self._file = new_file

    def render_str(self, text: str, **options: Any) -> Text:  # type: ignore[override]
        """Of a cell or title, before it is laid out."""
        return super().render_str(printable(text, "\n"), **options | {"markup": False, "emoji": False})

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterable[Segment]:
        """Of everything else, after."""
        for segment in super().render(renderable, options):
            yield segment if segment.control else Segment(printable(segment.text, "\n"), segment.style)


def show(renderable: RenderableType) -> None:
    """Prints a table on stdout."""
    PrintableConsole().print(renderable)
