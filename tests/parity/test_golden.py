"""The committed golden vectors hold for this runtime, stage by stage; and each stage's test can fail."""

from __future__ import annotations

import hashlib
import inspect
import json
import os
import pkgutil
import shutil
import subprocess
from pathlib import Path

import cv2
import golden_reader
import numpy as np
import pytest
from golden_reader import DTYPES, STAGES, Golden, network_differences, network_is_near, possible
from PIL import Image

from hfnet_edge import features, localizer, pose
from hfnet_edge.errors import BackendError, HFNetEdgeError, ModelError, OutputError
from hfnet_edge.image import image_file, keypoints, patches
from hfnet_edge.image import photo as image
from hfnet_edge.map import codecs, map_file, random_trees
from hfnet_edge.methods import covisibility, matching, parallel_search, retrieval
from hfnet_edge.networks import patch_model
from hfnet_edge.networks.description import Description
from hfnet_edge.networks.model import Model
from hfnet_parity import golden as writer

FOLDER = Path(__file__).parents[2] / "golden"
MOST = 2_000_000  # bytes
CODECS = ("int8", "pq", "binary")


@pytest.fixture(scope="module")
def golden():
    return Golden(FOLDER)


@pytest.fixture(scope="module")
def network(tmp_path_factory):
    """The network as the manifest says to export it, and the SHA-256 of its file."""
    pytest.importorskip("tensorflow")
    pytest.importorskip("ai_edge_quantizer")
    content = writer.export_network()
    return Model("the network", content=content), hashlib.sha256(content).hexdigest()


@pytest.mark.parametrize("stage", STAGES)
def test_stage(golden, stage):
    cases = [case for case in golden.cases(stage) if possible(case)]
    assert cases
    wrong = {case["name"]: found for case in cases if (found := golden.differences(case))}
    assert not wrong


def test_network(golden, network):
    model, sha256 = network
    about = golden.manifest["network"]
    assert model.description.weights_hash == about["weights_hash"]
    assert list(model.description.input_size) == about["input_size"]
    largest = network_differences(golden, model)
    assert set(largest) == {"logits", "local", "global"}
    if sha256 == about["sha256"] and model.kernels == "XNNPACK":
        assert largest["logits"] == largest["local"] == 0
    assert network_is_near(golden, largest)
    cases = golden.cases("network")
    shown = golden.given(cases[0])["pixels"]
    assert not np.array_equal(model(shown ^ 16).keypoint_logits, golden.value(cases[0]["expected"]["logits"]))


class Network:
    """Returns what the golden vectors say, ``steps`` of int8 off in one number of one output."""

    def __init__(self, golden, output="logits", steps=0.0):
        self.answers = {golden.given(c)["pixels"].tobytes(): c["expected"] for c in golden.cases("network")}
        self.golden, self.output, self.steps = golden, output, steps

    def __call__(self, pixels):
        names = self.answers[pixels.tobytes()]
        outputs = {key: self.golden.value(name) for key, name in names.items()}
        step = self.golden.manifest["arrays"][names[self.output]].get("scale", 1 / 127)
        outputs[self.output].flat[7] += self.steps * step
        return golden_reader.raw_outputs(outputs["logits"], outputs["local"], outputs["global"])


@pytest.mark.parametrize("output", ["logits", "local", "global"])
def test_a_network_beyond_its_tolerance_is_noticed(golden, monkeypatch, output):
    steps = golden.manifest["tolerances"]["network"]["steps"]
    for off, code in ((0.0, 0), (steps - 0.01, 0), (steps + 0.01, 1), (np.nan, 1)):
        monkeypatch.setattr(golden_reader.model, "Model", lambda _, off=off: Network(golden, output, off))
        monkeypatch.setattr(golden_reader, "STAGES", {})
        assert golden_reader.main(FOLDER, "a network") == code, off


def test_a_network_of_another_precision_is_noticed(golden, tmp_path, capsys):
    pytest.importorskip("tensorflow")
    from hfnet_export.export import export_hfnet

    path = tmp_path / "float.tflite"
    export_hfnet(output=path, quantize="none", input_size=writer.INPUT_SIZE)
    assert golden_reader.main(FOLDER, path) == 1
    assert " as they should be {" not in capsys.readouterr().out, "the other stages do not ask the network"


