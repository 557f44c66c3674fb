"""Runs a bundle's queries somewhere else and compares: `run_on`, then `judge`."""

from __future__ import annotations

import json
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from hfnet_device.backends import Backend
from hfnet_edge.console import Report, silent
from hfnet_edge.image import load_photo
from hfnet_edge.map_file import LocalizationMap
from hfnet_edge.model import Model, check_match, read_description
from hfnet_edge.recording import Recording
from hfnet_edge.recording_file import read_recording
from hfnet_edge.runner import IMAGES, JOB, MAP, MODEL, OUT, RECORDING, RecordJob
from hfnet_parity.bundle import Bundle
from hfnet_parity.causes import explain
from hfnet_parity.compare import Comparison, compare
from hfnet_parity.costs import Cost, costs
from hfnet_parity.tolerances import profile_of, read_tolerances, same_solver

if TYPE_CHECKING:
    from hfnet_parity.layers import Layer


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


def run_on(backend: Backend, bundle: Bundle, model: Path, map_: Path, progress: Report = silent) -> Recording:
    """The bundle's queries on a backend, with its solver where the backend has that. Prints what was pushed and pulled.

    Raises:
        ModelError, MapFormatError, MismatchError: model or map are not usable; found out here, before anything is sent.
        BackendError: the backend is not available, or the run failed there.
        RecordingError: what came back is damaged.
    """
    check_match(Model(model).description, LocalizationMap.open(map_))
    files = bundle.files()
    queries = tuple((q.name, files[q.name], q.camera) for q in bundle.recording.queries)
    with tempfile.TemporaryDirectory() as folder:
        job = Path(folder) / "job"
        job.mkdir()
        (job / MODEL).write_bytes(model.read_bytes())
        (job / MAP).write_bytes(map_.read_bytes())
        bundle.unpack_images(job / IMAGES)
        fields = RecordJob(queries, bundle.recording.about.get("solver")).to_json()
        (job / JOB).write_text(json.dumps(fields))
        if transfer := backend.run(job, progress):
            print(f"{backend.name}: {transfer}")
        content = job / OUT / RECORDING
        return read_recording(content.read_bytes(), f"what came back from {backend.name}")


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


def layers_of(bundle: Bundle, model: Path, count: int = 4) -> tuple[Layer, ...]:
    """The model's layers with the lowest signal to noise, on a few of the bundle's images; () where the bundle has no
    network, or the model is not a quantized copy of it. Raises InstallError: see `hfnet_parity.layers`."""
    from hfnet_parity.layers import layer_noise

    if MODEL not in bundle.members:
        return ()
    content = model.read_bytes()
    size = read_description(content, str(model)).input_size
    with tempfile.TemporaryDirectory() as folder:
        bundle.unpack_images(Path(folder))
        files = list(bundle.files().values())
        images = [load_photo(Path(folder) / name, size).pixels for name in files[:: -(-len(files) // count)]]
    return layer_noise(bundle.member(MODEL), content, images)
