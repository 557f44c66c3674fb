"""The stages after the first pose, written a second time, plainly: see `golden.plain`."""

from __future__ import annotations

import json
from bisect import bisect_right
from collections import defaultdict
from copy import copy
from importlib.resources import files
from math import acos, ceil, degrees, dist, exp, inf, log, sqrt
from operator import le, lt
from statistics import median

import numpy as np

from golden.plain_refinement import Equations, Lens, error, moved, refined, rotation, seen
from hfnet_edge.map.map_file import LocalizationMap
from hfnet_edge.pose.support import holds


def listed(xy, xyz):
    """Matches as `refined` takes them."""
    return [(tuple(at), tuple(point)) for at, point in zip(xy.tolist(), xyz.tolist(), strict=True)]


def deviations(covariance):
    """Of the position, and of the rotation in degrees."""
    if covariance is None:
        return inf, inf
    return sqrt(sum(covariance[k][k] for k in (3, 4, 5))), degrees(sqrt(sum(covariance[k][k] for k in range(3))))


def refinement(quaternion, translation, xy, xyz, camera, max_error, **rules):
    q, t, inliers, noise, covariance = refined(quaternion, translation, listed(xy, xyz), camera, max_error, **rules)
    position, turned = deviations(covariance)
    spread = {"position_std": position, "rotation_std": turned}
    return {
        "quaternion": q, "translation": t, "inliers": np.array(inliers), "noise": noise,
        "covariance": None if covariance is None else np.array(covariance), **spread,
    }  # fmt: skip


def guided(
    quaternion, translation, camera, window, keypoints, descriptors, map=None, landmarks=None, positions=None,
    rows=None, owners=None, within=lt, tie=1, other_tie=1, inside=lt, one_way=False,
):  # fmt: skip
    """``tie``: of a landmark's equal keypoints the lower, -1: the higher; ``other_tie``: of a keypoint's landmarks.
    ``inside``: the image. ``one_way``: a keypoint may be of several landmarks."""
    lens = Lens(camera)
    if map is not None:
        m = LocalizationMap.open(map)
        descriptors, positions, (rows, owners) = (
            m.codec.query(descriptors), m.positions(landmarks.astype(int)), m.descriptors(landmarks.astype(int))
        )  # fmt: skip
    described, looks = defaultdict(list), descriptors.astype(np.int64)
    for row, owner in zip(rows.astype(np.int64), owners, strict=True):
        described[int(owner)].append(row)
    expected, most_like = [], defaultdict(list)
    for i, position in enumerate(positions.tolist()):
        u, v = lens.pixel(seen(quaternion, translation, position))
        if not (inside(0, u) and inside(u, lens.width) and inside(0, v) and inside(v, lens.height)):
            continue
        expected.append((u, v))
        near = [
            (int(((looks[k] - row) ** 2).sum()), tie * k)
            for k, (x, y) in enumerate(keypoints.tolist())
            if within((u - x) * (u - x) + (v - y) * (v - y), window * window)
            for row in described[i]
        ]
        if near:
            distance, k = min(near)
            most_like[tie * k].append((distance, other_tie * i))
    found = [(k, *pair) for k in sorted(most_like) for pair in sorted(most_like[k])[: None if one_way else 1]]
    ids = range(len(positions)) if landmarks is None else landmarks
    return {
        "matches": np.array([[k for k, _, _ in found], [ids[other_tie * i] for _, _, i in found]], int).reshape(2, -1),
        "distances": np.array([distance for _, distance, _ in found], int),
        "expected": np.array(expected).reshape(-1, 2),
    }


def second_look(
    map, keypoints, descriptors, matches, camera, max_error, quaternion, translation, views=12, like=le, near=1 / 4,
    axis=2, forgotten=False,
):  # fmt: skip
    """``like``: how distances compare with the median of those that fall near. ``axis``: of the camera, that looks
    ahead. ``forgotten``: the first matches are."""
    m, lens, q, t = LocalizationMap.open(map), Lens(camera), quaternion, translation
    first = [
        (k, i)
        for k, i, point in zip(*matches.tolist(), m.positions(matches[1].astype(int)).tolist(), strict=True)
        if error(q, t, point, keypoints[k], lens) < max_error
    ]
    depth = median(seen(q, t, point)[2] for point in m.positions(np.array([i for _, i in first])).tolist())
    ahead = rotation(q)[axis]
    center = [-sum(rotation(q)[k][i] * t[k] for k in range(3)) for i in range(3)]
    far = []
    for image in range(m.image_count):
        view = m.pose(image)
        apart = sqrt(sum((a - o - b) ** 2 for a, o, b in zip(view.center, m.origin, center, strict=True))) / depth
        cosine = sum(a * b for a, b in zip(rotation(view.quaternion)[axis], ahead, strict=True))
        far.append((apart + acos(max(-1.0, min(1.0, cosine))), image))
    far = sorted(far)[:views]
    landmarks = np.array(sorted({int(i) for _, image in far for i in m.observed(image)}))
    found = guided(q, t, camera, max_error, keypoints, descriptors, map, landmarks)
    pairs = list(zip(*found["matches"].tolist(), found["distances"].tolist(), strict=True))
    spread = [error(q, t, m.positions(np.array([i])).tolist()[0], keypoints[k], lens) for k, i, _ in pairs]
    likeness = [d for (_, _, d), off in zip(pairs, spread, strict=True) if off < near * max_error]
    keypoints_, landmarks_ = {k for k, _ in first}, {i for _, i in first}
    new = [
        (k, i) for k, i, d in pairs
        if likeness and like(d, median(likeness)) and k not in keypoints_ and i not in landmarks_
    ]  # fmt: skip
    return {
        "landmarks": landmarks,
        "remote": far[0][0],
        "matches": np.array([*([] if forgotten else first), *new], int).reshape(-1, 2).T,
    }


