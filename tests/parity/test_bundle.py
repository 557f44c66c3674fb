"""Bundles: what goes in comes out, and damage is an error that names the file."""

from __future__ import annotations

import json
import shutil
import zipfile
from dataclasses import replace

import h5py
import numpy as np
import pytest

from hfnet_edge.errors import ImageError, InputError, MismatchError, ModelError, OutputError, RecordingError
from hfnet_edge.record import recording_file
from hfnet_edge.record.runner import MAP, MODEL
from hfnet_edge.shell.lists import read_queries
from hfnet_maps.build.reference import read_reference
from hfnet_parity.bundle import Bundle, write_bundle
from hfnet_parity.gate import Gate, parse_max_loss
from hfnet_parity.record import load_network, record, record_hloc


def test_a_bundle_holds_all_that_a_run_needs(kit, tmp_path):
    bundle = Bundle.read(kit.root / "ref.bundle")
    assert bundle.member(MAP) == kit.map.read_bytes()
    assert bundle.member(MODEL) == (kit.root / "float.tflite").read_bytes()
    names = [name for name, _ in read_queries(kit.root / "place/queries_with_intrinsics.txt")]
    assert [q.name for q in bundle.recording.queries] == names
    for name in names:
        assert bundle.image(name) == (kit.root / "place/images" / name).read_bytes()
    assert set(bundle.truth) == set(names)
    assert sum(q.pose is not None for q in bundle.recording.queries) >= 4


def test_a_truncated_bundle_is_an_error_at_every_length(kit, tmp_path):
    content = (kit.root / "ref.bundle").read_bytes()
    for length in [0, 1, 100, *np.linspace(1000, len(content) - 1, 12).astype(int)]:
        path = tmp_path / "cut.bundle"
        path.write_bytes(content[:length])
        with pytest.raises(RecordingError, match=r"cut\.bundle"):
            Bundle.read(path)


def test_flipped_bytes_are_an_error_or_change_nothing(kit, tmp_path):
    """zip has a checksum for each member."""
    content = (kit.root / "ref.bundle").read_bytes()
    honest = Bundle.read(kit.root / "ref.bundle")
    rng = np.random.default_rng(0)
    caught = 0
    for _ in range(40):
        damaged = bytearray(content)
        damaged[int(rng.integers(len(content)))] ^= 1 << int(rng.integers(8))
        path = tmp_path / "damaged.bundle"
        path.write_bytes(damaged)
        try:
            bundle = Bundle.read(path)
            for name in bundle.members:
                assert bundle.member(name) == honest.member(name)
        except RecordingError:
            caught += 1
    assert caught >= 30


def with_manifest(source, target, change):
    """A copy of a bundle with another reference.json."""
    with zipfile.ZipFile(source) as old, zipfile.ZipFile(target, "w") as new:
        for name in old.namelist():
            content = old.read(name)
            if name == "reference.json":
                about = json.loads(content)
                change(about)
                content = json.dumps(about).encode()
            new.writestr(name, content)


@pytest.mark.parametrize(
    "change",
    [
        lambda about: about.update(format=2),
        lambda about: about.pop("images"),
        lambda about: about["images"].popitem(),
        lambda about: about["images"].update({next(iter(about["images"])): "../../etc/passwd"}),
        lambda about: about.update(truth={"a": [1, 2]}),
        lambda about: about.update(thresholds=[["x", 1]]),
    ],
)
def test_hostile_manifests(kit, tmp_path, change):
    path = tmp_path / "hostile.bundle"
    with_manifest(kit.root / "ref.bundle", path, change)
    with pytest.raises(RecordingError, match=r"hostile\.bundle"):
        Bundle.read(path)


def test_a_full_disk_or_a_missing_image_leaves_the_old_bundle(kit, tmp_path):
    path = tmp_path / "old.bundle"
    shutil.copy(kit.root / "ref.bundle", path)
    before = path.read_bytes()
    images = {q.name: tmp_path / "gone.jpg" for q in kit.bundle.recording.queries}
    with pytest.raises((RecordingError, OutputError)):
        write_bundle(path, kit.bundle.recording, images, {}, b"", {})
    assert path.read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ["old.bundle"]


