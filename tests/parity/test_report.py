"""The report says the same in the terminal, as JSON and as HTML; the page needs nothing else and trusts no name."""

from __future__ import annotations

import io
import json
import math
import re
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from html import unescape
from html.parser import HTMLParser
from importlib.metadata import version
from pathlib import Path

import numpy as np
import pytest
from ai_edge_litert.tools import flatbuffer_utils
from PIL import Image
from rich.console import Console

from hfnet_edge.features import Features
from hfnet_edge.geometry import Camera
from hfnet_edge.image.photo import Photo
from hfnet_edge.localizer import Stages, localize_features
from hfnet_edge.map.map_file import LocalizationMap
from hfnet_edge.methods.method import LocalizationConfig, Query
from hfnet_edge.networks.description import read_description
from hfnet_edge.networks.hfnet import Model, RawOutputs
from hfnet_edge.pose.refinement import position_std
from hfnet_edge.record.recording import QueryRecord, Recording, record_query
from hfnet_edge.result import Status
from hfnet_export.tflite.calibration import built_in_images
from hfnet_export.tflite.embed import embed
from hfnet_export.tflite.graph import Graph
from hfnet_parity.bundle import Bundle, write_bundle
from hfnet_parity.causes import explain
from hfnet_parity.compare import compare
from hfnet_parity.costs import costs
from hfnet_parity.html import write_html
from hfnet_parity.layers import MOVES, Layer, label, layer_noise
from hfnet_parity.pictures import INK, photo
from hfnet_parity.report import WIDTH, cost_sentence, distance, print_report, printable, to_json
from hfnet_parity.run import Verdict
from hfnet_parity.tolerances import profile_of, read_tolerances
from synthetic import CAMERA, looking_at, place

HOSTILE = '<img src=x onerror="alert(1)">&{{7*7}}\x1b[31m\ud800 [bold]x[/bold].png'
LAYERS = (Layer("n/<b>head</b>_1/conv", "<b>head</b>", "CONV_2D", 7.25), Layer("n/b2_1/Add", "b2", "ADD", 21.0))


@dataclass(frozen=True)
class Made:
    """A reference that knows every stage, and what runs are made of.

    Attributes:
        views: features of each query, as the reference has them.
        kept: runs and verdicts that were made before.
    """

    map: LocalizationMap
    bundle: Bundle
    views: tuple[Features, ...]
    kept: dict = field(default_factory=dict)

    def run(self, aside: float = 0.0, camera: Camera = CAMERA, **about: str) -> Recording:
        """Keypoints ``aside`` pixels each in its own direction; a pose is found with ``camera``."""
        if (aside, camera) not in self.kept:
            self.kept[aside, camera] = tuple(self._localized(aside, camera))
        recording = self.bundle.recording
        return replace(recording, about=recording.about | about, queries=self.kept[aside, camera])

    def _localized(self, aside: float, camera: Camera) -> Iterator[QueryRecord]:
        rng = np.random.default_rng(1)
        for i, (query, view) in enumerate(zip(self.bundle.recording.queries, self.views, strict=True)):
            angles = rng.uniform(0, 2 * np.pi, len(view.keypoints))
            moved = replace(view, keypoints=view.keypoints + aside * np.stack([np.cos(angles), np.sin(angles)], 1))
            yield record(self.map, query.name, moved, camera, i)

    def verdict(self, aside: float = 0.0, camera: Camera = CAMERA, **about: str) -> Verdict:
        """Of a run."""
        key = aside, camera, frozenset(about.items())
        if key not in self.kept:
            self.kept[key] = self.judge(self.run(aside, camera, **about))
        return self.kept[key]

    def judge(self, run: Recording, bundle: Bundle | None = None) -> Verdict:
        bundle = bundle or self.bundle
        profile = profile_of(bundle.recording, run)
        limits = read_tolerances(profile)
        c = compare(bundle.recording, run, bundle.truth, bundle.thresholds, limits, profile, "test")
        return Verdict(c, costs(c, self.map), explain(c, bundle))


