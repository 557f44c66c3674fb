"""Records the reference: the float pipeline on the fastest processor that there is.

A .tflite runs on the CPU, in LiteRT. Weights, Keras files, SavedModels and ONNX files run on a GPU where TensorFlow or
ONNX Runtime sees one; elsewhere they are converted and run in LiteRT too. The recording says which it was.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from hfnet_edge.errors import InputError
from hfnet_edge.geometry import Camera, Pose
from hfnet_edge.localizer import LocalizationConfig, Localizer, Method
from hfnet_edge.networks.description import Description
from hfnet_edge.networks.model import Model, RawOutputs
from hfnet_edge.networks.patch_model import PatchModel
from hfnet_edge.pose import DEFAULT_SOLVER, PoseConfig
from hfnet_edge.record.recording import Recording
from hfnet_edge.record.runner import about, record_queries, reference_poses
from hfnet_edge.shell.console import Report, silent
from hfnet_edge.shell.files import CommandFiles, read_bytes
from hfnet_edge.shell.lists import find_images
from hfnet_export.extra import export_extra, readers_of
from hfnet_maps.evaluation.errors import THRESHOLDS, Threshold
from hfnet_parity.bundle import write_bundle

TFLITE = ".tflite"
INPUT_SIZE = (480, 640)  # of a network that is not a .tflite


@dataclass(frozen=True)
class Network:
    """A float network that is ready to run.

    Attributes:
        model: what the localizer calls. tflite: the same network as a file, for the bundle.
        processor: that ``model`` runs on.
    """

    model: Any
    tflite: bytes
    processor: str


class Original:
    """A network in the framework that it was made with, on a GPU, in the shape of `hfnet_edge.networks.model.Model`.

    Args:
        description: of the network. reference: (1, H, W, 1) float32 to outputs by role, batch of 1 included.
    """

    def __init__(self, description: Description, reference, kernels: str):
        self.description, self.kernels, self._reference = description, kernels, reference

    def __call__(self, pixels: np.ndarray) -> RawOutputs:
        outputs = self._reference(self.description.scale(pixels))
        return RawOutputs(**{role: np.asarray(outputs[role])[0] for role in self.description.outputs})


def load_network(
    name: str,
    input_size: tuple[int, int] | None = None,
    input_range: tuple[float, float] | None = None,
    outputs: Mapping[str, str] | None = None,
) -> Network:
    """Loads a float network for the fastest processor.

    Args:
        name: a .tflite of hfnet-export, `hfnet`, or what `hfnet_export.sources.foreign.read_source` reads.
        input_size, input_range, outputs: of the latter.

    Raises:
        ModelError: it is not an HF-Net. InputError: it is missing, or an option does not go with it.
        InstallError: it needs packages of hfnet-export that are not installed.
    """
    path = Path(name)
    if path.suffix == TFLITE:
        for option, given in (("input-size", input_size), ("input-range", input_range), ("outputs", outputs)):
            if given is not None:
                raise InputError(f"--{option} is not for a .tflite, which says it itself", "leave it out")
        return Network(Model(path), read_bytes(path), "CPU, LiteRT")
    with export_extra(*readers_of(path)):
        from hfnet_export.networks.weights import BUNDLED
        from hfnet_export.sources.foreign import read_source
        from hfnet_export.tflite.convert import embed

    network = BUNDLED if name == "hfnet" else path
    source = read_source(network, input_size or INPUT_SIZE, input_range=input_range, outputs=outputs)
    tflite = embed(source.content, source.description)
    if source.processor.startswith("GPU"):
        return Network(Original(source.description, source.reference, source.processor), tflite, source.processor)
    return Network(Model(path, content=tflite), tflite, "CPU, LiteRT")


def record(
    network: Network,
    map_: Path,
    images: Path,
    queries: Sequence[tuple[str, Camera]],
    output: Path,
    truth: Mapping[str, Pose] | None = None,
    thresholds: Sequence[Threshold] = THRESHOLDS,
    solver: str | None = None,
    progress: Report = silent,
    method: Method = Method.HIERARCHICAL,
    patch_model: Path | None = None,
) -> Recording:
    """Localizes the queries with the float network and writes a bundle.

    Args:
        images: folder that the queries' names are in.
        truth: true cam_from_world by query; needed for recall and medians.
        solver: see `hfnet_edge.pose.PoseConfig`; None: this machine's.
        patch_model: a .tflite, for a map whose landmarks a patch network describes.

    Raises:
        ImageError, CameraError, MapFormatError, ModelError, MismatchError: an input is not usable.
        InputError: a query has no true pose. OutputError: ``output`` cannot be written.
    """
    check_truth(truth, queries)
    localizer = Localizer(
        map_,
        network.model,
        LocalizationConfig(method, pose=PoseConfig(solver=solver or DEFAULT_SOLVER)),
        patch_model and PatchModel(patch_model),
    )
    place, patches = read_bytes(map_), None if patch_model is None else read_bytes(patch_model)
    files = find_images(images, (name for name, _ in queries))
    CommandFiles(map_, patch_model, *files.values()).writes(output)
    recording = Recording(
        about(localizer, network.tflite, place, network.processor, patches),
        reference_poses(localizer.map),
        record_queries(
            localizer,
            [(name, files[name], camera) for name, camera in queries],
            lambda done, total: progress("recording", done, total),
        ),
    )
    write_bundle(output, recording, files, network.tflite, place, _of(truth, queries), thresholds, patches)
    return recording


def record_hloc(
    folder: Path,
    images: Path,
    queries: Sequence[tuple[str, Camera]],
    output: Path,
    truth: Mapping[str, Pose] | None = None,
    thresholds: Sequence[Threshold] = THRESHOLDS,
) -> Recording:
    """Writes a bundle of what hloc left in a folder, see `hfnet_parity.hloc_results`. Raises as `record` does."""
    from hfnet_parity.hloc_results import read_hloc_results, result_files  # h5py's

    check_truth(truth, queries)
    files = find_images(images, (name for name, _ in queries))
    CommandFiles(*files.values(), *result_files(folder)).writes(output)
    recording = read_hloc_results(folder, queries)
    write_bundle(output, recording, files, None, None, _of(truth, queries), thresholds)
    return recording


def check_truth(truth: Mapping[str, Pose] | None, queries: Sequence[tuple[str, Camera]]) -> None:
    """All queries have a true pose, or none. Raises InputError."""
    missing = [name for name, _ in queries if truth is not None and name not in truth]
    if missing:
        raise InputError(
            f"the reference has no pose for {len(missing)} of {len(queries)} queries, first {missing[0]}",
            "give the COLMAP model or pose list of all queries, or leave --reference out",
        )


def _of(truth: Mapping[str, Pose] | None, queries: Sequence[tuple[str, Camera]]) -> dict[str, Pose]:
    return {name: truth[name] for name, _ in queries} if truth is not None else {}
