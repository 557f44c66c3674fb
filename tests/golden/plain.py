"""The stages written a second time, plainly, from what their docstrings say: as a port to another language would.

What a port is likely to get wrong is a parameter, whose default is right. A stage is given a case's values by name and
returns what is expected of it, as in `golden.reader.STAGES`.
"""

from __future__ import annotations

import hashlib
from collections import defaultdict
from operator import lt

import cv2
import numpy as np
from PIL import ExifTags, Image

from golden.plain_blobs import PLAIN_BLOBS
from golden.plain_dense import PLAIN_DENSE
from golden.plain_scene import PLAIN_SCENE
from golden.plain_trust import PLAIN_TRUST, refinement
from golden.reader import STAGES
from hfnet_edge.clock import Clock
from hfnet_edge.features import Features
from hfnet_edge.geometry import Camera, Pose
from hfnet_edge.image.photo import Photo
from hfnet_edge.map.map_file import LocalizationMap
from hfnet_edge.methods.covisibility import cluster
from hfnet_edge.methods.matching import match
from hfnet_edge.methods.matching import nearest_two as two_nearest
from hfnet_edge.methods.retrieval import retrieve
from hfnet_edge.pose.solvers import DEFAULT_SOLVER, PoseConfig
from hfnet_edge.result import Status
from hfnet_edge.trust.examine import evidence_of, examine, rival
from hfnet_edge.trust.probability import InTolerance
from hfnet_edge.trust.verdict import decide


def luma(file):
    """(h, w) uint8 of an open image."""
    return (np.asarray(file) >> 8).astype(np.uint8) if file.mode == "I;16" else np.asarray(file.convert("L"))


def mean_of_colours(file):
    levels = np.asarray(file)
    return levels.mean(axis=-1).astype(np.uint8) if levels.ndim == 3 else luma(file)


TURNS = {
    1: lambda a: a, 2: lambda a: a[:, ::-1], 3: lambda a: a[::-1, ::-1], 4: lambda a: a[::-1],
    5: lambda a: a.T, 6: lambda a: np.rot90(a, -1), 7: lambda a: a.T[::-1, ::-1], 8: lambda a: np.rot90(a),
}  # fmt: skip
OTHER_TURNS = TURNS | {6: TURNS[8], 8: TURNS[6]}


