"""The autopilot on the bundled network, made to fail int8 in one place without changing what it computes in float."""

from __future__ import annotations

import json
import tomllib
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
from hfnet_edge.networks.description import Description, read_description
from hfnet_edge.networks.hfnet import Model, RawOutputs
from hfnet_edge.record.recording import digest
from hfnet_export import cli, trained
from hfnet_export.export import export_hfnet
from hfnet_export.networks.any_hfnet import FLOORS, HFNetFidelity, compare
from hfnet_export.networks.trained_hfnet import describe
from hfnet_export.networks.weights import BUNDLED, hfnet_from_weights
from hfnet_export.tflite import autopilot as pilot
from hfnet_export.tflite import convert
from hfnet_export.tflite.autopilot import EVERYTHING, NOTHING, GateError, autopilot, find_groups
from hfnet_export.tflite.calibration import built_in_images
from hfnet_export.tflite.checks import check_xnnpack
from hfnet_export.tflite.embed import embed
from hfnet_export.tflite.graph import FLOAT32, INT8, Graph, Operator, pack
from hfnet_export.tflite.quantization_recipe import calibration_hash
from hfnet_export.tflite.quantize import quantize
from hfnet_export.tflite.rounding import round_tensors
from hfnet_export.tflite.rules import RECIPES, bundled, precisions

RULES = bundled(RECIPES["int8"])


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

    def check(self, description: Description) -> None:
        if self.weights_hash not in ("", description.weights_hash):
            raise MismatchError("scene.bundle is of another network")

    def __call__(self, content: bytes) -> Said:
        return Said(self.passes(content))


never, always = Told(lambda content: False), Told(lambda content: True)


@dataclass(frozen=True)
class Fragile:
    path: Path
    keras: keras.Model
    graph: Graph
    description: Description
    images: list[np.ndarray]
    reference: list[RawOutputs]

    @property
    def inputs(self) -> list[np.ndarray]:
        return [self.description.scale(image) for image in self.images]

    def measure(self, content: bytes) -> HFNetFidelity:
        model = Model("test", content=content)
        return compare([model(image) for image in self.images[: len(self.reference)]], self.reference)

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
def fragile(tmp_path_factory) -> Fragile:
    path = tmp_path_factory.mktemp("fragile") / "weights.npz"
    config = write_fragile_weights(path)
    network, weights_hash = hfnet_from_weights(path, SIZE, batch=1)
    graph = convert.to_float_tflite(network)
    description = describe(config, weights_hash, "int8", SIZE)
    images = built_in_images(SIZE)
    model = Model("test", content=embed(graph, description))
    return Fragile(path, network, graph, description, images, [model(image) for image in images[:4]])


@pytest.fixture
def fast(fragile, monkeypatch):
    """Few images do."""
    monkeypatch.setattr(trained, "built_in_images", lambda size: fragile.images[:6])


def guilty(graph: Graph) -> set[str]:
    """The operators that write and read the tensor with the huge channel."""
    names = {op.name for op in graph.operators if op.kind == "CONV_2D"}
    return {name for name in names if any(part in name for part in GUILTY)}


def test_the_network_is_the_same_in_float_and_ruined_in_int8(fragile):
    original, _ = hfnet_from_weights(BUNDLED, SIZE, batch=1)
    for name, expected in original(fragile.inputs[0], training=False).items():
        expected = np.asarray(expected)
        found = np.asarray(fragile.keras(fragile.inputs[0], training=False)[name])
        assert np.abs(found - expected).max() < 1e-5 * np.abs(expected).max()
    int8 = embed(quantize(fragile.graph, RULES, fragile.inputs[:6]), fragile.description)
    ruined = fragile.measure(int8)
    assert max(ruined.keypoint_scores, ruined.local_descriptors, ruined.global_descriptor) < 0.5
    assert not fragile.keeps_keypoints(int8)


@dataclass(frozen=True)
class Gated:
    """What `hfnet-export --gate` wrote for the fragile network, what it said, and what the gate was opened with."""

    model: Path
    recipe: Path
    out: str
    asked: list[tuple[str, str]]


def export(*arguments: object, gate: cli.OpenGate | None = None):
    return CliRunner().invoke(cli.export_app, [str(a) for a in arguments], obj=gate)


def common(fragile: Fragile) -> tuple[object, ...]:
    return fragile.path, "--input-size", f"{SIZE[0]}x{SIZE[1]}", "--quantize", "int8"