def record(m: LocalizationMap, name: str, features: Features, camera: Camera, seed: int) -> QueryRecord:
    rng = np.random.default_rng(seed)
    raw = RawOutputs(
        rng.normal(size=(60, 80, 4)).astype("f4"), rng.normal(size=16).astype("f4"),
        rng.normal(size=(60, 80, 65)).astype("f4"),
    )  # fmt: skip
    grey = Photo(rng.integers(0, 255, (480, 640), dtype=np.uint8), (480, 640), (640, 480))
    result = localize_features(m, features, camera, LocalizationConfig())
    outputs = {role: value for role, value in vars(raw).items() if value is not None}
    return record_query(name, camera, m, Stages(grey, Query(features.pixel, features, outputs), result))


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> Made:
    folder = tmp_path_factory.mktemp("made")
    place_ = place(offset=(0, 0, 0))
    m = place_.map()
    names = [HOSTILE, *(f"{i}.png" for i in range(1, 6))]
    poses = [looking_at(14 * np.array([np.cos(a), np.sin(a), 0.1]), np.zeros(3)) for a in np.arange(6) + 0.2]
    views = tuple(place_.features(pose, noise=0.5) for pose in poses)
    queries = tuple(record(m, name, view, CAMERA, i) for i, (name, view) in enumerate(zip(names, views, strict=True)))
    Image.fromarray(np.full((480, 640), 90, np.uint8)).save(folder / "grey.png")
    about = {"processor": "CPU, LiteRT", "kernels": "XNNPACK", "solver": "poselib", "precision": "none",
             "model_hash": "a" * 32, "map_hash": "b" * 32}  # fmt: skip
    references = {
        name: np.array([*pose.quaternion, *pose.translation])
        for name, pose in zip(m.image_names, place_.poses, strict=True)
    }
    recording = Recording(about, references, queries)
    path = folder / "ref.bundle"
    write_bundle(
        path, recording, dict.fromkeys(names, folder / "grey.png"), {}, None, dict(zip(names, poses, strict=True))
    )
    return Made(m, Bundle.read(path), views)


def printed(verdict: Verdict, layers=LAYERS, width: int = WIDTH) -> str:
    file = io.StringIO()
    print_report(verdict, layers, Console(file=file, width=width))
    return file.getvalue()


FILES = {"model": Path("models/phone<1>.tflite"), "map": Path("maps/square.hfmap")}
WHEN = datetime(2026, 3, 4, 5, 6, 7, tzinfo=UTC)


class Page(HTMLParser):
    """What a browser sees: tags with attributes, and the text."""

    def __init__(self, path: Path):
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.source = path.read_text()
        self.feed(self.source)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data):
        self.text += data

    def count(self, tag: str, class_: str = "") -> int:
        return sum(t == tag and (not class_ or class_ in (a.get("class") or "").split()) for t, a in self.tags)


@pytest.fixture
def page(made, tmp_path):
    def write(*verdicts: Verdict, layers=LAYERS, bundle: Bundle | None = None, **options) -> Page:
        write_html(tmp_path / "r.html", bundle or made.bundle, verdicts, layers, FILES, WHEN, **options)
        return Page(tmp_path / "r.html")

    return write


