import numpy as np
import pytest

from hfnet_edge.image.keypoints import detect, keypoint_scores, quantize, sample_descriptors


def logits_of(scores):
    """Logits whose softmax has the given scores (H, W) in its first 64 channels."""
    h, w = scores.shape
    cells = scores.reshape(h // 8, 8, w // 8, 8).transpose(0, 2, 1, 3).reshape(h // 8, w // 8, 64)
    rest = 1 - cells.sum(-1, keepdims=True)
    return np.log(np.concatenate([cells, rest], -1) + 1e-9).astype(np.float32)


def test_scores_are_the_softmax_without_the_dustbin():
    logits = np.random.default_rng(0).normal(0, 3, (6, 8, 65)).astype(np.float32)
    exact = np.exp(logits.astype(np.float64))
    exact = (exact / exact.sum(-1, keepdims=True))[..., :64]
    exact = exact.reshape(6, 8, 8, 8).transpose(0, 2, 1, 3).reshape(48, 64)
    np.testing.assert_allclose(keypoint_scores(logits), exact, rtol=0.01, atol=1e-4)


def test_scores_survive_extreme_and_broken_logits():
    logits = np.zeros((1, 1, 65), np.float32)
    logits[0, 0, 3] = 1e6
    assert keypoint_scores(logits)[0, 3] == 1.0
    for value in (np.nan, np.inf, -np.inf):
        logits[0, 0, 5] = value
        with np.errstate(invalid="ignore"):
            scores = keypoint_scores(logits)
        assert scores.shape == (8, 8) and np.isfinite(scores).all()


def test_a_blob_is_found_to_sub_pixel():
    y, x = np.mgrid[:64, :96] + 0.5
    scores = 0.5 * np.exp(-((x - 41.3) ** 2 + (y - 20.8) ** 2) / 2).astype(np.float32)
    xy, peak = detect(scores, (64, 96), 10, 4, 0.005)
    assert len(xy) == 1 and peak[0] == scores.max()
    np.testing.assert_allclose(xy[0], [41.3, 20.8], atol=0.1)


def brute_force_nms(scores, radius, threshold, border):
    order = sorted(np.ndindex(scores.shape), key=lambda p: (-scores[p], p))
    h, w = scores.shape
    found = []
    for y, x in order:
        if scores[y, x] < threshold or not (border <= y < h - border and border <= x < w - border):
            continue
        window = scores[max(0, y - radius) : y + radius + 1, max(0, x - radius) : x + radius + 1]
        if scores[y, x] < window.max():
            continue
        if any(abs(y - a) <= radius and abs(x - b) <= radius and scores[a, b] == scores[y, x] for a, b in found):
            continue
        found.append((y, x))
    return found


@pytest.mark.parametrize("levels", [1000, 6])
def test_detection_agrees_with_brute_force_also_on_plateaus(levels):
    rng = np.random.default_rng(3)
    scores = (rng.integers(1, levels + 1, (48, 56)) / levels).astype(np.float32)
    expected = brute_force_nms(scores, 4, 0.005, 4)
    xy, peak = detect(scores, (48, 56), 1000, 4, 0.005)
    assert len(xy) == len(expected)
    np.testing.assert_array_equal(peak, [scores[p] for p in expected])
    centres = np.array(expected)[:, ::-1] + 0.5
    assert np.abs(xy - centres).max() <= 2


def test_detection_keeps_to_the_valid_part_and_the_count():
    scores = np.random.default_rng(0).random((64, 64)).astype(np.float32)
    xy, peak = detect(scores, (32, 48), 5, 4, 0.005)
    assert len(xy) == 5 and (np.diff(peak) <= 0).all()
    assert xy[:, 0].max() <= 48 and xy[:, 1].max() <= 32
    assert len(detect(np.zeros((64, 64), np.float32), (64, 64), 5, 4, 0.005)[0]) == 0
    assert len(detect(scores, (5, 64), 5, 4, 0.005)[0]) == 0


def test_descriptors_are_sampled_at_the_right_place():
    """A map that is linear in the pixel position gives the position back."""
    h, w = 12, 16
    y, x = np.mgrid[:h, :w]
    dense = np.stack([(x + 0.5) * 8, (y + 0.5) * 8, np.full((h, w), 64.0)], -1).astype(np.float32)
    xy = np.array([[20.25, 33.5], [60.0, 50.75], [100.5, 90.0]], np.float32)
    sampled = sample_descriptors([dense], xy).astype(float)
    expected = np.column_stack([xy, np.full(3, 64)])
    expected *= 127 / np.linalg.norm(expected, axis=1, keepdims=True)
    np.testing.assert_allclose(sampled, expected, atol=0.51)


def test_quantized_descriptors_have_unit_length():
    vectors = np.random.default_rng(0).normal(size=(100, 128)).astype(np.float32)
    q = quantize(vectors)
    assert q.dtype == np.int8
    np.testing.assert_allclose(np.linalg.norm(q.astype(float), axis=1), 127, rtol=0.02)
    broken = np.stack([np.zeros(128), np.full(128, np.nan)]).astype(np.float32)
    assert not quantize(broken).any()
