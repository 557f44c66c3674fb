"""The committed golden vectors hold for this runtime, stage by stage; and each stage's test can fail."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest

import hfnet_edge
from golden import reader, write
from golden.folder import KIND, check_folder, replace_folder
from golden.loading import INPUT_SIZE
from golden.manifest import made_with, readme, tables_sha256
from golden.network import export_network
from golden.reader import DTYPES, STAGES, Golden, network_differences, network_is_near, possible
from golden.stages import STAGES as SPECIFIED
from hfnet_edge.camera_models import PLAIN
from hfnet_edge.errors import BackendError, HFNetEdgeError, OutputError
from hfnet_edge.networks.hfnet import Model
from hfnet_edge.pose.solvers import available_solvers
from hfnet_edge.result import Status

FOLDER = Path(__file__).parents[2] / "golden"
MOST = 4_250_000  # bytes
CODECS = ("int8", "pq", "binary")


@pytest.fixture(scope="module")
def golden():
    return Golden(FOLDER)


@pytest.fixture(scope="module")
def users_conversion(quick_exports):
    """What users get, once: the network is the same at another precision."""
    from hfnet_export.tflite import convert

    with pytest.MonkeyPatch.context() as patch:
        kept = []

        def once(network):
            if not kept:
                kept.append(quick_exports(network))
            return kept[0]

        patch.setattr(convert, "to_float_tflite", once)
        yield


@pytest.fixture(scope="module")
def network(users_conversion):
    """The network as the manifest says to export it, and the SHA-256 of its file."""
    pytest.importorskip("ai_edge_quantizer")
    content = export_network()
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
    assert set(largest) == {"logits", "local", "quarter", "half", "global", "hypercolumns"}
    if sha256 == about["sha256"] and model.kernels == "XNNPACK":
        assert (
            largest["logits"]
            == largest["local"]
            == largest["quarter"]
            == largest["half"]
            == largest["hypercolumns"]
            == 0
        )
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
        return reader.raw_outputs(**outputs)


@pytest.mark.parametrize("output", ["logits", "local", "quarter", "half", "global"])
def test_a_network_beyond_its_tolerance_is_noticed(golden, output):
    steps = golden.manifest["tolerances"]["network"]["steps"]
    for off, wrong in ((0.0, 0), (steps - 0.01, 0), (steps + 0.01, 1), (np.nan, 1)):
        assert reader.check(Golden(FOLDER, {}), Network(golden, output, off)) == wrong, off


def test_a_network_of_another_precision_is_noticed(golden, users_conversion, tmp_path, capsys):
    from hfnet_export.export import export_hfnet

    path = tmp_path / "float.tflite"
    export_hfnet(output=path, quantize="none", input_size=INPUT_SIZE)
    assert reader.main(FOLDER, path) == 1
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
    assert text == readme()
    for stage in (*STAGES, "network"):
        assert f"| {stage} | `" in text
    assert set(golden.manifest["stages"]) == {*STAGES, "network"}
    assert {name: stage["tolerance"] for name, stage in golden.manifest["stages"].items()} == {
        name: stage.tolerance for name, stage in SPECIFIED.items()
    }
    for stage in SPECIFIED.values():
        assert all(function.__doc__ for function in stage.specified_by), stage.names


def test_cases_hold_what_they_promise(golden):
    ends = {case["name"]: case["expected"] for case in golden.cases("result")}

    def end_of(name):
        """By each solver where they differ."""
        return [ends[key] for key in (name, f"{name}/poselib", f"{name}/usac") if key in ends]

    for codec in CODECS:
        found = {query: end for query in ("colour", "odd", "sideways") for end in end_of(f"{query}/{codec}")}
        localized = {query for query, end in found.items() if end["status"] == "LOCALIZED"}
        assert localized and all(found[query]["inliers"] > 25 for query in localized)
        assert all(end["status"] in ("LOCALIZED", "AMBIGUOUS") for end in found.values())
        assert all(end["status"] != "LOCALIZED" for end in end_of(f"elsewhere/{codec}"))
    corners = {
        "second_place": ("LOCALIZED", 32), "tenth_image": ("LOCALIZED", 32), "twins": ("LOCALIZED", 32),
        "first_of_two": ("AMBIGUOUS", 32), "equal_places": ("AMBIGUOUS", 30), "1_keypoint": ("TOO_FEW_MATCHES", None),
        "3_matches": ("LOCALIZED", 32), "5_matches": ("TOO_FEW_MATCHES", None),
        "eleventh_image": ("LOCALIZED", 32),
    }  # fmt: skip
    for name, expected in corners.items():
        (end,) = end_of(f"corners/{name}")
        assert (end["status"], end.get("inliers")) == expected, name
    for better in ("better_first", "better_second"):
        assert [end["inliers"] for end in end_of(f"corners/{better}")] == [15]
    assert [end["status"] for end in end_of("black")] == ["NO_KEYPOINTS"]
    larger = {Status.SEARCH_LIMIT, Status.NO_CANDIDATES}  # which take larger maps than these
    every = set(Status) - larger - {Status.COARSE}  # which is a ranking's first
    assert {end["status"] for end in ends.values()} == {status.value for status in every}
    loaded = {case["name"]: golden.value(case["expected"]) for case in golden.cases("load")}
    assert loaded["black"]["pixels"].max() == 0
    assert loaded["reduced"]["valid"] == [64, 46], "46.5 is rounded to even"
    turned = {o: loaded[f"exif{o}"]["orientation"] for o in range(2, 9)}
    assert turned == {2: 1, 3: 1, 4: 1, 5: 5, 6: 6, 7: 7, 8: 8}, "a camera of the upright size describes that"
    assert loaded["exif6 upright"]["orientation"] == 1 and loaded["sideways"]["orientation"] == 6
    (ties,) = [golden.value(case["expected"]) for case in golden.cases("keypoints") if case["name"] == "ties"]
    assert (np.diff(ties["scores"]) == 0).sum() > 10
    found = {case["name"]: golden.value(case["expected"]) for case in golden.cases("blobs")}
    empty = [name for name, blobs in found.items() if not len(blobs["xy"])]
    assert empty == ["blobs/even", "blobs/small", "black"]
    assert (
        len(found["blobs/row"]["xy"]) and len(found["blobs/few"]["xy"]) == 20 and len(set(found["colour"]["scale"])) > 3
    )
    assert (np.diff(found["blobs/equals"]["response"]) == 0).sum() > 10
    filled = {case["name"]: golden.value(case["expected"])["scores"] for case in golden.cases("filled")}
    assert (filled["spots"] > 1).sum() == len(found["spots"]["xy"]) < len(filled["spots"])
    first, second, d1, d2 = next(golden.value(c["expected"])["nearest"] for c in golden.cases("nearest"))
    assert (d1 == d2).sum() > 10 and (first < second)[d1 == d2].all()


def test_refined_poses_do_not_ask_which_solver_was_first(golden):
    """But for the cases that name one: there two first poses end in two optima."""
    for case in golden.cases("pose"):
        for solver in available_solvers() if "solver" not in case["given"] else ():
            assert not golden.differences(case, {**golden.given(case), "solver": solver}), case["name"]
    pairs = {case["name"].removesuffix(f"/{case['given'].get('solver')}"): case for case in golden.cases("pose")}
    assert sum("solver" in case["given"] for case in pairs.values()) < len(pairs) / 2


def test_cases_after_the_pose_hold_what_they_promise(golden):
    refined = {case["name"]: case for case in golden.cases("refinement")}
    assert {refined[f"cameras/{model}"]["given"]["camera"].split()[0] for model in PLAIN} == set(PLAIN)
    ends = {name: golden.value(case["expected"]) for name, case in refined.items()}
    held = {name: end["covariance"] is not None for name, end in ends.items() if name.startswith("refinement/")}
    assert [name for name, holds in held.items() if not holds] == [
        "refinement/two", "refinement/none", "refinement/one_point"
    ]  # fmt: skip
    assert all(ends[f"cameras/{model}"]["inliers"].sum() >= 30 for model in PLAIN), "outliers aside"
    assert ends["refinement/behind"]["inliers"].sum() == 16 and not ends["refinement/none"]["inliers"].any()
    assert np.abs(golden.given(refined["refinement/far"])["xyz"]).min() > 9e5
    (edges,) = [golden.value(case["expected"]) for case in golden.cases("guided") if case["name"] == "edges"]
    np.testing.assert_array_equal(edges["matches"], [[0, 2, 4, 6, 9, 10], [0, 1, 4, 6, 8, 9]])
    np.testing.assert_array_equal(edges["distances"], [0, 9, 0, 0, 4, 0])
    assert len(edges["expected"]) == 8
    found = {case["name"]: case["expected"] for case in golden.cases("evidence")}
    focal = found["evidence/focal"]
    assert focal["evidence"]["focal"] > 0 and focal["evidence"]["coherence"] > 0.1
    assert 0.04 < focal["intrinsics"][0] < 0.12, "540 pixels, stated as 500; to a deviation or so"
    assert found["evidence/few"]["intrinsics"] is None
    points = [case["expected"][kind] for case in golden.cases("probability") for kind in ("right", "precise")]
    assert min(points) == -14_000 and max(points) == 14_000


def test_sessions_hold_what_they_promise(golden):
    """T: tracked, F: found, c: carried, !: contradicted or jumped, -: nothing is known."""

    def letter(frame):
        if frame["notes"]:
            return "!"
        if frame["status"] != "LOCALIZED":
            return "-"
        return "T" if frame["tracked"] else "c" if frame["way"] or frame["frame"] != "LOCALIZED" else "F"

    ends = {
        case["name"].split("/")[1]: "".join(map(letter, case["expected"]["frames"])) for case in golden.cases("session")
    }
    assert ends == {
        "carried": "FTTTTTccccccccTT", "empty": "-FccT", "moved_away": "FTT!!!T!", "disagreeing": "FTT!T!!!",
        "few_together": "-ccccT", "few_then_seen": "-cTcc", "without_odometry": "FTT-FT", "odometry_later": "FTFTTT",
        "lost": "Fc!----FT", "turned_too_far": "F!-----", "feet": "FTcccT", "jumped": "FTT!F", "jumped_feet": "FTTcc",
        "retried": "Fccccc!",
    }  # fmt: skip
    rigs = {case["name"].split("/")[1]: case["expected"]["status"] for case in golden.cases("rig")}
    localized = {name for name, status in rigs.items() if status == "LOCALIZED"}
    assert localized == {"together", "drifting", "pixels", "one_sees", "one_of_six", "one"}
    assert rigs["disagreeing"] == "AMBIGUOUS" and rigs["alone0"] == rigs["alone1"] == "TOO_FEW_MATCHES"


def test_the_manifest_names_the_tables_that_the_vectors_were_made_with(golden):
    assert (FOLDER.parent / golden.manifest["tables"]["file"]).is_file()
    assert golden.manifest["tables"]["sha256"] == tables_sha256(), "the tables were refitted: make golden"


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
            if golden.tolerance(stage) == "near" and flipped.dtype == np.float64:  # the last bit may differ
                flipped += 1e-3 * np.abs(flipped).max()
            expected = {k: v for k, v in golden.value(case["expected"]).items() if k != key}
            found = golden.differences(case, expected=expected | {key: flipped})
            assert len(found) == 1, (case["name"], key)
        break  # one case of each stage: the rest is read in the same way


@pytest.mark.parametrize("stage", [stage for stage in STAGES if stage not in ("pose", "result", "probability")])
def test_a_flipped_bit_in_an_input_is_noticed(golden, tmp_path, stage):
    """Not every number matters to each stage, so a few are tried: of arrays a high bit, of indices the lowest."""
    cases = golden.cases(stage)
    telling = {"second_look": "corners/unlike/place0", "filled": "filled/far", "decode": "spots"}
    names = (telling[stage],) if stage in telling else ("colour", "colour/int8", "ties", "trees")
    for case in [c for c in cases if c["name"] in names] or cases[:1]:
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
    if values.dtype == np.int32 or (values.dtype == np.uint8 and values.max(initial=0) == 1):
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


def test_only_golden_vectors_are_replaced(tmp_path, monkeypatch):
    files = {"manifest.json": json.dumps({"kind": KIND}).encode(), "arrays/a.bin": b"1"}
    target = tmp_path / "golden"
    check_folder(target)
    target.mkdir()
    check_folder(target)
    (target / "notes.txt").write_text("mine")
    os.mkfifo(target / "pipe")
    (target / "endless").symlink_to("/dev/zero")
    taken = (target / name for name in ("notes.txt", "pipe", "endless", "x" * 300))
    for wrong in (target, *taken, tmp_path / "nowhere" / "golden"):
        with pytest.raises(OutputError):
            write.write_golden(wrong, export=lambda: pytest.fail("the folder is checked first"))
    (target / "manifest.json").write_text('["something else"]')
    with pytest.raises(OutputError, match="something else"):
        write.write_golden(target)
    shutil.rmtree(target)
    replace_folder(target, files)
    check_folder(target)
    replace_folder(target, {**files, "arrays/b.bin": b"2"})
    assert sorted(os.listdir(target / "arrays")) == ["a.bin", "b.bin"] and os.listdir(tmp_path) == ["golden"]

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OutputError, match="No space left"):
        replace_folder(target, files)
    assert sorted(os.listdir(target / "arrays")) == ["a.bin", "b.bin"] and os.listdir(tmp_path) == ["golden"]


@pytest.mark.slow
def test_the_same_tools_write_the_same_bytes(golden, tmp_path):
    pytest.importorskip("tensorflow")
    here, there = made_with(), golden.manifest["made_with"]
    if here != there:
        differ = [key for key in there if here.get(key) != there[key]]
        pytest.skip(f"the committed vectors were made with other {', '.join(differ)}")
    write.write_golden(tmp_path / "golden")
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
    runtime = Path(hfnet_edge.__file__).parent.parent
    environment = {**os.environ, "PYTHONPATH": f"{runtime}:{root / arm64.SITE}", "OPENBLAS_NUM_THREADS": "1"}
    done = subprocess.run(
        [*command, reader.__file__, str(FOLDER)], capture_output=True, text=True, check=False, env=environment
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert all(f"{stage}: " in done.stdout for stage in STAGES)
