"""HF-Nets of other people: Keras files, SavedModels and ONNX files, made here from a small one of ours."""

from __future__ import annotations

import shutil
import sys
from dataclasses import replace
from pathlib import Path

import keras
import numpy as np
import onnx
import pytest
import tensorflow as tf
from ai_edge_litert.interpreter import Interpreter
from onnx import TensorProto, helper, numpy_helper
from typer.testing import CliRunner

from conftest import CONFIG, SIZE
from hfnet_edge import Model
from hfnet_edge.errors import InputError, InstallError, ModelError
from hfnet_edge.features import extract
from hfnet_edge.image.keypoints import detect, keypoint_scores, quantize, sample_descriptors
from hfnet_edge.image.photo import Photo
from hfnet_edge.map.map_file import LocalizationMap
from hfnet_edge.networks.description import NETWORK, read_description
from hfnet_export import trained
from hfnet_export.cli import export_app
from hfnet_export.export import export, export_hfnet
from hfnet_export.networks.weights import hfnet_from_weights
from hfnet_export.sources import onnx_env
from hfnet_export.sources.foreign import architecture_of, content_hash
from hfnet_export.sources.hfnet_files import hfnet_of_file
from hfnet_export.sources.onnx_colours import sum_colours
from hfnet_export.sources.roles import Found, Tensor, find_roles, image_shape, parse_outputs
from hfnet_export.tflite.embed import embed
from hfnet_export.tflite.graph import Graph
from hfnet_export.trained import Converted
from hfnet_maps.content import MapNetworks
from hfnet_maps.pack.writer import full_sections, write_map
from synthetic import place

