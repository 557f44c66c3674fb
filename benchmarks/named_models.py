"""Networks that a benchmark sets beside one another, by name, and the file that keeps the figures of all of them."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from scenes import exported

from hfnet_edge.networks.hfnet import Model
from hfnet_export.networks.weights import BUNDLED


def parse_models(parser: argparse.ArgumentParser) -> tuple[argparse.Namespace, dict[str, Path | None]]:
    """Parses the command line with ``--model a.tflite --model-name before --model b.tflite --model-name after``.

    Returns:
        The options, and the files by name; without ``--model`` {"bundled": None}, which `open_model` exports. A model
        that is not named is called as its file.
    """
    parser.add_argument("--model", type=Path, action="append", default=[], help="int8 HF-Net; default: the bundled one")
    parser.add_argument("--model-name", action="append", default=[], help="its column; one for each --model")
    options = parser.parse_args()
    names = options.model_name or [path.stem for path in options.model]
    if len(names) != len(options.model) or len(set(names)) != len(names):
        parser.error("give each --model its own --model-name")
    return options, dict(zip(names, options.model, strict=True)) or {"bundled": None}


def open_model(path: Path | None) -> Model:
    """The model of a file; None: the bundled weights at int8."""
    return exported(BUNDLED, "int8") if path is None else Model(path)


def read_results(path: Path) -> dict:
    """What earlier runs measured; {} where none did."""
    return json.loads(path.read_text()) if path.is_file() else {}


def write_results(path: Path, results: dict) -> None:
    """Keeps the figures of this run and of the earlier ones, see `read_results`."""
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(results, indent=1) + "\n")