def mean_of_area(grey, size):
    """Each pixel is the mean of what it covers, a half rounded up."""
    (h, w), (high, wide) = grey.shape, size
    sums = grey.astype(np.int64).repeat(high, axis=0).reshape(high, h, w).sum(axis=1)
    sums = sums.T.repeat(wide, axis=0).reshape(wide, w, high).sum(axis=1).T
    return ((2 * sums + h * w) // (2 * h * w)).astype(np.uint8)


def by_opencv(rule):
    """Resizing by one of OpenCV's rules."""
    return lambda grey, size: cv2.resize(grey, size[::-1], interpolation=rule)


BETWEEN = by_opencv(cv2.INTER_LINEAR_EXACT)


def load(
    image, input_size, camera, xy, grey=luma, turns=TURNS, reduced=mean_of_area, enlarged=BETWEEN,
    mirrored="reflect", turned_back=True,
):  # fmt: skip
    file = Image.open(image)
    orientation = file.getexif().get(ExifTags.Base.Orientation, 1)
    pixels = turns[orientation](grey(file))
    h, w = pixels.shape
    scale = min(input_size[0] / h, input_size[1] / w)
    valid = round(h * scale), round(w * scale)
    pixels = pixels if valid == (h, w) else (reduced if scale < 1 else enlarged)(np.ascontiguousarray(pixels), valid)
    pixels = np.pad(pixels, [(0, whole - part) for whole, part in zip(input_size, valid, strict=True)], mirrored)
    described = camera and Camera.parse(camera)
    if described is None or (described.width, described.height) == (w, h):
        orientation = 1
    photo = Photo(pixels, valid, (w, h), orientation)
    at = (photo if turned_back else Photo(pixels, valid, (w, h))).to_camera(np.array(xy, np.float32))
    return {**vars(photo), "camera_xy": at}


def scale(pixels, input_range, levels=255):
    low, high = input_range
    return {"input": pixels.astype(np.float32) * np.float32((high - low) / levels) + np.float32(low)}


def scores(logits, part, steps=256):
    h, w, _ = logits.shape
    rounded = np.rint(logits * np.float32(steps))
    below = np.minimum(rounded.max(axis=-1, keepdims=True) - rounded, 12 * steps - 1).astype(np.float64)
    weights = np.rint(np.exp(-below / steps) * 2**16)
    found = weights[..., :-1].astype(np.float32) / weights.sum(axis=-1, keepdims=True).astype(np.float32)
    found = found.reshape(h, w, 8, 8).swapaxes(1, 2).reshape(8 * h, 8 * w)
    return {"scores": found[: part[0], : part[1]], "sha256": hashlib.sha256(found.tobytes()).hexdigest()}


def at_least(score, threshold):
    return score >= np.float32(threshold)


def keypoints(
    scores, valid, count, radius, threshold, border, enough=at_least, margin=max, refine=2, centre=0.5, equals=False
):
    """``equals``: all of equal neighbours are kept."""
    h, w = valid
    border = margin(border, 2)

    def window(y, x, radius):
        return scores[max(0, y - radius) : min(h, y + radius + 1), max(0, x - radius) : min(w, x + radius + 1)]

    peaks = [
        (-scores[y, x], y, x)
        for y, x in np.argwhere(enough(scores[:h, :w], threshold))
        if border <= y < h - border and border <= x < w - border and scores[y, x] == window(y, x, radius).max()
    ]
    kept = []
    for score, y, x in sorted(peaks):
        if equals or all(max(abs(y - row), abs(x - column)) > radius for _, row, column in kept):
            kept.append((score, y, x))
    xy = []
    for _, y, x in kept[:count]:
        total = dx = dy = np.float32(0)
        for oy in range(-refine, refine + 1):
            for ox in range(-refine, refine + 1):
                weight = scores[y + oy, x + ox]
                total, dx, dy = total + weight, dx + weight * np.float32(ox), dy + weight * np.float32(oy)
        xy.append((x + np.float64(dx / total) + centre, y + np.float64(dy / total) + centre))
    return {"xy": np.array(xy, np.float32), "scores": np.array([-peak[0] for peak in kept[:count]], np.float32)}


def quantized(vectors, rounded=np.rint, shortest=1e-12, numbers=np.array):
    """(N, D) int8. ``shortest``: what is not longer has no direction. ``numbers``: what the length is of."""
    wide = vectors.astype(np.float64)
    length = np.sqrt(np.square(numbers(wide)).sum(axis=-1, keepdims=True))
    unit = np.divide(wide * 127, length, out=np.zeros_like(wide), where=length > shortest)
    return rounded(np.nan_to_num(unit)).astype(np.int8)


def descriptors(xy, local, quarter=None, half=None, centre=0.5, grids=(8, 4, 2), order=(0, 1, 2), **rules):
    maps = [(map_, step) for map_, step in zip((local, quarter, half), grids, strict=True) if map_ is not None]
    parts = [part(map_, xy / np.float32(step) - np.float32(centre)) for map_, step in maps]
    parts = [parts[i] for i in order if i < len(parts)]
    return {"descriptors": quantized(np.concatenate(parts, axis=1), **rules)}


def part(map_, at):
    h, w, _ = map_.shape
    x, y = (np.clip(at[:, i], 0, side - 1) for i, side in enumerate((w, h)))
    x0, y0 = np.minimum(x.astype(int), w - 2), np.minimum(y.astype(int), h - 2)
    fx, fy = (x - x0).astype(np.float32)[:, None], (y - y0).astype(np.float32)[:, None]
    top, bottom = (map_[y0 + i, x0] * (1 - fx) + map_[y0 + i, x0 + 1] * fx for i in (0, 1))
    return top * (1 - fy) + bottom * fy


def global_(**given):
    return {"global_descriptor": quantized(given.pop("global")[None], **given)[0]}


def to_nearest(products):
    """Products of vectors of length 127, divided by 127."""
    return (products + 63) // 127


def projected(rows, projection, rounded=to_nearest):
    products = rows.astype(np.int64) @ projection.astype(np.int64).T
    return np.clip(rounded(products), -127, 127).astype(np.int8)


def retrieval(count, map=None, global_descriptor=None, query=None, references=None, rounded=to_nearest, tie=1):
    """``tie``: 1: equals by lower index, -1: by higher."""
    if map is not None:
        m = LocalizationMap.open(map)
        query, references = global_descriptor, m.global_descriptors
        if m.global_projection is not None:
            query = projected(query[None], m.global_projection, rounded)[0]
    similarities = references.astype(np.int64) @ query.astype(np.int64)
    ranking = np.lexsort((tie * np.arange(len(references)), -similarities))[:count]
    return {"compared": query, "similarities": similarities, "ranking": ranking}


def places(map, ranking, largest=-1, landmarks=None):
    """``largest``: -1: first. ``landmarks``: of each place, in place of what its images observe."""
    m = LocalizationMap.open(map)
    found = []
    for image in ranking:
        seen = set(m.observed(image).tolist())
        joined = [place for place in found if place[1] & seen]
        found = [place for place in found if not place[1] & seen]
        found.append(([*(i for images, _ in joined for i in images), image], seen.union(*(ids for _, ids in joined))))
    found = sorted(
        ((sorted(images, key=ranking.index), ids) for images, ids in found), key=lambda p: ranking.index(p[0][0])
    )
    found.sort(key=lambda place: largest * len(place[0]))
    every = None if landmarks is None else landmarks(m)
    return {
        "places": [
            {"images": np.array(images), "landmarks": np.array(sorted(ids), int) if every is None else every}
            for images, ids in found
        ]
    }


def compared(map, descriptors, rounded=to_nearest):
    codec = LocalizationMap.open(map).codec
    if codec.thresholds is None:
        return {"compared": projected(descriptors, codec.projection, rounded)}
    products = descriptors.astype(np.int64) @ codec.projection.astype(np.int64).T
    return {"compared": np.where(products > codec.thresholds, 1, -1).astype(np.int8)}


def nearest(map=None, descriptors=None, landmarks=None, queries=None, references=None, high_bits_first=False, tie=1):
    if map is not None:
        m = LocalizationMap.open(map)
        queries, (references, _) = m.codec.query(descriptors), m.descriptors(landmarks.astype(np.int64))
        if high_bits_first and m.codec.thresholds is not None:
            references = references.reshape(len(references), -1, 8)[:, :, ::-1].reshape(references.shape)
    wide, others = queries.astype(np.int64), references.astype(np.int64)
    distances = np.square(wide).sum(axis=1)[:, None] + np.square(others).sum(axis=1) - 2 * wide @ others.T
    number = np.arange(len(references))
    order = np.argsort(distances * len(number) + (number if tie > 0 else number[::-1]), axis=1)[:, :2].T
    return {"nearest": np.stack([*order, *np.take_along_axis(distances, order.T, axis=1).T])}


def kept(m, first, second, d1, d2, ratio=95, same_landmark=True, below=lt, best=lambda d, k: (d, k)):
    """The ratio test, and of a landmark's keypoints the best."""
    owned = defaultdict(list)
    for k in range(len(first)):
        if (same_landmark and first[k] == second[k]) or below(d1[k] * 100**2, d2[k] * ratio**2):
            owned[first[k]].append(k)
    rows = sorted(min(of, key=lambda k: best(d1[k], k)) for of in owned.values())
    found = np.array([rows, [first[k] for k in rows]], int)
    return {"matches": found, "xyz": m.positions(found[1])}


def matches(map, descriptors, keypoints, landmarks, **rules):
    m = LocalizationMap.open(map)
    rows, owners = m.descriptors(landmarks.astype(np.int64))
    first, second, d1, d2 = two_nearest(m.codec.query(descriptors), rows)
    return kept(m, landmarks[owners[first]], landmarks[owners[second]], d1, d2, **rules)


def search(map, descriptors, keypoints, frames, pairs, own=True, **rules):
    """``own``: a keypoint's own candidates are searched, not only those that all share."""
    m = LocalizationMap.open(map)
    shared = sorted({int(landmark) for frame in frames for landmark in m.observed(frame)})
    found = []
    for k, query in enumerate(m.codec.query(descriptors).astype(np.int64)):
        candidates = np.array(sorted({*shared, *(pairs[1][pairs[0] == k].tolist() if own else [])}), np.int64)
        rows, owners = m.descriptors(candidates)
        near = sorted(zip(np.square(rows - query).sum(axis=1).tolist(), candidates[owners].tolist(), strict=True))[:2]
        (d1, first), (d2, second) = near if len(near) == 2 else ((1, -1), (0, -2))  # which is no match
        found.append((first, second, d1, d2))
    return {"shared": shared, **kept(m, *zip(*found, strict=True), **rules)}


def patches(pixels, valid, xy, scale, angle, half=2, centre=0.5, turn=1, bits=5, level=0.5, deviation=42, flat=1):
    """``bits``: of an interpolation weight. ``flat``: the least contrast in grey levels that is stretched."""
    pyramid = [pixels[: valid[0], : valid[1]].astype(np.int64)]
    while min(pyramid[-1].shape) > 1:
        even = np.pad(pyramid[-1], [(0, side % 2) for side in pyramid[-1].shape], "edge")
        pyramid.append((even[::2, ::2] + even[1::2, ::2] + even[::2, 1::2] + even[1::2, 1::2] + half) >> 2)
    found, across, down = [], np.arange(32), np.arange(32)[:, None]
    for at, size, turned in zip(xy.astype(np.float64), scale.astype(np.float64), angle.astype(np.float64), strict=True):
        step = size * 13 / 32
        number = int(np.clip(np.ceil(np.log2(step) - level), 0, len(pyramid) - 1))
        framed = np.pad(pyramid[number], 2, "edge")
        axis = step / 2**number * np.array([np.cos(turned), turn * np.sin(turned)])
        corner = at / 2**number - centre - 15.5 * (axis + np.array([-axis[1], axis[0]]))
        (cos, sin), (x0, y0) = (np.rint(v * 2**16).astype(np.int64) for v in (axis, corner))
        x, y = (x0 + across * cos - down * sin) >> (16 - bits), (y0 + across * sin + down * cos) >> (16 - bits)
        fx, fy, one = x & (1 << bits) - 1, y & (1 << bits) - 1, 1 << bits
        x, y = (x >> bits) + 2, (y >> bits) + 2
        top, bottom = (framed[y + i, x] * (one - fx) + framed[y + i, x + 1] * fx for i in (0, 1))
        samples = top * (one - fy) + bottom * fy
        mean = samples.sum() / samples.size
        spread = np.sqrt(max(0.0, np.square(samples, dtype=np.float64).sum() / samples.size - mean**2))
        with np.errstate(all="ignore"):
            gain = np.float32(deviation / np.maximum(spread, flat * one * one))
            centred = samples.astype(np.float32) - np.float32(mean)
            found.append(np.clip(np.nan_to_num(np.rint(centred * gain)) + 128, 0, 255).astype(np.uint8))
    return {"patches": np.array(found)}


def signs(vectors, kept=True):
    rounded = quantized(vectors)
    return {"descriptors": np.where((rounded == 0) & (vectors < 0), -1, rounded).astype(np.int8) if kept else rounded}


def solved_by_poselib(xy, xyz, camera, max_error):
    import poselib

    c = Camera.parse(camera)
    found, _ = poselib.estimate_absolute_pose(
        xy, xyz, {"model": c.model, "width": c.width, "height": c.height, "params": list(c.params)},
        {"max_reproj_error": max_error, "max_iterations": 10_000, "min_iterations": 200, "success_prob": 0.9999,
         "seed": 0}, {"loss_type": "CAUCHY", "loss_scale": max_error / 16},
    )  # fmt: skip
    return np.array(found.q), np.array(found.t)


def solved_by_opencv(xy, xyz, camera, max_error):
    c = Camera.parse(camera)
    _, turned, translation, _ = cv2.solvePnPRansac(
        xyz, xy[:, None], c.matrix, c.distortion, reprojectionError=max_error, iterationsCount=2000
    )
    found = Pose.from_matrix(cv2.Rodrigues(turned)[0], translation.ravel())
    return found.quaternion, found.translation


def pose(xy, xyz, camera, max_error, solver=None, solved=solved_by_opencv, **rules):
    """``solved``: how a first pose is found, where no solver is asked for."""
    if solver == "usac":
        return STAGES["pose"](xy, xyz, camera, max_error, solver)
    first = (solved_by_poselib if solver == "poselib" else solved)(xy, xyz, camera, max_error)
    near = refinement(*first, xy, xyz, camera, max_error, precise=1 / 4, rounds=1)
    found = refinement(near["quaternion"], near["translation"], xy, xyz, camera, max_error, **rules)
    return {key: found[key] for key in ("quaternion", "translation", "inliers")}


def inliers(quaternion, translation, xy, xyz, camera, max_error, within=lt, behind=np.inf):
    """``behind``: the error of what is not in front of the camera."""
    seen = Pose(np.array(quaternion), np.array(translation)).transform(xyz)
    error = np.linalg.norm(Camera.parse(camera).project(seen) - xy, axis=1)
    return {"inliers": within(np.nan_to_num(error, nan=behind), max_error)}


def best_of(examined):
    """The first of equals."""
    return max(examined, key=lambda one: (one.held, one.near / np.sqrt(len(one.look.expected) + 100)))


def result(
    map, camera, solver=None, method="hierarchical", images=10, tried=slice(None), compared=3, best=best_of,
    landmarks=lambda m, place: place.landmarks, aside=0.0, looked=True, rivals=True, least=6, **query,
):  # fmt: skip
    """The hierarchical method.

    Args:
        tried: of the places. compared: places, before one is judged. best: of what was examined. aside: metres that the
            pose is off. looked: again. rivals: other places are. least: inliers that are examined.
    """
    if method != "hierarchical":
        return STAGES["result"](map, camera, solver, method, **query)
    m, camera, features = LocalizationMap.open(map), Camera.parse(camera), Features(**query)
    if not len(features.keypoints):
        return {"status": Status.NO_KEYPOINTS.value}
    config, max_error, examined, end = PoseConfig(solver=solver or DEFAULT_SOLVER), 8 * features.pixel, [], None
    ranked = retrieve(m.global_query(features.global_descriptor), m.global_descriptors, 4 * images)
    found, further = (
        [place for place in cluster(m, part) if len(place.landmarks)] for part in (ranked[:images], ranked[images:])
    )
    chosen, found, further = None, found[tried], further[tried]
    for number, place in enumerate([*found, *further], 1):
        pairs = match(features, m, landmarks(m, place))
        shown = features if looked else None
        one = examine(m, shown, camera, pairs, max_error, config, False, Clock())
        if one is not None and one.first_inliers >= least:
            examined.append(one)
        if not examined or (number < compared and number < len(found)):
            continue
        if best(examined) is chosen:
            continue
        chosen = best(examined)
        other = rival(m, shown, chosen, examined if rivals else [chosen], max_error, config)
        judged, told = evidence_of(features, chosen, other, max_error)
        allowed = InTolerance.of(chosen.refined, told.shift if told else 0.0, (0.25, 2.0))
        verdict = decide(judged, allowed, chosen.held, 0.001, m.calibration)
        status = Status.AMBIGUOUS if verdict.ambiguous else Status.REJECTED
        end = {"status": status.value, "inliers": int(chosen.refined.inliers.sum())}
        if verdict.accepted:
            at = chosen.refined.pose
            world = Pose(at.quaternion, at.translation + aside - at.rotation @ m.origin)
            return end | {"status": Status.LOCALIZED.value, **vars(world)}
    return end or {"status": (Status.TOO_FEW_MATCHES if found or further else Status.NO_CANDIDATES).value}


PLAIN = {
    "load": load, "scale": scale, "scores": scores, "keypoints": keypoints, **PLAIN_BLOBS, **PLAIN_DENSE, **PLAIN_SCENE,
    "descriptors": descriptors, "global": global_, "retrieval": retrieval, "places": places, "compared": compared,
    "nearest": nearest, "matches": matches, "patches": patches, "signs": signs, "search": search, "pose": pose,
    "inliers": inliers, **PLAIN_TRUST, "result": result,
}  # fmt: skip