@pytest.fixture(scope="module")
def gated(fragile, tmp_path_factory) -> Gated:
    model, asked = tmp_path_factory.mktemp("gated") / "model.tflite", []

    def open_gate(bundle: Path, max_loss: str) -> Told:
        asked.append((bundle.name, max_loss))
        return fragile.gate

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(trained, "built_in_images", lambda size: fragile.images[:6])
        patch.setattr(trained, "COMPARED", 3)
        options = ("--gate", "scene.bundle", "--max-loss", "2pt, 1.2x", "-o", model)
        done = export(*common(fragile), *options, gate=open_gate)
    assert done.exit_code == 0, done.stderr
    return Gated(model, model.with_suffix(".recipe.json"), " ".join(done.stdout.split()), asked)


def test_only_the_guilty_group_goes_to_float(fragile, gated):
    content = json.loads(gated.recipe.read_text())
    steps = content["steps"]
    assert [step["passed"] for step in steps] == [False, True, True] and steps[-1]["gate"]["passed"]
    assert [step["group"] for step in steps][:2] == [NOTHING, EVERYTHING]
    made = Graph.parse(gated.model.read_bytes())
    heavy = [op for op in made.operators if op.kind in ("CONV_2D", "DEPTHWISE_CONV_2D", "ADD")]
    in_float = {op.name for op in heavy if op.precision == FLOAT32 and "netvlad" not in op.name}
    assert in_float == guilty(fragile.graph) == set(steps[-1]["operators"]) and len(in_float) == 3
    assert sum(op.precision == INT8 for op in heavy) > 60
    assert min(steps[-1]["fidelity"].values()) > 0.98
    check_xnnpack(made.content)


def test_the_command_and_its_recipe(fragile, gated, fast, tmp_path, monkeypatch):
    assert gated.asked == [("scene.bundle", "2pt, 1.2x")]
    for expected in ("moved to float", NOTHING, EVERYTHING, "b0.proj", f"wrote {gated.recipe}", f"wrote {gated.model}"):
        assert expected in gated.out
    for expected in ("next: ", "loses, medians,", "20.4 mm", "0.100°", "2.5", "1.234", "≥ 1.123"):
        assert expected in gated.out
    content, again = json.loads(gated.recipe.read_text()), tmp_path / "again.tflite"
    assert content["gate"] == fragile.gate.about and content["input_size"] == list(SIZE)
    assert content["calibration"] == calibration_hash(fragile.inputs[:6])

    def says(*changes: str) -> str:
        done = export(*common(fragile), *changes, "--recipe", gated.recipe, "-o", again)
        return " ".join((done.stdout + done.stderr).split())

    assert f"quantizing: as {gated.recipe} says 5/6" in says()
    assert again.read_bytes() == gated.model.read_bytes()
    assert not again.with_suffix(".recipe.json").exists()
    monkeypatch.setattr(trained, "built_in_images", lambda size: fragile.images[:5])
    assert f"as {gated.recipe} says, though it was found with other calibration images" in says()
    monkeypatch.setattr(convert, "to_float_tflite", lambda network: fragile.graph)  # the refusal comes after it
    assert f"{gated.recipe} is for an input of 96x128, the network has 96x160" in says("--input-size", "96x160")


def test_a_gate_of_another_network(fragile, fast, tmp_path):
    with pytest.raises(MismatchError, match=r"scene\.bundle is of another network"):
        export_hfnet(fragile.path, tmp_path / "m.tflite", input_size=SIZE, gate=Told(lambda content: 1 / 0, "35d1"))
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_the_gate_of_a_bundle(fragile, weights, tmp_path, monkeypatch):
    """Recall and medians of a place drawn by code, through the commands that users run."""
    pytest.importorskip("hfnet_parity.gate", reason="hfnet-parity is not installed")
    from hfnet_maps.cli import main as map_app
    from hfnet_maps.synthetic_town.made_place import made_place, write_place
    from hfnet_parity.cli import main as parity_app
    from hfnet_parity.export_cli import open_gate

    def run(app, *arguments: str | Path) -> None:
        done = CliRunner().invoke(app, [str(a) for a in arguments])
        assert done.exit_code == 0, done.stderr

    size = ["--input-size", "192x256"]
    place, model, scene, bundle = (tmp_path / name for name in ("place", "f.tflite", "p.hfmap", "p.bundle"))
    write_place(place, made_place(map_views=28, query_views=12, size=(288, 384)))
    truth = ["--images", place / "images", "--reference", place / "reference", "--model", model]
    run(cli.export_app, fragile.path, "--quantize", "none", *size, "-o", model)
    run(map_app, "build", *truth, "--list", place / "map.txt", "-o", scene)
    run(
        parity_app, "record", *truth, "--map", scene, "--queries", place / "queries_with_intrinsics.txt",
        "-o", bundle,
    )  # fmt: skip
    monkeypatch.setattr(trained, "built_in_images", lambda size: built_in_images(size)[:8])
    monkeypatch.setattr(trained, "COMPARED", 2)
    gated, recipe = tmp_path / "gated.tflite", tmp_path / "gated.recipe.json"
    arguments = [*size, "--gate", bundle, "--max-loss", "1pt, 1.1x", "-o", gated]
    wrong = export(weights, "--input-size", "96x128", *arguments[2:], gate=open_gate)
    assert wrong.exit_code == 2 and f"{bundle} was recorded with the weights" in wrong.stderr
    assert "quantizing" not in wrong.stdout
    done = export(fragile.path, *arguments, gate=open_gate)
    assert done.exit_code == 0, done.stderr
    about = json.loads(recipe.read_text())["gate"]
    assert about == {"bundle": digest(bundle.read_bytes()), "points": 1.0, "factor": 1.1}
    first, everything, *_, last = json.loads(recipe.read_text())["steps"]
    assert first["gate"]["recalls"] == [0, 0, 0] and everything["gate"]["recalls"][0] > 0.5
    assert last["gate"]["recalls"][0] > everything["gate"]["recalls"][0] - 0.01
    in_float = {op.name for op in Graph.parse(gated.read_bytes()).operators if op.precision == FLOAT32}
    wanted = precisions(RULES, fragile.graph.operators)
    quantized = {name for name, precision in wanted.items() if precision != FLOAT32}
    assert in_float & quantized == guilty(fragile.graph)


