"""A verdict for people, in the terminal, and for programs, as JSON; and the words that `html` shares."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table
from rich.text import Text

from hfnet_edge.pose.refinement import position_std, rotation_std
from hfnet_edge.record.recording import QueryRecord, Recording
from hfnet_edge.record.recording_file import pose_to_json
from hfnet_edge.shell.printing import printable
from hfnet_edge.shell.tables import PrintableConsole
from hfnet_parity.compare import Comparison, Value
from hfnet_parity.costs import ROUNDING, STEPS, Cost, costliest
from hfnet_parity.layers import Layer
from hfnet_parity.measures import STAGES, Measure
from hfnet_parity.pairs import Pair
from hfnet_parity.run import Verdict

FORMAT = 2
WIDTH = 100  # columns, where the terminal does not say
WORST, LAYERS = 3, 5  # that the terminal shows
NO_DIFFERENCE = "No query's pose, inliers or status differ."
UNIT = "Lengths take the map's unit for the metre."
OK, OUT, NO_LIMIT, NOT_RECORDED = "ok", "OUT", "–", "not recorded"
STYLES = {OK: "green", OUT: "bold red", NO_LIMIT: "dim", NOT_RECORDED: "dim"}


def print_report(verdict: Verdict, layers: Sequence[Layer], console: Console) -> None:
    """Prints a verdict: numbers by stage, what ran where, the first stage out of tolerance, what each stage costs, the
    worst queries and the noisiest layers.

    Args:
        layers: of `hfnet_parity.layers.layer_noise`, the noisiest first.
        console: where it is no terminal, lines are `WIDTH` columns wide.
    """
    if not console.is_terminal:
        console = PrintableConsole(file=console.file, width=max(WIDTH, console.width))
    c = verdict.comparison
    title = f"{c.backend} against the reference, {len(c.pairs)} queries, {c.run.method}, {c.profile} tolerances"
    console.print(Text(title, "bold"))
    console.print(_numbers(c))
    console.print(Text(UNIT, STYLES[NO_LIMIT]))
    console.print()
    for line in ran_lines(c):
        console.print(Text(line))
    console.print()
    console.print(Text(headline(verdict), STYLES[OK if verdict.passed else OUT]))
    console.print()
    if verdict.costs:
        console.print(_costs(verdict.costs))
    console.print(Text(cost_sentence(verdict.costs)))
    console.print()
    worst = [pair for pair in c.worst[:WORST] if differs(c, pair)]
    console.print(_worst(c, worst) if worst else Text(NO_DIFFERENCE))
    if statuses(c):
        console.print(Text(statuses(c), STYLES[NO_LIMIT]))
    if layers:
        console.print()
        console.print(_layers(layers[:LAYERS], c.run.has_patch_network))


def to_json(verdicts: Sequence[Verdict], layers: Sequence[Layer]) -> dict[str, Any]:
    """A report for programs; what is not finite (not recorded, no pose) is null. Metres are the map's units.

    format      2; 1 had same_solver, pose.moved_most and pose.turned_most, and no trust
    passed      all runs hold their tolerances
    layers      of HF-Net, or of the patch network if there is one: name, label, operator, snr_db; the noisiest first
    runs        one per verdict:
        backend, method, profile, passed
        first_out, look_at      the first stage out of tolerance or null, and what to look at or ""
        costliest, cost         the step that costs most or null, and a sentence
        reference, run          what ran there: method, processor, kernels, solver, precision, hashes, versions
        numbers     by stage: key, stage, name, sentence, unit, at_least, value, low, high (95 %), limit or null,
                    passed: true, false, or null where there is no limit or no value
        costs       step, sentence, changed (queries whose pose comes or goes), moved (metres, median of the others),
                    inliers (% lost, mean)
        queries     in the order of the list: name, numbers (value by key), costs (metres by step), and reference
                    and run: status, keypoints, matches, inliers (null: not recorded), pose (qw qx qy qz tx ty tz
                    of cam_from_world, or null), probability, wrong (null: not recorded), position_std (metres),
                    rotation_std (degrees; null: free to move, or not recorded)
    """
    return {
        "format": FORMAT,
        "passed": all(verdict.passed for verdict in verdicts),
        "layers": [_finite(vars(layer)) for layer in layers],
        "runs": [_run_to_json(verdict) for verdict in verdicts],
    }


def mark(value: Value) -> str:
    """`OK`, `OUT`, `NO_LIMIT` or `NOT_RECORDED`."""
    if math.isnan(value.value):
        return NOT_RECORDED
    return {True: OK, False: OUT, None: NO_LIMIT}[value.passed]


def remark(value: Value) -> str:
    """What a reader of a number should know besides, or ""."""
    if math.isnan(value.value):
        return NOT_RECORDED
    if value.passed and value.limit is not None:
        beyond = value.value < value.limit if value.measure.at_least else value.value > value.limit
        return "beyond its limit, but within what the choice of queries explains" if beyond else ""
    return ""


def stage_mark(comparison: Comparison, stage: str) -> str:
    """A stage's: that of its worst number."""
    marks = {mark(v) for v in comparison.values if v.measure.stage == stage}
    return next((m for m in (OUT, OK, NO_LIMIT) if m in marks), NOT_RECORDED)