def test_table_json_and_page_agree(made, page):
    verdict = made.verdict(0.1, model_hash="c" * 32, precision="int8")
    assert verdict.passed and verdict.comparison.profile == "quantized"
    text, data, html = printed(verdict), to_json([verdict], LAYERS), page(verdict)
    numbers = data["runs"][0]["numbers"]
    assert len(numbers) == len(verdict.comparison.values) == 29
    assert {n["stage"] for n in numbers} == {v.measure.stage for v in verdict.comparison.values}
    rows = [line for line in text.splitlines() if re.search(r"\d to [\d∞]", line)]
    by_key = {number["key"]: number for number in numbers}
    for value, row in zip(verdict.comparison.shown, rows, strict=True):
        number = by_key[value.measure.key]
        assert number["value"] == value.value and number["passed"] == value.passed, number["key"]
        shown = value.measure.text(value.value)
        assert re.match(rf"(\w+)? +{number['name']} +{re.escape(shown)} +", row), row
        assert f"{value.low:.{value.measure.digits}f} to" in row
        assert shown in html.text and number["sentence"] in html.text
    moved = {n["key"]: n for n in numbers}["pose.moved"]
    assert 1e-4 < moved["value"] < 0.1 and moved["low"] <= moved["value"] <= moved["high"]
    distances = [q["numbers"]["pose.moved"] for q in data["runs"][0]["queries"]]
    assert np.median(distances) == moved["value"]
    assert html.count("circle") > 2 * len(distances), "a dot per query in the plot"
    for said in ("All stages hold.", "int8 model cccccccc", "7.2 dB"):
        assert said in text
    for said in ("All stages hold.", "Every stage holds its tolerance", "7.2 dB", "recall within"):
        assert said in html.text


def test_the_page_says_what_was_compared_and_when(made, page):
    html = page(made.verdict(0.1, model_hash="c" * 32, map_hash="d" * 32))
    for said in (
        "model phone<1>.tflite cccccccc", "map square.hfmap dddddddd", "reference ref.bundle", "2026-03-04 05:06 UTC",
        f"hfnet-edge {version('hfnet-edge')}", "Lengths take the map's unit for the metre.",
    ):  # fmt: skip
        assert said in html.text
    assert html.text.count("Lengths take") == 1


def test_every_dot_says_which_query_it_is(made, page):
    html = page(made.verdict(0.1))
    (plot,) = re.findall(r'<svg class="plot".*?</svg>', html.source, re.DOTALL)
    dots = re.findall(r"<circle [^>]*>(<title>)?([^<]*)", plot)
    names = [q.name for q in made.bundle.recording.queries]
    assert len(dots) == 3 * len(names)  # the distance, and both numbers of inliers
    for name in names:
        assert sum(unescape(title).startswith(f"{printable(name)}: ") for _, title in dots) == 3


def test_the_first_stage_out_and_what_it_costs(made, page):
    """Keypoints 2 pixels aside: too far to be the same ones, and the costs see it."""
    verdict = made.verdict(2.0, model_hash="c" * 32)
    assert verdict.comparison.broken == "keypoints"
    text, (run,), html = printed(verdict), to_json([verdict], ())["runs"], page(verdict)
    assert run["first_out"] == "keypoints" and not run["passed"] and run["look_at"] in html.text
    assert "First stage out of tolerance: keypoints: " in " ".join(text.split())
    assert re.search(r"repeated\s+\d+\.\d %.*\bOUT\b", text)
    assert html.count("li", "first") == 1 and html.count("li") == 9 and html.count("tr", "out") >= 1
    assert "A stage is out of tolerance" in html.text
    worst = max(run["costs"], key=lambda cost: cost["moved"])
    assert run["costliest"] == worst["step"] and worst["moved"] > 1e-3
    sentence = f"Most of it comes from {worst['step']}: it moves the camera by {distance(worst['moved'])} (median)."
    assert run["cost"] == sentence and sentence in text and sentence in html.text
    first = max(run["queries"], key=lambda q: q["numbers"]["pose.moved"])
    table = text[text.index("worst queries") :].splitlines()
    assert (
        distance(first["numbers"]["pose.moved"]) in table[1] and distance(first["numbers"]["pose.moved"]) in html.text
    )
    assert len([line for line in table[1:4] if "→" in line]) == 3


