from __future__ import annotations

import cv2
import numpy as np
import pytest

from hfnet_edge.errors import ImageError, InputError
from hfnet_edge.image.patches import DEVIATION, MEAN, PATCH_SCALE, PatchKeypoints, cut, detect


@pytest.fixture(scope="module")
def image() -> np.ndarray:
    rng = np.random.default_rng(0)
    layers = [cv2.resize(rng.normal(size=(240 // s, 320 // s)), (320, 240)) * s**0.7 for s in (1, 2, 4, 8, 16, 40)]
    smooth = cv2.GaussianBlur(sum(layers), (0, 0), 1.0)
    return np.clip(128 + 45 * smooth / smooth.std(), 0, 255).astype(np.uint8)


def keypoints(*rows) -> PatchKeypoints:
    """Of (x, y, scale, angle in degrees)."""
    x, y, scale, angle = np.array(rows, np.float32).T
    return PatchKeypoints(np.stack([x, y], 1), scale, np.radians(angle), np.ones(len(rows), np.float32))


def by_opencv(image: np.ndarray, k: PatchKeypoints) -> np.ndarray:
    """One patch by OpenCV: blurred for its scale, warped, normalised."""
    step = float(k.scale[0]) * PATCH_SCALE / 32
    blurred = cv2.GaussianBlur(image.astype(np.float32), (0, 0), max(0.35 * step, 0.01))
    a = step * np.array([[np.cos(k.angle[0]), -np.sin(k.angle[0])], [np.sin(k.angle[0]), np.cos(k.angle[0])]])
    corner = k.xy[0] - 0.5 - a @ np.array([15.5, 15.5])
    matrix = np.column_stack([a, corner])
    patch = cv2.warpAffine(blurred, matrix, (32, 32), flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP)
    return (patch - patch.mean()) / max(patch.std(), 1) * DEVIATION + MEAN


def test_detected_patches_lie_in_the_image(image):
    found = detect(image, 300)
    assert 100 < len(found) <= 300 and found.inside(image.shape).all()
    assert (np.diff(found.scores) <= 0).all()
    np.testing.assert_array_equal(detect(image, 50).xy, found.xy[:50])
    assert (found.scale > 0).all() and ((found.angle >= 0) & (found.angle <= 2 * np.pi)).all()
    assert len(detect(np.full((100, 100), 90, np.uint8), 10)) == 0


def test_light_is_taken_out(image):
    found = detect(image, 200)
    patches = cut(image, found)
    assert patches.shape == (len(found), 32, 32) and patches.dtype == np.uint8
    means, deviations = patches.mean((1, 2)), patches.std((1, 2))
    assert np.abs(means - MEAN).max() < 4 and np.quantile(np.abs(deviations - DEVIATION), 0.95) < 3
    dark = (image // 2 + 20).astype(np.uint8)
    assert np.abs(cut(dark, found).astype(int) - patches).mean() < 3
    assert (cut(np.full_like(image, 7), found[:3]) == MEAN).all()


@pytest.mark.parametrize("row", [(160.3, 120.8, 2.5, 0), (150, 110, 2.5, 33), (160, 120, 7, 250), (158.25, 121, 1, 90)])
def test_a_patch_is_what_opencv_cuts(image, row):
    k = keypoints(row)
    ours = cut(image, k)[0].astype(float)
    assert np.corrcoef(ours.ravel(), by_opencv(image, k).ravel())[0, 1] > 0.97


def test_a_patch_without_rotation_is_read_pixel_by_pixel(image):
    k = keypoints((100, 90, 32 / PATCH_SCALE, 0))  # one sample a pixel, the patch's corner at a pixel's corner
    window = image[74:106, 84:116].astype(float)
    expected = (window - window.mean()) / window.std() * DEVIATION + MEAN
    np.testing.assert_allclose(cut(image, k)[0], np.clip(expected, 0, 255), atol=1)


def test_a_turned_image_gives_the_same_patches(image):
    found = detect(image, 100)
    turned = PatchKeypoints(
        np.stack([found.xy[:, 1], image.shape[1] - found.xy[:, 0]], 1),
        found.scale,
        (found.angle - np.float32(np.pi / 2)) % np.float32(2 * np.pi),
        found.scores,
    )
    difference = cut(np.ascontiguousarray(np.rot90(image)), turned).astype(int) - cut(image, found)
    assert np.abs(difference).mean() < 2


def test_patches_do_not_depend_on_each_other(image):
    found = detect(image, 60)
    whole = cut(image, found)
    rows = np.array([40, 3, 17])
    np.testing.assert_array_equal(cut(image, found[rows]), whole[rows])
    assert cut(image, found[:0]).shape == (0, 32, 32)


def test_bad_input(image):
    inside = keypoints((160, 120, 2, 0))
    outside = keypoints((160, 120, 2, 0), (5, 120, 2, 0), (160, 120, 60, 45))
    assert outside.inside(image.shape).tolist() == [True, False, False]
    with pytest.raises(InputError, match="2 of 3 patches leave the image"):
        cut(image, outside)
    with pytest.raises(InputError, match="1 of 1 patches"):
        cut(image, keypoints((np.nan, 120, 2, 0)))
    for wrong in (image.astype(np.float32), image[..., None].repeat(3, 2), image[:0]):
        with pytest.raises(ImageError, match="patches are cut from grey images"):
            cut(wrong, inside)


@pytest.mark.parametrize("scale", [0.9, 4.0, 9.0])
def test_patches_at_the_border_see_the_border_pixels_again(image, scale):
    reach = np.ceil(scale * PATCH_SCALE * 8 + 0.1) / 16  # exact in float32, shifted or not
    h, w = image.shape
    at_border = keypoints(
        (reach, reach, scale, 0),
        (w - reach, h - reach, scale, 0),
        (w / 2, reach, scale, 90),
        (reach, h / 2, scale, 180),
    )
    margin = 64
    inner = PatchKeypoints(at_border.xy + margin, at_border.scale, at_border.angle, at_border.scores)
    difference = cut(image, at_border).astype(int) - cut(np.pad(image, margin, "edge"), inner)
    assert np.abs(difference).max() <= (0 if scale < 1 else 2)  # halving a frame is not quite framing a half


def test_what_cannot_be_cut_is_refused(image):
    for scale in (0.0, -9.0, -50.0, np.nan, np.inf):
        with pytest.raises(InputError, match="leave the image"):
            cut(image, keypoints((160, 120, scale, 0)))
    with pytest.raises(ImageError, match="20000x2"):
        cut(np.zeros((2, 20000), np.uint8), keypoints((160, 120, 1, 0)))
