"""What goes wrong on devices, done on purpose: each is caught, and the right stage is named."""

from __future__ import annotations

import re
from dataclasses import replace

import cv2
import numpy as np
import pytest
from ai_edge_litert.tools import flatbuffer_utils
from PIL import Image

from hfnet_edge.geometry import Camera
from hfnet_edge.image.photo import Photo
from hfnet_edge.map.codecs import CodecName
from hfnet_edge.networks.hfnet import Model
from hfnet_edge.record.runner import IMAGES
from hfnet_edge.record.runner import record as run_record
from hfnet_edge.shell.lists import read_names
from hfnet_export.tflite.embed import embed
from hfnet_export.tflite.graph import Graph
from hfnet_maps.build.builder import build_map
from hfnet_maps.content import MapContent, read_content
from hfnet_maps.pack.budget import choose
from hfnet_maps.pack.writer import full_sections, write_map


@pytest.fixture(scope="module")
def source(kit) -> MapContent:
    """What the kit's map was made of."""
    return read_content(kit.map)


def test_the_honest_run_holds_at_every_stage(kit):
    """Without this the others would prove nothing."""
    verdict = kit.judge(kit.honest)
    assert verdict.passed, [
        (v.measure.key, v.value, v.low, v.limit) for v in verdict.comparison.values if v.passed is False
    ]
    assert verdict.look_at == "" and verdict.comparison.profile == "quantized"
    assert verdict.comparison.value("input.identical").value == 100
    assert 10 < verdict.comparison.value("tensor.snr").value < 60, "int8 is not float"
    assert {v.measure.stage for v in verdict.comparison.values if v.passed} == {
        "map", "input", "tensor", "keypoints", "descriptors", "retrieval", "matches", "pose", "trust",
    }  # fmt: skip


@pytest.mark.slow
def test_a_broken_scale(kit, tmp_path):
    """One layer's weights lose their scale, as after a bad conversion; its description still says the same weights."""
    description = Model(kit.int8).description
    model = flatbuffer_utils.read_model_from_bytearray(bytearray(kit.int8.read_bytes()))
    (graph,) = model.subgraphs
    op = next(
        op
        for op in graph.operators
        if flatbuffer_utils.opcode_to_name(model, op.opcodeIndex) == "CONV_2D"
        and graph.tensors[op.inputs[1]].quantization.scale is not None
    )
    weights = graph.tensors[op.inputs[1]].quantization
    weights.scale = (np.asarray(weights.scale) * 4).tolist()
    broken = tmp_path / "broken.tflite"
    broken.write_bytes(embed(Graph.parse(bytes(flatbuffer_utils.convert_object_to_bytearray(model))), description))
    verdict = kit.judge(kit.run(tmp_path / "job", broken))
    assert verdict.comparison.broken == "tensor"
    assert "scale" in verdict.look_at


def test_swapped_colours(kit, tmp_path):
    folder, job = kit.job(tmp_path / "job")
    for file in (folder / IMAGES).iterdir():
        rgb = np.asarray(Image.open(file).convert("RGB"))
        with file.open("wb") as out:
            Image.fromarray(np.ascontiguousarray(rgb[..., ::-1])).save(out, "PNG")  # whatever its name says
    verdict = kit.judge(run_record(folder, job))
    assert verdict.comparison.broken == "input"
    assert "red and blue are swapped" in verdict.look_at


def test_an_image_aside_by_half_a_pixel(kit, tmp_path):
    folder, job = kit.job(tmp_path / "job")
    for file in (folder / IMAGES).iterdir():
        grey = np.asarray(Image.open(file).convert("L"))
        half = np.array([[1, 0, 0.5], [0, 1, 0.5]])
        moved = cv2.warpAffine(grey, half, grey.shape[::-1], borderMode=cv2.BORDER_REPLICATE)
        with file.open("wb") as out:
            Image.fromarray(moved).save(out, "PNG")
    verdict = kit.judge(run_record(folder, job))
    assert verdict.comparison.broken == "input"
    assert "shifted by half a pixel" in verdict.look_at