def write_results(folder, bundle, drop=()):
    """What hloc would have left of the bundle's recording."""
    folder.mkdir(exist_ok=True)
    with (
        h5py.File(folder / "feats-superpoint-n4096-r1024.h5", "w") as features,
        h5py.File(folder / "global-feats-netvlad.h5", "w") as globals_,
    ):
        for q in bundle.recording.queries:
            if q.name not in drop:
                group = features.create_group(q.name)
                group["keypoints"] = (q.features.keypoints - 0.5).astype(np.float32)
                group["descriptors"] = q.features.descriptors.T.astype(np.float32) / 127
                group["scores"] = q.features.scores
                globals_.create_group(q.name)["global_descriptor"] = q.features.global_descriptor.astype(np.float32)
    lines = [
        f"{q.name} {' '.join(map(repr, map(float, (*q.pose.quaternion, *q.pose.translation))))}\n"
        for q in bundle.recording.queries
        if q.pose is not None
    ]
    (folder / "poses.txt").write_text("".join(lines))
    (folder / "pairs.txt").write_text("a.jpg b.jpg\n")


def test_hloc_results_become_a_reference(kit, tmp_path):
    """Features and poses that hloc would have written of the very same recording: what is kept is equal."""
    write_results(tmp_path / "hloc", kit.bundle)
    place = kit.root / "place"
    queries = read_queries(place / "queries_with_intrinsics.txt")
    truth = read_reference(place / "reference").poses
    recording = record_hloc(tmp_path / "hloc", place / "images", queries, tmp_path / "hloc.bundle", truth)
    assert recording.about["processor"] == "hloc"
    bundle = Bundle.read(tmp_path / "hloc.bundle")
    verdict = replace(kit, bundle=bundle).judge(kit.honest)
    assert verdict.comparison.profile == "hloc" and verdict.passed
    value = verdict.comparison.value
    assert value("keypoints.shift").value < 0.05 and value("pose.moved").value < 0.05
    assert np.isnan(value("matches.kept").value) and np.isnan(value("tensor.snr").value)
    assert value("pose.recall").value <= 1
    assert verdict.costs, "features are there, so costs are"


def test_what_is_wrong_with_hloc_results_is_said(kit, tmp_path):
    place, folder = kit.root / "place", tmp_path / "hloc"
    queries = read_queries(place / "queries_with_intrinsics.txt")

    def attempt(match):
        with pytest.raises((InputError, ImageError), match=match):
            record_hloc(folder, place / "images", queries, tmp_path / "x.bundle")
        assert not (tmp_path / "x.bundle").exists()

    attempt("no folder")
    folder.mkdir()
    attempt(r"features\.h5")
    write_results(folder, kit.bundle, drop=queries[1][0])
    attempt(queries[1][0])
    write_results(folder, kit.bundle)
    shutil.copy(folder / "poses.txt", folder / "poses2.txt")
    attempt("one .txt with poses")
    (folder / "poses2.txt").unlink()
    shutil.copy(folder / "global-feats-netvlad.h5", folder / "global-feats-other.h5")
    attempt("2 files")


def test_the_gate_passes_what_loses_nothing_and_stops_what_does(kit, tmp_path):
    gate = Gate(kit.root / "ref.bundle", "1pt, 1.1x")
    itself = gate((kit.root / "float.tflite").read_bytes())
    assert itself.passed and itself.lost == 0 and itself.ratio == pytest.approx(1)
    assert itself.recalls == itself.reference_recalls and itself.median == pytest.approx(itself.reference_median)
    blind = replace(kit.bundle.recording, queries=tuple(replace(q, pose=None) for q in kit.bundle.recording.queries))
    lost = gate.judge(blind)
    assert not lost.passed and lost.lost > 50 and "failed" in str(lost)
    assert json.loads(json.dumps(lost.as_dict()))["ratio"] is None, "no infinity in JSON"


def test_a_gate_needs_truth_and_a_map(kit, tmp_path):
    files = {q.name: kit.root / "place/images" / q.name for q in kit.bundle.recording.queries}
    for map_, truth, word in ((None, kit.bundle.truth, "map"), (kit.map.read_bytes(), {}, "true poses")):
        write_bundle(tmp_path / "x.bundle", kit.bundle.recording, files, {}, map_, truth)
        with pytest.raises(RecordingError, match=word):
            Gate(tmp_path / "x.bundle")


