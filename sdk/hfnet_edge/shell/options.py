"""Options that several commands have."""

from __future__ import annotations

from typing import Annotated

import typer

MethodOption = Annotated[
    str,
    typer.Option(
        "--method",
        metavar="NAME",
        help="hierarchical; or retrieval, trees, trees-absolute, parallel, in a map of "
        "`hfnet-map build --method parallel`; or your own, module:Class.",
    ),
]