H, W = SIZE
CELLS = (H // 8, W // 8)
COARSE = 16  # dimensions of the part of the descriptors at 1/8, which is all that files of others have
GREY = (-1.0, 1.0)


# Roles by shape and name; no network is needed.

LOCAL, GLOBAL = Tensor("local_descriptor_map", (1, *CELLS, 16)), Tensor("global_descriptor", (1, 12))
LOGITS, BEFORE = Tensor("logits", (1, *CELLS, 65)), Tensor("scores_dense", (1, H, W))
AFTER = Tensor("pred/scores_dense_nms:0", (1, H, W, 1))
SPARSE = [
    Tensor("keypoints", (1, None, 2)),
    Tensor("scores", (1, None)),
    Tensor("local_descriptors", (1, None, 16)),
]


def roles(*outputs: Tensor, **named: str) -> dict[str, Found]:
    return find_roles(outputs, SIZE, "mine", named)


@pytest.mark.parametrize(
    ("detector", "role", "name"),
    [
        ([LOGITS], "keypoint_logits", "logits"),
        ([BEFORE], "keypoint_scores", "scores_dense"),
        ([AFTER], "keypoint_scores", AFTER.name),
        ([AFTER, BEFORE], "keypoint_scores", "scores_dense"),
        ([AFTER, BEFORE, LOGITS], "keypoint_logits", "logits"),
    ],
)
def test_roles_of_public_exports(detector, role, name):
    found = roles(*SPARSE, *detector, LOCAL, GLOBAL)
    assert set(found) == {role, "local_descriptors", "global_descriptor"}
    assert found[role].name == name
    assert found["local_descriptors"] == Found("local_descriptor_map", 16)
    assert found["global_descriptor"] == Found("global_descriptor", 12)


def test_roles_by_shape_alone():
    found = roles(Tensor("a", (1, 65, *CELLS)), Tensor("b", (16, *CELLS)), Tensor("c", (1, 12, 1, 1)))
    assert found["keypoint_logits"] == Found("a", 65, channels_first=True)
    assert found["local_descriptors"] == Found("b", 16, channels_first=True)
    assert found["global_descriptor"] == Found("c", 12)
    assert "keypoint_scores" in roles(Tensor("a", (1, 1, H, W)), LOCAL, GLOBAL)


def test_names_break_ties():
    wide = Tensor("local_descriptor_map", (1, *CELLS, 65))
    assert roles(wide, LOGITS, GLOBAL)["local_descriptors"].name == wide.name
    assert roles(wide, BEFORE, GLOBAL)["local_descriptors"].name == wide.name
    top = Tensor("scores", (1, 1000))
    assert roles(LOGITS, LOCAL, GLOBAL, top)["global_descriptor"].name == GLOBAL.name
    features = Tensor("layer_7", (1, *CELLS, 24))
    assert roles(LOGITS, features, LOCAL, GLOBAL)["local_descriptors"].name == LOCAL.name


def test_the_user_knows_better():
    a, b = Tensor("a", (1, *CELLS, 65)), Tensor("b", (1, *CELLS, 65))
    found = roles(a, b, GLOBAL, BEFORE, local_descriptors="b")
    assert (found["keypoint_logits"].name, found["local_descriptors"].name) == ("a", "b")
    found = roles(a, b, GLOBAL, BEFORE, keypoint_scores="scores_dense", local_descriptors="a")
    assert (found["keypoint_scores"].name, found["local_descriptors"].name) == ("scores_dense", "a")


@pytest.mark.parametrize(
    ("outputs", "named", "message"),
    [
        (
            [LOCAL, GLOBAL],
            {},
            r"has neither keypoint logits .* nor dense keypoint scores .*; its outputs are local_desc",
        ),
        ([LOGITS, GLOBAL], {}, r"has no output that could be dense local descriptors .*\(1, 12, 16, 65\)"),
        ([LOGITS, LOCAL], {}, "has no output that could be the global descriptor"),
        (SPARSE, {}, r"keypoints \(1, \?, 2\).*--outputs \"scores=NAME,local_descriptors=NAME"),
        ([LOGITS, LOCAL, Tensor("a", (9,)), Tensor("b", (9,))], {}, r"several outputs .* a \(9\) and b \(9\)"),
        ([Tensor("x/logits", LOGITS.shape), Tensor("y/logits", LOGITS.shape), GLOBAL], {}, "several outputs"),
        ([Tensor("a", LOGITS.shape), GLOBAL], {}, "has no output that could be dense local"),
        ([LOGITS, LOCAL, GLOBAL], {"global_descriptor": "nowhere"}, "has no output nowhere"),
        ([LOGITS, LOCAL, GLOBAL], {"local_descriptors": "global_descriptor"}, "its shape is not that of dense local"),
        (
            [LOGITS, LOCAL, Tensor("g", (1, 5000))],
            {},
            r"5000 dimensions in g, a map .* 4096; .*; fold a PCA",
        ),
    ],
)
def test_unclear_roles(outputs, named, message):
    with pytest.raises(ModelError, match=message):
        roles(*outputs, **named)


def test_a_layout_that_is_not_clear():
    cube = Tensor("local_descriptor_map", (1, 16, 16, 16))
    with pytest.raises(ModelError, match=r"channels could come first or last.*not square"):
        find_roles([Tensor("scores_dense", (1, 128, 128)), cube, GLOBAL], (128, 128), "mine")
    assert find_roles([BEFORE, cube, LOCAL, GLOBAL], SIZE, "mine")["local_descriptors"].name == LOCAL.name


def test_outputs_option():
    assert parse_outputs("scores=a/b:0, global_descriptor = g") == {
        "keypoint_scores": "a/b:0",
        "global_descriptor": "g",
    }
    for wrong in ("", "scores", "scores=", "detector=a", "scores=a,scores=b"):
        with pytest.raises(InputError, match=r"is not ROLE=NAME; ROLE is one of logits, scores"):
            parse_outputs(wrong)
    with pytest.raises(InputError, match="both logits and scores"):
        parse_outputs("scores=a,logits=b")


@pytest.mark.parametrize("shape", [(1, H, W, 1), (None, None, None, 1), (1, 1, H, W), (None, 1, None, None)])
def test_grey_images(shape):
    expected = (1, H, W, 1) if shape[3] == 1 else (1, 1, H, W)
    assert image_shape([Tensor("image", shape)], SIZE, "mine") == expected


@pytest.mark.parametrize("shape", [(1, H, W, 3), (None, None, None, 3), (1, 3, H, W), (None, 3, None, None)])
def test_images_in_colour(shape):
    expected = (1, H, W, 3) if shape[3] == 3 else (1, 3, H, W)
    assert image_shape([Tensor("image", shape)], SIZE, "mine") == expected


@pytest.mark.parametrize(
    ("shapes", "message"),
    [
        ([(1, H, W, 4)], r"image0 \(1, 96, 128, 4\) is neither grey nor colour.*one or three channels"),
        ([(1, 2, H, W)], "is neither grey nor colour"),
        ([(1, 3, 480, 640)], "is not 96x128; use --input-size 480x640"),
        ([(1, H, W, 1), (1,)], r"has 2 inputs: image0 .*, image1 \(1\); export it with the image as the only one"),
        ([], "has 0 inputs"),
        ([(H, W)], "is not a batch of one image"),
        ([(8, H, W, 1)], "is not a batch of one image"),
        ([(1, 480, 640, 1)], "is not 96x128; use --input-size 480x640"),
        ([(1, 1, None, 640)], "use --input-size HEIGHTx640"),
    ],
)
def test_inputs_that_do_not_fit(shapes, message):
    with pytest.raises(ModelError, match=message):
        image_shape([Tensor(f"image{i}", shape) for i, shape in enumerate(shapes)], SIZE, "mine")


# Files.


@pytest.fixture(scope="module")
def files(exported, tmp_path_factory) -> Path:
    """mine.keras, and `dense`: a SavedModel with a decoder, score maps, sparse outputs and signatures of no use."""
    folder = tmp_path_factory.mktemp("files")
    exported.network.save(folder / "mine.keras")
    network = keras.Model(exported.network.input, exported.network.output)

    @tf.function(input_signature=[tf.TensorSpec((None, None, None, 1), tf.float32, name="picture")])
    def dense(picture):
        out = network(tf.reshape(picture, (1, *SIZE, 1)))
        cells = tf.nn.softmax(out["keypoint_logits"])[..., :-1]
        scores = tf.nn.depth_to_space(cells, 8)[..., 0]
        highest = tf.nn.max_pool2d(scores[..., None], 9, 1, "SAME")[..., 0]
        peaks = tf.where(scores == highest, scores, 0.0)
        keypoints = tf.where(peaks[0] > 0.01)
        return {
            "scores_dense": scores,
            "scores_dense_nms": peaks,
            "local_descriptor_map": tf.transpose(out["local_descriptors"], (0, 3, 1, 2)),
            "global_descriptor": out["global_descriptor"],
            "keypoints": keypoints[None],
            "scores": tf.gather_nd(peaks[0], keypoints)[None],
            "local_descriptors": tf.math.top_k(tf.gather_nd(peaks[0], keypoints), 5, sorted=True)[0][None],
        }

    @tf.function(input_signature=[tf.TensorSpec((1, 8), tf.float32), tf.TensorSpec((), tf.int32)])
    def useless(x, count):
        return {"y": x * tf.cast(count, tf.float32)}

    module = tf.Module()
    module.network = network
    signatures = {"serving_default": dense, "aardvark": useless}
    tf.saved_model.save(module, str(folder / "dense"), signatures)
    return folder


def converted(path: Path, size: tuple[int, int], input_range: tuple[float, float]) -> Converted:
    return hfnet_of_file(path, size, input_range=input_range).convert(lambda *_: None)


def as_photo(image: np.ndarray) -> Photo:
    return Photo(image, image.shape, image.shape[::-1])


@pytest.fixture
def fast(exported, monkeypatch):
    monkeypatch.setattr(trained, "built_in_images", lambda size: exported.images)


def run(*arguments) -> tuple[int, str, str]:
    result = CliRunner().invoke(export_app, [str(a) for a in arguments])
    return result.exit_code, result.stdout, result.stderr


def test_a_keras_file(exported, fast, files, tmp_path):
    """Features of the exported model are those of Keras' outputs."""
    path = tmp_path / "mine.tflite"
    report = export_hfnet(files / "mine.keras", path, "none", SIZE, input_range=GREY)
    model = Model(path)
    d = model.description
    assert (d.architecture, d.input_range, d.local_dim, d.global_dim) == ("custom-mine", GREY, 16, 12)
    assert d.weights_hash == content_hash([files / "mine.keras"]) and len(d.weights_hash) == 32
    assert report.fidelity.global_descriptor > 0.9999
    for image in exported.images[:3]:
        keras_says = exported.network(d.scale(image), training=False)
        scores = keypoint_scores(np.asarray(keras_says["keypoint_logits"])[0])
        xy, best = detect(scores, SIZE, 200)
        found = extract(model, as_photo(image), 200)
        assert len(xy) > 10
        np.testing.assert_allclose(found.keypoints, xy, atol=0.05)
        np.testing.assert_allclose(found.scores, best, atol=1e-3)
        descriptors = sample_descriptors([np.asarray(keras_says["local_descriptors"])[0]], xy)
        assert np.abs(found.descriptors.astype(int) - descriptors).max() <= 3
        global_ = quantize(np.asarray(keras_says["global_descriptor"]))[0]
        assert np.abs(found.global_descriptor.astype(int) - global_).max() <= 1


def test_a_saved_model_at_int8(exported, fast, files, tmp_path):
    """With dense scores, channels first, outputs of no use, and sizes that are not fixed."""
    path = tmp_path / "mine.tflite"
    code, out, err = run(files / "dense", "--input-range=-1,1", "--input-size", f"{H}x{W}", "-o", path)
    assert code == 0, err
    assert "1/6 reading" in out and "operators in int8 " in out and f"wrote {path}" in out.replace("\n", "")
    model = Model(path)
    assert set(model.description.outputs) == {"keypoint_scores", "local_descriptors", "global_descriptor"}
    kinds = {op.kind for op in Graph.parse(path.read_bytes()).operators}
    assert "DEPTH_TO_SPACE" in kinds and not kinds & {"MAX_POOL_2D", "TOPK_V2", "WHERE", "GATHER_ND"}
    own = exported.described["int8"]
    found = replace(read_description(own, "ours"), detector=NETWORK)  # others' networks find their keypoints
    ours = Model("ours", content=embed(Graph.parse(own), found))
    for image in exported.images[:3]:
        a, b = extract(model, as_photo(image), 200), extract(ours, as_photo(image), 200)
        distances = np.linalg.norm(a.keypoints[:, None] - b.keypoints[None], axis=-1).min(axis=1)
        assert np.mean(distances < 0.5) > 0.9
        assert a.global_descriptor.astype(int) @ b.global_descriptor.astype(int) > 0.98 * 127**2


def test_scores_after_suppression(exported, fast, files, tmp_path, monkeypatch):
    """They can be named; keypoints lie on pixel centres."""
    path = tmp_path / "mine.tflite"
    network = hfnet_of_file(files / "dense", SIZE, input_range=GREY, outputs={"keypoint_scores": "scores_dense_nms"})
    done = network.convert(lambda *_: None)
    monkeypatch.setattr(type(network), "convert", lambda *_: done)
    export(network, path, "none")
    found = extract(Model(path), as_photo(exported.images[0]), 200)
    assert len(found.keypoints) > 10
    assert np.array_equal(found.keypoints % 1, np.full_like(found.keypoints, 0.5))
    with pytest.raises(ModelError, match="keypoint_scores of the int8 model agree"):  # random maps are full of ties
        export(network, path, "int8")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["KERAS"], "the grey range that "),
        (["KERAS", "--input-range", "0-255"], "--input-range 0-255 is not LOW,HIGH; write 0,255 or 0,1"),
        (["KERAS", "--input-range", "1,0"], "is not LOW,HIGH"),
        (["KERAS", "--input-range", "0,1", "--global-dim", "8"], "--global-dim and --pca are not for "),
        (["KERAS", "--input-range", "0,1", "--outputs", "x"], "x is not ROLE=NAME"),
        (["KERAS", "--input-range", "0,1", "--outputs", "logits=nowhere"], "has no output nowhere; its outputs are"),
        (["KERAS", "--input-range", "0,1", "--input-size", "64x64"], "is not 64x64; use --input-size 96x128"),
        (["WEIGHTS", "--input-range", "0,1"], "--input-range is not for HF-Net weights"),
        (["WEIGHTS", "--outputs", "logits=a"], "--outputs is not for HF-Net weights"),
        (["TRUNCATED.keras", "--input-range", "0,1"], "is not a Keras model that can be read here"),
        (["TRUNCATED.onnx", "--input-range", "0,1"], "is not an ONNX file that can be read"),
        (["TRUNCATED", "--input-range", "0,1"], "is not a SavedModel that TensorFlow "),
        (["EMPTY", "--input-range", "0,1"], "is a folder without a saved_model.pb"),
        (["nowhere.onnx", "--input-range", "0,1"], "there is no file nowhere.onnx"),
        (["model.pt"], "cannot export model.pt: its format is not known; give `hfnet`, an .npz"),
    ],
)
def test_wrong_files_and_options(files, weights, tmp_path, arguments, message):
    places = {"KERAS": files / "mine.keras", "WEIGHTS": weights}
    for name in ("TRUNCATED.keras", "TRUNCATED.onnx", "TRUNCATED", "EMPTY"):
        if name in arguments:
            places[name] = tmp_path / name
    for suffix in (".keras", ".onnx"):
        (tmp_path / f"TRUNCATED{suffix}").write_bytes((files / "mine.keras").read_bytes()[:5000])
    (tmp_path / "EMPTY").mkdir()
    (tmp_path / "TRUNCATED").mkdir()
    (tmp_path / "TRUNCATED" / "saved_model.pb").write_bytes((files / "dense" / "saved_model.pb").read_bytes()[:5000])
    size = [] if "--input-size" in arguments else ["--input-size", f"{H}x{W}"]
    code, _, err = run(*[places.get(a, a) for a in arguments], *size, "-o", tmp_path / "model.tflite")
    assert code == 2 and err.startswith("error: ") and message in err and err.count("\n") == 1, err
    assert len(err) < 1000 and not (tmp_path / "model.tflite").exists()


