"""DenserNet: its parts, its export, its training, and what is refused."""

from __future__ import annotations

import csv
import json
import shutil
from pathlib import Path

import cv2
import keras
import numpy as np
import pytest
from typer.testing import CliRunner

from colmap_scene import write_scene
from hfnet_edge.errors import InputError
from hfnet_edge.image.photo import load_photo
from hfnet_edge.networks.by_role import open_network
from hfnet_edge.networks.retrieval import RetrievalModel
from hfnet_export.cli import export_app, train_densernet_app
from hfnet_export.export import export_densernet
from hfnet_export.networks.densernet import (
    FOLLOWS,
    DenserNetConfig,
    LocalScores,
    Moments,
    build_densernet,
    initialise_branches,
)
from hfnet_export.networks.hfnet import initialise_encoder, network_input
from hfnet_export.networks.pca import PCA
from hfnet_export.networks.trained_densernet import RetrievalFidelity, same_order
from hfnet_export.networks.weights import (
    BUNDLED,
    BUNDLED_DENSERNET,
    densernet_from_weights,
    load_densernet_weights,
    load_weights,
    save_weights,
)
from hfnet_export.networks.weights_card import network_of
from hfnet_export.tflite.calibration import built_in_images
from hfnet_export.training import densernet_runs, densernet_stage
from hfnet_export.training.covisible import Images, Photographs, draw_triplet, from_aside, read_covisible
from hfnet_export.training.densernet_stage import DenserNetTraining, embed, likeness, mean_precision
from hfnet_export.training.training_recipe import BUNDLED_DENSERNET_RECIPE, read_densernet_training_recipe

SIZE = (64, 96)
RECIPE = "steps = 3\ntriplets = 2\ninput_size = [64, 96]\n[network]\nglobal_dim = 8\n"


@pytest.fixture(scope="module")
def imagenet() -> dict[str, np.ndarray]:
    """Random weights under the names and in the shapes of ImageNet's network."""
    rng = np.random.default_rng(0)
    arrays = {}
    for layer in build_densernet(DenserNetConfig(4), SIZE).layers:
        if isinstance(layer, keras.layers.DepthwiseConv2D):
            shape = (layer.kernel.shape[2], 1, *layer.kernel.shape[:2])
        elif isinstance(layer, keras.layers.Conv2D) and not layer.name.startswith(("branch", "attention")):
            h, w, i, o = layer.kernel.shape
            shape = (o, 3 if layer.name == "Conv1" else i, h, w)
        else:
            continue
        arrays[f"{layer.name}.weight"] = rng.normal(0, np.sqrt(2 / np.prod(shape[1:])), shape).astype(np.float32)
        arrays[f"{layer.name}.bias"] = rng.normal(0, 0.1, shape[0]).astype(np.float32)
    wide = {"Conv_1": (1280, 320, 1, 1)}
    for name, shape in wide.items():
        arrays[f"{name}.weight"] = rng.normal(0, 0.08, shape).astype(np.float32)
        arrays[f"{name}.bias"] = rng.normal(0, 0.1, shape[0]).astype(np.float32)
    return arrays


@pytest.fixture(scope="module")
def small(imagenet, tmp_path_factory):
    """Weights of a network with random features that tell images apart, and the network."""
    keras.utils.set_random_seed(2)
    network = build_densernet(DenserNetConfig(8), SIZE)
    images = network_input(np.stack(built_in_images(SIZE, 8, seed=3)))
    initialise_encoder(network, imagenet, images)
    initialise_branches(network, imagenet, images)
    path = tmp_path_factory.mktemp("densernet") / "weights.npz"
    save_weights(path, network, DenserNetConfig(8), {"made": "by code"})
    return path, densernet_from_weights(path, SIZE)[0]


def test_scores_are_equations_3_to_5():
    x = np.random.default_rng(1).uniform(0, 3, (2, 4, 5, 6)).astype(np.float32)
    ours = np.asarray(LocalScores()(x))[..., 0]
    expected = np.zeros((2, 4, 5))
    for n in range(2):
        for i in range(4):
            for j in range(5):
                k = x[n, i, j].argmax()
                near = x[n, max(0, i - 1) : i + 2, max(0, j - 1) : j + 2, k]
                expected[n, i, j] = np.exp(x[n, i, j, k]) / np.exp(near).mean()
    expected /= expected.sum(axis=(1, 2), keepdims=True)
    np.testing.assert_allclose(ours, expected, rtol=1e-5)
    assert np.isfinite(np.asarray(LocalScores()(1000 * x))).all()  # no exponential is infinite
    flat = np.asarray(LocalScores()(np.zeros((1, 3, 3, 2), np.float32)))
    np.testing.assert_allclose(flat, 1 / 9, rtol=1e-6)


