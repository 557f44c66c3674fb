"""What a port to another language is likely to get wrong: every mistake is noticed by some case of its stage."""

import math
from bisect import bisect_left
from contextlib import ExitStack
from dataclasses import replace
from functools import partial
from operator import ge, gt, le, lt
from pathlib import Path
from statistics import mean
from types import SimpleNamespace
from unittest.mock import patch

import cv2
import numpy as np
import pytest

from golden import plain
from golden.plain import PLAIN, by_opencv
from golden.plain_trust import towards_zero
from golden.reader import STAGES, Golden, plain_pose, pose_of, possible
from hfnet_edge import localizer, prior, rig, session
from hfnet_edge.geometry import Pose

FOLDER = Path(__file__).parents[2] / "golden"


@pytest.mark.parametrize("stage", PLAIN)
def test_a_plain_port_is_right(stage):
    golden = Golden(FOLDER, PLAIN)
    cases = [case for case in golden.cases(stage) if possible(case)]
    assert cases and not {case["name"]: found for case in cases if (found := golden.differences(case))}


def rule(stage, **wrong):
    """A stage of the plain port with a wrong rule."""
    return stage, partial(PLAIN[stage], **wrong)


def given(stage, **wrong):
    """The runtime's stage, given something else: by name, what a value becomes."""
    return stage, lambda **values: STAGES[stage](**values | {key: change(values[key]) for key, change in wrong.items()})


def returned(stage, **wrong):
    """The runtime's stage, which returns something else: by name, what a value becomes."""

    def stage_(**values):
        found = STAGES[stage](**values)
        return found | {key: change(found[key]) for key, change in wrong.items()}

    return stage, stage_


def inside(stage, where, **wrong):
    """The runtime's stage with something else in one of its modules or classes: by name, what it becomes, from what it
    is where that is a function, else the value itself."""

    def stage_(**values):
        with ExitStack() as stack:
            for name, change in wrong.items():
                other = change(getattr(where, name, None)) if callable(change) else change
                stack.enter_context(patch.object(where, name, other, create=True))
            return STAGES[stage](**values)

    return stage, stage_


def just_above(threshold):
    return np.nextafter(np.float32(threshold), np.float32(1))


def in_double(scores, threshold):
    return scores.astype(np.float64) >= threshold


def half_up(values):
    return np.floor(values + 0.5)


def rounded_down(products):
    return products // 127


def zero_is_negative(descriptors):
    return descriptors - (descriptors == 0).astype(np.int8)


def turned_alone(adjoint):
    """What a motion of the rig is of a camera that sits in its middle."""

    def wrong(pose):
        return adjoint(Pose(pose.quaternion, np.zeros(3)))

    return wrong


def as_if_straight(drift):
    """Odometry whose rotation does not drift."""
    return lambda odometry, way: (drift(odometry, way)[0], 0.0)


def in_map_units(drift):
    """A unit of the map taken for a metre."""
    return lambda odometry, way: drift(replace(odometry, metres=1.0), way)


def no_drift(drift):
    return lambda odometry, way: (0.0, 0.0)


def nothing_of(function):
    """In the place of a method: it finds nothing."""
    return lambda *_: None


def as_it_was(function):
    """In the place of a method: what it is given."""
    return lambda _, found: found


def by_side(_):
    """The share of a window's side in place of its area's."""
    return lambda most, share: min(most, share**0.5)


def from_the_first(spread):
    """The first landmarks in place of a spread; of other spreads all."""
    return lambda first, last, count: np.arange(count) if count == localizer.MIN_TRACKED else spread(first, last, count)


def of_pixels(noise):
    return lambda view, depth: 0.0


def upside_down(**values):
    """Gravity that points upwards."""
    down = {"gravity": [-v for v in values["gravity"]]} if "gravity" in values else {}
    return STAGES["prior"](**values | down)


def with_heights(_):
    return lambda disk, points: np.linalg.norm(points - disk.center, axis=1)


def without_drift(covariance):
    return lambda pose, views, *rest: covariance(pose, [replace(view, drift=(0.0, 0.0)) for view in views], *rest)


def without_roots(_):
    return SimpleNamespace(**vars(math) | {"sqrt": lambda count: 1.0})


def least_sure(_):
    return lambda *values, key=None: max(*values, key=key) if key else min(*values)