def test_a_network_that_is_no_hfnet(tmp_path):
    image = keras.Input((*SIZE, 1))
    pooled = keras.layers.GlobalAveragePooling2D(name="pooled")(keras.layers.Conv2D(4, 3)(image))
    keras.Model(image, pooled).save(tmp_path / "classifier.keras")
    with pytest.raises(ModelError, match=r"has neither keypoint logits .* its outputs are pooled \(1, 4\)"):
        converted(tmp_path / "classifier.keras", SIZE, input_range=GREY)


def small_network(head, folder: Path) -> Path:
    """A SavedModel with random descriptors and the keypoint output that ``head`` makes of (1, h, w, 65) logits."""
    kernels = tf.random.stateless_normal((8, 8, 1, 81 + 16), (1, 2))

    @tf.function(input_signature=[tf.TensorSpec((1, *SIZE, 1), tf.float32, name="image")])
    def network(image):
        maps = tf.nn.conv2d(image, kernels, 8, "SAME")
        name, keypoints = head(maps[..., :65])
        return {name: keypoints, "local": maps[..., 65:], "g": tf.reduce_mean(maps, axis=(1, 2))}

    tf.saved_model.save(tf.Module(), str(folder), network)
    return folder


@pytest.mark.parametrize(
    ("head", "message"),
    [
        (lambda logits: ("prob", tf.nn.softmax(logits)), "are probabilities already; name the dense scores"),
        (lambda logits: ("map", tf.nn.depth_to_space(logits[..., 1:], 8)), "scores lie between -.*but are probabil"),
        (lambda logits: ("logits", tf.cos(logits)), "needs COS, which hfnet-edge does not know"),
        (lambda logits: ("logits", tf.math.digamma(logits)), "needs Digamma"),
    ],
)
def test_networks_that_cannot_be_right(fast, tmp_path, head, message):
    with pytest.raises(ModelError, match=message):
        export_hfnet(small_network(head, tmp_path / "n"), tmp_path / "m.tflite", "none", SIZE, input_range=GREY)