def test_keypoints_aside_by_half_a_pixel(kit, tmp_path, monkeypatch):
    """A device that takes the centre of the first pixel for (0, 0)."""
    honest = Photo.to_camera
    monkeypatch.setattr(Photo, "to_camera", lambda self, xy: honest(self, xy - np.float32(0.5)))
    verdict = kit.judge(kit.run(tmp_path / "job"))
    assert verdict.comparison.broken == "keypoints"
    assert verdict.comparison.value("keypoints.shift").value == pytest.approx(0.5 * np.sqrt(2), abs=0.05)
    dx, dy = (float(v) for v in re.search(r"\(([-+.\d]+), ([-+.\d]+)\)", verdict.look_at).groups())
    assert (dx, dy) == pytest.approx((-0.5, -0.5), abs=0.05)


@pytest.mark.parametrize("x", [25, pytest.param(-12, marks=pytest.mark.slow)])
def test_a_wrong_principal_point(kit, tmp_path, x):
    """A device that localizes with the intrinsics of another camera."""
    folder, job = kit.job(tmp_path / "job")

    def wrong(c: Camera) -> Camera:
        fx, fy, cx, cy = c.params
        return replace(c, params=(fx, fy, cx + x, cy))

    run = run_record(folder, replace(job, queries=tuple((n, f, wrong(c)) for n, f, c in job.queries)))
    verdict = kit.judge(run)
    assert verdict.comparison.broken == "pose"
    named = re.search(r"principal point were off by \(([-+.\d]+), ([-+.\d]+)\)", verdict.look_at)
    assert [float(v) for v in named.groups()] == pytest.approx([x, 0], abs=1)


@pytest.mark.slow
def test_a_stale_map(kit, tmp_path):
    """The map of an earlier reconstruction of the place: other images, in another frame."""
    place = kit.root / "place"
    names = read_names(place / "map.txt")
    source, _ = build_map(place / "images", place / "reference", names[2:], Model(kit.root / "float.tflite"))
    stale = tmp_path / "stale.hfmap"
    write_map(full_sections(source), stale)
    verdict = kit.judge(kit.run(tmp_path / "job", map_=stale), stale)
    assert verdict.comparison.broken == "map"
    assert verdict.comparison.value("map.references").value == pytest.approx(100 * (1 - 2 / len(names)))


def test_a_map_of_the_same_images_with_other_landmarks(kit, source, tmp_path):
    """All landmarks are 0.3 m aside: the reference images agree, so matches are to blame."""
    moved = replace(source, positions=source.positions + np.array([0.3, 0.0, 0.0]))
    stale = tmp_path / "moved.hfmap"
    write_map(full_sections(moved), stale)
    verdict = kit.judge(kit.run(tmp_path / "job", map_=stale), stale)
    assert verdict.comparison.broken == "matches"


@pytest.mark.parametrize("codec", ["int8", *(pytest.param(name, marks=pytest.mark.slow) for name in ("pq", "binary"))])
def test_a_packed_map_holds_under_every_codec(kit, source, tmp_path, codec):
    """Against the reference in the uncompacted map: landmarks are fewer, and nothing else."""
    packed = tmp_path / "packed.hfmap"
    write_map(choose(replace(source, hypercolumns=None), 120_000, CodecName(codec))[0], packed)
    verdict = kit.judge(kit.run(tmp_path / "job", map_=packed), packed)
    assert verdict.comparison.profile == "packed"
    value = verdict.comparison.value
    assert verdict.comparison.broken in (None, "pose") and value("pose.lost").value < 17, "one weak query at most"
    assert value("matches.agree").value > 95 and value("matches.kept").value < 99, "it lacks landmarks"
    (of_map,) = [cost for cost in verdict.costs if cost.step == "map"]
    assert abs(of_map.inliers) > 5, "landmarks that are gone are no inliers; coarse descriptors let others in"
