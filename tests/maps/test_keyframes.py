"""Keyframes of a video: sharp ones, as far apart as the picture moves; and a map from a video by one command."""

from __future__ import annotations

import csv

import cv2
import numpy as np
import pytest
from typer.testing import CliRunner

from hfnet_edge.errors import ImageError, InputError
from hfnet_maps.build.keyframes import LIST, MOVED, write_keyframes
from hfnet_maps.cli import main

SIZE = (160, 240)


def write_video(path, shifts, blurred=()):
    """A noise picture that is moved to the left, by so many pixels from the first frame."""
    rng = np.random.default_rng(0)
    wide = cv2.GaussianBlur(rng.integers(0, 256, (SIZE[0], 900)).astype(np.float32), (0, 0), 1.5)
    wide = cv2.normalize(wide, None, 0, 255, cv2.NORM_MINMAX).astype(np.uint8)
    video = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"MJPG"), 10.0, SIZE[::-1])
    for k, shift in enumerate(shifts):
        grey = wide[:, shift : shift + SIZE[1]]
        if k in blurred:
            grey = cv2.GaussianBlur(grey, (9, 9), 3)
        video.write(cv2.cvtColor(grey, cv2.COLOR_GRAY2BGR))
    video.release()
    return path


def test_frames_are_kept_by_motion_and_sharpness(tmp_path):
    shifts = [*range(0, 120, 2), *[118] * 20, *range(120, 200, 8)]  # slowly, not at all, fast
    blurred = set(range(0, 60)) - set(range(0, 60, 5))
    video = write_video(tmp_path / "v.avi", shifts, blurred)
    kept = write_keyframes(video, tmp_path)
    moves = np.diff([shifts[k.number] for k in kept])
    assert kept[0].number == 0 and (moves <= 2 * MOVED * max(SIZE) + 8).all() and (moves[:-1] > 0).all()
    assert len(kept) >= 8 and not {k.number for k in kept} & blurred
    assert sum(60 <= k.number < 80 for k in kept) <= 1, "where nothing moves, nothing is kept"
    rows = list(csv.DictReader((tmp_path / LIST).read_text().splitlines()))
    assert [row["name"] for row in rows] == [k.name for k in kept]
    assert rows[3]["name"] == f"frame_{kept[3].number:06d}_t{kept[3].number / 10:.6f}.jpg"
    assert all((tmp_path / k.name).is_file() for k in kept)
    again = tmp_path / "again"
    again.mkdir()
    assert write_keyframes(video, again) == kept
    assert (again / kept[2].name).read_bytes() == (tmp_path / kept[2].name).read_bytes()


def test_videos_that_give_nothing_are_refused(tmp_path):
    with pytest.raises(InputError, match="nothing moves"):
        write_keyframes(write_video(tmp_path / "still.avi", [5] * 10), tmp_path)
    (tmp_path / "no.mp4").write_bytes(b"not a video")
    for name, words in (("no.mp4", "does not decode"), ("missing.mp4", "there is no video")):
        with pytest.raises(ImageError, match=words):
            write_keyframes(tmp_path / name, tmp_path)
    (tmp_path / "m.tflite").write_bytes(b"")
    for options in ((), ("--video", "v.mp4", "--images", "d"), ("--video", "v.mp4", "--reference", "d")):
        result = CliRunner().invoke(main, ["build", "--model", str(tmp_path / "m.tflite"), "-o", "s.hfmap", *options])
        assert result.exit_code == 2 and result.stderr.startswith("error: ")
