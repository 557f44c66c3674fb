"""What was judged under a budget, as a table for people."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.box import SIMPLE_HEAD
from rich.table import Table

from hfnet_edge.shell.console import size_text
from hfnet_edge.shell.tables import show

if TYPE_CHECKING:
    from hfnet_maps.pack.jury import Choice

COLUMNS = """\
descriptors: of a landmark; x 1-4: up to four; each: one for each observation
global: dimensions of the global descriptors
found: share of the left-out images that were localized
precise: share with at most twice e, the median error of everything as built
median: position error of the left-out images, in the map's unit
score: mean of e / (e + error); 1 without error, 0.5 at e, 0 where not found"""
SMALLER = 0.9  # of the budget; then it is said why
ROWS = 10  # of the table, at most


def tell_choice(size: int, choices: list[Choice], landmarks: int) -> None:
    """Prints what was chosen under a budget of ``size`` bytes, of so many landmarks, and how it was judged."""
    chosen = choices[0]
    if chosen.scores is not None:
        show(choice_table(f"Left-out reference images in maps of at most {size_text(size)}", choices, bold=True))
        print(COLUMNS)
    print(f"chosen: {chosen.settings}; {chosen.landmarks} of {landmarks} landmarks")
    if chosen.scores is not None and chosen.size < SMALLER * size:
        print(f"it takes {size_text(chosen.size)}: no other of the sizes tried up to the budget was judged better")
    if chosen.calibrated is not None:
        print(chosen.calibrated)


def choice_table(title: str, choices: list[Choice], bold: bool = False) -> Table:
    """A table within 80 columns; everything as built comes last.

    Args:
        bold: the first is the chosen one, and of the others only the first few matter.
    """
    table = Table(title=title, title_justify="left", box=SIMPLE_HEAD, padding=0)
    table.add_column("descriptors", no_wrap=True)
    for heading in ("global", "size", "landmarks", "found", "precise", "median", "score"):
        table.add_column(heading, justify="right", no_wrap=True)
    *packed, full = choices
    for i, c in enumerate([*(packed[:ROWS] if bold else packed), full]):
        if c is full:
            table.add_section()
        table.add_row(
            "everything, as built" if c.settings is None else c.settings.local,
            "" if c.settings is None else str(c.settings.global_dim),
            size_text(c.size),
            str(c.landmarks),
            f"{100 * c.localized:.0f} %",
            f"{100 * c.precise:.0f} %",
            f"{c.median[0]:.3g}",
            f"{c.score:.3f}",
            style="bold" if bold and i == 0 else None,
        )
    return table
