"""Rigs and sessions: several views as one query, and frames one after the other."""

from __future__ import annotations

import threading
from dataclasses import replace

import numpy as np
import pytest
from test_localizer import NoNetwork

from hfnet_edge.errors import InputError, MapFormatError
from hfnet_edge.geometry import Pose
from hfnet_edge.localizer import Localizer, view_of
from hfnet_edge.methods.method import LocalizationConfig, Query
from hfnet_edge.pose.solvers import PoseConfig, available_solvers
from hfnet_edge.result import Status
from hfnet_edge.rig import adjoint, localize_views
from hfnet_edge.session import CONFIRMED, Odometry, Session
from hfnet_maps.evaluation.errors import pose_error
from synthetic import CAMERA, looking_at, place

OFFSET = np.array([1000.0, -2000.0, 50.0])
HERE = Pose(np.array([1.0, 0, 0, 0]), np.zeros(3))


def turn(axis, degrees, translation=(0.0, 0, 0)):
    half = np.radians(degrees) / 2
    return Pose(np.array([np.cos(half), *(np.sin(half) * np.eye(3)[axis])]), np.array(translation))


def opened(p, **how):
    """What a session and a rig need of a localizer: features come from the tests."""
    return Localizer(p.map(), NoNetwork(), config=LocalizationConfig(**how))


def walk(count, start=0.0, step=1.5):
    """Camera poses (cam_from_world) along the circle around the place."""
    angles = np.radians(start + step * np.arange(count))
    return [looking_at(OFFSET + np.array([14 * np.cos(a), 14 * np.sin(a), 1.0]), OFFSET) for a in angles]


def motion(poses):
    """session_from_cam without drift, the first frame's camera being the session's frame."""
    return [poses[0] @ pose.inverse for pose in poses]


def query(p, pose, seed=0, **how):
    features = replace(p, rng=np.random.default_rng(seed)).features(pose, **how)
    return Query(features.pixel, features)


NOTHING = Query(
    1.0, place().features(looking_at(OFFSET + np.array([14.0, 0, 0]), OFFSET + np.array([28.0, 0, 0])), outliers=80)
)


def test_a_pose_after_another():
    rng = np.random.default_rng(0)
    a, b = (Pose(q / np.linalg.norm(q), rng.normal(size=3)) for q in rng.normal(size=(2, 4)))
    x = rng.normal(size=(5, 3))
    assert (a @ b).transform(x) == pytest.approx(a.transform(b.transform(x)))
    assert (a @ a.inverse).transform(x) == pytest.approx(x) and a.inverse.translation == pytest.approx(a.center)


def test_the_adjoint_moves_a_camera_as_its_rig():
    from hfnet_edge.pose.refinement import retract

    rig, cam = turn(1, 30, (1, 2, 3)), turn(0, -50, (0.3, -0.2, 0.5))
    step = 1e-6 * np.array([1.0, -2, 3, 2, -1, 0.5])
    moved, other = cam @ retract(rig, step), retract(cam @ rig, adjoint(cam) @ step)
    assert moved.translation == pytest.approx(other.translation, abs=1e-10)
    assert moved.rotation == pytest.approx(other.rotation, abs=1e-10)


@pytest.mark.parametrize("solver", available_solvers())
def test_cameras_that_see_too_little_alone_are_localized_as_a_rig(solver):
    p = place()
    localizer = opened(p, pose=PoseConfig(solver=solver))
    rig = walk(1)[0]
    cams = [HERE, turn(1, 25, (0.2, 0, 0)), turn(1, -25, (-0.2, 0, 0)), turn(0, 20, (0, 0.1, 0))]
    views = []
    for k, cam in enumerate(cams):
        q = query(p, cam @ rig, k, noise=0.5)
        some = np.random.default_rng(k).permutation(len(q.features.keypoints))[:5]
        few = replace(q.features, keypoints=q.features.keypoints[some], descriptors=q.features.descriptors[some])
        views.append(view_of(localizer.method, replace(q, features=few), CAMERA, cam))
    alone = [localize_views(localizer.map, [view], localizer.config) for view in views]
    together = localize_views(localizer.map, views, localizer.config)
    assert together.status is Status.LOCALIZED and pose_error(together.pose, rig)[0] < 0.1
    assert not any(one.status is Status.LOCALIZED for one in alone)
    assert together.covariance is not None and np.linalg.eigvalsh(together.covariance).min() > 0


