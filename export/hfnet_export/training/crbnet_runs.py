"""A training run of CRBNet in a folder, which a second start with the same recipe and files resumes.

RUN_DIR/run.json      what was asked for
RUN_DIR/patches/      of each scene, of the photographs, and of those that are held out; names end in their files' hash
RUN_DIR/checkpoints/  network, optimiser and step
RUN_DIR/weights.npz   for `hfnet-export`; crbnet.csv and losses.png beside it
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path

import keras

from hfnet_edge.errors import InputError
from hfnet_edge.shell.console import Report, silent
from hfnet_export.networks.weights import save_weights
from hfnet_export.tflite.calibration import image_files
from hfnet_export.tflite.embed import toolchain
from hfnet_export.training.crbnet_training import CRBNetTraining, train_crbnet
from hfnet_export.training.distill import plot_losses
from hfnet_export.training.patch_tracks import PatchTracks, of_photographs, of_scene
from hfnet_export.training.runs import claim, commit, sha256
from hfnet_export.training.training_recipe import BUNDLED_CRBNET_RECIPE, read_crbnet_training_recipe
from hfnet_export.training.training_stage import Progress, writing

EVERY = 14  # photograph is held out
MIN_TRACKS = 64  # of what is trained on and of what is held out, from scenes and from photographs


def run_crbnet(
    scenes: Path,
    images: Path,
    hold_out: Sequence[str],
    output: Path,
    recipe: Path = BUNDLED_CRBNET_RECIPE,
    progress: Report = silent,
    checkpoint_every: int = 100,
) -> Path:
    """Trains CRBNet, or goes on with what ``output`` holds. Returns the path of the weights.

    Args:
        scenes: folder of scenes, each with `images/` and `model/`, a COLMAP model.
        images: folder of photographs; of these, sorted by name, every `EVERY`-th is held out.
        hold_out: names of scenes that are held out whole.
        output: folder of the run.
        recipe: see `hfnet_export.training.training_recipe.read_crbnet_training_recipe`.

    Raises:
        InputError: scenes, images or recipe are not usable, or ``output`` was started with others.
        ImageError: an image is missing or damaged. CameraError: one is of another size than its camera.
        OutputError: ``output`` cannot be written.
    """
    config = read_crbnet_training_recipe(recipe)
    folders = scene_folders(scenes, hold_out)
    photographs = image_files(images)
    held = photographs[EVERY - 1 :: EVERY]
    if not held:
        raise InputError(f"{len(photographs)} photographs in {images} are too few", f"give at least {EVERY}")
    card = data_card(folders, hold_out, photographs, len(held))
    claim(output, {**card, "recipe": json.loads(json.dumps(asdict(config)))})
    by_scene = {
        folder.name: _cut(
            output / "patches" / "scenes", folder.name, files_of(folder), partial(of_scene, folder, progress)
        )
        for folder in folders
    }
    training, held_out = (
        [
            _join([tracks for name, tracks in by_scene.items() if (name in hold_out) == is_held], scenes),
            _cut_photographs(output / "patches", name, paths, progress),
        ]
        for is_held, name, paths in (
            (False, "photographs", [path for path in photographs if path not in set(held)]),
            (True, "held_photographs", held),
        )
    )
    weights = output / "weights.npz"
    keep = keeper(config, {**card, "commit": commit(), "toolchain": toolchain()}, output)
    with writing(output):
        train_crbnet(config, training, held_out, output, progress, checkpoint_every, keep)
    return weights


def keeper(config: CRBNetTraining, card: dict, folder: Path) -> Callable[[keras.Model, Progress], None]:
    """What `train_crbnet` calls after each checkpoint: writes the weights and the curve of the losses."""

    def keep(network: keras.Model, now: Progress) -> None:
        plot_losses(folder, [config.name], folder / "losses.png")
        about = {**card, "config": asdict(config), "stages": {config.name: asdict(now)}}
        save_weights(folder / "weights.npz", network, config.network, about)

    return keep


def scene_folders(scenes: Path, hold_out: Sequence[str]) -> list[Path]:
    """The folders of all scenes, sorted by name.

    Raises:
        InputError: none is held out, none is left to train on, or one is not there.
    """
    if not hold_out:
        raise InputError("no scene is held out", "name at least one with --hold-out")
    if not os.path.isdir(scenes):
        raise InputError(f"there is no folder {scenes}", "check its name")
    found = sorted(folder for folder in scenes.iterdir() if (folder / "model").is_dir())
    names = [folder.name for folder in found]
    if missing := [name for name in hold_out if name not in names]:
        raise InputError(f"{scenes} has no scene {', '.join(missing)}", f"it has {', '.join(names) or 'none'}")
    if set(names) <= set(hold_out):
        raise InputError(f"no scene of {scenes} is left to train on", "hold out fewer, or add scenes")
    return found


def data_card(folders: Sequence[Path], hold_out: Sequence[str], photographs: Sequence[Path], held: int) -> dict:
    """What the weights' card says of the data."""
    of_scenes = [path for folder in folders for path in files_of(folder)]
    return {
        "scenes": [folder.name for folder in folders if folder.name not in hold_out],
        "held_out_scenes": sorted(hold_out),
        "photographs": len(photographs),
        "held_out_photographs": held,
        "sha256": {"scenes": sha256(of_scenes), "photographs": sha256(list(photographs))},
    }


def files_of(folder: Path) -> list[Path]:
    """All files of a scene, sorted."""
    return [path for path in sorted(folder.rglob("*")) if path.is_file()]


def _cut(folder: Path, name: str, inputs: Sequence[Path], make: Callable[[], PatchTracks]) -> PatchTracks:
    """What was cut of these very files before, else what ``make`` returns, which is written to ``folder``."""
    file = folder / f"{name}-{sha256(list(inputs))[:16]}.npz"
    if not file.exists():
        with writing(folder):
            folder.mkdir(parents=True, exist_ok=True)
        make().save(file)
    return PatchTracks.load(file)


def _cut_photographs(folder: Path, name: str, paths: Sequence[Path], progress: Report) -> PatchTracks:
    tracks = _cut(folder, name, paths, partial(of_photographs, paths, 0, os.cpu_count() or 1, progress))
    return _enough(tracks, f"{len(paths)} photographs")


def _join(parts: Sequence[PatchTracks], scenes: Path) -> PatchTracks:
    return _enough(PatchTracks.join(parts), f"{len(parts)} scenes of {scenes}")


def _enough(tracks: PatchTracks, what: str) -> PatchTracks:
    if len(tracks) < MIN_TRACKS:
        raise InputError(f"{what} have {len(tracks)} tracks of patches, of {MIN_TRACKS} needed", "give more, or larger")
    return tracks
