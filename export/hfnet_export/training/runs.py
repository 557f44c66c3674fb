"""A training run in a folder, which a second start with the same recipe and files resumes.

RUN_DIR/run.json      what was asked for
RUN_DIR/targets/      what the teachers say of the images
RUN_DIR/checkpoints/  of each stage: network, optimisers and step
RUN_DIR/weights.npz   for `hfnet-export`; beside it losses.png and local.csv, global.csv, descriptors.csv and
                      hypercolumns.csv
"""

from __future__ import annotations

import hashlib
import json
import random
import subprocess
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path

from hfnet_edge.errors import InputError, OutputError
from hfnet_edge.shell.console import Report, silent
from hfnet_edge.shell.writing import atomic_write
from hfnet_export.tflite.calibration import image_files
from hfnet_export.tflite.embed import toolchain
from hfnet_export.training import teachers
from hfnet_export.training.distill import distill
from hfnet_export.training.targets import make_targets
from hfnet_export.training.training_recipe import BUNDLED_RECIPE, read_training_recipe
from hfnet_export.training.view_pairs import read_place


def run_distillation(
    images: Path,
    local_teacher: Path,
    global_teacher: Path,
    output: Path,
    recipe: Path = BUNDLED_RECIPE,
    progress: Report = silent,
    checkpoint_every: int = 200,
    places: Path | None = None,
    hold_out: Sequence[str] = (),
) -> Path:
    """Teaches HF-Net from two teachers, and its descriptors and hypercolumns from pairs of views, or goes on with what
    ``output`` holds. Returns the path of the weights.

    Args:
        images: folder of training images; sorted by name, then shuffled with the recipe's seed.
        local_teacher: file of the local teacher (`alike_n.npz`); it decides the local descriptors' width.
        global_teacher: file of the global teacher, whose weights the encoder starts from too.
        output: folder of the run.
        recipe: see `hfnet_export.training.training_recipe`.
        places: folder of folders with `images/` and `model/`, a COLMAP model, whose photographs are views of one place;
            None: views are those of homographies alone. hold_out: names of places that are never trained on.

    Raises:
        InputError: images, places, teachers or recipe are not usable, or ``output`` was started with others.
        OutputError: ``output`` cannot be written.
    """
    config = read_training_recipe(recipe)
    files = image_files(images)
    random.Random(config.seed).shuffle(files)
    local, global_ = teachers.local_teacher(local_teacher), teachers.ImageNet(global_teacher)
    config = replace(config, network=replace(config.network, local_dim=local.descriptor_dim))
    hashes = {
        "images": sha256(files),
        "local teacher": sha256([local_teacher]),
        "global teacher": sha256([global_teacher]),
    }
    folders = place_folders(places, hold_out)
    if places is not None:
        hashes["places"] = sha256([file for folder in folders for file in sorted((folder / "model").glob("*"))])
    claim(output, {**hashes, "recipe": json.loads(json.dumps(asdict(config)))})
    card = {
        "local_teacher": local.name,
        "local_teacher_licence": local.licence,
        "global_teacher": global_.name,
        "global_teacher_licence": global_.licence,
        "image_folder": images.name,
        "images": len(files),
        "places": [folder.name for folder in folders if folder.name not in hold_out],
        "places held out": list(hold_out),
        "sha256": hashes,
        "commit": commit(),
        "toolchain": toolchain(),
    }
    targets = make_targets(files, local, global_, output / "targets", progress)
    read = {folder.name: read_place(folder, progress) for folder in folders}
    held = [read.pop(name) for name in hold_out]
    return distill(targets, config, output, global_.weights, card, [*read.values()], held, progress, checkpoint_every)


def place_folders(places: Path | None, hold_out: Sequence[str]) -> list[Path]:
    """The folders of places, by name. Raises InputError: there is none, or one to hold out is not among them."""
    if places is None:
        found = []
    else:
        found = sorted(folder for folder in places.iterdir() if (folder / "model").is_dir()) if places.is_dir() else []
        if not found:
            raise InputError(f"{places} holds no place", "give a folder of folders with images/ and model/")
    if unknown := set(hold_out) - {folder.name for folder in found}:
        known = ", ".join(folder.name for folder in found) or "none, without --places"
        raise InputError(f"there is no place {', '.join(sorted(unknown))} to hold out", f"places: {known}")
    if found and len(found) == len(hold_out):
        raise InputError("every place is held out", "leave one to train on")
    return found


def sha256(files: list[Path]) -> str:
    """SHA-256 over the names and contents of files, in the order of their names."""
    digest = hashlib.sha256()
    for file in sorted(files):
        digest.update(file.name.encode())
        digest.update(hashlib.sha256(file.read_bytes()).digest() if file.is_file() else b"")
    return digest.hexdigest()


def commit() -> str:
    """Of the checkout that this code runs from; empty for an installed package."""
    try:
        return subprocess.run(
            ["git", "describe", "--always", "--dirty", "--abbrev=12"],
            cwd=Path(__file__).parent, capture_output=True, text=True, timeout=10, check=True,
        ).stdout.strip()  # fmt: skip
    except (OSError, subprocess.SubprocessError):
        return ""


def claim(folder: Path, asked: dict) -> None:
    """Writes run.json, or finds that a run with checkpoints was asked for the same."""
    path = folder / "run.json"
    started = (folder / "checkpoints").exists()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        before = json.loads(path.read_text()) if path.exists() else None
    except OSError as e:
        raise OutputError(f"cannot write {folder}: {e.strerror or e}", "choose another folder") from e
    except ValueError as e:
        raise InputError(f"{path} is damaged", "delete it, or choose another folder") from e
    if started and before is not None:
        was, now = _flat(before), _flat(asked)
        for name in sorted(was.keys() | now.keys()):
            if was.get(name) != now.get(name):
                raise InputError(
                    f"{folder} was started with {name} {was.get(name)}, not {now.get(name)}",
                    "give the same, or another folder",
                )
    if before != asked:
        with atomic_write(path) as file:
            file.write(json.dumps(asked, indent=2).encode())


def _flat(tree: dict, prefix: str = "") -> dict:
    """{"a": {"b": 1}} to {"a.b": 1}."""
    out: dict = {}
    for key, value in tree.items():
        out |= _flat(value, f"{prefix}{key}.") if isinstance(value, dict) else {f"{prefix}{key}": value}
    return out