@pytest.mark.parametrize(
    ("name", "architecture"),
    [("größe.keras", "custom-groe"), ("my net-2.h5", "custom-my net-2"), ("模型.onnx", "custom-network"),
     ("tab\tin.keras", "custom-tabin"), ("ﬁne.keras", "custom-fine")],
)  # fmt: skip
def test_an_architecture_is_named_as_maps_name_it(name, architecture):
    assert architecture_of(Path(name)) == architecture


def test_a_network_whose_file_name_is_not_ascii_builds_maps(tmp_path):
    folder = small_network(lambda logits: ("logits", logits), tmp_path / "größe")
    found = converted(folder, SIZE, input_range=GREY).description
    source = place(images=3, landmarks=20).source()
    other = MapNetworks(found.architecture, found.weights_hash, "int8", 32, 16)
    write_map(full_sections(replace(source, networks=other)), tmp_path / "a.hfmap")
    assert LocalizationMap.open(tmp_path / "a.hfmap").description.architecture == "custom-groe"


def test_content_hash(files, tmp_path):
    copy = shutil.copytree(files / "dense", tmp_path / "copy")
    assert content_hash([copy]) == content_hash([files / "dense"])
    (copy / "saved_model.pb").write_bytes(b"x" + (copy / "saved_model.pb").read_bytes()[1:])
    assert content_hash([copy]) != content_hash([files / "dense"])


