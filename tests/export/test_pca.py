"""PCA of global descriptors, and its fold into the projection."""

import keras
import numpy as np
import pytest

from conftest import SIZE
from hfnet_edge.errors import InputError
from hfnet_export.networks.pca import PCA
from hfnet_export.networks.weights import fold_pca, hfnet_from_weights
from hfnet_export.tflite.calibration import built_in_images


def unit(x):
    return x / np.linalg.norm(x, axis=1, keepdims=True)


@pytest.fixture
def projection():
    rng = np.random.default_rng(0)
    kernel, bias = rng.normal(size=(60, 24)), rng.normal(size=24)
    x = rng.normal(size=(300, 60)) * np.geomspace(5, 0.1, 60)
    return kernel, bias, x


@pytest.mark.parametrize("whitening", [0.0, 0.5, 1.0])
def test_folded_is_the_unfolded_pair(projection, whitening):
    kernel, bias, x = projection
    pca = PCA.fit(x @ kernel + bias, 8, whitening)
    folded_kernel, folded_bias = pca.fold(kernel, bias)
    assert folded_kernel.shape == (60, 8) and folded_bias.shape == (8,)
    np.testing.assert_allclose(unit(x @ folded_kernel + folded_bias), pca(x @ kernel + bias), atol=1e-5)


def test_a_norm_in_between_cannot_be_folded(projection):
    kernel, bias, x = projection
    normed = unit(x @ kernel + bias)
    pca = PCA.fit(normed, 8)
    folded_kernel, folded_bias = pca.fold(kernel, bias)
    assert np.abs(unit(x @ folded_kernel + folded_bias) - pca(normed)).max() > 0.05


@pytest.mark.parametrize("count", [500, 15])
def test_directions_of_largest_variance_first(count):
    rng = np.random.default_rng(1)
    axes, _ = np.linalg.qr(rng.normal(size=(20, 20)))
    vectors = rng.normal(size=(count, 20)) * np.geomspace(10, 0.1, 20) @ axes.T + 3
    pca = PCA.fit(vectors, 8)
    spread = ((vectors - pca.mean) @ pca.components).std(axis=0)
    expected = np.sqrt(np.sort(np.linalg.eigvalsh(np.cov(vectors.T, bias=True)))[::-1][:8])
    np.testing.assert_allclose(spread, expected, rtol=1e-3)
    np.testing.assert_allclose(pca.components.T @ pca.components, np.eye(8), atol=1e-4)
    white = PCA.fit(vectors, 8, whitening=1.0)
    np.testing.assert_allclose(((vectors - white.mean) @ white.components).std(axis=0), 1, rtol=1e-3)


@pytest.mark.parametrize(("count", "dim"), [(8, 8), (100, 21), (100, 0)])
def test_too_few_vectors(count, dim):
    with pytest.raises(InputError, match=f"no PCA to {dim}"):
        PCA.fit(np.random.default_rng(0).normal(size=(count, 20)), dim)


def test_a_place_decides_the_dimensions(weights):
    photos = built_in_images(SIZE, 16, seed=4)
    inputs = np.stack(photos)[..., None] / np.float32(127.5) - 1
    whole, before = hfnet_from_weights(weights, SIZE)
    network, _ = hfnet_from_weights(weights, SIZE, 4)
    after = fold_pca(network, weights, photos)
    vectors = np.asarray(keras.Model(whole.input, whole.get_layer("projection").output)(inputs))
    unfolded = PCA.fit(vectors, 4)(vectors)
    np.testing.assert_allclose(network(inputs)["global_descriptor"], unfolded, atol=1e-4)
    assert after != before, "a map of the unfolded weights must not match"
    with pytest.raises(InputError, match="no PCA to 4"):
        fold_pca(network, weights, photos[:4])