@pytest.mark.parametrize("text", ["", "1pt", "1.1x", "1 point, 2x", "1pt, 0.9x", "-1pt, 1.1x", "1pt 1.1x"])
def test_a_wrong_loss_is_refused(text):
    with pytest.raises(InputError, match="--max-loss"):
        parse_max_loss(text)


def test_a_right_loss():
    assert parse_max_loss("1pt, 1.1x") == (1.0, 1.1) and parse_max_loss(" 0.5 pt,1x") == (0.5, 1.0)


def test_mismatched_inputs_are_found_before_anything_runs(kit, tmp_path):
    from hfnet_parity.run import run_on

    class Never:
        name = "never"

        def run(self, *_):
            raise AssertionError("it was sent")

    (tmp_path / "cut.tflite").write_bytes(kit.int8.read_bytes()[:5000])
    with pytest.raises(ModelError):
        run_on(Never(), kit.bundle, [tmp_path / "cut.tflite"], kit.map)
    from hfnet_maps.pack.writer import lay_out, write_map
    from synthetic import place

    write_map(lay_out(place().source()), tmp_path / "other.hfmap")
    with pytest.raises(MismatchError, match=r"other\.hfmap"):
        run_on(Never(), kit.bundle, [kit.int8], tmp_path / "other.hfmap")


def test_a_bundle_destroys_no_input(kit, tmp_path):
    place = kit.root / "place"
    shutil.copytree(place / "images", tmp_path / "images")
    queries = read_queries(place / "queries_with_intrinsics.txt")
    write_results(tmp_path / "hloc", kit.bundle)
    network = load_network(str(kit.root / "float.tflite"))
    before = {p: p.read_bytes() for p in tmp_path.rglob("*") if p.is_file()}
    with pytest.raises(OutputError, match="names the same file"):
        record([network], kit.map, tmp_path / "images", queries, tmp_path / "images" / queries[0][0])
    for name in ("poses.txt", "feats-superpoint-n4096-r1024.h5"):
        with pytest.raises(OutputError, match="names the same file"):
            record_hloc(tmp_path / "hloc", tmp_path / "images", queries, tmp_path / "hloc" / name)
    assert {p: p.read_bytes() for p in tmp_path.rglob("*") if p.is_file()} == before


def test_last_parts_of_names_that_two_queries_share_are_refused(kit, tmp_path):
    """hloc writes only them; a pose must not go to the wrong query."""
    localized = [q for q in kit.bundle.recording.queries if q.pose is not None]
    queries = [(f"{light}/0.jpg", camera) for light in ("day", "night") for camera in [localized[0].camera]]
    recording = replace(
        kit.bundle.recording,
        queries=tuple(replace(q, name=name) for q, (name, _) in zip(localized[:2], queries, strict=True)),
    )
    write_results(tmp_path / "hloc", replace(kit.bundle, recording=recording))
    for name, _ in queries:
        (tmp_path / name).parent.mkdir()
        shutil.copy(kit.root / "place/images" / kit.bundle.recording.queries[0].name, tmp_path / name)
    first = (tmp_path / "hloc/poses.txt").read_text().splitlines()[0]
    (tmp_path / "hloc/poses.txt").write_text(first.replace("day/0.jpg", "0.jpg") + "\n")
    with pytest.raises(InputError, match=r"0\.jpg, the last part of 2 queries"):
        record_hloc(tmp_path / "hloc", tmp_path, queries, tmp_path / "x.bundle")
    (tmp_path / "hloc/poses.txt").write_text(first + "\n")
    found = record_hloc(tmp_path / "hloc", tmp_path, queries, tmp_path / "x.bundle")
    assert [q.pose is not None for q in found.queries] == [True, False]


def test_a_bundle_of_many_queries_can_be_read_again(kit, tmp_path):
    """Its recording is larger than any array of a recording may be."""
    source = kit.bundle.recording
    names = [f"{i:03d}.jpg" for i in range(12)]
    queries = tuple(replace(source.queries[i % 6], name=name) for i, name in enumerate(names))
    images = {name: kit.root / "place/images" / source.queries[0].name for name in names}
    write_bundle(tmp_path / "many.bundle", replace(source, queries=queries), images, {}, None, {})
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(recording_file, "MAX_ARRAY", 1 << 20)
        assert len(Bundle.read(tmp_path / "many.bundle").recording.queries) == 12
    assert (tmp_path / "many.bundle").stat().st_size > 1 << 21