def test_moments_are_weighted():
    rng = np.random.default_rng(2)
    f, s = rng.uniform(0, 2, (1, 2, 3, 4)).astype(np.float32), np.zeros((1, 2, 3, 1), np.float32)
    s[0, 1, 2] = 1
    mean, square = np.split(np.asarray(Moments()(f, s))[0], 2)
    np.testing.assert_allclose(mean, f[0, 1, 2] / np.linalg.norm(f[0, 1, 2]), rtol=1e-4)
    np.testing.assert_allclose(square, mean, rtol=1e-3)


def test_the_network_begins_as_imagenet(small, imagenet):
    _, network = small
    assert tuple(network.output["global_descriptor"].shape) == (None, 8)
    assert network.get_layer("dense").output.shape[1:] == (2, 3, 72 + 96 + 352)
    kernel = network.get_layer("branch18").get_weights()[0][0, 0]
    whole = imagenet[f"{FOLLOWS[18]}.weight"][:, :, 0, 0].T
    assert all(np.abs(whole - column[:, None]).max(axis=0).min() < 1e-3 for column in kernel.T[:20])
    images = network_input(np.stack(built_in_images(SIZE, 12, seed=4)))
    spread = keras.Model(network.input, network.get_layer("attention").output).predict(images, verbose=0)
    assert 0.3 < np.median(spread.std(axis=(0, 1, 2))) < 1.2  # channels vary alike
    with pytest.raises(ValueError, match="multiples of 32"):
        build_densernet(DenserNetConfig(), (100, 96))


def test_pairs_decide_the_projection():
    rng = np.random.default_rng(3)
    places = rng.normal(size=(60, 6)) * [1, 1, 1, 1, 0, 0]
    noise = [0.02, 0.02, 0.02, 0.02, 3.0, 3.0]  # the last components vary most, and mean nothing
    vectors = np.concatenate([places + rng.normal(size=places.shape) * noise for _ in range(2)])
    pairs = np.stack([np.arange(60), 60 + np.arange(60)], axis=1)
    nearest = {}
    for name, pca in (("plain", PCA.fit(vectors, 3)), ("pairs", PCA.fit_pairs(vectors, pairs, 3, floor=1e-4))):
        a, b = np.split(pca(vectors), 2)
        nearest[name] = float(np.mean((a @ b.T).argmax(axis=1) == np.arange(60)))
    assert nearest["pairs"] > 0.9 > 0.5 > nearest["plain"]
    for dim, some in ((7, pairs), (2, pairs[:0])):
        with pytest.raises(InputError, match="have no projection to"):
            PCA.fit_pairs(vectors, some, dim)


def test_fewer_dimensions_are_the_first(small):
    path, network = small
    image = network_input(np.stack(built_in_images(SIZE, 1, seed=6)))
    whole = np.asarray(network(image)["global_descriptor"])
    narrow, hash_ = densernet_from_weights(path, SIZE, 3)
    part = whole[:, :3] / np.linalg.norm(whole[:, :3])
    np.testing.assert_allclose(np.asarray(narrow(image)["global_descriptor"]), part, atol=1e-5)
    assert hash_ == densernet_from_weights(path, (32, 64))[1]
    with pytest.raises(InputError, match="--global-dim 9 is not possible; these weights have 1 to 8"):
        densernet_from_weights(path, SIZE, 9)


def test_export(small, tmp_path):
    path, network = small
    images = built_in_images(SIZE, 6, seed=7)
    for precision, least in (("none", 0.9999), ("int8", 0.9)):
        report = export_densernet(path, tmp_path / f"{precision}.tflite", precision, SIZE)
        assert report.fidelity.global_descriptor > least and report.fidelity.order > 0.85 and report.unit == "images"
        model = open_network(tmp_path / f"{precision}.tflite")
        assert isinstance(model, RetrievalModel) and model.description.global_dim == 8
        for pixels in images:
            ours = np.asarray(model(load_photo(pixels, SIZE)))
            theirs = np.asarray(network(network_input(pixels[None]))["global_descriptor"])[0]
            assert ours @ theirs / np.linalg.norm(ours) > (0.999 if precision == "none" else 0.8)
    black = np.asarray(model(load_photo(np.zeros((200, 300), np.uint8), SIZE)))
    assert np.isfinite(black).all()