# ONNX.


def to_onnx(network: keras.Model, opset: int = 17) -> onnx.ModelProto:
    """Channels first, as PyTorch exports: `logits`, score maps, `local_descriptor_map`, `global_descriptor`."""
    sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))
    try:
        from onnx_hfnet import to_onnx as channels_last
    finally:
        sys.path.pop(0)
    written = onnx.load_from_string(channels_last(network)).graph
    made_by = {node.output[0]: node for node in written.node}
    weights = list(written.initializer)

    def constant(*values: int) -> str:
        name = f"constant{len(weights)}"
        weights.append(numpy_helper.from_array(np.array(values), name))
        return name

    def first(role: str) -> str:  # what the last transposition takes
        return made_by[made_by[role].input[0]].input[0]

    inside = [n for n in written.node if n.op_type != "Identity" and n is not written.node[0]]
    for node in inside:
        node.input[:] = ["image" if name == written.node[0].output[0] else name for name in node.input]
        if opset > 17 and node.op_type == "LpNormalization":  # as PyTorch writes it
            node.op_type = "ReduceL2"
            del node.attribute[:]
            node.input.append(constant(-1))
            divided = node.output[0]
            node.output[0] = f"{divided}_norm"
            inside.insert(
                inside.index(node) + 1, helper.make_node("Div", [node.input[0], f"{divided}_norm"], [divided])
            )
    logits, local, global_ = first("keypoint_logits"), first("local_descriptors"), made_by["global_descriptor"].input[0]
    nodes = [
        *inside,
        helper.make_node("Identity", [logits], ["logits"]),
        helper.make_node("Identity", [local], ["local_descriptor_map"]),
        helper.make_node("Identity", [global_], ["global_descriptor"]),
        helper.make_node("Softmax", [logits], ["cells"], axis=1),
        helper.make_node("Slice", ["cells", constant(0), constant(64), constant(1)], ["kept"]),
        helper.make_node("DepthToSpace", ["kept"], ["scores_dense"], blocksize=8),
        helper.make_node("MaxPool", ["scores_dense"], ["highest"], kernel_shape=(9, 9), pads=(4, 4, 4, 4)),
        helper.make_node("Equal", ["scores_dense", "highest"], ["is_peak"]),
        helper.make_node("Cast", ["is_peak"], ["as_float"], to=TensorProto.FLOAT),
        helper.make_node("Mul", ["scores_dense", "as_float"], ["scores_dense_nms"]),
        helper.make_node("Reshape", ["scores_dense_nms", constant(-1)], ["all"]),
        helper.make_node("NonZero", ["all"], ["keypoints"]),
    ]
    shapes = {
        "logits": ("batch", 65, *CELLS), "local_descriptor_map": ("batch", COARSE, *CELLS),
        "global_descriptor": ("batch", CONFIG.global_dim), "scores_dense": ("batch", 1, "height", "width"),
        "scores_dense_nms": ("batch", 1, "height", "width"),
    }  # fmt: skip
    outputs = [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in shapes.items()]
    outputs.append(helper.make_tensor_value_info("keypoints", TensorProto.INT64, (1, "count")))
    image = helper.make_tensor_value_info("image", TensorProto.FLOAT, ("batch", 1, "height", "width"))
    nodes = [n for n in nodes if n.op_type != "Transpose" or n.output[0] not in made_by or used(n.output[0], nodes)]
    graph = helper.make_graph(nodes, "theirs", [image], outputs, weights)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=9)
    onnx.checker.check_model(model)
    return model


