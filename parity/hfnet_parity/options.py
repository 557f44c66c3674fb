"""The options of every command that localizes: --method and --patch-model."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from hfnet_edge.errors import InputError
from hfnet_edge.localizer import Method

MethodOption = Annotated[
    Method, typer.Option("--method", help="All but the first need a map of `hfnet-map build --method parallel`.")
]
PatchModelOption = Annotated[
    Path | None,
    typer.Option("--patch-model", metavar="P.tflite", help="The patch network that built such a map."),
]


def check_method(method: Method, patch_model: Path | None) -> None:
    """A method that searches landmarks of a patch network has one. Raises InputError."""
    if method is not Method.HIERARCHICAL and patch_model is None:
        raise InputError(f"--method {method} needs a patch network", "name the one that built the map: --patch-model")