def test_the_same_run_costs_nothing(made, page):
    verdict = made.verdict()
    text, html = printed(verdict, ()), page(verdict, layers=())
    assert verdict.passed and verdict.comparison.profile == "rounded"
    for said in ("No stage moves the camera", "No query's pose, inliers or status differ."):
        assert said in text and said in html.text
    assert html.count("figure") == 0 and "Noisiest layers" not in html.text and "noisiest" not in text


def test_lines_fit_and_colour_is_not_needed(made):
    for verdict in (made.verdict(3.0), made.verdict(0.1)):
        for width in (40, WIDTH, 160):  # a pipe says nothing of its width
            lines = printed(verdict, width=width).splitlines()
            assert max(map(len, lines)) <= max(width, WIDTH)
            assert not any("\x1b" in line for line in lines)


def test_what_is_thought_of_a_pose_is_shown(made, page):
    """Poses and matches of the reference, which the run believes in less; one it gives no more."""
    reference = made.bundle.recording.queries
    believed = tuple(replace(q, probability=q.probability - 0.3, wrong=0.02) for q in reference)
    run = replace(made.bundle.recording, queries=believed)
    verdict = made.judge(run)
    assert verdict.comparison.broken == "trust" and "trust: poses agree, " in printed(verdict)
    (data,), html = to_json([verdict], ())["runs"], page(verdict)
    assert html.count("li", "first") == 1 and "first out" in html.text and verdict.look_at in html.text
    for query, before in zip(data["queries"], reference, strict=True):
        assert query["run"]["probability"] == pytest.approx(query["reference"]["probability"] - 0.3)
        assert query["reference"]["position_std"] == pytest.approx(position_std(before.covariance))
        assert query["run"]["wrong"] == 0.02 and query["run"]["rotation_std"] < 1

    one = believed[2]
    refused = replace(one, status=Status.AMBIGUOUS.value, pose=None)
    verdict = made.judge(replace(run, queries=(*believed[:2], refused, *believed[3:])))
    text, html = printed(verdict), page(verdict)
    for said in ("LOCALIZED → AMBIGUOUS: 2.png", f"{one.probability + 0.3:.3f} → {one.probability:.3f}"):
        assert said in text and said in html.text
    assert "LOCALIZED →" not in printed(made.verdict(0.1))


def test_the_page_needs_nothing_else(made, page):
    html = page(made.verdict(0.1), made.verdict(3.0), pictures=2)
    assert html.count("figure") == 4 and html.count("image") == 4
    assert not re.search(r"https?:|//www|@import|url\(", html.source)
    links = [a[key] for _, a in html.tags for key in ("src", "href", "srcset", "data", "action") if key in a]
    assert len(links) == 4 and all(link.startswith("data:image/jpeg;base64,") for link in links)
    assert not {tag for tag, _ in html.tags} & {"script", "link", "iframe", "object", "embed", "img"}
    assert re.findall(r"(\w+) against the reference", html.text) == ["test", "test"]


def test_hostile_names_are_text(made, page):
    verdict = made.verdict(3.0, machine="<script>alert(2)</script>")
    html = page(verdict, pictures=6)
    assert '<img src=x onerror="alert(1)">&{{7*7}}' in html.text, "as text"
    assert "<script>alert(2)</script>" in html.text and "<b>head</b>" in html.text
    assert not {tag for tag, _ in html.tags} & {"img", "script"}
    assert not any(key.startswith("on") for _, attributes in html.tags for key in attributes)
    text = printed(verdict)
    assert "\x1b" not in text and "\ud800" not in text and "\ud800" not in html.source
    assert "<img src=x" in text, "the worst queries are named"
    assert HOSTILE in [q["name"] for q in json.loads(json.dumps(to_json([verdict], LAYERS)))["runs"][0]["queries"]]


