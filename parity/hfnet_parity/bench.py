"""Speed, memory and bytes read of models on a machine, side by side.

Each measurement is a process of its own: one model on one number of threads. They take turns, round by round, so that
a machine that gets slower meanwhile does so for all; the ratio of two models is the median over pairs of the same query
in the same round.
"""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from rich.table import Table

from hfnet_device.backends import Backend
from hfnet_edge.errors import BackendError, InputError
from hfnet_edge.geometry import Camera
from hfnet_edge.image.image_file import open_image
from hfnet_edge.localizer import Localizer
from hfnet_edge.map.map_file import LocalizationMap
from hfnet_edge.methods.method import LocalizationConfig
from hfnet_edge.networks.description import IMAGE
from hfnet_edge.networks.network import description_of
from hfnet_edge.record.bench import BenchJob, BenchRun
from hfnet_edge.record.runner import BENCH, IMAGES, JOB, MAP, OUT, network_names
from hfnet_edge.result import Status
from hfnet_edge.shell.console import Report, silent, size_text
from hfnet_edge.shell.reading import parse_json, read_bytes
from hfnet_export.tflite.calibration import image_files

THREADS = (1, 2)
WHOLE = "whole"  # the query
FOCAL = 1.2  # of the longer side, as COLMAP guesses


@dataclass(frozen=True)
class Measured:
    """One model on one number of threads.

    Attributes:
        model: its file. patches: the name of the patch network's that goes with it, or "".
        runs: one a round, all of the same queries.
    """

    model: Path
    threads: int
    runs: tuple[BenchRun, ...]
    patches: str = ""

    def milliseconds(self, stage: str) -> np.ndarray:
        """(rounds, queries) float64 of a stage of the run or of `WHOLE`; NaN where a query did not come to it."""
        return np.array(
            [
                [q.whole if stage == WHOLE else q.milliseconds.get(stage, np.nan) for q in run.queries]
                for run in self.runs
            ]
        )

    def bytes(self, stage: str) -> np.ndarray:
        """(queries,) int64: what each query reads in a stage, or in all, of its image and first of the map."""
        queries = self.runs[0].queries
        return np.array([sum(q.bytes.values()) if stage == WHOLE else q.bytes.get(stage, 0) for q in queries])

    def percentile(self, stage: str, percent: float) -> float | None:
        """Milliseconds that ``percent`` of the queries stay below; None where none came to the stage."""
        values = self.milliseconds(stage)
        return float(np.percentile(values[~np.isnan(values)], percent)) if not np.isnan(values).all() else None

    def ratio(self, other: Measured, stage: str) -> float | None:
        """How many times the other's milliseconds a stage takes: the median over pairs of the same query and round;
        None where there is no pair."""
        ratios = self.milliseconds(stage) / other.milliseconds(stage)
        return float(np.nanmedian(ratios)) if not np.isnan(ratios).all() else None

    @property
    def opened(self) -> int:
        """Bytes that opening the models and the map reads."""
        return self.runs[0].model_bytes + self.runs[0].patch_bytes + self.runs[0].map_bytes

    @property
    def peak_rss(self) -> int:
        """Bytes, the most of all rounds."""
        return max(run.peak_rss for run in self.runs)

    @property
    def localized(self) -> int:
        """Number of queries."""
        return sum(q.status == Status.LOCALIZED.value for q in self.runs[0].queries)


def guess_cameras(folder: Path) -> list[tuple[str, Camera]]:
    """All images below a folder, each with the camera that COLMAP starts from where it knows nothing: a focal length of
    1.2 times the longer side, the centre in the middle, no distortion.

    Raises:
        InputError: no images. ImageError: one of them is not readable.
    """
    found = []
    for file in image_files(folder):
        width, height = open_image(file).stored
        camera = Camera("SIMPLE_PINHOLE", width, height, (FOCAL * max(width, height), width / 2, height / 2))
        found.append((file.relative_to(folder).as_posix(), camera))
    return found


def measure(
    backend: Backend,
    models: Sequence[Path],
    map_: Path,
    queries: Sequence[tuple[str, Path, Camera]],
    rounds: int,
    progress: Report = silent,
    method: str = "hierarchical",
) -> list[Measured]:
    """Measures each model with each of `THREADS`.

    Args:
        queries: name, image file, camera; at least one.
        models: networks; a patch network goes with each of the others.
        rounds: how often each measurement is repeated.

    Returns:
        Models in their order, each on one thread, then on two.

    Raises:
        ModelError, MapFormatError, MismatchError: a model or the map is not usable; found out before anything is sent.
        InputError: an image cannot be copied. BackendError: the backend is not available, or a run failed there.
    """
    descriptions = {model: description_of(model) for model in models}
    patches = [model for model in models if descriptions[model].kind != IMAGE]
    models = [model for model in models if model not in patches] or patches
    patches = [] if models == patches else patches
    place, config = LocalizationMap.open(map_), LocalizationConfig(method)
    for model in models:
        Localizer(place, model, *patches, config=config)
    todo = [(model, threads) for model in models for threads in THREADS]
    runs: list[list[BenchRun]] = [[] for _ in todo]
    steps = rounds * len(todo)
    with tempfile.TemporaryDirectory() as folder:
        job = Path(folder) / "job"
        files = _lay_out(job, map_, queries)
        for step in range(steps):
            round_, at = divmod(step, len(todo))
            if round_ % 2:  # there and back: a drift is on all of them alike
                at = len(todo) - 1 - at
            model, threads = todo[at]
            networks = (model, *patches)
            for file, name in zip(networks, network_names([descriptions[n] for n in networks]), strict=True):
                shutil.copyfile(file, job / name)
            (job / JOB).write_text(json.dumps(BenchJob(files, threads, method).to_json()))
            backend.run(job, _part(progress, step, steps, f"{model.name}, {threads} thr."))
            runs[at].append(_read(job / OUT / BENCH, backend.name))
    named = ", ".join(file.name for file in patches)
    return [Measured(*one, tuple(found), named) for one, found in zip(todo, runs, strict=True)]


