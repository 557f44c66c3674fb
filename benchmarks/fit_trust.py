"""Fits the tables by which poses are judged (sdk/hfnet_edge/trust/tables.json) on the pairs of `trust_places`.

    python benchmarks/fit_trust.py --collect sceaux fox ...    evidence of these places' pairs, into .cache/trust/
    python benchmarks/fit_trust.py [--write]                   fits on all that was collected, judged by other places

The model is an additive one whose tables rise or fall: logistic regression on steps, each of one sign, with a small
penalty on their squares. Prints tables and writes benchmarks/results/trust_fit.json; with --write also tables.json.
"""

from __future__ import annotations

import argparse
import json
import math
from pathlib import Path

import cv2
import numpy as np
from rich.console import Console
from rich.progress import track
from rich.table import Table
from scenes import CACHE, RESULTS, exported
from scipy.optimize import minimize
from trust_places import DEPTHS, Pair, Place

import hfnet_edge.trust
from hfnet_edge.geometry import Pose
from hfnet_edge.localizer import localize_features
from hfnet_edge.map.calibration import LARGEST, LOGIT
from hfnet_edge.methods.method import LocalizationConfig
from hfnet_edge.networks.hfnet import Model
from hfnet_edge.result import LocalizationResult
from hfnet_edge.trust.tolerance import RIGHT
from hfnet_export.networks.weights import BUNDLED
from hfnet_maps.evaluation.errors import pose_error
from hfnet_maps.evaluation.reliability import measure_reliability

COLLECTED = CACHE / "trust"
TABLES = Path(hfnet_edge.trust.__path__[0]) / "tables.json"
# Edges of the tables; what rises speaks for a pose.
RISING = {
    "hit": (0.01, 0.02, 0.03, 0.045, 0.06, 0.08, 0.1, 0.13, 0.17, 0.22, 0.3, 0.4),
    "sharp": (0.08, 0.1, 0.12, 0.14, 0.17, 0.2, 0.25, 0.3, 0.4, 0.5, 0.6),
    "ratio": (0.03, 0.05, 0.08, 0.12, 0.17, 0.23, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9),
    "found": (0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9),
}
FALLING = {
    "likeness": (0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.97),
    "uneven": (0.02, 0.04, 0.07, 0.1, 0.15, 0.2, 0.3, 0.4),
    "coherence": (0.02, 0.05, 0.1, 0.15, 0.2, 0.25, 0.3, 0.4, 0.5, 0.6),
    "position": (0.002, 0.004, 0.007, 0.01, 0.015, 0.02, 0.03, 0.05, 0.08),
    "rotation": (0.1, 0.2, 0.3, 0.5, 0.7, 1, 1.5, 2.5, 4),
    "noise": (0.07, 0.1, 0.13, 0.17, 0.22, 0.28, 0.35, 0.42, 0.5, 0.56),
    "remote": (0.1, 0.2, 0.3, 0.45, 0.6, 0.8, 1.0, 1.3, 1.6),
    "rival": (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.75, 0.9, 1.1),
    "focal": (0.003, 0.01, 0.02, 0.04, 0.08, 0.15),
}
IN_TOLERANCE = {
    "position_in_tolerance": (0.03, 0.05, 0.08, 0.12, 0.17, 0.25, 0.35, 0.5, 0.7, 1, 1.4, 2, 3, 5, 10),
    "rotation_in_tolerance": (0.03, 0.05, 0.08, 0.12, 0.17, 0.25, 0.35, 0.5, 0.7, 1, 1.4, 2, 3, 5),
    "focal_in_tolerance": (0.05, 0.15, 0.3, 0.5, 0.8, 1.2, 2, 4),
}
PRECISE_RISING = {name: RISING[name] for name in ("ratio", "hit")}
PRECISE_FALLING = IN_TOLERANCE | {"coherence": FALLING["coherence"]}
PENALTY = {"right": 0.03, "precise": 0.2}  # on squared steps
# What a photo does not show is not learned as if it did: a focal length that is off far from a flat thing, and the
# mirror image of a symmetric building, which is that of a building.
WEIGHT = {"": 1.0, "dark": 0.5, "blurred": 0.5, "negative": 0.2, "turned": 1.0, "upside down": 1.0, "mirrored": 0.0}
CHI2 = {50: 5.348, 90: 10.645}  # of six degrees of freedom
SCALES = (0.05, 0.1, 0.2, 0.4, 1.0, 2.0)  # of a tolerance of 1.25 % of the depth and 2 degrees


