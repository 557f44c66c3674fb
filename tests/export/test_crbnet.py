"""CRBNet's shape, its losses, and the pairs that it is trained on."""

from __future__ import annotations

import keras
import numpy as np
import pytest
import tensorflow as tf

from hfnet_export.networks.crbnet import CRBNetConfig, FusedBatchNorm, build_crbnet
from hfnet_export.training.crbnet_training import pairs
from hfnet_export.training.patch_losses import MARGIN, crbnet_losses, second_order, triplet_margin, weighted_hamming
from hfnet_export.training.patch_tracks import PatchTracks

N, K, NEAREST = 14, 24, 8


def unit(seed: int, n: int = N) -> np.ndarray:
    x = np.random.default_rng(seed).normal(size=(n, K))
    return (x / np.linalg.norm(x, axis=1, keepdims=True)).astype(np.float32)


def near(x: np.ndarray, seed: int, noise: float = 0.15) -> np.ndarray:
    y = x + np.random.default_rng(seed).normal(0, noise, x.shape)
    return (y / np.linalg.norm(y, axis=1, keepdims=True)).astype(np.float32)


def slow_triplet(d: np.ndarray) -> float:
    """Equation (1), a pair at a time."""
    total = 0.0
    for i in range(len(d)):
        others = [d[i, j] for j in range(len(d)) if j != i] + [d[j, i] for j in range(len(d)) if j != i]
        total += max(0.0, MARGIN + d[i, i] - min(others))
    return total / len(d)


def slow_second_order(x: np.ndarray, y: np.ndarray) -> float:
    """Equation (2), over the neighbours of section 4.1."""
    total = 0.0
    for i in range(len(x)):
        dx, dy = np.linalg.norm(x - x[i], axis=1), np.linalg.norm(y - y[i], axis=1)
        others = [j for j in range(len(x)) if j != i]
        neighbours = {j for d in (dx, dy) for j in sorted(others, key=lambda j: d[j])[:NEAREST]}
        total += np.sqrt(sum((dx[j] - dy[j]) ** 2 for j in neighbours))
    return total / len(x)