def _lay_out(job: Path, map_: Path, queries: Sequence[tuple[str, Path, Camera]]) -> tuple[tuple[str, str, Camera], ...]:
    """Puts into a job what all runs share; returns its queries. Raises InputError: a file cannot be copied."""
    files = tuple((name, f"{i}{file.suffix}", camera) for i, (name, file, camera) in enumerate(queries))
    try:
        (job / IMAGES).mkdir(parents=True)
        shutil.copyfile(map_, job / MAP)
        for (_, source, _), (_, target, _) in zip(queries, files, strict=True):
            shutil.copyfile(source, job / IMAGES / target)
    except OSError as e:
        raise InputError(f"cannot copy {e.filename}: {e.strerror}", f"check permissions and space in {job}") from e
    return files


def _part(progress: Report, step: int, steps: int, note: str) -> Report:
    """The progress of one of several runs of equal length."""
    return lambda what, done, total, _="": progress("measuring", step * total + done, steps * total, note)


def _read(file: Path, where: str) -> BenchRun:
    try:
        return BenchRun.from_json(parse_json(read_bytes(file)))
    except (OSError, ValueError, KeyError, TypeError, OverflowError) as e:
        raise BackendError(f"what came back from {where} is no measurement ({type(e).__name__})", "run it again") from e


def to_json(measured: Sequence[Measured], backend: str, guessed: bool) -> dict:
    """Everything, for --json. Ratios are to the first model on the same number of threads."""
    first = measured[0].runs[0]
    return {
        "backend": backend,
        "processor": first.processor,
        "machine": first.machine,
        "cores": first.cores,
        "busy": is_busy(measured),
        "method": first.method,
        "patch_precision": first.patch_precision or None,
        "cameras_guessed": guessed,
        "measured": [
            {
                "model": str(one.model),
                "precision": one.runs[0].precision,
                "threads": one.threads,
                "localized": one.localized,
                "peak_rss": one.peak_rss,
                "bytes_opened": one.opened,
                "stages": {stage: _stage_json(one, base, stage) for stage in (*first.stages, WHOLE)},
                "rounds": [run.to_json() for run in one.runs],
            }
            for one, base in _with_base(measured)
        ],
    }


def _stage_json(one: Measured, base: Measured, stage: str) -> dict:
    return {
        "p50": one.percentile(stage, 50),
        "p95": one.percentile(stage, 95),
        "ratio": one.ratio(base, stage),
        "timed": int((~np.isnan(one.milliseconds(stage))).sum()),
        "bytes_first_query": int(one.bytes(stage)[0]),
        "bytes_all_queries": int(one.bytes(stage).sum()),
    }


def _with_base(measured: Sequence[Measured]) -> list[tuple[Measured, Measured]]:
    """Each with the first model on as many threads."""
    return [(one, measured[i % len(THREADS)]) for i, one in enumerate(measured)]


def is_busy(measured: Sequence[Measured]) -> bool:
    """At some run, more programs wanted a core than there are."""
    return any(run.load is not None and run.load > run.cores for one in measured for run in one.runs)


def tables(measured: Sequence[Measured]) -> list[Table]:
    """One a model, a row a stage; 80 columns wide at most."""
    pairs = _with_base(measured)
    groups = [pairs[i : i + len(THREADS)] for i in range(0, len(pairs), len(THREADS))]
    return [_table(group, compared=i > 0) for i, group in enumerate(groups)]


def _table(pairs: Sequence[tuple[Measured, Measured]], compared: bool) -> Table:
    """Of one model on each of `THREADS`, each with what it is compared with. Bytes do not depend on the threads."""
    one, run = pairs[0][0], pairs[0][0].runs[0]
    title = f"{one.model.name} ({run.precision}): {one.localized} of {len(run.queries)} queries localized"
    if compared:
        title += f"\nx: times the milliseconds of {pairs[0][1].model.name}"
    table = Table(title=title, title_justify="left", caption_justify="left")
    table.add_column("stage", no_wrap=True, min_width=max(map(len, (*run.stages, WHOLE))))
    for threads in THREADS:
        headings = (f"{threads} thr.\np50 ms", "\np95", "\nx")
        for heading in headings if compared else headings[:2]:
            table.add_column(heading, justify="right", no_wrap=True)
    for heading in ("first\nreads", "all\nread"):
        table.add_column(heading, justify="right", no_wrap=True)
    for stage in (*run.stages, WHOLE):
        if stage == WHOLE:
            table.add_section()
        cells = []
        for measured, base in pairs:
            cells += [_text(measured.percentile(stage, percent)) for percent in (50, 95)]
            cells += [_text(measured.ratio(base, stage))] if compared else []
        read = one.bytes(stage)
        table.add_row(stage, *cells, *(size_text(int(n)) if n else "" for n in (read[0], read.sum())))
    peaks = []
    for measured, base in pairs:
        ratio = f" (x {measured.peak_rss / base.peak_rss:.2f})" if compared else ""
        peaks.append(f"{size_text(measured.peak_rss)}{ratio} on {measured.threads} thr.")
    table.caption = f"peak memory {', '.join(peaks)}\nopening model and map reads {size_text(one.opened)}"
    return table


def _text(value: float | None) -> str:
    """Three digits, for milliseconds and ratios."""
    if value is None:
        return ""
    return f"{value:.2f}" if value < 9.995 else f"{value:.1f}" if value < 99.95 else f"{value:.0f}"
