"""Videos and trajectories: read, and refused by line."""

import cv2
import numpy as np
import pytest

from hfnet_edge.errors import ImageError, InputError
from hfnet_edge.video import Trajectory, frames_of


def test_a_trajectory_is_read_and_goes_from_pose_to_pose(tmp_path):
    (tmp_path / "t.txt").write_text(
        "# time tx ty tz qx qy qz qw\n10 0 0 0 0 0 0 1\n\n11 2 0 0 0 0 0.70710678 0.70710678\n"
    )
    motion = Trajectory.read(tmp_path / "t.txt")
    assert motion.at(9.9) is None and motion.at(11.1) is None
    assert motion.at(10).translation.tolist() == [0, 0, 0] and motion.at(11).translation.tolist() == [2, 0, 0]
    half = motion.at(10.5)
    assert half.translation == pytest.approx([1, 0, 0])
    assert half.quaternion == pytest.approx([np.cos(np.pi / 8), 0, 0, np.sin(np.pi / 8)])


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "no poses"),
        ("1 2 3\n", "line 1"),
        ("1 0 0 0 0 0 0 1\n1 0 0 0 0 0 0 1\n", "line 2: time"),
        ("2 0 0 0 0 0 0 1\n1 0 0 0 0 0 0 1\n", "line 2: time"),
        ("1 nan 0 0 0 0 0 1\n", "line 1.*finite"),
        ("1 0 0 0 0 0 0 0\n", "line 1.*rotation"),
        ("a 0 0 0 0 0 0 1\n", "line 1"),
    ],
)
def test_a_trajectory_that_is_none_names_the_line(tmp_path, text, says):
    (tmp_path / "t.txt").write_text(text)
    with pytest.raises(InputError, match=says):
        Trajectory.read(tmp_path / "t.txt")
    with pytest.raises(InputError, match="cannot read"):
        Trajectory.read(tmp_path / "none.txt")


def test_frames_come_with_their_time(tmp_path):
    path = tmp_path / "v.avi"
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"MJPG"), 10.0, (64, 48))
    for level in (20, 120, 220):
        writer.write(np.full((48, 64, 3), level, np.uint8))
    writer.release()
    frames = list(frames_of(path))
    assert [time for time, _ in frames] == pytest.approx([0, 0.1, 0.2])
    assert [int(frame.mean()) for _, frame in frames] == pytest.approx([20, 120, 220], abs=4)


def test_what_is_no_video_is_refused(tmp_path):
    (tmp_path / "v.mp4").write_bytes(b"not a video")
    with pytest.raises(ImageError, match="does not decode"):
        next(frames_of(tmp_path / "v.mp4"))
    with pytest.raises(ImageError, match="no video"):
        next(frames_of(tmp_path / "none.mp4"))