def collected(pair: Pair, config: LocalizationConfig) -> dict:
    """Evidence and errors of one pair."""
    result = localize_features(pair.map, pair.features, pair.camera, config)
    row = {
        "place": pair.place, "split": pair.split, "query_place": pair.query_place, "query": pair.query,
        "change": pair.change, "focal": pair.focal, "depth": pair.depth, "inliers": 0, "evidence": None,
    }  # fmt: skip
    if result.evidence is None or result.pose is None:
        return row
    position, rotation = (1e6, 180.0) if pair.truth is None else pose_error(result.pose, pair.truth)
    shift = 0.0 if result.intrinsics is None else result.intrinsics.shift
    return row | {
        "inliers": result.first_inliers,
        "evidence": vars(result.evidence),
        "position_std": min(result.position_std, 1e6),
        "rotation_std": min(result.rotation_std, 360.0),
        "shift": shift,
        "position": position,
        "rotation": rotation,
        "seen_depth": result.depth,
        "mahalanobis": None if pair.truth is None else squared_mahalanobis(result, pair.truth),
    }


def squared_mahalanobis(result: LocalizationResult, truth: Pose) -> float | None:
    """Of the true pose from the one found, by its covariance; None where that has none."""
    if result.pose is None or result.covariance is None:
        return None
    turn = truth.rotation @ result.pose.rotation.T
    rotation = cv2.Rodrigues(turn)[0].ravel()
    delta = np.concatenate([rotation, truth.translation - turn @ result.pose.translation])
    return float(delta @ np.linalg.pinv(result.covariance, hermitian=True) @ delta)


def collect(names: list[str], console: Console) -> None:
    """Writes the evidence of places' pairs into .cache/trust/."""
    model = (
        exported(BUNDLED, "int8")
        if not (CACHE / "trust_hfnet.tflite").exists()
        else Model(CACHE / "trust_hfnet.tflite")
    )
    others = [Place(name, model) for name in DEPTHS]
    config = LocalizationConfig(max_wrong=1 - 1e-7)  # whatever is found
    COLLECTED.mkdir(parents=True, exist_ok=True)
    for name in names:
        place = next(other for other in others if other.name == name)
        foreign = [other for other in others if other is not place]
        rows = [collected(pair, config) for pair in track(place.pairs(foreign), name, console=console, transient=True)]
        (COLLECTED / f"{name}.json").write_text(json.dumps(rows))
        console.print(f"{name}: {len(rows)} pairs")


def design(rows: list[dict], rising: dict, falling: dict) -> tuple[np.ndarray, np.ndarray]:
    """(N, S) steps that values have passed, and the sign of each (S,)."""
    steps = [
        (np.array([row[name] for row in rows], float)[:, None] >= np.array(edges))
        for name, edges in (rising | falling).items()
    ]
    signs = [np.full(len(edges), sign) for group, sign in ((rising, 1.0), (falling, -1.0)) for edges in group.values()]
    return np.concatenate(steps, axis=1).astype(float), np.concatenate(signs)