def inverted(frames):
    """What leads to the map leads from there."""
    there = [frame["map_from_session"] for frame in frames]
    return [
        frame | {"map_from_session": told and plain_pose(pose_of(told).inverse)}
        for frame, told in zip(frames, there, strict=True)
    ]


def every_landmark(m):
    return np.arange(m.landmark_count)


MISTAKES = {
    "mirrored with the edge twice": rule("load", mirrored="symmetric"),
    "enlarged by another rule": rule("load", enlarged=by_opencv(cv2.INTER_CUBIC)),
    "reduced by OpenCV": rule("load", reduced=by_opencv(cv2.INTER_AREA)),
    "mean of the colours": rule("load", grey=plain.mean_of_colours),
    "turned the other way": rule("load", turns=plain.OTHER_TURNS),
    "EXIF not turned back": rule("load", turned_back=False),
    "scaled by 256": rule("scale", levels=256),
    "coarser exponentials": rule("scores", steps=128),
    "above the threshold": given("keypoints", threshold=just_above),
    "the threshold in double": rule("keypoints", enough=in_double),
    "a wider border": given("keypoints", border=lambda border: border + 1),
    "soft-argmax off by half a pixel": rule("keypoints", centre=0),
    "soft-argmax of 3x3": rule("keypoints", refine=1),
    "all of equal neighbours": rule("keypoints", equals=True),
    "blurs rounded down": rule("blobs", rounded=lambda sums, total: sums // total),
    "halves of blurs rounded up": rule("blobs", rounded=lambda sums, total: (2 * sums + total) // (2 * total)),
    "blurs rounded in each direction": rule("blobs", once=False),
    "blurs with the edge twice": rule("blobs", mirrored="symmetric"),
    "an octave too few": rule("blobs", octaves=2),
    "an octave too many": rule("blobs", octaves=4),
    "blobs off by half a pixel": rule("blobs", centre=0),
    "blobs at whole pixels": rule("blobs", fitted=False),
    "peaks beyond a pixel": rule("blobs", within=np.inf),
    "another contrast": rule("blobs", contrast=0.625),
    "a contrast that is not reached": rule("blobs", enough=gt),
    "edges kept": rule("blobs", stretch=100),
    "blobs that are not apart": rule("blobs", apart=0),
    "blobs farther apart": rule("blobs", apart=4),
    "blobs apart from blobs alone": rule("blobs", kept=True),
    "the last of equal blobs": rule("blobs", tie=-1),
    "no blobs among equal neighbours": rule("blobs", alone=True),
    "a wider border of blobs": rule("blobs", border=5),
    "responses in steps": rule("blobs", unit=1),
    "blobs' scores without the 1": rule("filled", raised=0),
    "keypoints nearer to blobs": rule("filled", far=3),
    "whole pixels forgotten": rule("filled", whole=float),
    "blobs dropped": rule("filled", dropped=True),
    "cells sampled at their corners": rule("descriptors", centre=0),
    "all parts of descriptors on one grid": rule("descriptors", grids=(8, 8, 8)),
    "the finest part first": rule("descriptors", order=(2, 1, 0)),
    "descriptors truncated": rule("descriptors", rounded=np.trunc),
    "descriptors without a direction": rule("descriptors", shortest=0),
    "descriptors that keep what is a number": rule("descriptors", numbers=np.nan_to_num),
    "global descriptor truncated": rule("global", rounded=np.trunc),
    "a direction for every vector": rule("global", shortest=0),
    "halves rounded up": rule("global", rounded=half_up),
    "decode off by half a pixel": returned("decode", keypoints=lambda xy: xy - 0.5),
    "cells that the image touches left out": rule("cells", up=False),
    "cells truncated": rule("cells", rounded=np.trunc),
    "the last of equal cells": rule("dense_search", tie=-1),
    "the paper's alpha": rule("dense_search", alike=90),
    "as many as the quantile": rule("dense_search", few=(5, 1000)),
    "several landmarks in a cell": rule("dense_search", one_each=False),
    "all landmarks of many": rule("dense_search", most=10**6),
    "landmarks compared by product": rule("dense_search", length=False),
    "cells at their corners": rule("dense_search", centre=0),
    "the middles of cells": rule("dense_search", between=False),
    "components raised by 127": rule("scene_rows", lift=127),
    "an image's number, low byte first": rule("scene_rows", high_first=False),
    "the first level's labels fastest": rule("scene_landmarks", last_fastest=False),
    "scores of 0": rule("scene_landmarks", above=-0.5),
    "the last of equal scores": rule("scene_landmarks", surer=ge),
    "labels beyond the tree": rule("scene_landmarks", beyond=le),
    "the last image of equals": rule("retrieval", tie=-1),
    "global projection rounded down": rule("retrieval", rounded=rounded_down),
    "small places first": rule("places", largest=1),
    "all landmarks in each place": rule("places", landmarks=every_landmark),
    "projection rounded down": rule("compared", rounded=rounded_down),
    "bits in the other order": rule("nearest", high_bits_first=True),
    "the last of equals": rule("nearest", tie=-1),
    "no two of the same landmark": rule("matches", same_landmark=False),
    "a ratio that is reached": rule("matches", below=le),
    "the first of a landmark's keypoints": rule("matches", best=lambda d, k: k),
    "the last of a landmark's keypoints": rule("matches", best=lambda d, k: (d, -k)),
    "another ratio": rule("matches", ratio=94),
    "the pyramid rounded down": rule("patches", half=1),
    "patches off by half a pixel": rule("patches", centre=0),
    "patches turned the other way": rule("patches", turn=-1),
    "coarser weights": rule("patches", bits=4),
    "the sharper level": rule("patches", level=1.5),
    "light left in": rule("patches", deviation=43),
    "noise of flat patches": rule("patches", flat=0),
    "signs that rounding loses": rule("signs", kept=False),
    "leaves by probability alone": given("leaves", order=lambda order: "probability"),
    "the first leaf for the last": returned("leaves", leaves=lambda rows: np.hstack([rows[:, :-1], rows[:, :1]])),
    "zero is a negative": given("leaves", descriptors=zero_is_negative),
    "a landmark of a leaf too few": returned("leaf_landmarks", pairs=lambda pairs: pairs[:, :-1]),
    "candidates of frames alone": rule("search", own=False),
    "another ratio in the search": rule("search", ratio=80),
    "inliers at the threshold": rule("inliers", within=le),
    "inliers behind the camera": rule("inliers", behind=0),
    "a pose not refined": rule("pose", rounds=0),
    "a pose with another scale": rule("pose", precise=1 / 8),
    "Cauchy's scale twice as large": rule("refinement", precise=1 / 8),
    "squared weights": rule("refinement", weighed=lambda weight: weight**2),
    "no weights": rule("refinement", weighed=lambda weight: 1.0),
    "inliers counted once": rule("refinement", rounds=1),
    "refined on what is behind the camera": rule("refinement", behind=0),
    "noise by the mean": rule("refinement", middle=mean),
    "a covariance without weights": rule("refinement", free=True),
    "the window's limit in it": rule("guided", within=le),
    "the last of equal keypoints": rule("guided", tie=-1),
    "the last of equal landmarks": rule("guided", other_tie=-1),
    "landmarks on the image's side": rule("guided", inside=le),
    "keypoints of several landmarks": rule("guided", one_way=True),
    "fewer views": rule("second_look", views=6),
    "views by another axis": rule("second_look", axis=0),
    "the median left out": rule("second_look", like=lt),
    "half a window": rule("second_look", near=1 / 2),
    "the first matches forgotten": rule("second_look", forgotten=True),
    "a wider near": rule("evidence", near=0.3),
    "chance forgotten": rule("evidence", chance=0),
    "chance of the whole window": rule("evidence", outer=1 / 4),
    "the ratio of medians swapped": rule("evidence", swapped=True),
    "cells without keypoints": rule("evidence", seen_too=False),
    "coarser cells": rule("evidence", cells=7),
    "two are neighbours": rule("evidence", few=2),
    "a focal length that is uncertain": rule("evidence", certain=0),
    "metres for depths": rule("evidence", of_depth=False),
    "the bias forgotten": rule("probability", biased=0),
    "an edge of the interval below": rule("probability", edge=bisect_left),
    "points rounded towards zero": rule("probability", moved=towards_zero),
    "points without a limit": rule("probability", largest=1 << 30),
    "the map's calibration forgotten": rule("probability", calibrated=False),
    "never ambiguous": rule("probability", alone=False),
    "one place": rule("result", tried=slice(1)),
    "the first place": rule("result", best=lambda examined: examined[0]),
    "the last place": rule("result", best=lambda examined: examined[-1]),
    "the first that is accepted": rule("result", compared=1),
    "no second look": rule("result", looked=False),
    "no rivals among places": rule("result", rivals=False),
    "all that the map has": rule("result", landmarks=lambda m, place: every_landmark(m)),
    "fewer inliers examined": rule("result", least=7),
    **{f"{n} images": rule("result", images=n) for n in (1,)},
    "a hundredth of a millimetre off": rule("result", aside=1e-5),
    "all landmarks tracked": inside("track", localizer, MIN_TRACKED=10**6),
    "fewer landmarks tracked": inside("track", localizer, MIN_TRACKED=200),
    "chance of a window's side": inside("track", localizer, min=by_side),
    "tracked by the first landmarks": inside("track", np, linspace=from_the_first),
    "fewer images near a position": inside("prior", prior, NEAREST=10),
    "images within the radius": inside("prior", prior, REACH=1.0),
    "a deviation is certain": inside("prior", prior, CERTAIN=1.0),
    "gravity to a degree": inside("prior", prior, GRAVITY_TOLERANCE=1.0),
    "gravity to a quarter": inside("prior", prior, GRAVITY_TOLERANCE=90.0),
    "gravity points up": ("prior", upside_down),
    "level cameras alone": inside("prior", prior, LEVEL=0.95),
    "turned where it looks down": inside("prior", prior, LEVEL=0.0),
    "heights count": inside("prior", prior.Disk, distances=with_heights),
    "one view's matches are enough": inside("rig", rig, LEAST=5),
    "the adjoint without the offset": inside("rig", rig, adjoint=turned_alone),
    "cameras that do not drift": inside("rig", rig.View, noise=of_pixels),
    "drift left out of the covariance": inside("rig", rig, _covariance=without_drift),
    "counts of all views": inside("rig", rig, math=without_roots),
    "the least sure view asked": inside("rig", rig, min=least_sure),
    "rigs refined once": inside("rig", rig, COARSE=1 / 32),
    "another scale of rigs": inside("rig", rig, PRECISE=1 / 8),
    "rivals forgotten": inside("rig", rig, apart=lambda _: lambda *poses: False),
    "contradictions followed at once": inside("session", session, CONFIRMED=1),
    "contradictions followed early": inside("session", session, CONFIRMED=2),
    "contradictions followed late": inside("session", session, CONFIRMED=4),
    "searched for too seldom": inside("session", session, RETRY=10),
    "searched for too often": inside("session", session, RETRY=4),
    "no drift": inside("session", session.Odometry, drift=no_drift),
    "no drift of rotation": inside("session", session.Odometry, drift=as_if_straight),
    "feet taken for metres": inside("session", session.Odometry, drift=in_map_units),
    "jumps in map units": inside("session", session, FASTEST=30.48),
    "jumps let pass": inside("session", session, FASTEST=1e4),
    "covariances not carried": inside("session", session, adjoint=lambda _: lambda pose: np.eye(6)),
    "covariances turned alone": inside("session", session, adjoint=turned_alone),
    "lost too late": inside("session", session, LOST_DEGREES=50.0),
    "lost too early": inside("session", session, LOST_DEGREES=2.0),
    "not smoothed": inside("session", session.Session, _smoothed=as_it_was),
    "frames not taken together": inside("session", session.Session, _together=nothing_of),
    "a window that is too long": given("session", window=lambda window: 2 * window),
    "a narrower search": inside("session", session, NARROWEST=2.0),
    "a wider search": inside("session", session, NARROWEST=64.0),
    "the last fix however far": inside("session", session, _within=lambda _: lambda spread, tolerance: 1.0),
    "stricter agreement": inside("session", session, CERTAIN=0.0, SLACK_DEPTH=0.0, SLACK_DEGREES=0.0),
    "the session for its inverse": returned("session", frames=inverted),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_a_mistake_is_noticed(name):
    stage, wrong = MISTAKES[name]
    golden = Golden(FOLDER, {stage: wrong})
    assert any(golden.differences(case) for case in golden.cases(stage) if possible(case))