def test_a_rig_whose_cameras_disagree_is_not_localized():
    p = place()
    localizer = opened(p)
    rig = walk(1)[0]
    cams, told = [HERE, turn(1, 20), turn(1, -20)], [turn(2, 90), turn(1, -110, (5, 0, 0)), turn(0, 70, (0, 9, 0))]
    views = [
        view_of(localizer.method, query(p, cam @ rig, k, outliers=100), CAMERA, said)
        for k, (cam, said) in enumerate(zip(cams, told, strict=True))
    ]
    found = localize_views(localizer.map, views, localizer.config)
    assert found.pose is None or pose_error(told[0] @ found.pose, rig)[0] < 0.1  # at most one of them is believed


def test_a_session_is_carried_where_frames_show_nothing_and_tracks_where_they_do():
    p = place()
    poses = walk(30)
    session, before = Session(opened(p), odometry=Odometry(0.01, 0.2)), 0.0
    for i, (pose, at) in enumerate(zip(poses, motion(poses), strict=True)):
        shown = query(p, pose, i) if i < 5 or i >= 25 else NOTHING
        r = session.localize_query(shown, CAMERA, at)
        assert r.status is Status.LOCALIZED and pose_error(r.pose, pose)[0] < 0.1
        assert r.tracked == (0 < i < 5 or i >= 25) and (r.way > 0) == (5 <= i < 25)
        assert (r.map_from_session @ at).translation == pytest.approx(r.pose.center, abs=1e-6)
        if 5 < i < 25:
            assert r.position_std > before  # it grows as the odometry drifts
        before = r.position_std
    assert len(session._window) <= 10


def test_a_session_says_so_when_the_last_fix_is_too_long_ago():
    p = place()
    poses = walk(24, step=10)
    session = Session(opened(p), odometry=Odometry(0.2, 3.0))
    ends = [
        session.localize_query(query(p, pose, 1) if i == 0 else NOTHING, CAMERA, at)
        for i, (pose, at) in enumerate(zip(poses, motion(poses), strict=True))
    ]
    assert (
        ends[0].pose is not None and ends[-1].pose is None and any("too far to be sure" in str(e.notes) for e in ends)
    )


def test_a_jump_is_not_followed_until_it_is_confirmed():
    p = place()
    poses = walk(20)
    session = Session(opened(p))
    moved = motion(poses)
    for pose, at in zip(poses[:8], moved[:8], strict=True):
        session.localize_query(query(p, pose), CAMERA, at)
    elsewhere = walk(20, start=150)  # the device was carried away, and its odometry does not know
    ends = [
        session.localize_query(query(p, pose), CAMERA, at)
        for pose, at in zip(elsewhere[8:14], moved[8:14], strict=True)
    ]
    for k, (r, pose, old) in enumerate(zip(ends, elsewhere[8:14], poses[8:14], strict=True)):
        assert pose_error(r.pose, old if k < CONFIRMED - 1 else pose)[0] < 0.2
    assert "contradicts" in ends[0].notes[0] and "begins anew" in ends[CONFIRMED - 1].notes[0]


def test_without_odometry_the_last_pose_leads_and_nothing_is_carried():
    p = place()
    session = Session(opened(p))
    poses = walk(12, step=0.6)
    for i, pose in enumerate(poses):
        r = session.localize_query(NOTHING if i == 6 else query(p, pose, i), CAMERA, None)
        assert (r.pose is None) == (i == 6)
        assert r.tracked == (i not in (0, 6, 7))
        if r.pose is not None:
            assert pose_error(r.pose, pose)[0] < 0.1


