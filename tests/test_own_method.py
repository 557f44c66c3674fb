"""The seam: a method that somebody else wrote, in a file of their own, runs everywhere and no other file is touched."""

from __future__ import annotations

import json

import numpy as np
import pytest
from typer.testing import CliRunner

from hfnet_edge import LocalizationConfig, Localizer
from hfnet_edge.cli import app as localize_app
from hfnet_edge.errors import InputError, MismatchError
from hfnet_edge.methods.registry import METHODS
from hfnet_edge.shell.options import MethodOption
from hfnet_parity.bench_cli import app as bench_app
from hfnet_parity.cli import main as parity_app

OWN = '''
"""Everything: matches a photo's strongest keypoints with all landmarks of a place at once, without retrieval."""

import numpy as np

from hfnet_edge.correspondences import Match2D3D
from hfnet_edge.features import look
from hfnet_edge.methods.matching import match
from hfnet_edge.methods.method import Candidates, Method, Query
from hfnet_edge.result import Status


class Everything(Method):
    look_stages = ("see",)
    search_stages = ("compare",)

    def look(self, photo, clock):
        with clock("see"):
            features, outputs = look(self.networks, photo)
        return Query(features.pixel, features, outputs)

    def candidates(self, query, clock):
        if not len(query.features.keypoints):
            return Candidates(abstention=Status.NO_KEYPOINTS)
        with clock("compare"):
            found = match(query.features, self.map, np.arange(self.map.landmark_count))
        return Candidates([Match2D3D(found.xy, found.xyz)])  # points alone, as scene coordinates would give
'''
NAME = "own_method:Everything"


@pytest.fixture
def own(tmp_path, monkeypatch):
    """The method's name, importable."""
    (tmp_path / "own_method.py").write_text(OWN)
    monkeypatch.syspath_prepend(tmp_path)
    return NAME


def run(app, *arguments):
    done = CliRunner().invoke(app, [str(a) for a in arguments])
    assert done.exit_code == 0, done.output
    return done.output


def test_in_a_localizer(kit, own):
    import own_method

    queries = kit.bundle.recording.queries
    localizers = [
        Localizer(kit.map, kit.int8, config=LocalizationConfig(method)) for method in (own, own_method.Everything)
    ]
    localized = 0
    for query in queries:
        a, b = (localizer.localize(kit.root / "place/images" / query.name, query.camera) for localizer in localizers)
        assert a.status is b.status and tuple(a.milliseconds)[:3] == ("load", "see", "compare")
        if a.pose is not None:
            localized += 1
            np.testing.assert_array_equal(a.pose.translation, b.pose.translation)
            if query.pose is not None:
                assert np.linalg.norm(a.pose.center - query.pose.center) < 0.2
            assert a.matches.keypoints is None and len(a.inlier_mask) == len(a.matches)
            assert "second_look" not in a.milliseconds  # there is no landmark to look for again
    assert localized >= 3
    assert localizers[0].method.stages == ("load", "see", "compare", "pose", "second_look", "trust")


def test_in_hfnet_localize(kit, own, tmp_path):
    place = kit.root / "place"
    queries = place / "queries_with_intrinsics.txt"
    files = ("-o", tmp_path / "poses.txt", "--report", tmp_path / "r.jsonl", "--pictures", tmp_path / "drawn")
    given = ("--map", kit.map, "--model", kit.int8, "--images", place / "images", "--queries", queries)
    said = run(localize_app, "--method", own, *given, *files)
    assert "compare" in said and "retrieve" not in said
    lines = [json.loads(line) for line in (tmp_path / "r.jsonl").read_text().splitlines()]
    assert sum(line["status"] == "LOCALIZED" for line in lines) >= 3
    assert len(list((tmp_path / "drawn").rglob("*.jpg"))) == len(lines)


def test_in_hfnet_parity_and_hfnet_bench(kit, own, tmp_path):
    """Which run it in a process of its own, as on a device: the method's file travels with the job."""
    place = kit.root / "place"
    queries = tmp_path / "two.txt"
    queries.write_text("\n".join((place / "queries_with_intrinsics.txt").read_text().splitlines()[:2]) + "\n")
    asked = ("--method", own, "--map", kit.map, "--images", place / "images", "--queries", queries)
    run(parity_app, "record", "--model", kit.root / "float.tflite", *asked, "-o", tmp_path / "own.bundle")
    ran = CliRunner().invoke(
        parity_app,
        [
            *("run", str(tmp_path / "own.bundle"), "--model", str(kit.int8), "--map", str(kit.map)),
            *("--json", str(tmp_path / "p.json"), "--html", str(tmp_path / "p.html")),
        ],
    )
    assert ran.exit_code in (0, 1), ran.output
    (verdict,) = json.loads((tmp_path / "p.json").read_text())["runs"]
    (repeated,) = (v["value"] for v in verdict["numbers"] if v["key"] == "keypoints.repeated")
    assert repeated > 50 and NAME in (tmp_path / "p.html").read_text()
    run(bench_app, "--model", kit.int8, *asked, "--rounds", 1, "--json", tmp_path / "b.json")
    found = json.loads((tmp_path / "b.json").read_text())
    stages = ["load", "see", "compare", "pose", "second_look", "trust"]
    assert found["method"] == own and list(found["measured"][0]["stages"])[:-1] == stages


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("quick", "does not exist"),
        ("own_method:Nothing", "cannot be imported"),
        ("nowhere:Method", "cannot be imported"),
        ("json:JSONDecoder", "is not a"),
    ],
)
def test_a_method_that_is_not_there(kit, own, name, said):
    with pytest.raises(InputError, match=said) as e:
        Localizer(kit.map, kit.int8, config=LocalizationConfig(name))
    assert "hierarchical, retrieval" in e.value.remedy


def test_networks_are_found_by_role(kit, patch_kit):
    """In any order; and what is missing, twice there or not asked for is said."""
    parallel = LocalizationConfig("parallel")
    a = Localizer(patch_kit.map, kit.int8, patch_kit.patches, config=parallel)
    b = Localizer(patch_kit.map, patch_kit.patches, kit.int8, config=parallel)
    query = patch_kit.bundle.recording.queries[1]
    found = [x.localize(kit.root / "place/images" / query.name, query.camera) for x in (a, b)]
    np.testing.assert_array_equal(found[0].matches.landmarks, found[1].matches.landmarks)
    for networks, map_, said in (
        ((), kit.map, "no network does not give"),
        ((kit.int8, kit.root / "float.tflite"), kit.map, "both give"),
        ((patch_kit.patches,), patch_kit.map, "does not give global_descriptor"),
        ((kit.int8,), patch_kit.map, "described by the patch network"),
        ((kit.int8, patch_kit.patches), kit.map, "patch_descriptors, which is not asked for"),
    ):
        with pytest.raises(MismatchError, match=said):
            Localizer(map_, *networks)


def test_the_help_names_every_method():
    (help_,) = (option.help for option in MethodOption.__metadata__)
    assert all(name in help_ for name in METHODS)
