"""A training run of DenserNet in a folder, which a second start with the same recipe and files resumes.

RUN_DIR/run.json      what was asked for
RUN_DIR/checkpoints/  network, optimiser and step
RUN_DIR/weights.npz   for `hfnet-export`, once all steps are done; densernet.csv and losses.png beside it
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import keras
import numpy as np

from hfnet_edge.errors import InputError
from hfnet_edge.shell.console import Report, silent
from hfnet_export.networks.densernet import build_densernet, initialise_branches
from hfnet_export.networks.hfnet import initialise_encoder, network_input
from hfnet_export.networks.weights import save_weights
from hfnet_export.tflite.calibration import evenly, image_files
from hfnet_export.tflite.embed import toolchain
from hfnet_export.training import teachers
from hfnet_export.training.covisible import Images, read_covisible, read_photographs
from hfnet_export.training.densernet_stage import (
    densernet_stage,
    embed,
    learnt_projection,
    mean_precision,
)
from hfnet_export.training.distill import plot_losses
from hfnet_export.training.runs import claim, commit, place_folders, sha256
from hfnet_export.training.training_recipe import BUNDLED_DENSERNET_RECIPE, read_densernet_training_recipe
from hfnet_export.training.training_stage import Progress, train, writing

EVERY = 14  # photograph is held out
PROBES = 24  # images that the encoder's statistics are measured on


def run_densernet(
    images: Path,
    places: Path,
    hold_out: Sequence[str],
    encoder: Path,
    output: Path,
    recipe: Path = BUNDLED_DENSERNET_RECIPE,
    progress: Report = silent,
    checkpoint_every: int = 100,
) -> Path:
    """Trains DenserNet, or goes on with what ``output`` holds. Returns the path of the weights.

    Args:
        images: folder of photographs, each a place of its own; sorted by name, every `EVERY`-th is held out.
        places: folder of folders with `images/` and `model/`, a COLMAP model. hold_out: those held out whole.
        encoder: file of the network that it begins as, `mobilenetv2_1.0_imagenet.npz`.
        output: folder of the run.
        recipe: see `hfnet_export.training.training_recipe.read_densernet_training_recipe`.

    Raises:
        InputError: images, places, encoder or recipe are not usable, or ``output`` was started with others.
        ImageError: an image is missing or damaged. OutputError: ``output`` cannot be written.
    """
    config = read_densernet_training_recipe(recipe)
    files, began = image_files(images), teachers.ImageNet(encoder)
    held = files[EVERY - 1 :: EVERY]
    folders = place_folders(places, hold_out)
    if not (held and hold_out):
        raise InputError("nothing is held out", f"give at least {EVERY} photographs, and name a place with --hold-out")
    hashes = {
        "images": sha256(files),
        "encoder": sha256([encoder]),
        "places": sha256([file for folder in folders for file in sorted((folder / "model").glob("*"))]),
    }
    claim(output, {**hashes, "hold_out": sorted(hold_out), "recipe": json.loads(json.dumps(asdict(config)))})
    read = {folder.name: read_covisible(folder, config.input_size, progress) for folder in folders}
    held_out = Images.of([read_photographs(held, config.input_size, progress), *(read.pop(n) for n in hold_out)])
    single = read_photographs([f for f in files if f not in set(held)], config.input_size, progress)
    trained = Images.of([single, *read.values()])

    keras.utils.set_random_seed(config.seed)
    model = build_densernet(config.network, config.input_size)
    probes = network_input(trained.pixels[evenly(len(trained.pixels), PROBES)])
    initialise_encoder(model, began.weights, probes)
    initialise_branches(model, began.weights, probes)
    card = {
        "encoder": began.name,
        "encoder_licence": began.licence,
        "image_folder": images.name,
        "images": len(files),
        "places": sorted(read),
        "places held out": sorted(hold_out),
        "sha256": hashes,
        "commit": commit(),
        "toolchain": toolchain(),
        "config": asdict(config),
    }

    def keep(now: Progress) -> None:
        plot_losses(output, ["densernet"], output / "losses.png")
        card["stages"] = {"densernet": asdict(now)}

    with writing(output):
        train(densernet_stage(model, trained, held_out, config), output, progress, checkpoint_every, keep)
        progress("fitting the projection", 0, 1)
        projection = learnt_projection(model, trained, config.network.global_dim, config.seed)
        kernel = projection.components / np.sqrt(2)  # of what is pooled: two parts of unit length
        model.get_layer("projection").set_weights([kernel, -projection.mean @ projection.components])
        vectors = projection(embed(model, held_out.pixels))
        card["held_out_mean_precision"] = mean_precision(vectors, range(1, len(held_out.sources)), held_out)
        save_weights(output / "weights.npz", model, config.network, card)
        progress("fitting the projection", 1, 1)
    return output / "weights.npz"
