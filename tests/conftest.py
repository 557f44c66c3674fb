"""Shared fixtures. Everything is made by code; tests that want the benchmark scenes skip where they are absent."""

from __future__ import annotations

import os
from hashlib import sha256
from pathlib import Path

import pytest

# Before numpy: between small products the other threads of OpenBLAS only spin, for several times the CPU time.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

from hfnet_edge.shell import console

SHARED = Path(__file__).parents[2] / "shared" / "data"


@pytest.fixture(autouse=True)
def no_progress(monkeypatch):
    """Commands that are run in this process print no progress on stderr, however busy the machine is."""
    monkeypatch.setattr(console, "EVERY", 3600.0)


@pytest.fixture
def shared_data() -> Path:
    """The benchmark data beside the checkout."""
    if not (SHARED / "scenes").is_dir():
        pytest.skip(f"the benchmark scenes are not at {SHARED}")
    return SHARED


@pytest.fixture(scope="session")
def quick_exports():
    """A network is built once for all exports of its weights, and TensorFlow converts it once, which takes longer than
    all else of a small export, and without saving its variables first, for a third of the time. Exports are timed in
    one round: how fast a network is, no test asks. Returns the conversion that users get, with which golden vectors are
    compared."""
    tf = pytest.importorskip("tensorflow")
    import numpy as np
    from tensorflow.python.framework.convert_to_constants import convert_variables_to_constants_v2

    from hfnet_export import export
    from hfnet_export.networks import trained_crbnet, trained_densernet, trained_hfnet
    from hfnet_export.networks.weights import weights_hash
    from hfnet_export.tflite import convert

    users, known, built = convert.to_float_tflite, {}, {}

    def frozen(model):
        image = tf.TensorSpec(model.inputs[0].shape, tf.float32, "image")
        traced = tf.function(lambda image: model(image, training=False), input_signature=[image])
        constant, names = convert_variables_to_constants_v2(traced.get_concrete_function()), sorted(model.output)

        @tf.function(input_signature=[image])
        def network(image):
            return dict(zip(names, tf.nest.flatten(constant(image)), strict=True))

        shapes = {name: tuple(n or 1 for n in output.shape) for name, output in model.output.items()}
        return convert.function_to_float_tflite(network, convert.parameter_count(model), shapes)

    def to_float_tflite(model):
        weights = weights_hash({variable.path: np.asarray(variable) for variable in model.weights})
        key = (model.name, tuple(model.output), model.input.shape, weights)
        if key not in known:
            known[key] = frozen(model)
        return known[key]

    def once(build):
        def network(path, *arguments, **more):
            if not path.is_file():
                return build(path, *arguments, **more)
            key = (build, sha256(path.read_bytes()).digest(), arguments, tuple(more.items()))
            if key not in built:
                built[key] = build(path, *arguments, **more)
            return built[key]

        return network

    def fold_pca(network, *arguments):  # changes the network
        built.clear()
        return fold(network, *arguments)

    fold = trained_hfnet.fold_pca
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(trained_hfnet, "fold_pca", fold_pca)
        for module, name in (
            (trained_hfnet, "hfnet_from_weights"),
            (trained_crbnet, "crbnet_from_weights"),
            (trained_densernet, "densernet_from_weights"),
        ):
            patch.setattr(module, name, once(getattr(module, name)))
        patch.setattr(convert, "to_float_tflite", to_float_tflite)
        patch.setattr(export, "WARM_UP", 0)
        patch.setattr(export, "ROUNDS", 1)
        yield users


@pytest.fixture(scope="session")
def kit(quick_exports, tmp_path_factory):
    """See `kit.Kit`."""
    pytest.importorskip("tensorflow")
    from kit import make_kit

    return make_kit(tmp_path_factory.mktemp("kit"))


@pytest.fixture(scope="session")
def small_crbnet(quick_exports, tmp_path_factory):
    """See `small_crbnet.SmallCRBNet`."""
    pytest.importorskip("tensorflow")
    from small_crbnet import make_small_crbnet

    return make_small_crbnet(tmp_path_factory.mktemp("small_crbnet"))


@pytest.fixture(scope="session")
def patch_kit(kit):
    """See `kit.PatchKit`."""
    from kit import make_patch_kit

    return make_patch_kit(kit)
