import numpy as np
import pytest

from golden.plain_blobs import blobs as plain_blobs
from hfnet_edge.image.blobs import APART, BORDER, MIN_CONTRAST, OCTAVES, Blobs, combine, find_blobs


def spot(centre, sigma, height, shape=(192, 224)):
    """(h, w) uint8: a Gaussian on even ground."""
    y, x = np.mgrid[: shape[0], : shape[1]] + 0.5
    away = ((x - centre[0]) ** 2 + (y - centre[1]) ** 2) / sigma**2
    return np.rint(100 + height * np.exp(-away / 2)).astype(np.uint8)


def textured(shape, seed=0):
    """(h, w) uint8: noise of several sizes."""
    rng = np.random.default_rng(seed)
    image = sum(
        np.kron(rng.normal(0, 20, (-(-shape[0] // n), -(-shape[1] // n))), np.ones((n, n)))[: shape[0], : shape[1]]
        for n in (1, 3, 8)
    )
    return np.clip(image + 120, 0, 255).astype(np.uint8)


@pytest.mark.parametrize("sigma", [1.5, 2.0, 3.0, 5.0])
@pytest.mark.parametrize("height", [120, -90])
def test_a_spot_is_found_to_a_tenth_of_a_pixel(sigma, height):
    for offset in ((0.0, 0.0), (0.25, 0.1), (0.5, 0.5), (0.7, 0.35), (0.9, 0.6)):
        centre = np.array([108.5, 91.5]) + offset
        found = find_blobs(spot(centre, sigma, height), (192, 224), 10)
        np.testing.assert_allclose(found.xy[0], centre, atol=0.1 * max(1, sigma / 3))
        assert 0.7 < found.scale[0] / sigma < 1.5
        assert found.response[0] > 10 and (len(found) == 1 or found.response[1] < found.response[0] / 4)


def test_a_shifted_photo_has_shifted_blobs():
    """By whole pixels of the coarsest octave, away from the edges."""
    large, step = textured((264, 260)), 2 ** (OCTAVES - 1)
    first = find_blobs(large[:256, :256], (256, 256), 10000)
    second = find_blobs(large[2 * step : 256 + 2 * step, step : 256 + step], (256, 256), 10000)
    margin, shift = 90, np.array([step, 2 * step], np.float32)

    def inner(xy):
        return np.array(sorted(p for p in xy.tolist() if all(margin < v < 256 - margin for v in p)))

    assert len(inner(first.xy)) > 20
    np.testing.assert_allclose(inner(first.xy), inner(second.xy + shift), rtol=0, atol=1e-4)


@pytest.mark.parametrize("shape", [(1, 1), (3, 7), (8, 8), (9, 9), (16, 300), (64, 64)])
@pytest.mark.parametrize("level", [0, 127, 255])
def test_even_and_tiny_photos_have_none(shape, level):
    found = find_blobs(np.full(shape, level, np.uint8), shape, 10)
    assert len(found) == 0 and found.xy.shape == (0, 2) and found.xy.dtype == np.float32
    find_blobs(textured(shape), shape, 10)


def test_an_edge_is_no_blob():
    image = np.full((64, 64), 40, np.uint8)
    image[:, 30:] = 200
    assert len(find_blobs(image, (64, 64), 10)) == 0


def test_order_count_distance_and_the_valid_part():
    image = textured((120, 160))
    found = find_blobs(image, (90, 140), 10000)
    assert len(found) > 100 and (np.diff(found.response) <= 0).all() and found.response.min() >= MIN_CONTRAST
    assert (found.xy >= BORDER - 1).all() and (found.xy <= np.array([140, 90]) - BORDER + 1).all()
    apart = np.abs(found.xy[:, None] - found.xy[None]).max(axis=2) + 1e9 * np.eye(len(found))
    assert apart.min() > APART - 2  # each may be a pixel from where it was detected, of its octave
    few, other = find_blobs(image, (90, 140), 7), image.copy()
    other[90:] = other[:, 140:] = 0
    again = find_blobs(other, (90, 140), 10000)
    for a, b, c in zip(vars(few).values(), vars(found).values(), vars(again).values(), strict=True):
        np.testing.assert_array_equal(a, b[:7])
        np.testing.assert_array_equal(b, c)


@pytest.mark.parametrize("shape", [(8, 30), (9, 40), (24, 64), (57, 71)])
@pytest.mark.parametrize("steps", [1, 80])
def test_blobs_are_those_of_a_plain_port(shape, steps):
    """To the last bit; the second picture is of few grey levels, so that much is equal."""
    image = textured(shape, 5) // steps * steps
    found, expected = vars(find_blobs(image, shape, 1000)), plain_blobs(image, shape, 1000)
    assert (len(found["xy"]) > 10) == (min(shape) > 9)
    for name, values in expected.items():
        assert found[name].dtype == values.dtype
        np.testing.assert_array_equal(found[name], values)


def test_combine_fills_up_with_what_is_far_from_blobs():
    blobs = Blobs(np.array([[10, 10], [50, 20]], np.float32), np.array([9, 3], np.float32), np.ones(2, np.float32))
    xy = np.array([[12, 10], [30, 30], [50, 27], [70, 40]], np.float32)
    scores = np.array([0.9, 0.8, 0.7, 0.6], np.float32)
    both, order = combine(blobs, xy, scores, 4)
    np.testing.assert_array_equal(both, [[10, 10], [50, 20], [30, 30], [50, 27]])
    np.testing.assert_allclose(order, [10, 4, 0.8, 0.7])
    assert len(combine(blobs, xy, scores, 10)[0]) == 5 and len(combine(blobs, xy, scores, 1)[0]) == 2
    none = Blobs(np.zeros((0, 2), np.float32), np.zeros(0, np.float32), np.zeros(0, np.float32))
    np.testing.assert_array_equal(combine(none, xy, scores, 3)[0], xy[:3])
    assert combine(none, xy[:0], scores[:0], 3)[0].shape == (0, 2)