def headline(verdict: Verdict) -> str:
    """Whether it passed, or which stage is the first that did not and what to look at."""
    c = verdict.comparison
    if c.broken is not None:
        return f"First stage out of tolerance: {c.broken}: {verdict.look_at}"
    unknown = [stage for stage in STAGES if stage_mark(c, stage) == NOT_RECORDED]
    return "All stages hold." if not unknown else f"All stages hold that were recorded; not: {', '.join(unknown)}."


def cost_sentence(costs: Sequence[Cost]) -> str:
    """Which stage costs most, in millimetres."""
    if not costs:
        return "What each stage costs cannot be told: a recording lacks features that this map can localize."
    most = costliest(tuple(costs))
    if most is None:
        return "No stage moves the camera or loses inliers."
    if most.changed:
        queries = "query" if most.changed == 1 else "queries"
        return f"Most of it comes from {most.step}: it gives or takes the pose of {most.changed} {queries}."
    if most.moved <= ROUNDING:
        return f"No stage moves the camera by the median; {most.step} loses {most.inliers:.1f} % of the inliers."
    return f"Most of it comes from {most.step}: it moves the camera by {distance(most.moved)} (median)."


def differs(comparison: Comparison, pair: Pair) -> bool:
    """Whether a query's pose, by more than rounding, its number of inliers or its status is another one."""
    numbers = of_query(comparison, pair)
    apart = numbers["pose.moved"] > ROUNDING or numbers["pose.turned"] > ROUNDING
    return apart or inlier_count(pair.reference) != inlier_count(pair.run) or numbers["trust.status"] == 0


def statuses(comparison: Comparison) -> str:
    """Which queries end otherwise, "LOCALIZED → AMBIGUOUS: 2 queries, first a.png", or ""."""
    found: dict[tuple[str, str], list[str]] = {}
    for pair in comparison.pairs:
        if of_query(comparison, pair)["trust.status"] == 0:
            found.setdefault((pair.reference.status, pair.run.status), []).append(printable(pair.reference.name))
    counted = sorted(found.items(), key=lambda item: -len(item[1]))
    return "; ".join(
        f"{before} → {after}: {f'{len(names)} queries, first ' if len(names) > 1 else ''}{names[0]}"
        for (before, after), names in counted
    )


def of_query(comparison: Comparison, pair: Pair) -> dict[str, float]:
    """A query's numbers by key; NaN where not recorded."""
    row = next(i for i, other in enumerate(comparison.pairs) if other is pair)
    return {v.measure.key: float(v.of_queries[row]) for v in comparison.values if v.of_queries is not None}


def ran_lines(comparison: Comparison) -> tuple[str, ...]:
    """What ran in the reference and in the run, a line each."""
    return f"reference: {ran(comparison.reference)}", f"{comparison.backend}: {ran(comparison.run)}"


