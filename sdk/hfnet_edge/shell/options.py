"""Options that several commands have."""

from __future__ import annotations

from typing import Annotated

import typer

from hfnet_edge.errors import InputError

MethodOption = Annotated[
    str,
    typer.Option(
        "--method",
        metavar="NAME",
        help="hierarchical; or auto, sparse-to-dense, in a map of `hfnet-map build --method sparse-to-dense`; or "
        "retrieval, trees, trees-absolute, parallel, in one of `--method parallel`; or scene-coordinates, in one of "
        "`hfnet-map train`; or retrieval-pose, which says near which reference image only; or your own, module:Class.",
    ),
]
ToleranceOption = Annotated[
    str,
    typer.Option(
        "--tolerance",
        metavar='"LENGTH,DEG"',
        help='What probabilities speak of, in map units and degrees; "1%,2": of the scene\'s depth.',
    ),
]
MaxWrongOption = Annotated[
    str,
    typer.Option(
        "--max-wrong", metavar="SHARE", help="How probable it may be that a pose that is given is wrong altogether."
    ),
]
RefineFocalOption = Annotated[
    bool, typer.Option("--refine-focal", help="Find the focal length too; the camera's is where the search begins.")
]


def parse_share(option: str, text: str) -> float:
    """Reads "0.1%" or "0.001". Whether it makes sense is for the caller. Raises InputError."""
    number = text.strip()
    try:
        return float(number.removesuffix("%")) / (100 if number.endswith("%") else 1)
    except ValueError as e:
        raise InputError(f"{option} {text!r} is no share", 'write "0.1%" or "0.001"') from e