def test_order():
    likeness_ = np.array([[1, 0.5, 0.2, 0.1], [0.5, 1, 0.3, 0.4], [0.2, 0.3, 1, 0.6], [0.1, 0.4, 0.6, 1]])
    assert same_order(likeness_, likeness_) == 1 and same_order(likeness_, -likeness_) == 0
    assert same_order(np.eye(2), np.eye(2)) == 1
    assert vars(RetrievalFidelity(1.0, 0.5)).keys() == {"global_descriptor", "order"}


@pytest.mark.parametrize("options", [("--pca", "x"), ("--input-range", "0,1"), ("--outputs", "a=b"), ("--gate", "g")])
def test_options_of_hfnet_are_refused_by_name(small, tmp_path, options):
    for network in ("densernet", small[0]):
        result = CliRunner().invoke(export_app, [str(a) for a in (network, *options, "-o", tmp_path / "m.tflite")])
        said = f"error: a retrieval network does not take {options[0]}; leave it out\n"
        assert result.exit_code == 2 and result.stderr == said


def test_weights_of_the_other_kind(small, tmp_path):
    assert network_of(small[0]) == "densernet" and network_of(BUNDLED) == "hfnet"
    with pytest.raises(InputError, match=r"holds HF-Net weights, not those of DenserNet; .* hfnet-train-densernet"):
        export_densernet(BUNDLED, tmp_path / "m.tflite")
    with pytest.raises(InputError, match=r"holds DenserNet weights, not those of HF-Net"):
        load_weights(small[0])
    with pytest.raises(InputError, match="--input-size 100x96 is not possible"):
        export_densernet(small[0], tmp_path / "m.tflite", input_size=(100, 96))


def test_equation_7_is_zero_for_one_image_and_weighs_by_scores():
    rng = np.random.default_rng(5)
    f = rng.normal(size=(1, 2, 2, 8)).astype(np.float32)
    f /= np.linalg.norm(f, axis=-1, keepdims=True)
    s = np.full((1, 2, 2, 1), 0.25, np.float32)
    assert float(likeness((f, s), (f, s))[0]) < 2e-3
    g, sure = f.copy(), s.copy()
    g[0, 0, 0] = -f[0, 0, 0]
    sure[0, 0, 0] = 1e-6  # nobody looks at what changed
    assert float(likeness((f, sure), (g, s))[0]) < 2e-3 < 0.1 < float(likeness((f, s), (g, s))[0])


def test_triplets():
    rng = np.random.default_rng(6)
    shared = np.array([[0, 90, 40, 0], [90, 0, 31, 6], [40, 31, 0, 0], [0, 6, 0, 0]])
    images = Images.of([Photographs(np.zeros((5, 4, 4), np.uint8)), Photographs(np.ones((4, 4, 4), np.uint8), shared)])
    assert images.positives(5).tolist() == [7, 6] and images.positives(2).tolist() == []
    assert np.flatnonzero(images.strangers(6)).tolist() == [0, 1, 2, 3, 4]
    assert np.flatnonzero(images.strangers(0)).tolist() == [1, 2, 3, 4, 5, 6, 7, 8]
    vectors = np.eye(9, dtype=np.float32)
    for _ in range(50):
        q, p, n = draw_triplet(images, 0.5, vectors, rng)
        assert (p == q if q in (0, 1, 2, 3, 4, 8) else p in images.positives(q)) and images.strangers(q)[n]
    assert {tuple(sorted(pair)) for pair in images.pairs(5, rng)} == {(5, 6), (5, 7), (6, 7)}
    perfect = np.array([[1, 0]] * 5 + [[0, 1]] * 3 + [[1, 0]], np.float32)
    wrong = np.array([[1, 0]] * 5 + [[0, 1], [1, 0], [1, 0], [0, 1]], np.float32)
    assert mean_precision(perfect, [1], images) == 1 > mean_precision(wrong, [1], images)


def test_a_view_from_aside_shows_the_same():
    (image,) = built_in_images((96, 128), 1, seed=8)
    rng = np.random.default_rng(7)
    views = [from_aside(image, rng) for _ in range(4)]
    assert all(view.shape == image.shape and view.dtype == np.uint8 for view in views)
    assert len({view.tobytes() for view in views}) == 4