def ran(recording: Recording) -> str:
    """Processor, machine, kernels, solver, method; precision and first digits of the hash of each network; the map's
    digits. As far as they are known."""
    about = recording.about
    known = [about[key] for key in ("processor", "machine", "kernels", "solver", "method") if about.get(key)]
    for what, of in (("model", ""), ("patch model", "patch_"), ("scene model", "scene_")):
        precision, digits = about.get(f"{of}precision", ""), about.get(f"{of}model_hash", "")
        words = ({"none": "float32"}.get(precision, precision), f"{what} {digits[:8]}" if digits else "")
        known += [" ".join(word for word in words if word)] if any(words) else []
    known += [f"map {about['map_hash'][:8]}"] if about.get("map_hash") else []
    return printable(", ".join(known))


def value_text(measure: Measure, value: float) -> str:
    """A value for people: "99.3 %", "∞ m" (no pose), "–" (not recorded)."""
    return measure.text(value).replace("inf", "∞")


def limit_text(value: Value) -> str:
    """ "≥ 75", "≤ 0.1", without the unit, or "–"."""
    return NO_LIMIT if value.limit is None else f"{'≥' if value.measure.at_least else '≤'} {value.limit:g}"


def interval_text(value: Value) -> str:
    """ "92.7 to 93.8", without the unit; "" where not recorded."""
    if math.isnan(value.value):
        return ""
    low, high = (f"{v:.{value.measure.digits}f}".replace("inf", "∞") for v in (value.low, value.high))
    return f"{low} to {high}"


def distance(metres: float) -> str:
    """For people: "3.7 mm", "12.4 cm", "1.20 m", "no pose"."""
    if not math.isfinite(metres):
        return "no pose" if metres > 0 else "–"
    if metres < 0.0995:
        return f"{1000 * metres:.{1 if metres < 0.00995 else 0}f} mm"
    return f"{100 * metres:.1f} cm" if metres < 0.9995 else f"{metres:.2f} m"


def angle(degrees: float) -> str:
    """For people: "0.012°", "no pose"."""
    return f"{degrees:.3f}°" if math.isfinite(degrees) else "no pose" if degrees > 0 else "–"


def inlier_count(query: QueryRecord) -> int | None:
    """None where matches were not recorded and the query has a pose."""
    if query.matched is None:
        return None if query.pose is not None else 0
    return int(query.matched.inliers.sum())


def change(inliers: float) -> str:
    """ "-3.1 %" of inliers lost in %."""
    return f"{0.0 - round(inliers, 1):+.1f} %"


def _plain(title: str = "") -> Table:
    return Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), title=title or None, title_justify="left")


def _numbers(c: Comparison) -> Table:
    table = _plain()
    for name, right in (("stage", 0), ("number", 0), ("value", 1), ("95 %", 1), ("limit", 1), ("", 0)):
        table.add_column(name, justify="right" if right else "left", no_wrap=True)
    table.add_column("what it is")
    last = ""
    for value in c.shown:
        m, found = value.measure, mark(value)
        table.add_row(
            m.stage if m.stage != last else "",
            m.name,
            value_text(m, value.value),
            interval_text(value),
            limit_text(value),
            Text(found if found != NOT_RECORDED else "n/a", STYLES[found]),
            Text(f"{m.sentence}; {remark(value)}" if remark(value) else m.sentence, STYLES[NO_LIMIT]),
        )
        last = m.stage
    return table


def _costs(costs: Sequence[Cost]) -> Table:
    table = _plain()
    table.add_column("what it costs", no_wrap=True)
    table.add_column("moves by", justify="right", no_wrap=True)
    table.add_column("inliers", justify="right", no_wrap=True)
    table.add_column("")
    for cost in costs:
        table.add_row(cost.step, distance(cost.moved), change(cost.inliers), Text(STEPS[cost.step], STYLES[NO_LIMIT]))
    return table


