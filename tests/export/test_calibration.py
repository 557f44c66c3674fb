from __future__ import annotations

import cv2
import numpy as np
import pytest

from hfnet_edge.errors import ImageError, InputError
from hfnet_export.tflite import calibration


def test_built_in_images_are_the_same_every_time():
    images = calibration.built_in_images((96, 128), 6)
    assert all(image.shape == (96, 128) and image.dtype == np.uint8 for image in images)
    for one, again in zip(images, calibration.built_in_images((96, 128), 6), strict=True):
        np.testing.assert_array_equal(one, again)


def test_built_in_images_go_from_dark_to_bright():
    means = sorted(image.mean() for image in calibration.built_in_images((96, 128), 12))
    assert means[0] < 60 and means[-1] > 180


def test_photos_are_picked_evenly(tmp_path):
    (tmp_path / "sub").mkdir()
    for i in range(10):
        cv2.imwrite(str(tmp_path / "sub" / f"{i}.png"), np.full((70, 90), 20 * i, np.uint8))
    (tmp_path / "notes.txt").write_text("not an image")
    picked = calibration.photos(tmp_path, (64, 96), count=4)
    assert [int(image[0, 0]) for image in picked] == [0, 60, 120, 180]
    assert len(calibration.photos(tmp_path, (64, 96))) == 10


def test_unusable_photos_are_named(tmp_path):
    with pytest.raises(InputError, match="no folder"):
        calibration.photos(tmp_path / "nowhere", (64, 64))
    with pytest.raises(InputError, match="no images"):
        calibration.photos(tmp_path, (64, 64))
    (tmp_path / "broken.jpg").write_bytes(b"not a picture")
    with pytest.raises(ImageError, match=r"broken\.jpg"):
        calibration.photos(tmp_path, (64, 64))
