"""Runs a bundle's queries somewhere else and compares: `run_on`, then `judge`."""

from __future__ import annotations

import json
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from hfnet_device.backends import Backend
from hfnet_edge.errors import MismatchError
from hfnet_edge.image.patches import cut, detect
from hfnet_edge.image.photo import load_photo
from hfnet_edge.localizer import WITH_TREES, Method
from hfnet_edge.map.map_file import LocalizationMap
from hfnet_edge.map.random_trees import RandomTrees
from hfnet_edge.networks.description import read_description
from hfnet_edge.networks.model import Model, check_match
from hfnet_edge.networks.patch_model import PatchModel
from hfnet_edge.record.recording import Recording
from hfnet_edge.record.recording_file import read_recording
from hfnet_edge.record.runner import IMAGES, JOB, MAP, MODEL, OUT, PATCHES, RECORDING, RecordJob
from hfnet_edge.shell.console import Report, printable, silent
from hfnet_edge.shell.files import read_bytes
from hfnet_parity.bundle import Bundle
from hfnet_parity.causes import explain
from hfnet_parity.compare import Comparison, compare
from hfnet_parity.costs import Cost, costs
from hfnet_parity.tolerances import HLOC, profile_of, read_tolerances, same_solver

if TYPE_CHECKING:
    from hfnet_parity.layers import Layer

PATCHES_TRIED = 16  # of an image, for the noise of layers


@dataclass(frozen=True)
class Verdict:
    """A comparison, and what follows from it.

    Attributes:
        costs: what each stage costs; empty where it cannot be told.
        look_at: a sentence on the first stage out of tolerance, "" where all hold.
    """

    comparison: Comparison
    costs: tuple[Cost, ...]
    look_at: str

    @property
    def passed(self) -> bool:
        return self.comparison.broken is None


def run_on(
    backend: Backend,
    bundle: Bundle,
    model: Path,
    map_: Path,
    progress: Report = silent,
    method: Method | None = None,
    patch_model: Path | None = None,
) -> Recording:
    """The bundle's queries on a backend, with its solver where the backend has that. Prints what was pushed and pulled.

    Args:
        method: None: the bundle's, and hierarchical for results of hloc.
        patch_model: for a map whose landmarks a patch network describes.

    Raises:
        ModelError, MapFormatError, MismatchError: the models or the map are not usable, or not of the bundle; found out
            here, before anything is sent.
        BackendError: the backend is not available, or the run failed there.
        RecordingError: what came back is damaged.
    """
    recorded = bundle.recording
    patches = None if patch_model is None else PatchModel(patch_model).description
    m = LocalizationMap.open(map_)
    check_match(Model(model).description, m, patches)
    method = method or recorded.method
    if method in WITH_TREES:
        RandomTrees.of(m)
    if recorded.about.get("processor") != HLOC:
        _check_methods(bundle, method, "" if patches is None else patches.weights_hash)
    files = bundle.files()
    queries = tuple((q.name, files[q.name], q.camera) for q in recorded.queries)
    with tempfile.TemporaryDirectory() as folder:
        job = Path(folder) / "job"
        job.mkdir()
        (job / MODEL).write_bytes(read_bytes(model))
        (job / MAP).write_bytes(read_bytes(map_))
        if patch_model is not None:
            (job / PATCHES).write_bytes(read_bytes(patch_model))
        bundle.unpack_images(job / IMAGES)
        fields = RecordJob(queries, recorded.about.get("solver"), method=method).to_json()
        (job / JOB).write_text(json.dumps(fields))
        if transfer := backend.run(job, progress):
            print(printable(f"{backend.name}: {transfer}"))
        content = job / OUT / RECORDING
        return read_recording(content.read_bytes(), f"what came back from {backend.name}")


def _check_methods(bundle: Bundle, method: Method, patch_weights: str) -> None:
    """A run is of the bundle's method, and of its patch network, "" for none. Raises MismatchError."""
    recorded = bundle.recording
    if method is not recorded.method:
        raise MismatchError(
            f"{bundle.path} was recorded with the method {recorded.method}, not {method}",
            f"leave --method out, or record the bundle with --method {method}",
        )
    before = recorded.about.get("patch_weights_hash", "")
    if before != patch_weights:
        raise MismatchError(
            f"{bundle.path} was recorded with {f'the patch weights {before}' if before else 'no patch network'}, "
            f"the run has {patch_weights or 'none'}",
            "run it with the network and the map that it was recorded with, or record it again",
        )


def judge(bundle: Bundle, run: Recording, map_: Path, backend: str, tolerances: Path | None = None) -> Verdict:
    """Compares a run with its bundle.

    Args:
        map_: that the run localized in. tolerances: a file that replaces built-in limits.

    Raises:
        see `hfnet_parity.compare.compare` and `read_tolerances`.
    """
    profile = profile_of(bundle.recording, run)
    limits = read_tolerances(profile, tolerances, same_solver(bundle.recording, run))
    comparison = compare(bundle.recording, run, bundle.truth, bundle.thresholds, limits, profile, backend)
    m = LocalizationMap.open(map_)
    return Verdict(comparison, costs(comparison, m), explain(comparison, bundle))


def layers_of(bundle: Bundle, model: Path, patch_model: Path | None = None, count: int = 4) -> tuple[Layer, ...]:
    """The layers with the lowest signal to noise on a few of the bundle's images, of HF-Net, or of the patch network
    where one describes the landmarks; () where the bundle lacks the network, or it is not quantized from it.

    Raises:
        InstallError: see `hfnet_parity.layers`.
    """
    from hfnet_parity.layers import layer_noise

    network, file = (MODEL, model) if patch_model is None else (PATCHES, patch_model)
    if network not in bundle.members:
        return ()
    size = read_description(read_bytes(model), str(model)).input_size
    with tempfile.TemporaryDirectory() as folder:
        bundle.unpack_images(Path(folder))
        files = list(bundle.files().values())
        images = [load_photo(Path(folder) / name, size).pixels for name in files[:: -(-len(files) // count)]]
    if patch_model is not None:
        images = [patch for image in images for patch in cut(image, detect(image, PATCHES_TRIED))]
    return layer_noise(bundle.member(network), read_bytes(file), images)
