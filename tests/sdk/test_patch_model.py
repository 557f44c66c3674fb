from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("tensorflow")

from hfnet_edge.errors import ModelError
from hfnet_edge.networks.hfnet import Model
from hfnet_edge.networks.patches import PatchModel
from small_crbnet import CONFIG


@pytest.fixture(scope="module")
def made(small_crbnet):
    return small_crbnet


@pytest.fixture(scope="module", params=["float_model", "int8_model"])
def model(request, made):
    return PatchModel(getattr(made, request.param))


def test_description(made):
    for path, precision in ((made.float_model, "none"), (made.int8_model, "int8")):
        d = PatchModel(path).description
        assert (d.architecture, d.precision, d.input_size) == (f"crbnet-{CONFIG.width}", precision, (32, 32))
        assert (d.local_dim, d.global_dim, d.nms_radius) == (CONFIG.dim, 0, 0)
        assert d.outputs == {"patch_descriptors": "patch_descriptors"}
        assert d.weights_hash == PatchModel(made.float_model).description.weights_hash and len(d.weights_hash) == 32


def test_it_is_the_network(made):
    ours = PatchModel(made.float_model).raw(made.patches)
    theirs = np.asarray(made.network(made.patches[..., None] / np.float32(127.5) - 1, training=False))
    np.testing.assert_allclose(ours, theirs, atol=1e-4)
    np.testing.assert_allclose(np.linalg.norm(ours, axis=1), 1, atol=1e-5)


def test_descriptors_do_not_depend_on_the_block(model, made):
    patches = made.patches[: 2 * PatchModel.batch + 17]
    assert len(patches) == 2 * PatchModel.batch + 17
    whole = model(patches)
    np.testing.assert_array_equal(np.concatenate([model(patches[:50]), model(patches[50:])]), whole)
    np.testing.assert_array_equal(model(patches[::-1])[::-1], whole)
    np.testing.assert_array_equal(model(patches[3:4])[0], whole[3])


def test_threads_change_nothing(made):
    a, b = (PatchModel(made.int8_model, threads)(made.patches) for threads in (1, 2))
    np.testing.assert_array_equal(a, b)


def test_rounding_keeps_signs(model, made, monkeypatch):
    descriptors, raw = model(made.patches), model.raw(made.patches)
    assert descriptors.dtype == np.int8 and descriptors.shape == (len(made.patches), CONFIG.dim)
    np.testing.assert_array_equal(descriptors >= 0, raw >= 0)
    assert np.abs(descriptors - 127 * raw / np.linalg.norm(raw, axis=1, keepdims=True)).max() <= 1
    small = np.array([[1.0, 0.001, -0.001, 0.0, -0.0, -0.5]], np.float32)
    monkeypatch.setattr(model, "raw", lambda patches: small)
    assert model(made.patches[:1]).tolist() == [[114, 0, -1, 0, 0, -57]]


def test_no_patches(model):
    for none in (model(np.zeros((0, 32, 32), np.uint8)), model.raw(np.zeros((0, 32, 32), np.uint8))):
        assert none.shape == (0, CONFIG.dim)


@pytest.mark.parametrize(
    "patches", [np.zeros((2, 31, 32), np.uint8), np.zeros((2, 32, 32), np.float32), np.zeros((32, 32), np.uint8)]
)
def test_wrong_patches(model, patches):
    with pytest.raises(ValueError, match=r"expected \(N, 32, 32\) uint8"):
        model(patches)


def test_each_kind_is_refused_by_name(made, kit):
    with pytest.raises(ModelError, match=r"int8.tflite is a patch network \(crbnet-4\); name an HF-Net"):
        Model(made.int8_model)
    with pytest.raises(ModelError, match=r"is an HF-Net \(.*name a patch network"):
        PatchModel(kit.int8)


def test_damaged(made, tmp_path):
    content = made.int8_model.read_bytes()
    (tmp_path / "cut.tflite").write_bytes(content[: len(content) // 2])
    for path, message in ((tmp_path / "cut.tflite", "truncated|damaged"), (tmp_path / "none.tflite", "cannot read")):
        with pytest.raises(ModelError, match=message):
            PatchModel(path)