def cell(at, lens, across):
    side = max(lens.width, lens.height) / across
    return int(at[1] // side), int(at[0] // side)


def coherence(near, lens, few=3):
    """Of (pixel, residual); ``few``: neighbours."""
    cells = defaultdict(list)
    for at, off in near:
        cells[cell(at, lens, 16)].append(off)
    classes = [off for off in cells.values() if len(off) >= few]
    n, within, between = sum(map(len, classes)), 0.0, 0.0
    if len(classes) < 2 or n <= len(classes):
        return 0.0
    for off in classes:
        mean = [sum(v[i] for v in off) / len(off) for i in range(2)]
        within += sum((v[i] - mean[i]) ** 2 for v in off for i in range(2))
        between += len(off) * (mean[0] ** 2 + mean[1] ** 2)
    within, between = within / (n - len(classes)), between / len(classes)
    whole = between + (n / len(classes) - 1) * within
    return max(0.0, (between - within) / whole) if whole > 0 else 0.0


def intrinsics_of(q, t, matches, lens, noise, certain=4.0):
    """Focal length and its deviation, principal point and its, and how far the camera would move; or None."""
    if len(matches) < 12:
        return None
    solutions = [solution(Equations(q, t, matches, lens, noise, unknowns), noise) for unknowns in (7, 9)]
    if solutions[0] is None:
        return None
    focal_std, better, there = sqrt(solutions[0][1][6]), copy(lens), (q, t)
    for _ in range(5):
        found = solution(Equations(*there, matches, better, noise, 7), noise)
        if found is None:
            break
        step, variance, depth = found
        there = moved(*there, [*step[:3], *(v * depth for v in step[3:6])])
        factor = exp(max(-0.25, min(0.25, step[6])))
        better = copy(better)
        better.fx, better.fy = better.fx * factor, better.fy * factor
        if step[6] ** 2 < variance[6] / 4:
            break
    focal = better.fx / lens.fx - 1
    shift = dist(middle_of(*there), middle_of(q, t)) if abs(focal) > certain * focal_std else 0.0
    if solutions[1] is None:
        return [focal, focal_std, 0.0, 0.0, None], shift
    center, by_center, _ = solutions[1]
    return [focal, focal_std, center[7], center[8], sqrt(max(by_center[7], by_center[8]))], shift


def middle_of(q, t):
    """Where the camera stands."""
    columns = [seen(q, [0.0, 0.0, 0.0], [float(i == k) for i in range(3)]) for k in range(3)]
    return [-sum(column[i] * t[i] for i in range(3)) for column in columns]


def solution(equations, noise):
    """One step, its variances, and the depth; or None."""
    inverse = equations.inverse()
    if inverse is None:
        return None
    step = [-sum(v * g for v, g in zip(row, equations.gradient, strict=True)) for row in inverse]
    return step, [inverse[k][k] * noise**2 for k in range(len(step))], equations.depth


def evidence(
    quaternion, translation, inliers, noise, covariance, camera, max_error, keypoints, matches, guided, distances,
    expected, remote, first, rival, tolerance, map=None, near=1 / 4, chance=1 / 12, outer=1 / 2, swapped=False,
    seen_too=True, few=3, certain=4.0, cells=8, of_depth=True,
):  # fmt: skip
    """``chance``: of what is in the window's outer part, how much it puts near. ``swapped``: the ratio of medians.
    ``seen_too``: cells are expected to hold keypoints, too."""
    lens, q, t = Lens(camera), quaternion, translation

    def of(pairs):
        if map is None:
            return listed(pairs["xy"], pairs["xyz"])
        return listed(keypoints[pairs[0]], LocalizationMap.open(map).positions(pairs[1].astype(int)))

    support = [match for match, ok in zip(of(matches), inliers, strict=True) if ok]
    ahead = [seen(q, t, point) for _, point in support]
    depth = median(point[2] for point in ahead)
    looked = [
        (error(q, t, point, at, lens), at, point, d) for (at, point), d in zip(of(guided), distances, strict=True)
    ]
    close = [one for one in looked if one[0] < near * max_error]
    rim = [one for one in looked if outer * max_error <= one[0] < max_error]
    residuals = []
    for _, at, point, _ in close:
        u, v = lens.pixel(seen(q, t, point))
        residuals.append((at, (u - at[0], v - at[1])))
    count = max(0.0, len(close) - chance * len(rim))
    held = {cell(at, lens, cells) for _, at, _, _ in close}
    wanted = {cell(at, lens, cells) for at in expected.tolist()}
    wanted &= {cell(at, lens, cells) for at in keypoints.tolist()} if seen_too else wanted
    likeness = 1.0
    if close and rim:
        medians = median(one[3] for one in close), max(1.0, median(one[3] for one in rim))
        likeness = medians[1] / medians[0] if swapped else medians[0] / medians[1]
    position, turned = deviations(covariance)
    told = intrinsics_of(q, t, support, lens, noise, certain)
    shift = told[1] if told else 0.0
    text, angle = tolerance.split(",")
    allowed = float(text.rstrip("%")) / 100 * depth if text.endswith("%") else float(text)
    scene = depth if of_depth else 1.0
    return {
        "evidence": {
            "near": count,
            "hit": count / max(1, min(len(expected), len(keypoints))),
            "sharp": len(close) / max(1, sum(one[0] < max_error for one in looked)),
            "ratio": first[0] / first[1],
            "likeness": likeness,
            "cells": len(held),
            "found": len(held & wanted) / max(1, len(wanted)),
            "uneven": uneven(held, wanted, [cell(at, lens, cells) for at in expected.tolist()], len(close)),
            "coherence": coherence(residuals, lens, few),
            "position": min(position / scene, 1e6),
            "rotation": min(turned, 360.0),
            "noise": noise / max_error,
            "remote": remote,
            "rival": rival,
            "focal": shift / scene,
        },
        "in_tolerance": {
            "position_in_tolerance": min(position / allowed, 1e6),
            "rotation_in_tolerance": min(turned / float(angle), 1e6),
            "focal_in_tolerance": min(shift / allowed, 1e6),
        },
        "intrinsics": told and told[0],
        "held": holds(np.array(ahead), max_error / min(lens.fx, lens.fy)),
    }


def uneven(held, wanted, landmarks, close):
    """Share of the cells that are empty, beyond those that an even spread leaves so."""
    counts = [landmarks.count(one) for one in wanted]
    rate = min(1.0, close / max(1, sum(counts)))
    return max(0.0, len(wanted - held) - sum((1 - rate) ** count for count in counts)) / max(1, len(wanted))


def downwards(points, slope):
    return points * slope // 4096


def towards_zero(points, slope):
    return int(points * slope / 4096)


def probability(
    evidence, in_tolerance, calibration, held, max_wrong, edge=bisect_right, biased=1, moved=downwards, largest=14_000,
    calibrated=True, alone=True, equal=0.9,
):  # fmt: skip
    """``edge``: the interval that it belongs to. ``alone``: what would be, without a rival and held fast, is asked."""
    tables = json.loads(files("hfnet_edge.trust").joinpath("tables.json").read_text(encoding="utf-8"))
    slopes = calibration if calibrated else [4096, 0, 4096, 0]

    def points(kind, values):
        slope, offset = slopes[:2] if kind == "right" else slopes[2:4]
        total = biased * tables[kind]["bias"]
        for table in tables[kind]["tables"]:
            total += table["points"][edge(table["edges"], values[table["name"]])]
        return max(-largest, min(largest, moved(total, slope) + offset))

    def share(value):
        return round(1 / (1 + exp(-value / 1000)), 6)

    right = points("right", evidence)
    judged = min(right, 0) if evidence["rival"] >= equal else right
    precise = points("precise", {**evidence, **in_tolerance})
    held_fast = {**evidence, "rival": 0.0, "position": 0.0, "rotation": 0.0, "cells": 1024, "found": 1.0, "uneven": 0.0}
    enough = ceil(1000 * log((1 - max_wrong) / (1 - (1 - max_wrong))))
    accepted = held and judged >= enough
    return {
        "right": right, "precise": precise, "accepted": accepted,
        "probability": round(share(judged) * share(precise), 6) if held else 0.0,
        "wrong": share(-judged) if held else 1.0,
        "ambiguous": not accepted and alone and points("right", held_fast) >= enough,
    }  # fmt: skip


PLAIN_TRUST = {
    "refinement": refinement, "guided": guided, "second_look": second_look, "evidence": evidence,
    "probability": probability,
}  # fmt: skip