@pytest.fixture(scope="module")
def data(imagenet, tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("data")
    for seed, name in enumerate(("here", "there")):
        write_scene(root / "places" / name, seed + 4)
    (root / "images").mkdir()
    for i, image in enumerate(built_in_images((100, 120), 15, seed=9)):
        cv2.imwrite(str(root / "images" / f"{i:02}.png"), image)
    (root / "recipe.toml").write_text(RECIPE)
    np.savez(root / "encoder.npz", **imagenet)
    return root


@pytest.mark.filterwarnings("ignore:Even though")  # tf.data does not run eagerly
def test_a_resumed_run_ends_where_an_uninterrupted_one_does(eager, data, tmp_path, monkeypatch):
    monkeypatch.setattr(densernet_stage, "HELD_OUT", 2)

    def power_cut(what, done, total, note=""):
        if what == "training, densernet" and done == 2:
            shutil.copytree(tmp_path / "whole", tmp_path / "resumed")

    def train(folder, *progress, hold_out=("there",)):
        return densernet_runs.run_densernet(
            data / "images", data / "places", hold_out, data / "encoder.npz", tmp_path / folder, data / "recipe.toml",
            *progress, checkpoint_every=2,
        )  # fmt: skip

    whole, resumed = train("whole", power_cut), train("resumed")
    (config, a, card), (_, b, _) = load_densernet_weights(whole), load_densernet_weights(resumed)
    assert config == DenserNetConfig(8) and (card["places"], card["places held out"]) == (["here"], ["there"])
    assert card["stages"]["densernet"]["steps"] == 3 and 0 < card["held_out_mean_precision"] <= 1
    for name in a:
        np.testing.assert_allclose(a[name].astype(float), b[name].astype(float), rtol=1e-2, atol=1e-2, err_msg=name)
    logs = [list(csv.reader((tmp_path / f / "densernet.csv").open())) for f in ("whole", "resumed")]
    assert [row[0] for row in logs[0]] == [row[0] for row in logs[1]] == ["step", "1", "2", "3"]
    assert logs[0][0][1:4] == ["cells", "images", "beginning"]
    assert json.loads((tmp_path / "whole" / "run.json").read_text())["recipe"]["steps"] == 3
    network, _ = densernet_from_weights(whole, SIZE)
    place = read_covisible(data / "places" / "there", SIZE)
    vectors = np.asarray(network(network_input(place.pixels))["global_descriptor"])
    projected = PCA(np.zeros(1), np.eye(8))(vectors)
    np.testing.assert_allclose(vectors, projected, atol=1e-5)  # of unit length
    assert embed(network, place.pixels).shape == (3, 1040)
    with pytest.raises(InputError, match="was started with"):
        train("whole", hold_out=("here",))


def test_the_bundled_recipe_and_the_defaults_are_one():
    assert read_densernet_training_recipe(BUNDLED_DENSERNET_RECIPE) == DenserNetTraining()
    assert network_of(BUNDLED_DENSERNET) == "densernet"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("step = 3", "step is not known; known here: steps, triplets"),
        ("triplets = 0", "triplets = 0; give something like 4"),
        ("input_size = [100, 96]", r"input_size is \[100, 96\]; give two multiples of 32"),
        ("input_size = [96]", r"input_size is \[96\]"),
        ("photographs = 2", r"photographs is 2.0; give a share from 0 to 1"),
        ("[network]\nclusters = 12", r"network\.clusters is not known"),
    ],
)
def test_a_wrong_recipe_is_named(change, message, tmp_path):
    path = tmp_path / "recipe.toml"
    path.write_text(change)
    with pytest.raises(InputError, match=message):
        read_densernet_training_recipe(path)


@pytest.mark.parametrize(
    ("places", "hold_out", "message"),
    [
        ("nowhere", "there", "holds no place"),
        ("places", "elsewhere", "there is no place elsewhere to hold out"),
        ("places", "here,there", "every place is held out"),
        ("places", " ,", "nothing is held out"),
    ],
)
def test_command_errors(data, tmp_path, places, hold_out, message):
    arguments = ["--places", data / places, "--images", data / "images", "--hold-out", hold_out]
    arguments += ["--encoder", data / "encoder.npz", "-o", tmp_path / "run"]
    result = CliRunner().invoke(train_densernet_app, [str(a) for a in arguments])
    assert result.exit_code == 2 and message in result.stderr and result.stderr.count("\n") == 1
    assert not (tmp_path / "run").exists()