def test_what_hloc_does_not_keep_is_not_recorded(made, page):
    """Only features and poses; the other stages are neither ok nor out."""
    queries = tuple(
        QueryRecord(q.name, q.camera, features=q.features, status=q.status, pose=q.pose)
        for q in made.bundle.recording.queries
    )
    bundle = replace(made.bundle, recording=Recording({"processor": "hloc"}, {}, queries))
    verdict = made.judge(made.run(0.1), bundle)
    assert verdict.comparison.profile == "hloc" and verdict.passed
    text, (run,), html = printed(verdict), to_json([verdict], ())["runs"], page(verdict, bundle=bundle)
    said = "All stages hold that were recorded; not: map, input, tensor, retrieval, matches, trust."
    assert said in text and said in html.text
    by_stage = {n["key"]: n for n in run["numbers"]}
    for key in ("map.references", "input.identical", "tensor.snr", "retrieval.kept", "pose.inliers"):
        assert (by_stage[key]["value"], by_stage[key]["passed"]) == (None, None)
    assert by_stage["keypoints.repeated"]["value"] is not None
    assert sum("n/a" in line for line in text.splitlines()) == 16
    assert html.text.count("not recorded") == 16 + 6
    assert run["queries"][0]["reference"]["inliers"] is None and "? → " in text
    assert "keypoints kept" in html.text, "there are no inliers to draw"


def test_a_lost_pose_is_said_and_json_stays_json(made, page):
    run = made.run(0.1)
    lost = replace(run.queries[2], status=Status.REJECTED.value, pose=None)
    verdict = made.judge(replace(run, queries=(*run.queries[:2], lost, *run.queries[3:])))
    assert math.isinf(verdict.comparison.value("pose.moved").of_queries[2])
    data = json.loads(json.dumps(to_json([verdict], LAYERS), allow_nan=False))
    query = data["runs"][0]["queries"][2]
    assert query["numbers"]["pose.moved"] is None and query["run"]["pose"] is None
    assert query["run"]["status"] == Status.REJECTED.value
    assert query["reference"]["pose"] is not None
    assert re.search(r"2\.png\s+no pose", printed(verdict))
    html = page(verdict)
    assert f"the run has no pose ({lost.status})" in html.text and "∞" in html.text


def test_pictures_count_what_became_of_the_inliers(made):
    verdict = made.verdict(0.1)
    pair = verdict.comparison.pairs[1]
    drawn = photo(made.bundle.image(pair.reference.name), pair)
    a, b = pair.reference.matched, pair.run.matched
    assert drawn.kept + drawn.lost == a.inliers.sum() > 50
    assert drawn.kept + drawn.new == b.inliers.sum()
    kept = verdict.comparison.value("matches.kept").of_queries[1]
    assert drawn.kept <= round(kept / 100 * a.inliers.sum()), "kept ones are matches of the run, and inliers there too"
    assert drawn.kept > 0.9 * a.inliers.sum() and drawn.aside < 1


def test_pictures_show_a_wrong_principal_point(made):
    """The run believes in a principal point 12 pixels to the right, so its pose sees everything to the left."""
    f, g, cx, cy = CAMERA.params
    verdict = made.verdict(camera=replace(CAMERA, params=(f, g, cx + 12, cy)))
    assert verdict.comparison.broken == "pose"
    drawn = photo(b"no image", verdict.comparison.worst[0])
    assert drawn.aside == pytest.approx(12, abs=1) and "<image" not in drawn.svg
    path = re.search(rf'<path d="([^"]+)" fill="none" stroke="{INK}"', drawn.svg)
    assert path is not None
    along = np.array(re.findall(r"l(\S+) (-?[\d.]+)", path[1]), float) / drawn.times
    assert len(along) > 50
    assert np.median(along, axis=0) == pytest.approx([-12, 0], abs=1)


@pytest.mark.parametrize(
    ("metres", "text"),
    [(0.0, "0.0 mm"), (0.00374, "3.7 mm"), (0.0099, "9.9 mm"), (0.01, "10 mm"), (0.124, "12.4 cm"), (1.204, "1.20 m"),
     (math.inf, "no pose"), (math.nan, "–")],
)  # fmt: skip
def test_distances_for_people(metres, text):
    assert distance(metres) == text


