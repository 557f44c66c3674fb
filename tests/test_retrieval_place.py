"""A place whose images DenserNet retrieves, from the export to a parity run; the kit's pictures and HF-Net."""

from __future__ import annotations

import json

import numpy as np
import pytest
from typer.testing import CliRunner

from hfnet_device.backends import Host
from hfnet_edge import Localizer
from hfnet_edge.cli import app as localize_app
from hfnet_edge.errors import MismatchError
from hfnet_edge.networks.by_role import Networks
from hfnet_edge.result import Status
from hfnet_edge.shell.lists import read_names, read_queries
from hfnet_export.export import export_densernet
from hfnet_maps.build.builder import build_map
from hfnet_maps.build.reference import read_reference
from hfnet_maps.cli import main as map_app
from hfnet_maps.evaluation.errors import pose_error
from hfnet_maps.pack.writer import full_sections, write_map
from hfnet_parity.bundle import Bundle
from hfnet_parity.record import load_network, record
from hfnet_parity.run import judge, run_on

SIZE = (192, 256)


@pytest.fixture(scope="module")
def here(kit, tmp_path_factory):
    """A folder with densernet_float.tflite, densernet_int8.tflite, place.hfmap and ref.bundle."""
    root, place = tmp_path_factory.mktemp("retrieval"), kit.root / "place"
    for name, precision in (("float", "none"), ("int8", "int8")):
        export_densernet(output=root / f"densernet_{name}.tflite", quantize=precision, input_size=SIZE, global_dim=64)
    networks = Networks(kit.root / "float.tflite", root / "densernet_float.tflite")
    source, _ = build_map(place / "images", place / "reference", read_names(place / "map.txt"), networks)
    write_map(full_sections(source), root / "place.hfmap")
    record(
        [load_network(str(f)) for f in (kit.root / "float.tflite", root / "densernet_float.tflite")],
        root / "place.hfmap",
        place / "images",
        read_queries(place / "queries_with_intrinsics.txt"),
        root / "ref.bundle",
        dict(read_reference(place / "reference").poses),
    )
    return root


def test_queries_are_found_and_the_order_of_networks_does_not_matter(kit, here):
    place, files = kit.root / "place", (kit.int8, here / "densernet_int8.tflite")
    a, b = Localizer(here / "place.hfmap", *files), Localizer(here / "place.hfmap", *files[::-1])
    truth = read_reference(place / "reference").poses
    found = 0
    for name, camera in read_queries(place / "queries_with_intrinsics.txt"):
        r = a.localize(place / "images" / name, camera)
        found += r.pose is not None and pose_error(r.pose, truth[name])[0] < 0.05
        last = r
    s = b.localize(place / "images" / name, camera)
    assert s.status is last.status and s.prior_frames.tolist() == last.prior_frames.tolist()
    assert found == 6 and a.map.description.extractorGlobalDim == 64
    with pytest.raises(MismatchError, match="retrieved by a network of their own"):
        Localizer(here / "place.hfmap", kit.int8)
    with pytest.raises(MismatchError, match="was built with weights"):
        Localizer(kit.map, *files)


def test_int8_holds_against_float(kit, here):
    bundle = Bundle.read(here / "ref.bundle")
    assert bundle.recording.about["retrieval_precision"] == "none" and "retrieval.tflite" in bundle.members
    networks = [kit.int8, here / "densernet_int8.tflite"]
    run = run_on(Host(), bundle, networks, here / "place.hfmap")
    assert run.about["retrieval_precision"] == "int8"
    verdict = judge(bundle, run, here / "place.hfmap", "test")
    assert verdict.passed, verdict.look_at
    with pytest.raises(MismatchError):
        run_on(Host(), kit.bundle, networks, here / "place.hfmap")


def test_a_coarse_answer_is_written_to_the_report_alone(kit, here, tmp_path):
    place = kit.root / "place"
    arguments = ["--map", here / "place.hfmap", "--model", kit.int8, "--model", here / "densernet_int8.tflite"]
    arguments += ["--images", place / "images", "--queries", place / "queries_with_intrinsics.txt"]
    arguments += ["--method", "retrieval-pose", "-o", tmp_path / "poses.txt", "--report", tmp_path / "r.jsonl"]
    done = CliRunner().invoke(localize_app, [str(a) for a in arguments])
    assert done.exit_code == 0, done.output
    assert "0 of 6 queries localized" in done.output and "6 without a pose: COARSE" in done.output
    assert (tmp_path / "poses.txt").read_text() == ""
    lines = [json.loads(line) for line in (tmp_path / "r.jsonl").read_text().splitlines()]
    reference = read_reference(place / "reference").poses
    for line in lines:
        assert line["status"] == Status.COARSE.value and line["qvec"] is None
        first = reference[line["retrieved"][0]]
        np.testing.assert_allclose(line["coarse"]["tvec"], first.translation)


def test_inspect_names_both(here):
    done = CliRunner().invoke(map_app, ["inspect", str(here / "place.hfmap")])
    assert done.exit_code == 0 and "global descriptors: of the weights" in done.output
    assert "--model M.tflite --model G.tflite" in " ".join(done.output.split())