def used(name: str, nodes: list[onnx.NodeProto]) -> bool:
    return any(name in node.input for node in nodes)


@pytest.fixture(scope="module")
def network(weights) -> keras.Model:
    """Soft assignments: where clusters are next to empty, their normalisation amplifies rounding of float32."""
    model, _ = hfnet_from_weights(weights, SIZE, batch=1)
    kernel, bias, centers = model.get_layer("netvlad").get_weights()
    model.get_layer("netvlad").set_weights([0.03 * kernel, 0.03 * bias, centers])
    return model


@pytest.fixture(scope="module")
def onnx_file(network, tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("onnx") / "theirs.onnx"
    onnx.save(to_onnx(network), path)
    return path


def scores_only(path: Path, folder: Path) -> Path:
    """The same file without its logits."""
    model = onnx.load(path)
    for output in [o for o in model.graph.output if o.name == "logits"]:
        model.graph.output.remove(output)
    onnx.save(model, folder / "scores.onnx")
    return folder / "scores.onnx"


@pytest.mark.parametrize("role", ["keypoint_logits", "keypoint_scores"])
def test_what_onnx2tf_is_given(exported, network, onnx_file, tmp_path, monkeypatch, role):
    """The needed part of the network with our names and shapes; onnxruntime runs it as it runs the original."""
    import onnxruntime

    given = []

    def taken(content: bytes, keep_layout: bool, say) -> bytes:
        given.append((content, keep_layout))
        raise ModelError("taken")

    monkeypatch.setattr(onnx_env, "convert_onnx", taken)
    path = onnx_file if role == "keypoint_logits" else scores_only(onnx_file, tmp_path)
    with pytest.raises(ModelError, match="taken"):
        converted(path, SIZE, input_range=GREY)
    ((content, keep_layout),) = given
    assert not keep_layout
    kinds = {node.op_type for node in onnx.load_from_string(content).graph.node}
    assert not kinds & {"MaxPool", "NonZero"} and ("DepthToSpace" in kinds) == (role == "keypoint_scores")
    session = onnxruntime.InferenceSession(content)
    image = exported.images[0].astype(np.float32)[None, :, :, None] / 127.5 - 1
    theirs = dict(
        zip(
            [o.name for o in session.get_outputs()],
            session.run(None, {"image": image.reshape(1, 1, H, W)}),
            strict=True,
        )
    )
    keras_says = {name: np.asarray(x) for name, x in network(image, training=False).items()}
    if role == "keypoint_scores":
        scores = theirs.pop("keypoint_scores")
        assert scores.shape == (1, H, W)
        np.testing.assert_allclose(
            scores[0], keypoint_scores(keras_says.pop("keypoint_logits")[0]), rtol=0.02, atol=1e-4
        )
    assert theirs.keys() >= {"local_descriptors", "global_descriptor"}
    for name, found in theirs.items():
        expected = keras_says[name]
        np.testing.assert_allclose(found, expected, atol=2e-4 * max(1, np.abs(expected).max()))


def in_colour(path: Path, folder: Path, before: str, last: bool = False) -> Path:
    """The same file with three different kernels for three channels.

    Args:
        before: what is done to the image first: "nothing", "scaling" (all channels alike) or "normalising" (each
            channel with a mean and a deviation of its own).
        last: channels come last.
    """
    model = onnx.load(path)
    graph, rng = model.graph, np.random.default_rng(0)
    (first,) = [node for node in graph.node if "image" in node.input]
    kernels = next(t for t in graph.initializer if t.name == first.input[1])
    split = rng.normal(1 / 3, 0.2, (1, 3, 1, 1)).astype(np.float32)
    kernels.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(kernels) * split, kernels.name))
    shape = (1, 1, 1, 1) if before == "scaling" else (1, 3, 1, 1)
    x, nodes = "image", []

    def add(op: str, *inputs: str, **attributes) -> str:
        nodes.append(helper.make_node(op, list(inputs), [f"colour{len(nodes)}"], **attributes))
        return nodes[-1].output[0]

    if last:
        x = add("Transpose", x, perm=(0, 3, 1, 2))
    if before != "nothing":
        mean, deviation = rng.normal(0, 0.2, shape).astype(np.float32), rng.uniform(0.8, 1.2, shape).astype(np.float32)
        graph.initializer.extend([numpy_helper.from_array(mean, "mean"), numpy_helper.from_array(deviation, "std")])
        x = add("Div", add("Sub", x, "mean"), "std")
    first.input[0] = x
    for node in reversed(nodes):
        graph.node.insert(0, node)
    sizes = ("batch", "height", "width", 3) if last else ("batch", 3, "height", "width")
    graph.input[0].CopyFrom(helper.make_tensor_value_info("image", TensorProto.FLOAT, sizes))
    onnx.checker.check_model(model)
    onnx.save(model, folder / "colour.onnx")
    return folder / "colour.onnx"