def _worst(c: Comparison, pairs: Sequence[Pair]) -> Table:
    table = _plain()
    table.add_column("worst queries", overflow="ellipsis", no_wrap=True, max_width=40)
    for name in ("moved", "turned", "inliers", "matches kept", "probability"):
        table.add_column(name, justify="right", no_wrap=True)
    for pair in pairs:
        numbers = of_query(c, pair)
        table.add_row(
            Text(printable(pair.reference.name)),
            distance(numbers["pose.moved"]),
            angle(numbers["pose.turned"]),
            inliers_text(pair),
            percent(numbers["matches.kept"]),
            probabilities_text(pair),
        )
    return table


def inliers_text(pair: Pair) -> str:
    """ "312 → 298"."""
    counts = (inlier_count(pair.reference), inlier_count(pair.run))
    return " → ".join("?" if count is None else str(count) for count in counts)


def probabilities_text(pair: Pair) -> str:
    """ "0.982 → 0.941"."""
    both = (pair.reference.probability, pair.run.probability)
    return " → ".join("?" if probability is None else f"{probability:.3f}" for probability in both)


def percent(value: float) -> str:
    """ "93.2 %" or "–"."""
    return "–" if math.isnan(value) else f"{value:.1f} %"


def layers_heading(patches: bool) -> str:
    """Of the layers of `hfnet_parity.run.layers_of`."""
    return "noisiest layers of the patch network" if patches else "noisiest layers"


def _layers(layers: Sequence[Layer], patches: bool) -> Table:
    table = _plain()
    table.add_column(layers_heading(patches), overflow="ellipsis", no_wrap=True, max_width=44)
    table.add_column("operator", no_wrap=True)
    table.add_column("signal to noise", justify="right", no_wrap=True)
    for layer in layers:
        table.add_row(Text(printable(layer.label)), Text(layer.operator), f"{layer.snr_db:.1f} dB")
    return table


def _run_to_json(verdict: Verdict) -> dict[str, Any]:
    c = verdict.comparison
    most = costliest(verdict.costs)
    return _finite(
        {
            "backend": c.backend,
            "method": c.run.method,
            "profile": c.profile,
            "passed": verdict.passed,
            "first_out": c.broken,
            "look_at": verdict.look_at,
            "costliest": None if most is None else most.step,
            "cost": cost_sentence(verdict.costs),
            "reference": dict(c.reference.about),
            "run": dict(c.run.about),
            "numbers": [
                {
                    "key": v.measure.key,
                    "stage": v.measure.stage,
                    "name": v.measure.name,
                    "sentence": v.measure.sentence,
                    "unit": v.measure.unit,
                    "at_least": v.measure.at_least,
                    "value": v.value,
                    "low": v.low,
                    "high": v.high,
                    "limit": v.limit,
                    "passed": v.passed,
                }
                for v in c.values
            ],
            "costs": [
                {
                    "step": k.step,
                    "sentence": STEPS[k.step],
                    "changed": k.changed,
                    "moved": k.moved,
                    "inliers": k.inliers,
                }
                for k in verdict.costs
            ],
            "queries": [
                {
                    "name": pair.reference.name,
                    "numbers": of_query(c, pair),
                    "costs": {cost.step: cost.each[row] for cost in verdict.costs},
                    "reference": _query_to_json(pair.reference),
                    "run": _query_to_json(pair.run),
                }
                for row, pair in enumerate(c.pairs)
            ],
        }
    )


def _query_to_json(query: QueryRecord) -> dict[str, Any]:
    return {
        "status": query.status,
        "keypoints": None if query.features is None else len(query.features.keypoints),
        "matches": None if query.matched is None else len(query.matched.xyz),
        "inliers": inlier_count(query),
        "pose": pose_to_json(query.pose),
        "probability": query.probability,
        "wrong": query.wrong,
        "position_std": position_std(query.covariance),
        "rotation_std": rotation_std(query.covariance),
    }


def _finite(value: Any) -> Any:
    """JSON's types, with null for what is not finite."""
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    if isinstance(value, float | np.floating):
        return float(value) if math.isfinite(value) else None
    return value
