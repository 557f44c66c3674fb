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
from hfnet_edge.localizer import Localizer
from hfnet_edge.methods.method import LocalizationConfig
from hfnet_edge.networks.by_role import open_network
from hfnet_edge.networks.description import Description
from hfnet_edge.networks.hfnet import Model, RawOutputs
from hfnet_edge.networks.network import read_model
from hfnet_edge.record.recording import Recording
from hfnet_edge.record.runner import about, network_names, record_queries, reference_poses
from hfnet_edge.shell.command_files import CommandFiles
from hfnet_edge.shell.console import Report, silent
from hfnet_edge.shell.lists import find_images
from hfnet_edge.shell.reading import read_bytes
from hfnet_export.extra import export_extra, readers_of
from hfnet_maps.evaluation.errors import THRESHOLDS, Threshold
from hfnet_parity.bundle import write_bundle

TFLITE = ".tflite"
INPUT_SIZE = (480, 640)  # of a network that is not a .tflite


@dataclass(frozen=True)
class FloatNetwork:
    """A float network that is ready to run.

    Attributes:
        model: what the localizer calls. tflite: the same network as a file, for the bundle.
        processor: that ``model`` runs on.
    """

    model: Any
    tflite: bytes
    processor: str


class Original:
    """A network in the framework that it was made with, on a GPU, in the shape of `hfnet_edge.networks.hfnet.Model`.

    Args:
        path: that it was read from. description: of the network.
        reference: (1, H, W, 1) float32 to outputs by role, batch of 1 included.
    """

    def __init__(self, path: Path, description: Description, reference, kernels: str):
        self.path, self.description, self.kernels, self._reference = path, description, kernels, reference

    def __call__(self, pixels: np.ndarray) -> RawOutputs:
        outputs = self._reference(self.description.scale(pixels))
        return RawOutputs(**{role: np.asarray(outputs[role])[0] for role in self.description.outputs})


def load_network(
    name: str,
    input_size: tuple[int, int] | None = None,
    input_range: tuple[float, float] | None = None,
    outputs: Mapping[str, str] | None = None,
) -> FloatNetwork:
    """Loads a float network for the fastest processor.

    Args:
        name: a .tflite of hfnet-export, `hfnet`, or what `hfnet_export.sources.hfnet_files.hfnet_of_file` takes.
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
        content = read_model(path)
        return FloatNetwork(open_network(path, content=content), content, "CPU, LiteRT")
    with export_extra(*readers_of(path)):
        from hfnet_export.networks.weights import BUNDLED
        from hfnet_export.sources.hfnet_files import hfnet_of_file
        from hfnet_export.tflite.embed import embed

    network = BUNDLED if name == "hfnet" else path
    hfnet = hfnet_of_file(network, input_size or INPUT_SIZE, input_range=input_range, outputs=outputs)
    converted = hfnet.convert(lambda *_: None)
    tflite = embed(converted.graph, converted.description)
    if converted.processor.startswith("GPU"):
        original = Original(path, converted.description, converted.original, converted.processor)
        return FloatNetwork(original, tflite, converted.processor)
    return FloatNetwork(Model(path, content=tflite), tflite, "CPU, LiteRT")


def record(
    networks: Sequence[FloatNetwork],
    map_: Path,
    images: Path,
    queries: Sequence[tuple[str, Camera]],
    output: Path,
    truth: Mapping[str, Pose] | None = None,
    thresholds: Sequence[Threshold] = THRESHOLDS,
    progress: Report = silent,
    method: str = "hierarchical",
) -> Recording:
    """Localizes the queries with float networks and writes a bundle.

    Args:
        images: folder that the queries' names are in.
        truth: true cam_from_world by query; needed for recall and medians.

    Raises:
        ImageError, CameraError, MapFormatError, ModelError, MismatchError: an input is not usable.
        InputError: a query has no true pose. OutputError: ``output`` cannot be written.
    """
    check_truth(truth, queries)
    localizer = Localizer(
        map_,
        *(network.model for network in networks),
        config=LocalizationConfig(method),
    )
    localizer.one_map("a bundle")
    place = read_bytes(map_)
    files = find_images(images, (name for name, _ in queries))
    CommandFiles(map_, *files.values()).writes(output)
    names = network_names([network.model.description for network in networks])
    processor = " and ".join(dict.fromkeys(network.processor for network in networks))
    recording = Recording(
        about(localizer, [network.tflite for network in networks], place, processor),
        reference_poses(localizer.map),
        record_queries(
            localizer,
            [(name, files[name], camera) for name, camera in queries],
            lambda done, total: progress("recording", done, total),
        ),
    )
    members = {name: network.tflite for name, network in zip(names, networks, strict=True)}
    write_bundle(output, recording, files, members, place, _of(truth, queries), thresholds)
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
    write_bundle(output, recording, files, {}, None, _of(truth, queries), thresholds)
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