@pytest.mark.parametrize("last", [False, True])
@pytest.mark.parametrize("before", ["nothing", "scaling", "normalising"])
def test_onnx_in_colour(exported, onnx_file, tmp_path, monkeypatch, before, last):
    """What onnx2tf is given takes a grey image and says what the original says of it in three channels."""
    import onnxruntime

    given = []

    def taken(content: bytes, keep_layout: bool, say) -> bytes:
        given.append((content, keep_layout))
        raise ModelError("taken")

    monkeypatch.setattr(onnx_env, "convert_onnx", taken)
    path = in_colour(onnx_file, tmp_path, before, last)
    with pytest.raises(ModelError, match="taken"):
        converted(path, SIZE, input_range=GREY)
    ((content, keep_layout),) = given
    assert keep_layout == last
    kinds = [node.op_type for node in onnx.load_from_string(content).graph.node]
    assert ("Concat" in kinds) == (before == "normalising"), "else one channel is enough"
    ours, theirs = onnxruntime.InferenceSession(content), onnxruntime.InferenceSession(path)
    names = {
        "keypoint_logits": "logits",
        "local_descriptors": "local_descriptor_map",
        "global_descriptor": "global_descriptor",
    }
    for grey in exported.images[:2]:
        image = grey.astype(np.float32)[None, :, :, None] / 127.5 - 1
        colour = np.repeat(image, 3, axis=3)
        expected = theirs.run(list(names.values()), {"image": colour if last else colour.transpose(0, 3, 1, 2)})
        found = ours.run(list(names), {"image": image if last else image.reshape(1, 1, H, W)})
        for a, b in zip(found, expected, strict=True):
            b = b.transpose(0, 2, 3, 1) if b.ndim == 4 else b
            np.testing.assert_allclose(a, b, atol=2e-4 * max(1, np.abs(b).max()))


def test_onnx_in_colour_keeps_kernels_that_are_used_twice(onnx_file, tmp_path):
    """An image that goes elsewhere too, or kernels that are computed, are no case for one channel."""
    model = onnx.load(in_colour(onnx_file, tmp_path, "nothing"))
    elsewhere, computed = (onnx.ModelProto.FromString(model.SerializeToString()).graph for _ in range(2))
    elsewhere.node.append(helper.make_node("Relu", ["image"], ["also"]))
    (first,) = [node for node in computed.node if "image" in node.input]
    kernels, first.input[1] = first.input[1], "kernels"
    computed.node.insert(0, helper.make_node("Abs", [kernels], ["kernels"]))
    for graph in (elsewhere, computed):
        before = graph.SerializeToString()
        assert not sum_colours(graph, "image") and graph.SerializeToString() == before
    assert sum_colours(model.graph, "image")


@pytest.fixture(scope="module")
def colour_network() -> keras.Model:
    """A small one that takes (1, H, W, 3), each channel with a mean and a deviation of its own."""
    image = keras.Input((*SIZE, 3), batch_size=1)
    normalised = keras.layers.Normalization(mean=[0.1, -0.2, 0.3], variance=[0.9, 1.1, 1.3])(image)
    kernels = keras.initializers.RandomNormal(seed=0)
    x = keras.layers.Conv2D(8, 3, 4, "same", activation="relu", kernel_initializer=kernels)(normalised)
    logits, local = (keras.layers.Conv2D(n, 3, 2, "same", kernel_initializer=kernels)(x) for n in (65, 16))
    pooled = keras.layers.Dense(12)(keras.layers.GlobalAveragePooling2D()(x))
    outputs = {"keypoint_logits": logits, "local_descriptors": local, "global_descriptor": pooled}
    return keras.Model(image, outputs)