def slow_hamming(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Equation (3) with the absolute value of the difference of signs."""
    d = np.zeros((len(x), len(y)))
    for i, a in enumerate(x):
        for j, b in enumerate(y):
            signs = [abs((1 if p >= 0 else -1) - (1 if q >= 0 else -1)) for p, q in zip(a, b, strict=True)]
            d[i, j] = np.sqrt(sum(s * (p - q) ** 2 for s, p, q in zip(signs, a, b, strict=True)))
    return d


def test_equations_1_to_3():
    x = unit(0)
    y = near(x, 1)
    l2 = np.linalg.norm(x[:, None] - y[None], axis=2)
    by_hand = [slow_triplet(l2), slow_second_order(x, y), slow_triplet(slow_hamming(x, y))]
    assert min(by_hand) > 0.1
    np.testing.assert_allclose(crbnet_losses(x, y), by_hand, rtol=2e-3)
    np.testing.assert_allclose(crbnet_losses(x, y, hamming=False), by_hand[:2], rtol=2e-3)


def test_equation_3_counts_dimensions_whose_signs_differ():
    x, y = unit(2), unit(3)
    y[0] = x[0]
    y[1] = -x[1]
    d = np.asarray(weighted_hamming(x, y))
    np.testing.assert_allclose(d, slow_hamming(x, y), atol=2e-3)
    assert d[0, 0] < 2e-3
    assert d[1, 1] == pytest.approx(np.sqrt(2) * 2, rel=1e-3)  # every sign differs: sqrt(2 |x - y|^2)
    same_signs = np.abs(unit(4)) * np.sign(x)
    assert np.diag(np.asarray(weighted_hamming(x, same_signs.astype(np.float32)))).max() < 2e-3


@pytest.mark.parametrize("hamming", [True, False])
def test_gradients_are_finite_where_pairs_are_equal(hamming):
    x = tf.Variable(unit(5))
    with tf.GradientTape() as tape:
        total = tf.reduce_sum(crbnet_losses(x, tf.identity(x), hamming))
    gradient = tape.gradient(total, x).numpy()
    assert np.isfinite(gradient).all() and np.isfinite(float(total)) and np.abs(gradient).max() > 0


def test_well_separated_pairs_lose_nothing():
    x = np.eye(K, dtype=np.float32)[:N]  # sqrt(2) apart, more than the margin
    assert float(triplet_margin(tf.constant(np.full((N, N), 1.4) - 1.4 * np.eye(N), tf.float32))) == 0
    assert float(second_order(x, x)) < 2e-3


def test_network():
    keras.utils.set_random_seed(0)
    model = build_crbnet(CRBNetConfig())
    assert model.count_params() == pytest.approx(2.41e6, rel=0.02)
    patches = np.random.default_rng(0).uniform(-1, 1, (3, 32, 32, 1)).astype(np.float32)
    out = np.asarray(model(patches, training=False))
    assert out.shape == (3, 256) and out.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(out, axis=1), 1, atol=1e-5)
    shapes = {layer.name: layer.output.shape[1:] for layer in model.layers}
    assert [shapes[f"s{k}.relu"] for k in (1, 2, 3, 4)] == [(32, 32, 16), (32, 32, 32), (16, 16, 64), (8, 8, 128)]
    assert model.get_layer("dropout").rate == pytest.approx(0.1)


def test_the_fused_batch_norm_computes_what_keras_does():
    x = np.random.default_rng(1).normal(3, 2, (6, 5, 5, 4)).astype(np.float32)
    fused, plain = FusedBatchNorm(momentum=0.9), keras.layers.BatchNormalization(momentum=0.9)
    for _ in range(2):
        np.testing.assert_allclose(fused(x, training=True), plain(x, training=True), atol=2e-4)
    for ours, theirs in zip(fused.weights, plain.weights, strict=True):  # the kernel divides by n - 1
        np.testing.assert_allclose(ours, theirs, rtol=1e-2, err_msg=ours.path)
    np.testing.assert_allclose(fused(x, training=False), plain(x, training=False), rtol=1e-2, atol=1e-3)


def numbered(tracks: int, seed: int) -> PatchTracks:
    """Tracks of two to four patches, each with its track's number in its grey level and its own in a corner."""
    count = np.random.default_rng(seed).integers(2, 5, tracks)
    patches = np.zeros((count.sum(), 32, 32), np.uint8)
    patches += np.repeat(np.arange(tracks), count).astype(np.uint8)[:, None, None]
    patches[:, 0, 0] = np.arange(len(patches)) % 251
    return PatchTracks(patches, np.concatenate([[0], np.cumsum(count)]))


def test_pairs_are_two_observations_of_one_track():
    sets = [numbered(40, 0), numbered(90, 1)]
    x, y = pairs(sets, 64, np.random.default_rng(0), turned=False)
    assert x.shape == y.shape == (64, 32, 32, 1) and x.dtype == np.float32
    grey = [np.rint((v + 1) * 127.5).astype(int)[..., 0] for v in (x, y)]
    np.testing.assert_array_equal(grey[0][:, 16, 16], grey[1][:, 16, 16])
    assert (grey[0][:, 0, 0] != grey[1][:, 0, 0]).all()
    assert (grey[0][:32, 16, 16] < 40).all()  # half of the batch from each set
    turned = pairs(sets, 64, np.random.default_rng(0))
    corners = [np.argmax(np.abs(v[..., 0] - v[:, 16:17, 16:17, 0]).reshape(64, -1), axis=1) for v in turned]
    moved = [(np.abs(v[..., 0] - v[:, 16:17, 16:17, 0]) > 1e-6).any(axis=(1, 2)) for v in turned]
    both = moved[0] & moved[1]
    assert both.sum() > 30
    np.testing.assert_array_equal(corners[0][both], corners[1][both])  # a pair is turned alike
    assert len(np.unique(corners[0][both])) == 4
