"""manifest.json and README.md: what a reader in another language needs to know."""

from __future__ import annotations

import hashlib
import json
import platform
from collections.abc import Mapping
from importlib.metadata import version
from importlib.resources import files
from typing import Any

import numpy as np

from golden.folder import ABOUT, KIND, MANIFEST, Folder
from golden.network import command
from golden.stages import STAGES, TOLERANCES
from hfnet_edge.networks.hfnet import Model

FORMAT = 1
TABLES = "sdk/hfnet_edge/trust/tables.json"
BY_LINE = ("arrays", "cases")
README = """# Golden vectors

Small images made by code, and what each stage of the runtime makes of them. `make golden` writes this folder; do
not edit it. Any language can read it:

    manifest = json(read("manifest.json"))
    for case in manifest.cases:
        given, expected = case.given, case.expected      # of one stage, see the table
        a value that ends in .png or .hfmap is a file of this folder, one that ends in .bin an array:
            entry = manifest.arrays[value]               # dtype, shape, and perhaps scale and zero_point
            array = read(value) as little-endian dtype, C order, without a header
            if entry has a scale: array = float32(array - entry.zero_point) * float32(entry.scale)
        any other value is itself: numbers, texts, lists, null
        compare stages[case.stage].function(given) with expected, within
            manifest.tolerances[manifest.stages[case.stage].tolerance]

Each case starts from the golden result of the stage before, so that stages can be tested one by one. `equal` means
equal: integers, and floats to the last bit. That holds in any language that computes elementwise in IEEE arithmetic, in
the types and the order that the docstrings name, without fused multiply-add and without flushing small numbers to zero.

The docstrings of these functions and classes of `hfnet_edge` specify the stages; they are named without their modules.

| stage | specified by | given | expected | tolerance |
|---|---|---|---|---|
{rows}

The judge's tables are part of the specification, too: `{tables}` holds fitted numbers
that a port reads as they are. `manifest.tables` has the SHA-256 of that file; after a new fit, `make golden` writes
this folder anew.

Poses are refined to the same optimum whatever the solver, so cases name no solver. Where two solvers' first poses end
in different optima, there is a case for each, which only a port with that solver can repeat.

Cameras are written as COLMAP does: model, width, height, parameters. Pixels: the centre of the top left one is
(0.5, 0.5). Sizes are as the stage returns them. Inliers of matches are uint8, indices int32.

The network's file is too large for this folder, and no stage but its own needs it. To make it:

    {command} -o hfnet.tflite

`manifest.network` has the SHA-256 of that file, the hash of its weights, and the tools that made it.
"""


def readme() -> str:
    """README.md."""
    rows = (
        (name, ", ".join(f"`{function}`" for function in stage.names), stage.given, stage.expected, stage.tolerance)
        for name, stage in STAGES.items()
    )
    return README.format(rows="\n".join(f"| {' | '.join(row)} |" for row in rows), command=command(), tables=TABLES)


def made_with() -> dict[str, Any]:
    """What decides over the bytes: tools, and what the processor can do."""
    from hfnet_export.tflite.embed import toolchain

    packages = ("numpy", "opencv-python-headless", "pillow", "pycolmap", "poselib")
    features = np._core._multiarray_umath.__cpu_features__  # type: ignore[attr-defined]
    return {
        "tools": [*toolchain(), *(f"{name} {version(name)}" for name in packages)],
        "machine": platform.machine(),
        "processor": sorted(name for name, there in features.items() if there),
    }


def manifest(folder: Folder, content: bytes, model: Model) -> bytes:
    """manifest.json of a folder that is complete but for its texts.

    Args:
        content: the network's file. model: the same, loaded.
    """
    d = model.description
    order = list(STAGES)
    return manifest_text(
        {
            "kind": KIND,
            "format": FORMAT,
            "made_with": made_with(),
            "tolerances": TOLERANCES,
            "network": {
                "command": command(),
                "sha256": hashlib.sha256(content).hexdigest(),
                "bytes": len(content),
                "weights_hash": d.weights_hash,
                "input_size": d.input_size,
                "input_range": d.input_range,
                "nms_radius": d.nms_radius,
                "toolchain": d.toolchain,
            },
            "tables": {"file": TABLES, "sha256": tables_sha256()},
            "stages": manifest_stages(),
            "files": sorted([MANIFEST, ABOUT, *folder.files]),
            "arrays": folder.arrays,
            "cases": sorted(folder.cases, key=lambda case: order.index(case["stage"])),  # stable
        }
    )


def tables_sha256() -> str:
    """Of the judge's tables, as they are installed."""
    return hashlib.sha256(files("hfnet_edge.trust").joinpath("tables.json").read_bytes()).hexdigest()


def manifest_stages() -> dict[str, Any]:
    """The stages in the order of the pipeline, each with its tolerance. What specifies them stands in the README."""
    return {name: {"tolerance": stage.tolerance} for name, stage in STAGES.items()}


def manifest_text(contents: Mapping[str, Any]) -> bytes:
    """The file, one line for each array and case."""
    parts = [f" {json.dumps(key)}: {json.dumps(value)}" for key, value in contents.items() if key not in BY_LINE]
    arrays = ",\n".join(f"  {json.dumps(file)}: {json.dumps(entry)}" for file, entry in contents["arrays"].items())
    cases = ",\n".join(f"  {json.dumps(case)}" for case in contents["cases"])
    parts += [f' "arrays": {{\n{arrays}\n }}', f' "cases": [\n{cases}\n ]']
    return ("{\n" + ",\n".join(parts) + "\n}\n").encode()
