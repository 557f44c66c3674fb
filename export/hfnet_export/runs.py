"""A training run in a folder, which a second start with the same options resumes.

RUN_DIR/config.json   what was asked for
RUN_DIR/targets/      crops and what the teachers say of them
RUN_DIR/checkpoints/  network, optimisers and step
RUN_DIR/weights.npz   for `hfnet-export`; losses.csv and losses.png beside it
"""

from __future__ import annotations

import json
import random
from dataclasses import asdict, replace
from pathlib import Path

from hfnet_edge.console import Report, silent
from hfnet_edge.errors import InputError, OutputError
from hfnet_edge.files import atomic_write
from hfnet_export import teachers
from hfnet_export.calibration import image_files
from hfnet_export.convert import toolchain
from hfnet_export.distill import DistillConfig, distill, make_targets


def run_distillation(
    images: Path,
    local_teacher: Path,
    global_teacher: Path,
    output: Path,
    config: DistillConfig,
    progress: Report = silent,
    checkpoint_every: int = 200,
) -> Path:
    """Teaches HF-Net from two teachers, or goes on with what ``output`` holds. Returns the path of the weights.

    Args:
        images: folder of training images; sorted by name, then shuffled with the seed.
        local_teacher: file of the local teacher (`alike_n.npz`); it decides the local descriptors' width.
        global_teacher: file of the global teacher, whose weights the encoder starts from too.
        output: folder of the run.

    Raises:
        InputError: images, teachers or configuration are not usable, or ``output`` was started with others.
        OutputError: ``output`` cannot be written.
    """
    if config.crop % 32 or config.crop < 64:
        raise InputError(f"--crop {config.crop} is not possible", "give a multiple of 32, at least 64")
    files = image_files(images)
    random.Random(config.seed).shuffle(files)
    local, pooled = teachers.local_teacher(local_teacher), teachers.PooledImageNet(global_teacher)
    config = replace(config, network=replace(config.network, local_dim=local.descriptor_dim))
    _claim(
        output,
        {
            "images": f"{len(files)} images in {images.name}",
            "local teacher": local.name,
            "global teacher": pooled.name,
            **{_option(name): value for name, value in asdict(config).items() if name != "network"},
            **{_option(name): value for name, value in config.network.as_dict().items()},
        },
    )
    card = {
        "local_teacher": local.name,
        "local_teacher_licence": local.licence,
        "global_teacher": pooled.name,
        "global_teacher_licence": pooled.licence,
        "image_folder": images.name,
        "images": len(files),
        "toolchain": toolchain(),
    }
    targets = make_targets(files, local, pooled, config, output / "targets", progress)
    return distill(targets, config, output, pooled.weights, card, progress, checkpoint_every)


def _option(name: str) -> str:
    return f"--{name.replace('_', '-')}"


def _claim(folder: Path, asked: dict) -> None:
    """Writes config.json, or finds that a run with checkpoints was asked for the same."""
    path = folder / "config.json"
    started = (folder / "checkpoints" / "checkpoint").exists()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        before = json.loads(path.read_text()) if path.exists() else None
    except OSError as e:
        raise OutputError(f"cannot write {folder}: {e.strerror or e}", "choose another folder") from e
    except ValueError as e:
        raise InputError(f"{path} is damaged", "delete it, or choose another folder") from e
    if started and before is not None:
        for name, value in asked.items():
            if before.get(name) != value:
                raise InputError(
                    f"{folder} was started with {name} {before.get(name)}, not {value}",
                    "give the same options, or another folder",
                )
    if before != asked:
        (folder / "targets" / "done.json").unlink(missing_ok=True)  # what the teachers said was for other options
        with atomic_write(path) as file:
            file.write(json.dumps(asked, indent=2).encode())