def test_a_gate_that_never_passes(fragile, fast, tmp_path):
    options = ("--gate", "scene.bundle", "-o", tmp_path / "model.tflite")
    done = export(*common(fragile), *options, gate=lambda bundle, loss: never)
    assert done.exit_code == 2
    (line,) = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert "does not pass the gate in float32 either: failed: recall 50.0, 90.0 %" in line
    assert NOTHING in done.stdout and EVERYTHING in done.stdout and "50.0" in done.stdout
    assert not list(tmp_path.iterdir())


def test_a_gate_that_passes_only_float(monkeypatch):
    """Everything is tried that leaves something in int8; a float network is not called int8."""
    monkeypatch.setattr(pilot, "rank", lambda graph, description, rules, *_: find_groups(graph.operators, {}, rules))
    layers = 6
    x = image = keras.Input((16, 16, 1), batch_size=1, name="image")
    for _ in range(layers):
        x = keras.layers.Conv2D(4, 3, padding="same", activation="relu6")(x)
    graph = convert.to_float_tflite(keras.Model(image, {"local_descriptors": x}, name="plain"))
    roles = {role: role for role in ("keypoint_logits", "local_descriptors", "global_descriptor")}
    description = Description("plain", "0" * 32, "int8", (16, 16), (0.0, 1.0), 4, 4, 0, roles, ())
    gate = Told(lambda content: all(op.precision == FLOAT32 for op in Graph.parse(content).operators))
    inputs = [np.random.default_rng(0).random((1, 16, 16, 1), np.float32)]
    with pytest.raises(GateError, match=r"in float32 only, .* --quantize none") as caught:
        autopilot(graph, description, RULES, inputs, lambda content: HFNetFidelity(1, 1, 1), FLOORS["int8"], gate)
    first, everything, *steps = caught.value.steps
    assert (first.passed, everything.passed, everything.in_float) == (False, True, layers)
    moved = [step.in_float for step in steps]
    assert moved == sorted(set(moved)) and moved[-1] == layers - 1
    assert not any(step.passed for step in steps)


def test_a_good_network_passes_at_once(exported):
    description = read_description(exported.described["int8"], "test")
    model = Model("test", content=exported.described["none"])
    reference = [model(image) for image in exported.images]

    def measure(content: bytes) -> HFNetFidelity:
        model = Model("test", content=content)
        return compare([model(image) for image in exported.images], reference)

    inputs = [description.scale(image) for image in exported.images]
    found = autopilot(exported.graph, description, RULES, inputs, measure, FLOORS["int8"], always)
    assert [(step.moved, step.in_float, step.passed) for step in found.steps] == [(NOTHING, 0, True)]
    assert found.content == exported.described["int8"]


def test_outputs_too_far_off_do_not_pass(exported):
    """What `hfnet-export` refuses afterwards, the autopilot must not call good."""
    description = read_description(exported.described["int8"], "test")
    inputs = [description.scale(image) for image in exported.images[:1]]
    for low in (0.9, float("nan")):
        with pytest.raises(GateError) as caught:
            autopilot(
                exported.graph, description, RULES, inputs, lambda content, x=low: HFNetFidelity(x, 1, 1),
                FLOORS["int8"], always,
            )  # fmt: skip
        assert [step.judgement.passed for step in caught.value.steps] == [True, True]
        assert json.loads(json.dumps(caught.value.steps[0].as_dict()))["passed"] is False