def fit(steps: np.ndarray, signs: np.ndarray, y: np.ndarray, weights: np.ndarray, penalty: float) -> np.ndarray:
    """(1 + S,) bias and steps of the monotone logistic regression, in logits."""
    side = 2 * y.astype(float) - 1

    def loss(p: np.ndarray) -> tuple[float, np.ndarray]:
        margin = side * (p[0] + steps @ (p[1:] * signs))
        pull = -side * weights / (1 + np.exp(np.clip(margin, -500, 500)))
        value = (weights * np.logaddexp(0, -margin)).sum() + penalty * (p[1:] ** 2).sum()
        return value, np.concatenate([[pull.sum()], (steps.T @ pull) * signs + 2 * penalty * p[1:]])

    bounds = [(None, None)] + [(0, None)] * steps.shape[1]
    found = minimize(
        loss, np.zeros(1 + steps.shape[1]), jac=True, method="L-BFGS-B", bounds=bounds, options={"maxiter": 1000}
    )
    return np.concatenate([found.x[:1], found.x[1:] * signs])


def as_tables(p: np.ndarray, groups: dict) -> dict:
    """Points of what was fitted."""
    tables, at = [], 1
    for name, edges in groups.items():
        sums = np.concatenate([[0.0], np.cumsum(p[at : at + len(edges)])])
        at += len(edges)
        tables.append({"name": name, "edges": list(edges), "points": [round(LOGIT * v) for v in sums]})
    return {"bias": round(LOGIT * p[0]), "tables": tables}


def error_in_limits(row: dict) -> float:
    """A pose's error, in what makes it wrong."""
    depth = min(max(row["seen_depth"], row["depth"]), 4 * row["depth"])
    limit = max(0.025 * row["depth"], RIGHT.at(depth)[0])
    return max(row["position"] / limit, row["rotation"] / RIGHT.rotation)


def sound(row: dict) -> bool:
    """Whether the truth is as exact as its map: poses that drift are not."""
    return row["split"] != "drifting" and row["mahalanobis"] is not None


def precise_rows(rows: list[dict]) -> tuple[list[dict], np.ndarray, np.ndarray, np.ndarray]:
    """Poses that are not wrong, judged by several tolerances: rows, within it, weights, places."""
    rng, found = np.random.default_rng(0), []
    for row in rows:
        near_enough = row["focal"] != 1 and row["rotation"] < 15 and row["position"] < 0.5 * row["depth"]
        if error_in_limits(row) > 2 and not near_enough:
            continue
        for scale in rng.choice(SCALES, 3, replace=False):
            position, rotation = 0.0125 * row["depth"] * scale, 2 * scale
            uncertain = {
                "position_in_tolerance": row["position_std"] / position,
                "rotation_in_tolerance": row["rotation_std"] / rotation,
                "focal_in_tolerance": row["shift"] / position,
            }
            within = row["position"] <= position and row["rotation"] <= rotation
            found.append(
                (row["evidence"] | uncertain, within, 1.0 if row["change"] != "negative" else 0.2, row["place"])
            )
    evidence, within, weights, places = zip(*found, strict=True)
    return list(evidence), np.array(within), np.array(weights), np.array(places)


