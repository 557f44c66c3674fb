"""The autopilot on the bundled network, made to fail int8 in one place without changing what it computes in float."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import keras
import numpy as np
import pytest
from typer.testing import CliRunner

from conftest import SIZE
from fragile import GUILTY, write_fragile_weights
from hfnet_edge.errors import InputError, MismatchError
from hfnet_edge.networks.description import read_description
from hfnet_edge.networks.model import Model, RawOutputs
from hfnet_edge.record.recording import digest
from hfnet_export import cli
from hfnet_export.export import export_hfnet
from hfnet_export.networks.weights import BUNDLED, hfnet_from_weights
from hfnet_export.tflite import convert
from hfnet_export.tflite.autopilot import EVERYTHING, NOTHING, GateError, autopilot, find_groups
from hfnet_export.tflite.calibration import built_in_images
from hfnet_export.tflite.convert import Fidelity, Operator
from hfnet_export.tflite.quantization_recipe import calibration_hash


@dataclass(frozen=True)
class Said:
    passed: bool
    recalls: tuple[float, ...] = (0.5, 0.9)
    median: tuple[float, float] = (0.0204, 0.1)
    lost: float = 2.5
    ratio: float = 1.234
    ratio_low: float = 1.123

    def as_dict(self) -> dict:
        return {"passed": self.passed, "recalls": list(self.recalls)}

    def __str__(self) -> str:
        return "passed" if self.passed else "failed: recall 50.0, 90.0 %"


@dataclass(frozen=True)
class Told:
    """A gate that says what a function says."""

    passes: Callable[[bytes], bool]
    weights_hash: str = ""
    about: dict = field(default_factory=lambda: {"bundle": "0123", "points": 1.0, "factor": 1.1})

    def check(self, description: convert.Description) -> None:
        if self.weights_hash not in ("", description.weights_hash):
            raise MismatchError("scene.bundle is of another network")

    def __call__(self, content: bytes) -> Said:
        return Said(self.passes(content))


never, always = Told(lambda content: False), Told(lambda content: True)


@dataclass(frozen=True)
class Network:
    path: Path
    keras: keras.Model
    content: bytes
    description: convert.Description
    images: list[np.ndarray]
    reference: list[RawOutputs]

    @property
    def inputs(self) -> list[np.ndarray]:
        return [self.description.scale(image) for image in self.images]

    def measure(self, content: bytes) -> Fidelity:
        model = Model("test", content=content)
        return convert.fidelity([model(image) for image in self.images[: len(self.reference)]], self.reference)

    @property
    def gate(self) -> Told:
        return Told(self.keeps_keypoints)

    def keeps_keypoints(self, content: bytes) -> bool:
        """Three of four."""
        model = Model("test", content=content)
        kept = []
        for image, theirs in zip(self.images, self.reference, strict=False):
            ours, theirs = (o.scores() >= np.sort(o.scores(), axis=None)[-200] for o in (model(image), theirs))
            kept.append(np.count_nonzero(ours & theirs) / np.count_nonzero(theirs))
        return float(np.mean(kept)) > 0.75


@pytest.fixture(scope="module")
def fragile(tmp_path_factory) -> Network:
    path = tmp_path_factory.mktemp("fragile") / "weights.npz"
    config = write_fragile_weights(path)
    network, weights_hash = hfnet_from_weights(path, SIZE, batch=1)
    content = convert.to_float_tflite(network)
    description = convert.describe(config, weights_hash, "int8", SIZE)
    images = built_in_images(SIZE)
    model = Model("test", content=convert.embed(content, description))
    return Network(path, network, content, description, images, [model(image) for image in images[:4]])


@pytest.fixture
def fast(fragile, monkeypatch):
    """TensorFlow's conversion is not repeated, and few images do."""
    monkeypatch.setattr(convert, "to_float_tflite", lambda network: fragile.content)
    monkeypatch.setattr("hfnet_export.export.built_in_images", lambda size: fragile.images[:6])


def guilty(content: bytes) -> set[str]:
    """The operators that write and read the tensor with the huge channel."""
    names = {op.name for op in convert.operators(content) if op.kind == "CONV_2D"}
    return {name for name in names if any(part in name for part in GUILTY)}


def test_the_network_is_the_same_in_float_and_ruined_in_int8(fragile):
    original, _ = hfnet_from_weights(BUNDLED, SIZE, batch=1)
    for name, expected in original(fragile.inputs[0], training=False).items():
        expected = np.asarray(expected)
        found = np.asarray(fragile.keras(fragile.inputs[0], training=False)[name])
        assert np.abs(found - expected).max() < 1e-5 * np.abs(expected).max()
    int8 = convert.embed(convert.quantize(fragile.content, "int8", fragile.inputs), fragile.description)
    ruined = fragile.measure(int8)
    assert max(ruined.keypoint_scores, ruined.local_descriptors, ruined.global_descriptor) < 0.5
    assert not fragile.keeps_keypoints(int8)