def test_costs_that_cannot_be_told():
    assert "cannot be told" in cost_sentence(())


def test_labels_of_tensors():
    assert (
        label("hfnet_1/b2.proj.bn_1/batchnorm/add_1;hfnet_1/b2.proj_1/convolution;hfnet_1/b2.proj.bn_1/x") == "b2.proj"
    )
    assert label("hfnet_1/netvlad_1/Softmax") == "netvlad"
    assert label("StatefulPartitionedCall_1:0") == "StatefulPartitionedCall_1:0"
    assert label("") == ""


@pytest.fixture(scope="module")
def networks(kit) -> tuple[Path, Path]:
    return kit.root / "float.tflite", kit.int8


def test_the_noisiest_layers_are_the_noisiest(networks):
    """Against signal-to-noise of every tensor that both networks have, computed here."""
    from ai_edge_litert.interpreter import Interpreter

    contents = [path.read_bytes() for path in networks]
    description = Model(networks[0]).description
    images = built_in_images(description.input_size)[:2]
    found = layer_noise(*contents, images)
    assert len(found) == 10 and [layer.snr_db for layer in found] == sorted(layer.snr_db for layer in found)

    expected: dict[str, list[float]] = {}
    operators: dict[str, str] = {}
    for image in images:
        tensors = []
        for content in contents:
            interpreter = Interpreter(model_content=content, experimental_preserve_all_tensors=True, num_threads=1)
            if not operators:
                names = {t["index"]: t["name"] for t in interpreter.get_tensor_details()}
                operators = {names[i]: op["op_name"] for op in interpreter._get_ops_details() for i in op["outputs"]}
            interpreter.allocate_tensors()
            interpreter.set_tensor(interpreter.get_input_details()[0]["index"], description.scale(image))
            interpreter.invoke()
            values = {}
            for t in interpreter.get_tensor_details():
                if t["name"] in operators and operators[t["name"]] not in MOVES:
                    scales, zeros = (t["quantization_parameters"][key] for key in ("scales", "zero_points"))
                    value = interpreter.get_tensor(t["index"]).astype(np.float64)
                    values[t["name"]] = (value - zeros) * scales if len(scales) else value
            tensors.append(values)
        for name in tensors[0].keys() & tensors[1].keys():
            signal, noise = tensors[0][name], tensors[1][name] - tensors[0][name]
            expected.setdefault(name, []).append(10 * np.log10((signal**2).sum() / (noise**2).sum()))
    assert len(expected) > 40
    worst = sorted(expected, key=lambda name: np.mean(expected[name]))[:10]
    assert [layer.name for layer in found] == worst
    for layer in found:
        assert layer.snr_db == pytest.approx(np.mean(expected[layer.name]), abs=1e-3)
        assert layer.operator == operators[layer.name] and 0 < len(layer.label) <= 40
    assert 0 < found[0].snr_db < 40


def of_another_size(content: bytes) -> bytes:
    """The same weights for images of half the height, as far as its tensors say; it would not run."""
    model = flatbuffer_utils.read_model_from_bytearray(bytearray(content))
    for tensor in model.subgraphs[0].tensors:
        stored = model.buffers[tensor.buffer].data
        if len(tensor.shape) == 4 and (stored is None or not len(stored)):
            tensor.shape[1] //= 2
    return embed(
        Graph.parse(bytes(flatbuffer_utils.convert_object_to_bytearray(model))), read_description(content, "the model")
    )


def test_layers_only_of_a_quantized_copy(networks):
    float_, int8 = (path.read_bytes() for path in networks)
    images = built_in_images((96, 128))[:1]
    assert layer_noise(float_, float_, images) == () == layer_noise(int8, int8, images)
    assert layer_noise(float_, int8, []) == ()
    assert layer_noise(float_, of_another_size(int8), images) == ()