def held_out(steps, signs, y, weights, penalty, places) -> np.ndarray:
    """(N,) logits of each place by what the others taught."""
    logits = np.zeros(len(y))
    for place in np.unique(places):
        own = places == place
        p = fit(steps[~own], signs, y[~own], weights[~own], penalty)
        logits[own] = p[0] + steps[own] @ p[1:]
    return np.clip(logits, -LARGEST / LOGIT, LARGEST / LOGIT)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--collect", nargs="+", choices=DEPTHS, default=[])
    parser.add_argument("--write", action="store_true")
    options = parser.parse_args()
    console = Console(width=120)
    if options.collect:
        collect(options.collect, console)
        return
    everything = [row for file in sorted(COLLECTED.glob("*.json")) for row in json.loads(file.read_text())]
    rows = [row for row in everything if row["evidence"] is not None]
    evidence, error = [row["evidence"] for row in rows], np.array([error_in_limits(row) for row in rows])
    y, places = error <= 1, np.array([row["place"] for row in rows])
    plain = np.array([not row["change"] and row["focal"] == 1 for row in rows])
    # Between one and three limits a pose is neither; and where a map's own poses drift, its truth is not theirs.
    clear = (error <= 1) | ((error >= 3) & np.array([row["split"] != "drifting" for row in rows]))
    weights = np.array([WEIGHT[row["change"]] * (row["focal"] == 1) for row in rows]) * clear
    steps, signs = design(evidence, RISING, FALLING)
    right = held_out(steps, signs, y, weights, PENALTY["right"], places)
    few, within, few_weights, few_places = precise_rows(rows)
    few_steps, few_signs = design(few, PRECISE_RISING, PRECISE_FALLING)
    precise = held_out(few_steps, few_signs, within, few_weights, PENALTY["precise"], few_places)

    used = weights > 0
    known = measure_reliability(1 / (1 + np.exp(-right[used])), y[used])
    precisely = measure_reliability(1 / (1 + np.exp(-precise)), within)
    inliers = np.array([row["inliers"] for row in rows])
    result: dict = {"pairs": len(everything), "right": known.as_dict(), "precise": precisely.as_dict(), "rules": {}}
    covered = np.array([row["mahalanobis"] for row, fine in zip(rows, y & plain, strict=True) if fine and sound(row)])
    result["inside"] = {level: float((covered <= limit).mean()) for level, limit in CHI2.items()}
    console.print(f"inside the ellipsoids of 50 and 90 %, of {len(covered)} right poses: {result['inside']}")
    table = Table(title=f"{len(everything)} pairs, {used.sum()} judged; each place by the others' tables")
    for column in (
        "rule",
        "given",
        "wrong",
        "recall of unchanged right queries",
        "mirrored given",
        "upside down",
        "turned wrong",
    ):
        table.add_column(column, justify="right")
    change = np.array([row["change"] for row in rows])
    for name, given in {
        **{f"wrong at most {limit:g}": right > math.log((1 - limit) / limit) for limit in (0.0001, 0.001, 0.01, 0.1)},
        **{f"{n} inliers": inliers >= n for n in (12, 25, 50, 100)},
    }.items():
        values = {
            "given": int((given & used).sum()), "wrong": int((given & used & ~y).sum()),
            "recall": float(given[y & plain].mean()),
            "mirrored": int((given & (change == "mirrored")).sum()),
            "upside down": int((given & (change == "upside down")).sum()),
            "turned": int((given & ~y & (change == "turned")).sum()),
        }  # fmt: skip
        result["rules"][name] = values
        table.add_row(name, *(f"{v:.3f}" if isinstance(v, float) else str(v) for v in values.values()))
    console.print(table)
    for name, one in (("right", known), ("precise", precisely)):
        console.print(
            f"{name}: {one.answers} pairs, calibration error {one.calibration_error:.4f}, "
            f"area under ROC {one.area_under_roc:.4f}"
        )
    for i in np.argsort(-np.where(used & ~y, right, -99))[:8]:
        row = rows[i]
        what = " ".join(str(row[key]) for key in ("place", "split", "query_place", "query", "change", "inliers"))
        console.print(f"wrong at {right[i]:.1f}: {what}, {row['position']:.2f} m {row['rotation']:.1f} degrees")
    (RESULTS / "trust_fit.json").write_text(json.dumps(result, indent=1) + "\n")
    if options.write:
        tables = {
            "right": as_tables(fit(steps, signs, y, weights, PENALTY["right"]), RISING | FALLING),
            "precise": as_tables(
                fit(few_steps, few_signs, within, few_weights, PENALTY["precise"]), PRECISE_RISING | PRECISE_FALLING
            ),
        }
        TABLES.write_text(json.dumps(tables, indent=1) + "\n")
        console.print(f"wrote {TABLES}")


if __name__ == "__main__":
    main()