def test_only_the_guilty_group_goes_to_float(fragile):
    found = autopilot(fragile.content, fragile.description, fragile.inputs, fragile.measure, fragile.gate)
    assert [step.passed for step in found.steps] == [False, True, True]
    assert [step.moved for step in found.steps][:2] == [NOTHING, EVERYTHING]
    heavy = [op for op in convert.operators(found.content) if op.kind in ("CONV_2D", "DEPTHWISE_CONV_2D", "ADD")]
    in_float = {op.name for op in heavy if op.precision == convert.FLOAT32 and "netvlad" not in op.name}
    assert in_float == guilty(fragile.content) == set(found.steps[-1].operators) and len(in_float) == 2
    assert sum(op.precision == convert.INT8 for op in heavy) > 60
    last = found.steps[-1].fidelity
    assert min(last.keypoint_scores, last.local_descriptors, last.global_descriptor) > 0.98
    convert.check_xnnpack(found.content)


def test_the_command_and_its_recipe(fragile, fast, tmp_path, monkeypatch):
    asked = []
    monkeypatch.setattr(cli, "_gate", lambda bundle, loss: asked.append((bundle.name, loss)) or fragile.gate)
    common = [str(fragile.path), "--input-size", f"{SIZE[0]}x{SIZE[1]}", "--quantize", "int8"]
    model, again, recipe = (tmp_path / name for name in ("model.tflite", "again.tflite", "model.recipe.json"))
    gate = ["--gate", "scene.bundle", "--max-loss", "2pt, 1.2x"]
    done = CliRunner().invoke(cli.export_app, [*common, *gate, "-o", str(model)])
    assert done.exit_code == 0, done.stderr
    assert asked == [("scene.bundle", "2pt, 1.2x")]
    out = " ".join(done.stdout.split())
    for expected in ("moved to float", NOTHING, EVERYTHING, "b0.proj", f"wrote {recipe}", f"wrote {model}", "next: "):
        assert expected in out
    for expected in ("loses, medians,", "20.4 mm", "0.100°", "2.5", "1.234", "≥ 1.123"):
        assert expected in out
    content = json.loads(recipe.read_text())
    steps = content["steps"]
    assert content["gate"] == fragile.gate.about and content["input_size"] == list(SIZE)
    assert content["calibration"] == calibration_hash(fragile.inputs[:6])
    assert [step["passed"] for step in steps] == [False, True, True]
    assert set(steps[-1]["operators"]) == guilty(fragile.content) and steps[-1]["gate"]["passed"]

    done = CliRunner().invoke(cli.export_app, [*common, "--recipe", str(recipe), "-o", str(again)])
    assert done.exit_code == 0, done.stderr
    assert f"quantizing: as {recipe} says" in " ".join(done.stdout.split())
    assert again.read_bytes() == model.read_bytes()
    assert not again.with_suffix(".recipe.json").exists()

    def says(*changes: str) -> str:
        done = CliRunner().invoke(cli.export_app, [*common, *changes, "--recipe", str(recipe), "-o", str(again)])
        return " ".join((done.stdout + done.stderr).split())

    monkeypatch.setattr("hfnet_export.export.built_in_images", lambda size: fragile.images[:5])
    assert f"as {recipe} says, though it was found with other calibration images" in says()
    assert f"{recipe} is for an input of 96x128, the network has 96x160" in says("--input-size", "96x160")


def test_a_gate_of_another_network(fragile, fast, tmp_path):
    with pytest.raises(MismatchError, match=r"scene\.bundle is of another network"):
        export_hfnet(fragile.path, tmp_path / "m.tflite", input_size=SIZE, gate=Told(lambda content: 1 / 0, "35d1"))
    assert not list(tmp_path.iterdir())


