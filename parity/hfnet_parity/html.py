"""The report as one HTML file that needs nothing else: styles, plots and pictures are in it, and no scripts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from hfnet_edge.shell.printing import printable
from hfnet_edge.shell.writing import atomic_write
from hfnet_parity import report
from hfnet_parity.bundle import Bundle
from hfnet_parity.compare import CONFIDENCE, errors_of, recalls_of
from hfnet_parity.costs import STEPS
from hfnet_parity.layers import Layer
from hfnet_parity.measures import STAGES
from hfnet_parity.pairs import Pair
from hfnet_parity.pictures import BAD, OTHER, bar, photo, query_plot, whisker
from hfnet_parity.run import Verdict

TEMPLATE = "report.html.j2"
CLASSES = {report.OK: "ok", report.OUT: "out", report.NO_LIMIT: "none", report.NOT_RECORDED: "none"}


def write_html(
    path: Path,
    bundle: Bundle,
    verdicts: Sequence[Verdict],
    layers: Sequence[Layer],
    files: Mapping[str, Path],
    when: datetime,
    pictures: int = 5,
):
    """Writes the report of one or several runs atomically.

    Args:
        bundle: that the runs were compared with.
        files: that the runs were given, as `Recording.about` calls them: "model", "map", ... when: they ran.
        layers: of `hfnet_parity.layers.layer_noise`, the noisiest first.
        pictures: of the worst queries of each run, at most.

    Raises:
        OutputError: ``path`` cannot be written. RecordingError: an image of the bundle is damaged.
    """
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=_printable,
    )
    page = environment.get_template(TEMPLATE).render(
        r=report,
        classes=CLASSES,
        stages=STAGES,
        steps=STEPS,
        confidence=CONFIDENCE,
        verdicts=verdicts,
        head=_head(bundle, verdicts, files, when),
        passed=all(verdict.passed for verdict in verdicts),
        layers=layers,
        worst=[_worst(bundle, verdict, pictures) for verdict in verdicts],
        ran=_ran(bundle, verdicts),
        accuracy=_accuracy(bundle, verdicts),
        whisker=whisker,
        query_plot=query_plot,
        bar=bar,
        colors={"bad": BAD, "other": OTHER},
    )
    with atomic_write(path) as file:
        file.write(page.encode())


def _printable(value: Any) -> Any:
    return printable(value) if isinstance(value, str) and not isinstance(value, Markup) else value


def _head(bundle: Bundle, verdicts: Sequence[Verdict], files: Mapping[str, Path], when: datetime) -> str:
    """The files that were compared, with the first digits of their hashes, and when and by what."""
    about = verdicts[0].comparison.run.about if verdicts else {}
    named = [f"{key.replace('_', ' ')} {file.name} {about.get(f'{key}_hash', '')[:8]}" for key, file in files.items()]
    made_by = f"{when:%Y-%m-%d %H:%M} UTC, hfnet-edge {version('hfnet-edge')}"
    return ", ".join(part.strip() for part in (*named, f"reference {bundle.path.name}", made_by))


def _worst(bundle: Bundle, verdict: Verdict, count: int) -> list[dict[str, Any]]:
    """Pairs with their numbers and pictures."""
    c = verdict.comparison
    pairs: list[Pair] = [pair for pair in c.worst if report.differs(c, pair)][:count]
    return [
        {
            "pair": pair,
            "numbers": report.of_query(c, pair),
            "photo": photo(bundle.image(pair.reference.name), pair),
        }
        for pair in pairs
    ]


def _ran(bundle: Bundle, verdicts: Sequence[Verdict]) -> list[tuple[str, list[str]]]:
    """Rows of what ran where: a field of `Recording.about`, then the reference's and each run's."""
    abouts = [bundle.recording.about, *(verdict.comparison.run.about for verdict in verdicts)]
    keys = dict.fromkeys(key for about in abouts for key in about)
    return [(key.replace("_", " "), [about.get(key, "–") for about in abouts]) for key in keys]


def _accuracy(bundle: Bundle, verdicts: Sequence[Verdict]) -> list[tuple[str, list[str]]]:
    """Rows of recall and median errors against the true poses, of the reference and each run; none without those."""
    recordings = [bundle.recording, *(verdict.comparison.run for verdict in verdicts)]
    if not all(q.name in bundle.truth for q in bundle.recording.queries):
        return []
    errors = [errors_of(recording, bundle.truth) for recording in recordings]
    found = [recalls_of(e, bundle.thresholds) for e in errors]
    medians = [np.median(e, axis=0) for e in errors]
    return [
        *(
            (
                f"recall within {threshold.position:g} m, {threshold.rotation:g}°",
                [f"{recall[i]:.1f} %" for recall in found],
            )
            for i, threshold in enumerate(bundle.thresholds)
        ),
        ("median position error", [report.distance(median[0]) for median in medians]),
        ("median rotation error", [report.angle(median[1]) for median in medians]),
    ]
