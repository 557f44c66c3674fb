"""Runs a bundle's queries somewhere else and compares: `run_on`, then `judge`."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from hfnet_device.backends import Backend
from hfnet_edge.errors import MismatchError
from hfnet_edge.image.patches import cut, detect
from hfnet_edge.image.photo import load_photo
from hfnet_edge.localizer import Localizer
from hfnet_edge.map.map_file import LocalizationMap
from hfnet_edge.methods.method import LocalizationConfig
from hfnet_edge.networks.by_role import Networks
from hfnet_edge.networks.description import IMAGE, PATCHES
from hfnet_edge.networks.network import description_of
from hfnet_edge.record.recording import Recording
from hfnet_edge.record.recording_file import read_recording
from hfnet_edge.record.runner import IMAGES, JOB, MAP, OUT, RECORDING, RecordJob, network_names
from hfnet_edge.shell.console import Report, silent
from hfnet_edge.shell.one_thread import one_thread
from hfnet_edge.shell.printing import printable
from hfnet_edge.shell.reading import read_bytes
from hfnet_parity.bundle import Bundle
from hfnet_parity.causes import explain
from hfnet_parity.compare import Comparison, compare
from hfnet_parity.costs import Cost, costs
from hfnet_parity.tolerances import HLOC, profile_of, read_tolerances

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
    networks: Sequence[Path],
    map_: Path,
    progress: Report = silent,
    method: str | None = None,
) -> Recording:
    """The bundle's queries on a backend. Prints what was pushed and pulled.

    Args:
        networks: .tflite files. method: None: the bundle's, and hierarchical for results of hloc.

    Raises:
        ModelError, MapFormatError, MismatchError: the networks or the map are not usable, or not of the bundle; found
            out here, before anything is sent.
        BackendError: the backend is not available, or the run failed there.
        RecordingError: what came back is damaged.
    """
    recorded = bundle.recording
    method = method or recorded.method
    here = Localizer(map_, *networks, config=LocalizationConfig(method))
    here.one_map("a parity run")
    if recorded.about.get("processor") != HLOC:
        _check_methods(bundle, method, here.networks)
    files = bundle.files()
    queries = tuple((q.name, files[q.name], q.camera) for q in recorded.queries)
    with tempfile.TemporaryDirectory() as folder:
        job = Path(folder) / "job"
        job.mkdir()
        for name, network in zip(network_names([n.description for n in here.networks]), networks, strict=True):
            (job / name).write_bytes(read_bytes(network))
        (job / MAP).write_bytes(read_bytes(map_))
        bundle.unpack_images(job / IMAGES)
        fields = RecordJob(queries, method=method).to_json()
        (job / JOB).write_text(json.dumps(fields))
        if transfer := backend.run(job, progress):
            print(printable(f"{backend.name}: {transfer}"))
        content = job / OUT / RECORDING
        return read_recording(content.read_bytes(), f"what came back from {backend.name}")


def _check_methods(bundle: Bundle, method: str, networks: Networks) -> None:
    """A run is of the bundle's method, and of its patch and retrieval networks. Raises MismatchError."""
    recorded = bundle.recording
    if method != recorded.method:
        raise MismatchError(
            f"{bundle.path} was recorded with the method {recorded.method}, not {method}",
            f"leave --method out, or record the bundle with --method {method}",
        )
    for what, network in (("patch", networks.patches), ("retrieval", networks.retrieval)):
        before = recorded.about.get(f"{what}_weights_hash", "")
        now = "" if network is None else network.description.weights_hash
        if before != now:
            recorded_with = f"the {what} weights {before}" if before else f"no {what} network"
            raise MismatchError(
                f"{bundle.path} was recorded with {recorded_with}, the run has {now or 'none'}",
                "run it with the network and the map that it was recorded with, or record it again",
            )


def judge(bundle: Bundle, run: Recording, map_: Path, backend: str, tolerances: Path | None = None) -> Verdict:
    """Compares a run with its bundle.

    Args:
        map_: that the run localized in. tolerances: a file that replaces built-in limits.

    Raises:
        RecordingError, MismatchError, InputError: see `hfnet_parity.compare.compare` and `read_tolerances`.
    """
    profile = profile_of(bundle.recording, run)
    limits = read_tolerances(profile, tolerances)
    comparison = compare(bundle.recording, run, bundle.truth, bundle.thresholds, limits, profile, backend)
    m = LocalizationMap.open(map_)
    with one_thread():
        spent = costs(comparison, m)
    return Verdict(comparison, spent, explain(comparison, bundle))


def layers_of(bundle: Bundle, networks: Sequence[Path], count: int = 4) -> tuple[Layer, ...]:
    """The layers with the lowest signal to noise on a few of the bundle's images, of the network that describes the
    landmarks; () where the bundle lacks it, or it is not quantized from it.

    Raises:
        InstallError: see `hfnet_parity.layers`.
    """
    from hfnet_parity.layers import layer_noise

    descriptions = [description_of(file) for file in networks]
    of_landmarks = [i for kind in (PATCHES, IMAGE) for i, d in enumerate(descriptions) if d.kind == kind]
    at = of_landmarks[0] if of_landmarks else 0
    name = network_names(descriptions)[at]
    if name not in bundle.members:
        return ()
    with tempfile.TemporaryDirectory() as folder:
        bundle.unpack_images(Path(folder))
        files = [Path(folder) / file for file in list(bundle.files().values())[:: -(-len(bundle.files()) // count)]]
        size = next((d.input_size for d in descriptions if d.kind == IMAGE), descriptions[at].input_size)
        images = [load_photo(file, size).pixels for file in files]
    if descriptions[at].kind == PATCHES:
        images = [patch for image in images for patch in cut(image, detect(image, PATCHES_TRIED))]
    return layer_noise(bundle.member(name), read_bytes(networks[at]), images)