def test_groups():
    """conv a is padded, read by depthwise b and by conv c; b and c are added."""

    def operator(kind: str, name: str, *reads: str, weights: int = 100) -> Operator:
        return Operator(kind, name, FLOAT32, reads, ((1, 4, 4, 8),) * len(reads), weights)

    graph = [
        operator("CONV_2D", "a;a/conv", "image"),
        operator("PAD", "padded", "a;a/conv"),
        operator("DEPTHWISE_CONV_2D", "b", "padded"),
        operator("CONV_2D", "c", "a;a/conv"),
        operator("ADD", "sum", "b", "c"),
        operator("SOFTMAX", "soft", "sum"),
        operator("FULLY_CONNECTED", "dense", "soft", weights=2**14),
    ]
    groups = {
        g.name: (set(g.tensors), set(g.operators)) for g in find_groups(graph, {"sum": "local_descriptors"}, RULES)
    }
    assert groups == {
        "image": ({"image"}, {"a;a/conv"}),
        "a": ({"a;a/conv", "padded"}, {"a;a/conv", "padded", "b", "c"}),
        "b": ({"b"}, {"b", "sum"}),
        "c": ({"c"}, {"c", "sum"}),
        "local_descriptors": ({"sum"}, {"sum"}),
        "dense": (set(), {"dense"}),
    }


def test_groups_of_the_network(fragile):
    groups = find_groups(fragile.graph.operators, fragile.graph.output_names(), RULES)
    names = {group.name for group in groups}
    assert len(names) == len(groups) == 92
    assert {"keypoint_logits", "local_descriptors"} <= names  # the heads' last tensors
    assert [set(group.operators) for group in groups].count(guilty(fragile.graph)) == 1


def test_rounding_a_tensor_rounds_only_that(exported):
    """An output, whose rounded values are known, and the image, between whose grey levels int8 has none."""
    tensors = {name: tensor for tensor, name in exported.graph.output_names().items()}
    description = read_description(exported.described["none"], "test")
    image = exported.images[0]
    before = Model("test", content=exported.described["none"])(image)
    low, high = -3.0, 1.0

    def rounded(tensor: str, low: float, high: float) -> bytes:
        model = exported.graph.copy()
        round_tensors(model, {tensor: (low, high)})
        return embed(Graph.parse(pack(model)), description)

    after = Model("test", content=rounded(tensors["local_descriptors"], low, high))(image)
    scale = np.float32((high - low) / 255)
    zero = np.rint(-128 - low / scale)
    expected = (np.clip(np.rint(before.local_descriptors / scale) + zero, -128, 127) - zero) * scale
    np.testing.assert_allclose(after.local_descriptors, expected, atol=1e-6)
    assert np.abs(expected - before.local_descriptors).max() > 1e-3
    assert np.array_equal(after.keypoint_logits, before.keypoint_logits)
    assert np.array_equal(after.global_descriptor, before.global_descriptor)

    after = Model("test", content=rounded(exported.graph.operators[0].reads[0], -1.0, 1.0))(image)
    difference = np.abs(after.local_descriptors - before.local_descriptors).max()
    assert 0 < difference < 0.2 * np.abs(before.local_descriptors).max()


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
    def run(*arguments, gate: cli.OpenGate | None = None) -> str:
        done = export(*arguments, "-o", tmp_path / "model.tflite", gate=gate)
        assert done.exit_code == 2 and not list(tmp_path.iterdir())
        return done.stderr

    assert "--max-loss needs a --gate" in run("--max-loss", "1pt, 1.1x")
    assert "another option names the same file" in run("--recipe", tmp_path / "model.tflite")
    says = 'error: hfnet-parity, which judges a --gate, is not installed; pip install "hfnet-edge[parity]"\n'
    assert run("--gate", "nowhere.bundle") == says
    pytest.importorskip("hfnet_parity.gate", reason="hfnet-parity is not installed")
    from hfnet_parity.export_cli import open_gate

    assert "'2%' is not one" in run("--gate", "nowhere.bundle", "--max-loss", "2%", gate=open_gate)
    assert "cannot read the bundle nowhere.bundle" in run("--gate", "nowhere.bundle", gate=open_gate)


def test_the_installed_command_has_the_gate(monkeypatch):
    from hfnet_parity import export_cli

    started = []
    monkeypatch.setattr(cli, "run", lambda *given: started.append(given))
    export_cli.export_main()
    assert started == [(cli.export_app, export_cli.open_gate)]
    scripts = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text())["project"]["scripts"]
    assert scripts["hfnet-export"] == "hfnet_parity.export_cli:export_main"
