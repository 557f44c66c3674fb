"""`benchmarks/indoors.py`: what a sensor's depth says of landmarks."""

import sys
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1] / "benchmarks"))
from indoors import Visible, depth_at

from hfnet_edge.geometry import Camera, Pose

CAMERA = Camera("PINHOLE", 80, 60, (70.0, 70.0, 40.0, 30.0))
HERE = Pose(np.array([1.0, 0, 0, 0]), np.zeros(3))


def test_depth_is_that_of_every_fourth_pixel():
    depth = np.arange(1.0, 13).reshape(3, 4)
    xy = np.array([[0.5, 0.5], [4.5, 0.5], [6.4, 8.5], [16.0, 4.5], [-9, 0], [np.nan, 1]])
    assert depth_at(depth, xy).tolist() == [1, 2, 10, 0, 0, 0]


def test_a_landmark_is_visible_at_the_depth_that_is_measured():
    at = [(0, 0, 4.2), (0, 0, 4.3), (0, 0, 3.6), (0, 0, -4), (9, 0, 4)]
    found = Visible.of(np.array(at, float), HERE, CAMERA, np.full((15, 20), 4.0))
    assert found.landmarks.tolist() == [0] and np.isnan(found.xy[1:]).all()
    keypoints = np.array([[47.0, 30], [49.0, 30]])  # the landmark is at (40, 30)
    assert found.on(keypoints, found.landmarks).tolist() == [True, False]
    assert found.right(keypoints[[0, 0, 1]], np.array([0, 1, 0])).tolist() == [True, False, False]
    assert not Visible.of(np.array(at, float), HERE, CAMERA, np.zeros((15, 20))).landmarks.size