@pytest.mark.parametrize("kind", ["keras", "SavedModel"])
def test_keras_and_saved_models_in_colour(colour_network, tmp_path, kind):
    if kind == "keras":
        colour_network.save(path := tmp_path / "colour.keras")
    else:

        @tf.function(input_signature=[tf.TensorSpec((1, 3, *SIZE), tf.float32, name="image")])
        def first(image):
            return colour_network(tf.transpose(image, (0, 2, 3, 1)))

        module = tf.Module()
        module.network = colour_network  # its variables are found by it
        tf.saved_model.save(module, str(path := tmp_path / "colour"), first)
    source = converted(path, SIZE, input_range=GREY)
    run_tflite = Interpreter(model_content=source.graph.content).get_signature_runner()
    for grey in np.random.default_rng(0).integers(0, 256, (2, *SIZE), np.uint8):
        image = source.description.scale(grey)
        expected = colour_network(np.repeat(image, 3, axis=3), training=False)
        for found in (source.original(image), run_tflite(image=image)):
            for role, values in expected.items():
                tolerance = 2e-4 * max(1, np.abs(values).max())
                np.testing.assert_allclose(found[role], values, atol=tolerance, err_msg=role)


@pytest.fixture
def cache(tmp_path, monkeypatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    return tmp_path / "hfnet-edge"


def test_a_half_made_environment_is_made_again(cache, monkeypatch):
    made = []

    def make(path: Path) -> None:
        made.append(path)
        (path / "bin").mkdir()
        (path / "bin/python").touch()

    monkeypatch.setattr(onnx_env, "_make", make)
    path = onnx_env.environment_path()
    assert path.parent == cache
    (path / "bin").mkdir(parents=True)
    said: list[str] = []
    assert onnx_env.environment(said.append) == onnx_env.environment(said.append) == path
    assert made == [path] and len(said) == 1 and "2.6 GB" in said[0]
    (path / "bin/python").unlink()  # its Python was uninstalled
    assert onnx_env.environment(said.append) == path and made == [path, path]
    monkeypatch.setattr(onnx_env, "PINS", ("onnx2tf==2",))
    assert onnx_env.environment_path() != path


@pytest.mark.slow
def test_pip_fails(cache, monkeypatch):
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.delenv("PIP_FIND_LINKS", raising=False)
    with pytest.raises(InstallError, match=r"cannot install onnx2tf: .*onnx2tf==.*; check the network"):
        onnx_env.environment(lambda text: None)
    assert not onnx_env.environment_path().exists()


def test_no_room_for_the_environment(tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    with pytest.raises(InstallError, match=r"cannot make .*/onnx2tf-.*: .*; .* set XDG_CACHE_HOME"):
        onnx_env.environment(lambda text: None)


def test_no_python_for_onnx2tf(monkeypatch):
    monkeypatch.setattr(sys, "version_info", (3, 13, 1))
    monkeypatch.setattr(shutil, "which", lambda name: None)
    with pytest.raises(InstallError, match=r"install python3\.12"):
        onnx_env._python()


@pytest.mark.slow
def test_onnx_for_real(exported, network, fast, onnx_file, tmp_path, cache):
    """Makes the environment (2.6 GB), converts two files, and removes it."""
    newer = tmp_path / "newer.onnx"
    onnx.save(to_onnx(network, 18), newer)
    try:
        for path, precision in ((scores_only(onnx_file, tmp_path), "none"), (newer, "int8")):
            out = tmp_path / f"{path.stem}.tflite"
            report = export_hfnet(path, out, precision, SIZE, input_range=GREY)
            assert report.fidelity.local_descriptors > 0.97
            model = Model(out)
            assert model.description.weights_hash == content_hash([path])
            keras_says = network(model.description.scale(exported.images[0]), training=False)
            found = extract(model, as_photo(exported.images[0]), 200)
            global_ = quantize(np.asarray(keras_says["global_descriptor"]))[0]
            assert found.global_descriptor.astype(int) @ global_ > 0.98 * 127**2
            if precision == "none":
                xy, _ = detect(keypoint_scores(np.asarray(keras_says["keypoint_logits"])[0]), SIZE, 200)
                distances = np.linalg.norm(found.keypoints[:, None] - xy, axis=-1).min(axis=1)
                assert (
                    np.mean(distances < 0.1) > 0.95
                )  # near ties: `keypoint_scores` rounds, the graph's softmax does not
        for before in ("nothing", "normalising"):
            source = converted(in_colour(onnx_file, tmp_path, before), SIZE, input_range=GREY)
            image = source.description.scale(exported.images[0])
            found = Interpreter(model_content=source.graph.content).get_signature_runner()(image=image)
            for role, values in source.original(image).items():
                np.testing.assert_allclose(found[role], values, atol=2e-4 * max(1, np.abs(values).max()))
        with pytest.raises(ModelError, match=r"onnx2tf cannot convert the network: .*opset 17"):
            onnx_env.convert_onnx(b"not a model", True, lambda text: None)
    finally:
        shutil.rmtree(cache, ignore_errors=True)