def test_garbage_for_a_thousand_frames_leaves_nothing_behind():
    p = place()
    session = Session(opened(p), window=3)
    empty = replace(NOTHING.features, keypoints=np.zeros((0, 2)), descriptors=np.zeros((0, 32), np.int8))
    for i in range(1000):
        r = session.localize_query(Query(1.0, empty), CAMERA, turn(1, i % 360, (0.01 * i, 0, 0)))
        assert r.pose is None and r.map_from_session is None
    assert len(session._window) == 3 and not session._others
    pose = walk(1)[0]
    assert session.localize_query(query(p, pose), CAMERA, turn(1, 0, (10.0, 0, 0))).pose is not None


def test_what_makes_no_sense_is_named_and_changes_nothing():
    p = place()
    localizer = opened(p)
    for window in (0, 101):
        with pytest.raises(InputError, match="window"):
            Session(localizer, window)
    for drift in ({"distance": -1}, {"rotation": np.nan}, {"metres": 0.0}):
        with pytest.raises(InputError, match=next(iter(drift))):
            Odometry(**drift)
    session, frame = Session(localizer), np.zeros((480, 640), np.uint8)
    session.localize_query(query(p, walk(1)[0]), CAMERA, HERE, time=5.0)
    for bad in (Pose(np.full(4, np.nan), np.zeros(3)), Pose(HERE.quaternion, np.full(3, np.inf)), "here"):
        with pytest.raises(InputError, match="session_from_cam"):
            session.localize(frame, CAMERA, bad, time=6.0)
    for time in (5.0, 4.0, np.nan):
        with pytest.raises(InputError, match="time"):
            session.localize(frame, CAMERA, HERE, time=time)
    with pytest.raises(InputError, match="on_pose"):
        session.submit(frame, CAMERA)
    r = session.localize_query(query(p, walk(1)[0]), CAMERA, HERE, time=5.5)
    assert r.tracked, "the session is as it was"
    far = session.localize_query(NOTHING, CAMERA, turn(0, 0, (1e5, 0, 0)), time=6.0)
    assert far.pose is None and "jumped" in far.notes[0]


def test_a_map_that_is_damaged_under_a_frame_leaves_the_session_as_it_was(monkeypatch):
    p = place(offset=OFFSET)
    session, poses = Session(opened(p)), walk(4)
    steps = motion(poses)
    for i in range(2):
        assert session.localize_query(query(p, poses[i]), CAMERA, steps[i], time=i).status is Status.LOCALIZED

    def damaged(*_):
        raise MapFormatError("the map is damaged", "copy it again")

    with monkeypatch.context() as patch, pytest.raises(MapFormatError):
        patch.setattr("hfnet_edge.session.track_query", damaged)
        session.localize_query(query(p, poses[3]), CAMERA, steps[3], time=3)
    alone = Session(opened(p))
    for i in range(2):
        alone.localize_query(query(p, poses[i]), CAMERA, steps[i], time=i)
    found, expected = (one.localize_query(query(p, poses[2]), CAMERA, steps[2], time=2) for one in (session, alone))
    assert found.way == expected.way and found.pose.translation == pytest.approx(expected.pose.translation, abs=0)
    assert np.array_equal(found.covariance, expected.covariance) and found.tracked


def test_the_camera_is_never_kept_waiting_and_the_latest_frame_wins():
    p = place()
    taken, go, results = [], threading.Event(), []

    class Slow(Session):
        def localize(self, image, camera, *_, **__):
            taken.append(image)
            go.wait(10)
            return image

    with Slow(opened(p), on_pose=results.append) as session:
        for i in range(5):
            session.submit(i, CAMERA)
            if i == 0:
                while not taken:
                    pass
        go.set()
        while len(results) < 2:
            pass
    assert taken == results == [0, 4]
    with pytest.raises(InputError, match="closed"):
        session.submit(5, CAMERA)