def test_manifest_lists_every_file(golden):
    there = sorted(p.relative_to(FOLDER).as_posix() for p in FOLDER.rglob("*") if p.is_file())
    manifest = golden.manifest
    assert there == manifest["files"]
    assert sum((FOLDER / name).stat().st_size for name in there) < MOST
    assert {name for name in there if name.endswith(".bin")} == set(manifest["arrays"])
    text = json.dumps(manifest["cases"])
    for name in set(there) - {"manifest.json", "README.md"}:
        assert f'"{name}"' in text, "a file that no case uses"
    for name, entry in manifest["arrays"].items():
        size = int(np.prod(entry["shape"])) * np.dtype(DTYPES[entry["dtype"]]).itemsize
        assert (FOLDER / name).stat().st_size == size, name
        assert entry["stage"] in manifest["stages"] and entry["what"]
    assert {stage["tolerance"] for stage in manifest["stages"].values()} == set(manifest["tolerances"])


def test_readme_says_how_to_read_it(golden):
    text = (FOLDER / "README.md").read_text(encoding="utf-8")
    assert text == writer.readme()
    for stage in (*STAGES, "network"):
        assert f"| {stage} | `" in text
    assert set(golden.manifest["stages"]) == {*STAGES, "network"}
    for stage in golden.manifest["stages"].values():
        for name in stage["pins"]:
            assert pkgutil.resolve_name(name).__doc__, name


def test_cases_hold_what_they_promise(golden):
    ends = {case["name"]: case["expected"] for case in golden.cases("result")}
    for codec in CODECS:
        for solver in ("poselib", "usac"):
            found = [ends[f"{query}/{codec}/{solver}"] for query in ("colour", "odd", "sideways")]
            assert all(end["status"] == "LOCALIZED" and end["inliers"] > 25 for end in found)
            assert ends[f"elsewhere/{codec}/{solver}"]["status"] in ("REJECTED", "TOO_FEW_MATCHES", "NO_CANDIDATES")
    assert [end["status"] for name, end in ends.items() if name.startswith("black")] == ["NO_KEYPOINTS"]
    corners = {
        "second_place": ("LOCALIZED", 26), "first_of_two": ("LOCALIZED", 25), "tenth_image": ("LOCALIZED", 32),
        "24_inliers": ("REJECTED", 24), "25_inliers": ("LOCALIZED", 25),
        "better_first": ("REJECTED", 15), "better_second": ("REJECTED", 15),
        "1_keypoint": ("TOO_FEW_MATCHES", None), "3_matches": ("TOO_FEW_MATCHES", None),
        "4_matches": ("REJECTED", 4), "eleventh_image": ("NO_CANDIDATES", None),
    }  # fmt: skip
    for name, (status, inliers) in corners.items():
        for solver in ("poselib", "usac"):
            end = ends[f"corners/{name}/{solver}"]
            assert (end["status"], end.get("inliers")) == (status, inliers), name
    every = set(localizer.Status) - {localizer.Status.SEARCH_LIMIT}  # which takes a larger map than these
    assert {end["status"] for end in ends.values()} == {status.value for status in every}
    loaded = {case["name"]: golden.value(case["expected"]) for case in golden.cases("load")}
    assert loaded["black"]["pixels"].max() == 0
    assert loaded["reduced"]["valid"] == [64, 46], "46.5 is rounded to even"
    turned = {o: loaded[f"exif{o}"]["orientation"] for o in range(2, 9)}
    assert turned == {2: 1, 3: 1, 4: 1, 5: 5, 6: 6, 7: 7, 8: 8}, "a camera of the upright size describes that"
    assert loaded["exif6 upright"]["orientation"] == 1 and loaded["sideways"]["orientation"] == 6
    (ties,) = [golden.value(case["expected"]) for case in golden.cases("keypoints") if case["name"] == "ties"]
    assert (np.diff(ties["scores"]) == 0).sum() > 10
    first, second, d1, d2 = next(golden.value(c["expected"])["nearest"] for c in golden.cases("nearest"))
    assert (d1 == d2).sum() > 10 and (first < second)[d1 == d2].all()


def reverse_ties(monkeypatch):
    """The nearest of equals is the last."""
    right = matching.nearest_two

    def wrong(queries, references):
        first, second, d1, d2 = right(queries, references[::-1])
        return len(references) - 1 - first, len(references) - 1 - second, d1, d2

    monkeypatch.setattr(matching, "nearest_two", wrong)


