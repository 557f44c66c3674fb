"""What the pictures share: they are PNGs, drawn without a display, and none half written."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Literal

from hfnet_edge.errors import InputError
from hfnet_edge.shell.command_files import CommandFiles
from hfnet_edge.shell.extras import needs
from hfnet_edge.shell.writing import atomic_write

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def check_png(option: str, path: Path, files: CommandFiles) -> None:
    """Adds a picture to what a command writes, before the work. Raises InputError where it is no PNG, OutputError where
    it cannot be written, InstallError where nothing is there to draw with."""
    files.writes(path, picture=True)
    if path.suffix.lower() != ".png":
        raise InputError(f"{option} {path} is not a .png", "give a name that ends in .png")
    needs("maps", "matplotlib")


def new_figure(width: float, height: float, layout: Literal["constrained", "compressed"]) -> Figure:
    """An empty figure of so many inches, for a file alone."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), dpi=150, layout=layout)
    FigureCanvasAgg(figure)
    return figure


def save_png(figure: Figure, path: Path | str) -> None:
    """Writes a figure. Raises OutputError."""
    with atomic_write(path) as file:
        figure.savefig(file, format="png", bbox_inches="tight", pad_inches=0.15)
