"""`hfnet-parity` as a user and a CI run it: exit codes, files, one line for what is wrong."""

from __future__ import annotations

import json
import subprocess
import sys
from functools import partial
from pathlib import Path

import pytest

from commands import called
from hfnet_parity.bundle import Bundle
from hfnet_parity.cli import parity_main

BIN = Path(sys.executable).parent
parity = partial(called, parity_main, "hfnet-parity")


@pytest.fixture
def inputs(kit) -> tuple:
    return ("--model", kit.int8, "--map", kit.map)


def test_the_program_itself(kit, inputs, tmp_path):
    """It says what it says in this process, without the settings of a shell."""
    asked = ["run", kit.root / "ref.bundle", *inputs, "--backend", "adb"]
    done = subprocess.run(
        [BIN / "hfnet-parity", *asked], capture_output=True, text=True, env={"PATH": str(tmp_path)}, check=False
    )
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == parity(*asked, code=2, PATH=str(tmp_path)).stderr


def test_record_then_run(kit, inputs, tmp_path):
    place = kit.root / "place"
    said = parity(
        "record", "--model", kit.root / "float.tflite", "--map", kit.map, "--images", place / "images",
        "--queries", place / "queries_with_intrinsics.txt", "--reference", place / "reference",
        "--thresholds", "0.1,1 0.5,5", "-o", tmp_path / "ref.bundle",
    ).stdout  # fmt: skip
    assert "of 6 queries localized on CPU, LiteRT" in said and "hfnet-parity run" in said
    assert [str(t) for t in Bundle.read(tmp_path / "ref.bundle").thresholds] == ["0.1 units, 1°", "0.5 units, 5°"]
    done = parity("run", tmp_path / "ref.bundle", *inputs, "--html", tmp_path / "r.html", "--json", tmp_path / "r.json")
    assert "All stages hold." in done.stdout and "noisiest layers" in done.stdout
    report = json.loads((tmp_path / "r.json").read_text())
    assert report["passed"] and report["runs"][0]["first_out"] is None and len(report["layers"]) == 10
    assert "<svg" in (tmp_path / "r.html").read_text() and "data:image/" in (tmp_path / "r.html").read_text()


def test_a_stage_out_of_tolerance_is_exit_code_1(kit, inputs, tmp_path):
    """The report is written all the same: it is what one wants to read then."""
    (tmp_path / "strict.toml").write_text("[quantized.keypoints]\nrepeated = 99.9\n")
    bundle = kit.root / "ref.bundle"
    done = parity(
        "run", bundle, *inputs, "--tolerances", tmp_path / "strict.toml", "--json", tmp_path / "r.json", code=1
    )
    assert "First stage out of tolerance: keypoints" in done.stdout
    assert json.loads((tmp_path / "r.json").read_text())["runs"][0]["first_out"] == "keypoints"


def test_poses_alone_make_a_reference(kit, tmp_path):
    """--reference takes a list of poses too; without it there is no recall."""
    place = kit.root / "place"
    common = ("record", "--model", kit.int8, "--map", kit.map, "--images", place / "images",
              "--queries", place / "queries_with_intrinsics.txt", "-o", tmp_path / "x.bundle")  # fmt: skip
    said = parity(*common).stdout
    assert "no recall" in said and "int8, not in float" in said
    lines = [f"{n} {' '.join(map(str, (*p.quaternion, *p.translation)))}\n" for n, p in kit.bundle.truth.items()]
    (tmp_path / "poses.txt").write_text("".join(lines))
    assert "no recall" not in parity(*common, "--reference", tmp_path / "poses.txt").stdout
    assert len(Bundle.read(tmp_path / "x.bundle").truth) == 6


def test_what_is_wrong_is_one_line(kit, inputs, tmp_path):
    bundle, place = kit.root / "ref.bundle", kit.root / "place"
    cut, toml = tmp_path / "cut.bundle", tmp_path / "t.toml"
    cut.write_bytes(bundle.read_bytes()[:5000])
    toml.write_text("[pose]\nmooved = 1\n")
    record = ("record", "--images", place / "images", "--queries", place / "queries_with_intrinsics.txt")
    for arguments, word in [
        (("run", tmp_path / "none.bundle", *inputs), "none.bundle"),
        (("run", cut, *inputs), "cut.bundle"),
        (("run", bundle, "--model", kit.map, "--map", kit.map), "place.hfmap is not a TFLite"),
        (("run", bundle, "--model", kit.int8, "--map", kit.int8), "int8.tflite is not an hfnet-edge map"),
        (("run", bundle, *inputs, "--tolerances", toml), "mooved"),
        (("run", bundle, *inputs, "--device", "X"), "--backend adb"),
        (("run", bundle, *inputs, "--html", bundle), "names the same file"),
        (("run", bundle, *inputs, "--html", tmp_path / "o", "--json", tmp_path / "o"), "names the same file"),
        ((*record, "-o", tmp_path / "o"), "--from-hloc"),
        ((*record, "--model", kit.int8, "-o", tmp_path / "o"), "--from-hloc"),
        ((*record, "--model", kit.int8, "--map", kit.map, "--input-size", "9x9", "-o", tmp_path / "o"), "--input-size"),
        ((*record, "--from-hloc", tmp_path, "--input-range", "0,1", "-o", tmp_path / "o"), "--input-range"),
        ((*record, "--from-hloc", tmp_path / "no", "-o", tmp_path / "o"), "no folder"),
    ]:
        assert word in parity(*arguments, code=2).stderr, word
    assert not (tmp_path / "o").exists()


def test_a_backend_that_is_not_there_says_what_to_install(kit, inputs, tmp_path):
    bundle = kit.root / "ref.bundle"
    nowhere = {"PATH": str(tmp_path), "XDG_CACHE_HOME": str(tmp_path)}
    assert "apt-get install" in parity("run", bundle, *inputs, "--backend", "adb", code=2, **nowhere).stderr
    said = parity("run", bundle, *inputs, "--backend", "arm64", code=2, **nowhere).stderr
    assert "apt-get install" in said or "prepare-arm64" in said