def last_image_of_equals(monkeypatch):
    right = retrieval.retrieve
    monkeypatch.setattr(
        retrieval,
        "retrieve",
        lambda query, references, count: len(references) - 1 - right(query, references[::-1], count),
    )


def half_a_pixel(monkeypatch):
    """Pixel centres at whole numbers."""
    right = keypoints.detect

    def wrong(*args, **kwargs):
        xy, best = right(*args, **kwargs)
        return xy - np.float32(0.5), best

    monkeypatch.setattr(keypoints, "detect", wrong)
    monkeypatch.setattr(features, "detect", wrong)


def truncating(monkeypatch):
    def wrong(vectors):
        norm = np.linalg.norm(vectors.astype(np.float64), axis=-1, keepdims=True)
        return (vectors * 127 / np.maximum(norm, 1e-12)).astype(np.int8)

    monkeypatch.setattr(keypoints, "quantize", wrong)


def rounding_down(monkeypatch):
    for module in (codecs, map_file):
        monkeypatch.setattr(module, "rounded", lambda products: np.clip(products // 127, -127, 127).astype(np.int8))


def mean_of_colours(self, mode):
    return Image.fromarray(np.asarray(self).reshape(*self.size[::-1], -1).mean(axis=-1).astype(np.uint8))


def high_bits_first(monkeypatch):
    right = np.unpackbits
    monkeypatch.setattr(np, "unpackbits", lambda rows, axis, count, bitorder: right(rows, axis, count))


def small_places_first(monkeypatch):
    def wrong(places, key):
        return sorted(places, key=lambda place: -key(place))

    monkeypatch.setattr(covisibility, "sorted", wrong, raising=False)


def a_millimetre_off(monkeypatch):
    right = localizer.estimate_pose

    def wrong(matches, *rest):
        found = right(matches, *rest)
        shifted = pose.Pose(found.pose.quaternion, found.pose.translation + 0.001)
        return pose.PoseEstimate(shifted, found.inliers)

    monkeypatch.setattr(localizer, "estimate_pose", wrong)


def rewritten(module, name, right, wrong):
    """A sabotage: a function with other source."""

    def sabotage(monkeypatch):
        source = inspect.getsource(getattr(module, name))
        assert source.count(right) == 1, f"{name} no longer says {right!r}"
        scope = dict(vars(module))
        exec(compile(source.replace(right, wrong), f"<{name}>", "exec"), scope)
        monkeypatch.setattr(module, name, scope[name])

    return sabotage


def default(config, name, value):
    """A sabotage: another default of a configuration."""

    def sabotage(monkeypatch):
        right = inspect.signature(config).parameters
        assert right[name].default != value
        defaults = tuple(value if p.name == name else p.default for p in right.values())
        assert len(defaults) == len(config.__init__.__defaults__)
        monkeypatch.setattr(config.__init__, "__defaults__", defaults)

    return sabotage


def every_leaf(wrong):
    """A sabotage of `RandomTrees.prior_leaves`: what ``wrong`` makes of the right one."""
    right = random_trees.RandomTrees.prior_leaves

    def sabotage(monkeypatch):
        monkeypatch.setattr(
            random_trees.RandomTrees,
            "prior_leaves",
            lambda trees, d, count, order: wrong(right, trees, d, count, order),
        )

    return sabotage


def one_landmark_less(monkeypatch):
    right = random_trees.RandomTrees.landmarks
    monkeypatch.setattr(random_trees.RandomTrees, "landmarks", lambda *a: tuple(v[:-1] for v in right(*a)))


SABOTAGES = {
    "mirrored with the edge twice": ("load", lambda m: m.setattr(cv2, "BORDER_REFLECT_101", cv2.BORDER_REFLECT)),
    "enlarged by another rule": ("load", lambda m: m.setattr(cv2, "INTER_LINEAR_EXACT", cv2.INTER_CUBIC)),
    "reduced by OpenCV": (
        "load", lambda m: m.setattr(image, "shrink", lambda g, size: cv2.resize(g, size[::-1], interpolation=3))
    ),
    "mean of the colours": ("load", lambda m: m.setattr(Image.Image, "convert", mean_of_colours)),
    "turned the other way": (
        "load", lambda m: m.setattr(
            image_file, "_turned", lambda p, o, right=image_file._turned: right(p, image_file.BACK.get(o, o))
        )
    ),
    "EXIF not turned back": (
        "load", lambda m: m.setattr(image.Photo, "to_camera", lambda self, xy: xy.astype(np.float64) * self.scale)
    ),
    "scaled by 256": (
        "scale", lambda m: m.setattr(
            Description, "scale", lambda self, p: (p.astype(np.float32) * np.float32(2 / 256) - 1)[None, :, :, None]
        ),
    ),
    "coarser exponentials": ("scores", lambda m: m.setattr(keypoints, "LOGIT_STEPS", 128)),
    "above the threshold": ("keypoints", rewritten(keypoints, "detect", "scores >= threshold", "scores > threshold")),
    "the threshold in double": (
        "keypoints", rewritten(keypoints, "detect", "scores >= threshold", "scores >= np.float64(threshold)")
    ),
    "a wider border": ("keypoints", rewritten(keypoints, "detect", "max(border, REFINE)", "border + 1")),
    "soft-argmax off by half a pixel": ("keypoints", half_a_pixel),
    "soft-argmax of 3x3": ("keypoints", lambda m: m.setattr(keypoints, "REFINE", 1)),
    "all of equal neighbours": ("keypoints", lambda m: m.setattr(keypoints, "_first_of_equals", lambda *a: a[:2])),
    "cells sampled at their corners": ("descriptors", lambda m: m.setattr(keypoints, "CELL", 8.25)),
    "descriptors truncated": ("descriptors", truncating),
    "descriptors without a direction": (
        "descriptors", rewritten(keypoints, "quantize", ", where=norm > 1e-12", "")
    ),
    "descriptors that keep what is a number": (
        "descriptors", rewritten(keypoints, "quantize", "np.square(wide)", "np.square(np.nan_to_num(wide))")
    ),
    "global descriptor truncated": ("global", truncating),
    "a direction for every vector": ("global", rewritten(keypoints, "quantize", ", where=norm > 1e-12", "")),
    "halves rounded up": ("global", rewritten(keypoints, "quantize", "np.rint(", "np.floor(0.5 + ")),
    "decode off by half a pixel": ("decode", half_a_pixel),
    "the last image of equals": ("retrieval", last_image_of_equals),
    "global projection rounded down": ("retrieval", rounding_down),
    "small places first": ("places", small_places_first),
    "all landmarks in each place": (
        "places", rewritten(
            covisibility, "cluster", "np.unique(landmarks[label[frames] == first])", "np.arange(m.landmark_count)"
        ),
    ),
    "projection rounded down": ("compared", rounding_down),
    "bits in the other order": ("nearest", high_bits_first),
    "the last of equals": ("nearest", reverse_ties),
    "no two of the same landmark": ("matches", rewritten(matching, "distinct_matches", "(first == second) | ", "")),
    "a ratio that is reached": ("matches", rewritten(matching, "distinct_matches", "100**2 < ", "100**2 <= ")),
    "the first of a landmark's keypoints": ("matches", rewritten(matching, "distinct_matches", "d1[keypoints], ", "")),
    "the last of a landmark's keypoints": ("matches", rewritten(matching, "distinct_matches", "sort((", "sort((-")),
    "another ratio": ("matches", lambda m: m.setattr(matching, "RATIO_PERCENT", 94)),
    "the pyramid rounded down": ("patches", rewritten(patches, "_halved", "+ 2) >> 2", "+ 1) >> 2")),
    "patches off by half a pixel": ("patches", rewritten(patches, "cut", "- 0.5 + origin", "+ origin")),
    "patches turned the other way": ("patches", rewritten(patches, "cut", "np.sin(keypoints", "-np.sin(keypoints")),
    "coarser weights": ("patches", lambda m: m.setattr(patches, "_STEP", 4)),
    "the sharper level": ("patches", rewritten(patches, "_atlas", "- 0.5), 0", "- 1.5), 0")),
    "light left in": ("patches", lambda m: m.setattr(patches, "DEVIATION", 43)),
    "noise of flat patches": ("patches", rewritten(patches, "_without_light", "(deviation, 1 <<", "(deviation, 0 <<")),
    "signs that rounding loses": (
        "signs", lambda m: m.setattr(patch_model.PatchModel, "__call__", lambda net, p: keypoints.quantize(net.raw(p)))
    ),
    "leaves by probability alone": ("leaves", every_leaf(lambda right, t, d, n, order: right(t, d, n))),
    "the first leaf for the last": (
        "leaves", every_leaf(lambda right, t, d, n, order: right(t, d, n, order)[:, [*range(n - 1), 0]])
    ),
    "zero is a negative": (
        "leaves", every_leaf(lambda right, t, d, n, order: right(t, d - (d == 0).astype(np.int8), n, order))
    ),
    "a landmark of a leaf too few": ("leaf_landmarks", one_landmark_less),
    "candidates of frames alone": (
        "search", rewritten(parallel_search, "search", "np.sort(np.stack(pairs, axis=1), axis=1)", "np.stack(pairs, 1)")
    ),
    "another ratio in the search": ("search", lambda m: m.setattr(matching, "RATIO_PERCENT", 80)),
    "another threshold": ("pose", lambda m: m.setattr(pose, "PRECISE", 1 / 4)),
    "not refined": ("pose", lambda m: m.setattr(cv2, "solvePnPRefineLM", lambda *a: a[-2:])),
    "inliers at the threshold": ("inliers", rewritten(pose, "estimate_pose", ") < max_error", ") <= max_error")),
    "inliers behind the camera": ("inliers", rewritten(pose, "estimate_pose", "nan=np.inf", "nan=0")),
    "one place": ("result", rewritten(localizer, "_places", "in places:", "in places[:1]:")),
    "the last place": ("result", rewritten(localizer, "localize_features", "result.inliers > best.inliers", "True")),
    "the first place": ("result", rewritten(localizer, "localize_features", "result.inliers > best.inliers", "False")),
    "the best place": ("result", rewritten(localizer, "localize_features", "            break", "            pass")),
    "all that the map has": (
        "result", rewritten(localizer, "_places", "m, place.landmarks)", "m, np.arange(m.landmark_count))")
    ),
    **{
        f"{n} inliers": ("result", default(pose.PoseConfig, "min_inliers", n)) for n in (13, 24, 26)
    },
    **{
        f"{n} images": ("result", default(localizer.LocalizationConfig, "prior_frame_count", n)) for n in (9, 11)
    },
    **{
        f"{n} matches are enough": ("result", lambda m, n=n: m.setattr(pose, "MIN_SAMPLE", n)) for n in (3, 5)
    },
    "a millimetre off": ("result", a_millimetre_off),
    "fewer images": ("result", lambda m: m.setattr(localizer, "retrieve", lambda q, r, n: retrieval.retrieve(q, r, 1))),
}  # fmt: skip


@pytest.mark.parametrize("name", SABOTAGES)
def test_sabotage_is_noticed(golden, monkeypatch, name):
    stage, sabotage = SABOTAGES[name]
    cases = [case for case in golden.cases(stage) if possible(case)]
    sabotage(monkeypatch)
    assert any(golden.differences(case) for case in cases)


@pytest.mark.parametrize("stage", STAGES)
def test_a_flipped_bit_in_an_expectation_is_noticed(golden, stage):
    for case in golden.cases(stage):
        if not possible(case):
            continue
        for key, name in case["expected"].items():
            if not str(name).endswith(".bin") or not golden.array(name).size:
                continue
            flipped = golden.array(name).copy()
            flipped.reshape(-1).view(np.uint8)[flipped.nbytes // 2] ^= 1
            if golden.tolerance(stage) == "pose":  # one inlier may differ
                flipped[:2] ^= 1
            expected = {k: v for k, v in golden.value(case["expected"]).items() if k != key}
            found = golden.differences(case, expected=expected | {key: flipped})
            assert len(found) == 1, (case["name"], key)
        break  # one case of each stage: the rest is read in the same way


@pytest.mark.parametrize("stage", [stage for stage in STAGES if stage not in ("pose", "result")])
def test_a_flipped_bit_in_an_input_is_noticed(golden, tmp_path, stage):
    """Not every number matters to each stage, so a few are tried: of arrays a high bit, of indices the lowest."""
    cases = golden.cases(stage)
    for case in [c for c in cases if c["name"] in ("colour", "colour/int8", "ties", "trees")] or cases[:1]:
        given = golden.given(case)
        tried = 0
        for key, value in given.items():
            if isinstance(value, Path):
                variants = damaged(value, tmp_path)
            elif isinstance(value, np.ndarray) and key != "keypoints":  # matches only hands these on
                places = np.linspace(0, value.size - 1, 256).astype(int)
                variants = (with_flipped_bit(value, place) for place in places)
            else:
                continue
            tried += 1
            assert any(noticed(golden, case, {**given, key: variant}) for variant in variants), (case["name"], key)
        assert tried


def damaged(file, folder):
    """The file with a flipped bit in one block after another."""
    content = file.read_bytes()
    for at in range(min(5000, len(content) // 2), len(content), 16_000):
        path = folder / file.name
        path.write_bytes(content[:at] + bytes([content[at] ^ 1]) + content[at + 1 :])
        yield path


def with_flipped_bit(values, place):
    flipped = values.copy()
    number = flipped.reshape(-1)[place : place + 1].view(np.uint8)
    if values.dtype == np.int32:
        number[0] ^= 1
    else:
        number[-1] ^= 0x40
    return flipped


def noticed(golden, case, given):
    try:
        with np.errstate(all="ignore"):
            return golden.differences(case, given)
    except HFNetEdgeError:  # a checksum
        return True


def test_steps_are_what_the_network_returned():
    q = np.arange(-128, 128).astype(np.int8)
    scale, zero_point = float(np.float32(0.0684066)), 8
    values = (q.astype(np.float32) - np.float32(zero_point)) * np.float32(scale)
    np.testing.assert_array_equal(writer.to_steps(values, scale, zero_point), q)
    with pytest.raises(ModelError, match="not steps of int8"):
        writer.to_steps(np.nextafter(values, np.float32(9)), scale, zero_point)
    with pytest.raises(ModelError):
        writer.to_steps(values * 2, scale, zero_point)


def test_only_golden_vectors_are_replaced(tmp_path, monkeypatch):
    files = {"manifest.json": json.dumps({"kind": writer.KIND}).encode(), "arrays/a.bin": b"1"}
    monkeypatch.setattr(writer, "export_network", lambda: pytest.fail("the folder is checked first"))
    target = tmp_path / "golden"
    writer.check_folder(target)
    target.mkdir()
    writer.check_folder(target)
    (target / "notes.txt").write_text("mine")
    for wrong in (target, target / "notes.txt", tmp_path / "nowhere" / "golden"):
        with pytest.raises(OutputError):
            writer.write_golden(wrong)
    (target / "manifest.json").write_text('["something else"]')
    with pytest.raises(OutputError, match="something else"):
        writer.write_golden(target)
    shutil.rmtree(target)
    writer.replace_folder(target, files)
    writer.check_folder(target)
    writer.replace_folder(target, {**files, "arrays/b.bin": b"2"})
    assert sorted(os.listdir(target / "arrays")) == ["a.bin", "b.bin"] and os.listdir(tmp_path) == ["golden"]

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OutputError, match="No space left"):
        writer.replace_folder(target, files)
    assert sorted(os.listdir(target / "arrays")) == ["a.bin", "b.bin"] and os.listdir(tmp_path) == ["golden"]


@pytest.mark.slow
def test_the_same_tools_write_the_same_bytes(golden, tmp_path):
    pytest.importorskip("tensorflow")
    here, there = writer.made_with(), golden.manifest["made_with"]
    if here != there:
        differ = [key for key in there if here.get(key) != there[key]]
        pytest.skip(f"the committed vectors were made with other {', '.join(differ)}")
    writer.write_golden(tmp_path / "golden")
    again = Golden(tmp_path / "golden")
    assert again.manifest["files"] == golden.manifest["files"]
    for name in golden.manifest["files"]:
        assert (again.folder / name).read_bytes() == (FOLDER / name).read_bytes(), name


@pytest.mark.slow
@pytest.mark.parametrize("cpu", ["cortex-a53", "max"])
def test_the_stages_on_an_arm_processor(cpu):
    arm64 = pytest.importorskip("hfnet_device.arm64")
    try:
        root = arm64.prepared()
        command = arm64.emulated(arm64.qemu(), root, cpu)
    except BackendError as e:
        pytest.skip(str(e))
    runtime = Path(keypoints.__file__).parents[1]
    environment = {**os.environ, "PYTHONPATH": f"{runtime}:{root / arm64.SITE}", "OPENBLAS_NUM_THREADS": "1"}
    done = subprocess.run(
        [*command, golden_reader.__file__, str(FOLDER)], capture_output=True, text=True, check=False, env=environment
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert all(f"{stage}: " in done.stdout for stage in STAGES)