def test_the_gate_of_a_bundle(fragile, tmp_path, monkeypatch):
    """Recall and medians of a place drawn by code, through the commands that users run."""
    pytest.importorskip("hfnet_parity.gate", reason="hfnet-parity is not installed")
    from hfnet_maps.synthetic_town.made_place import made_place, write_place

    def run(command: str, *arguments: str | Path) -> None:
        done = subprocess.run(
            [Path(sys.executable).parent / command, *arguments], capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr

    size = ["--input-size", "192x256"]
    place, model, scene, bundle = (tmp_path / name for name in ("place", "f.tflite", "p.hfmap", "p.bundle"))
    write_place(place, made_place(map_views=16, query_views=12))
    truth = ["--images", place / "images", "--reference", place / "reference", "--model", model]
    run("hfnet-export", fragile.path, "--quantize", "none", *size, "-o", model)
    run("hfnet-map", "build", *truth, "--list", place / "map.txt", "-o", scene)
    run(
        "hfnet-parity", "record", *truth, "--map", scene, "--queries", place / "queries_with_intrinsics.txt",
        "-o", bundle,
    )  # fmt: skip
    monkeypatch.setattr("hfnet_export.export.built_in_images", lambda size: built_in_images(size)[:8])
    gated, recipe = tmp_path / "gated.tflite", tmp_path / "gated.recipe.json"
    arguments = [*size, "--gate", bundle, "--max-loss", "1pt, 1.1x", "-o", gated]
    wrong = CliRunner().invoke(cli.export_app, [str(a) for a in ("hfnet", *arguments)])
    assert wrong.exit_code == 2 and f"{bundle} was recorded with the weights" in wrong.stderr
    assert "quantizing" not in wrong.stdout
    done = CliRunner().invoke(cli.export_app, [str(a) for a in (fragile.path, *arguments)])
    assert done.exit_code == 0, done.stderr
    about = json.loads(recipe.read_text())["gate"]
    assert about == {"bundle": digest(bundle.read_bytes()), "points": 1.0, "factor": 1.1}
    first, everything, *_, last = json.loads(recipe.read_text())["steps"]
    assert first["gate"]["recalls"] == [0, 0, 0] and everything["gate"]["recalls"][0] > 0.5
    assert last["gate"]["recalls"][0] > everything["gate"]["recalls"][0] - 0.01
    in_float = {op.name for op in convert.operators(gated.read_bytes()) if op.precision == convert.FLOAT32}
    quantized = {
        op.name
        for op in convert.operators(fragile.content)
        if convert.expected_precision(op, "int8") != convert.FLOAT32
    }
    assert in_float & quantized == guilty(fragile.content)


def test_a_gate_that_never_passes(fragile, fast, tmp_path, monkeypatch):
    monkeypatch.setattr(cli, "_gate", lambda bundle, loss: never)
    model = tmp_path / "model.tflite"
    arguments = [str(fragile.path), "--input-size", "96x128", "--gate", "scene.bundle", "-o", str(model)]
    done = CliRunner().invoke(cli.export_app, arguments)
    assert done.exit_code == 2
    (line,) = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert "does not pass the gate in float32 either: failed: recall 50.0, 90.0 %" in line
    assert NOTHING in done.stdout and EVERYTHING in done.stdout and "50.0" in done.stdout
    assert not list(tmp_path.iterdir())


def test_a_gate_that_passes_only_float(exported, monkeypatch):
    """Everything is tried that leaves something in int8; a float network is not called int8."""
    monkeypatch.setattr("hfnet_export.tflite.autopilot.rank", lambda content, graph, *_: find_groups(graph, {}))
    description = read_description(exported.described["int8"], "test")
    graph = convert.operators(exported.float_tflite)
    quantized = sum(convert.expected_precision(op, "int8") != convert.FLOAT32 for op in graph)

    gate = Told(lambda content: all(op.precision == convert.FLOAT32 for op in convert.operators(content)))
    inputs = [description.scale(image) for image in exported.images[:1]]
    with pytest.raises(GateError, match=r"in float32 only, .* --quantize none") as caught:
        autopilot(exported.float_tflite, description, inputs, lambda content: Fidelity(1, 1, 1), gate)
    first, everything, *steps = caught.value.steps
    assert (first.passed, everything.passed, everything.in_float) == (False, True, quantized) and quantized == 68
    moved = [step.in_float for step in steps]
    assert moved == sorted(set(moved)) and 60 < moved[-1] < quantized
    assert not any(step.passed for step in steps)


def test_a_good_network_passes_at_once(exported):
    description = read_description(exported.described["int8"], "test")
    model = Model("test", content=exported.described["none"])
    reference = [model(image) for image in exported.images]

    def measure(content: bytes) -> Fidelity:
        model = Model("test", content=content)
        return convert.fidelity([model(image) for image in exported.images], reference)

    inputs = [description.scale(image) for image in exported.images]
    found = autopilot(exported.float_tflite, description, inputs, measure, always)
    assert [(step.moved, step.in_float, step.passed) for step in found.steps] == [(NOTHING, 0, True)]
    assert found.content == exported.described["int8"]


def test_outputs_too_far_off_do_not_pass(exported):
    """What `hfnet-export` refuses afterwards, the autopilot must not call good."""
    description = read_description(exported.described["int8"], "test")
    inputs = [description.scale(image) for image in exported.images[:1]]
    for low in (0.9, float("nan")):
        with pytest.raises(GateError) as caught:
            autopilot(exported.float_tflite, description, inputs, lambda content, x=low: Fidelity(x, 1, 1), always)
        assert [step.judgement.passed for step in caught.value.steps] == [True, True]
        assert json.loads(json.dumps(caught.value.steps[0].as_dict()))["passed"] is False


def test_groups():
    """conv a is padded, read by depthwise b and by conv c; b and c are added."""

    def operator(kind: str, name: str, *reads: str, weights: int = 100) -> Operator:
        return Operator(kind, name, convert.FLOAT32, reads, ((1, 4, 4, 8),) * len(reads), weights)

    graph = [
        operator("CONV_2D", "a;a/conv", "image"),
        operator("PAD", "padded", "a;a/conv"),
        operator("DEPTHWISE_CONV_2D", "b", "padded"),
        operator("CONV_2D", "c", "a;a/conv"),
        operator("ADD", "sum", "b", "c"),
        operator("SOFTMAX", "soft", "sum"),
        operator("FULLY_CONNECTED", "dense", "soft", weights=2**14),
    ]
    groups = {g.name: (set(g.tensors), set(g.operators)) for g in find_groups(graph, {"sum": "local_descriptors"})}
    assert groups == {
        "image": ({"image"}, {"a;a/conv"}),
        "a": ({"a;a/conv", "padded"}, {"a;a/conv", "padded", "b", "c"}),
        "b": ({"b"}, {"b", "sum"}),
        "c": ({"c"}, {"c", "sum"}),
        "local_descriptors": ({"sum"}, {"sum"}),
        "dense": (set(), {"dense"}),
    }


def test_groups_of_the_network(fragile):
    groups = find_groups(convert.operators(fragile.content), convert.output_names(fragile.content))
    names = {group.name for group in groups}
    assert len(names) == len(groups) == 69
    assert {"keypoint_logits", "local_descriptors"} <= names  # the heads' last tensors
    assert [set(group.operators) for group in groups].count(guilty(fragile.content)) == 1


def test_rounding_a_tensor_rounds_only_that(exported):
    """An output, whose rounded values are known, and the image, between whose grey levels int8 has none."""
    tensors = {name: tensor for tensor, name in convert.output_names(exported.float_tflite).items()}
    description = read_description(exported.described["none"], "test")
    image = exported.images[0]
    before = Model("test", content=exported.described["none"])(image)
    low, high = -3.0, 1.0
    content = convert.round_tensors(exported.float_tflite, {tensors["local_descriptors"]: (low, high)})
    after = Model("test", content=convert.embed(content, description))(image)
    scale = np.float32((high - low) / 255)
    zero = np.rint(-128 - low / scale)
    expected = (np.clip(np.rint(before.local_descriptors / scale) + zero, -128, 127) - zero) * scale
    np.testing.assert_allclose(after.local_descriptors, expected, atol=1e-6)
    assert np.abs(expected - before.local_descriptors).max() > 1e-3
    assert np.array_equal(after.keypoint_logits, before.keypoint_logits)
    assert np.array_equal(after.global_descriptor, before.global_descriptor)

    content = convert.round_tensors(exported.float_tflite, {graph_input(exported.float_tflite): (-1.0, 1.0)})
    after = Model("test", content=convert.embed(content, description))(image)
    difference = np.abs(after.local_descriptors - before.local_descriptors).max()
    assert 0 < difference < 0.1 * np.abs(before.local_descriptors).max()


def graph_input(content: bytes) -> str:
    return convert.operators(content)[0].reads[0]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"quantize": "dynamic", "gate": always}, "--gate is for --quantize int8 without a --recipe"),
        ({"recipe": Path("r.json"), "gate": always}, "--gate is for --quantize int8 without a --recipe"),
        ({"recipe": Path("nowhere.json")}, "cannot read the recipe nowhere.json"),
    ],
)
def test_wrong_arguments(fragile, tmp_path, arguments, message):
    with pytest.raises(InputError, match=message):
        export_hfnet(fragile.path, tmp_path / "model.tflite", input_size=SIZE, **arguments)


def test_wrong_options(tmp_path):
    def run(*arguments) -> str:
        done = CliRunner().invoke(cli.export_app, [str(a) for a in (*arguments, "-o", tmp_path / "model.tflite")])
        assert done.exit_code == 2 and not list(tmp_path.iterdir())
        return done.stderr

    assert "--max-loss needs a --gate" in run("--max-loss", "1pt, 1.1x")
    assert "another option names the same file" in run("--recipe", tmp_path / "model.tflite")
    pytest.importorskip("hfnet_parity.gate", reason="hfnet-parity is not installed")
    assert "'2%' is not one" in run("--gate", "nowhere.bundle", "--max-loss", "2%")
    assert "cannot read the bundle nowhere.bundle" in run("--gate", "nowhere.bundle")
