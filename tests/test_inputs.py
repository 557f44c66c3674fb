"""Inputs that are no files, names that no file has, and settings that never end, in every command: one line and exit
code 2, at once."""

import json
import os
import shutil
import signal
import struct
from pathlib import Path

import pytest
from typer.testing import CliRunner

from hfnet_edge.cli import app as localize_app
from hfnet_edge.errors import HFNetEdgeError, InputError
from hfnet_edge.networks.hfnet import Model
from hfnet_edge.networks.patches import PatchModel
from hfnet_edge.record import runner
from hfnet_export.cli import export_app
from hfnet_maps.build.reference import read_reference
from hfnet_maps.cli import main as map_app
from hfnet_maps.eval_cli import main as eval_main
from hfnet_maps.pack.writer import full_sections, write_map
from hfnet_parity.bench_cli import app as bench_app
from hfnet_parity.bundle import Bundle
from hfnet_parity.cli import main as parity_app
from hfnet_parity.tolerances import read_tolerances
from synthetic import place

CAMERA = "PINHOLE 64 48 60 60 32 24"
COMMANDS = {
    "localize": (localize_app, "--map {map} --model {model} --images {folder} --queries {list} -o {out}"),
    "localize one": (localize_app, "--map {map} --model {model} --image {image} --camera", CAMERA),
    "localize parallel": (
        localize_app,
        "--map {map} --model {model} --model {model} --images {folder} --queries {list} -o {out}",
    ),
    "localize names": (
        localize_app,
        "--map {map} --model {model} --images {folder} --queries {names} -o {out} --fov 60 --tolerance 1%,2 "
        "--max-wrong 0.1% --refine-focal",
    ),
    "localize report": (
        localize_app,
        "--map {map} --model {model} --images {folder} --queries {list} -o {poses} --report {out}",
    ),
    "build": (map_app, "build --images {folder} --reference {reference} --list {list} --model {model} -o {out}"),
    "pack": (map_app, "pack {map} --budget 1MB -o {out}"),
    "pack hloc": (
        map_app,
        "pack --sfm {reference} --features {file} --global-features {file} --model {model} --budget 1MB -o {out}",
    ),
    "merge": (map_app, "merge {map} {map} -o {out}"),
    "update": (map_app, "update {map} --images {folder} --list {list} --model {model} -o {out}"),
    "picture": (map_app, "inspect {map} --picture {picture}"),
    "verify": (map_app, "verify {map}"),
    "inspect": (map_app, "inspect {map}"),
    "example": (map_app, "example -o {out}"),
    "eval": (eval_main, "{file} --reference {reference} --queries {list} --json {out}"),
    "eval report": (
        eval_main,
        "{file} --reference {reference} --queries {list} --report {report} --reliability {picture}",
    ),
    "record": (parity_app, "record --model {model} --map {map} --images {folder} --queries {list} -o {out}"),
    "record hloc": (parity_app, "record --from-hloc {folder} --images {folder} --queries {list} -o {out}"),
    "parity": (parity_app, "run {file} --model {model} --map {map} --tolerances {file} --json {out}"),
    "export": (export_app, "{file} --calibration {folder} --recipe {list} -o {out}"),
    "bench": (bench_app, "--model {model} --map {map} --images {folder} --queries {list} --json {out}"),
}
NAMES = ("map", "model", "folder", "list", "reference", "file", "image", "names", "report")


@pytest.fixture(scope="module")
def here(tmp_path_factory):
    """Inputs that are right as far as they are looked at before a wrong one."""
    here = tmp_path_factory.mktemp("here")
    (here / "folder").mkdir()
    (here / "folder/a.jpg").write_bytes(b"no image")
    (here / "list").write_text(f"a.jpg {CAMERA}\n")
    (here / "reference").mkdir()
    (here / "reference/cameras.txt").write_text(f"1 {CAMERA}\n")
    (here / "reference/images.txt").write_text("1 1 0 0 0 0 0 0 1 a.jpg\n\n")
    (here / "file").write_text("a.jpg 1 0 0 0 0 0 0\n")
    (here / "names").write_text("a.jpg\n")
    line = {"query": "a.jpg", "qvec": [1, 0, 0, 0], "tvec": [0, 0, 0], "probability": 0.9, "inliers": 99}
    (here / "report").write_text(json.dumps({**line, "tolerance": [0.25, 2]}))
    write_map(full_sections(place().source()), here / "map")
    (here / "model").write_bytes(b"no model")
    (here / "image").write_bytes(b"no image")
    return here


@pytest.fixture(autouse=True)
def at_once():
    """Whatever waits for a pipe is interrupted."""
    signal.signal(signal.SIGALRM, lambda *_: pytest.fail("it waits"))
    signal.alarm(60)
    yield
    signal.alarm(0)


def slots(command):
    return [part.strip("{}") for part in COMMANDS[command][1].split() if part.startswith("{")]


@pytest.mark.parametrize(
    ("wrong", "command", "slot"),
    [
        (wrong, name, slot)
        for wrong in ("pipe", "endless", "long", "folder")
        for name in COMMANDS
        for slot in dict.fromkeys(slots(name))
        if not (wrong == "folder" and slot in ("folder", "reference"))  # which it has to be
    ],
)
def test_inputs_and_outputs_that_are_none(here, tmp_path, wrong, command, slot):
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "endless").symlink_to("/dev/zero")
    bad = tmp_path / {"pipe": "pipe", "endless": "endless", "long": "x" * 300, "folder": "."}[wrong]
    outputs = {"out": tmp_path / "out", "poses": tmp_path / "poses", "picture": tmp_path / "out.png"}
    paths = {name: here / name for name in NAMES} | outputs | {slot: bad}
    app, options, *more = COMMANDS[command]
    arguments = [option.format(**paths) for option in options.split()]
    result = CliRunner().invoke(app, [*arguments, *more])
    assert result.exit_code == 2, result.output
    (line,) = result.stderr.splitlines()
    assert line.startswith("error: ") and "; " in line
    assert {path.name for path in tmp_path.iterdir()} == {"pipe", "endless"}


INPUTS = {
    "folder": ["folder/a.jpg"],
    "reference": ["reference/images.txt", "reference/cameras.txt", "reference/points3D.bin"],
}


@pytest.mark.parametrize("how", ["itself", "link", "hard"])
@pytest.mark.parametrize(
    ("command", "target"),
    [
        (command, target)
        for command in COMMANDS
        if {"out", "picture"} & set(slots(command)) and command != "example"
        for slot in dict.fromkeys(slots(command))
        if slot not in ("out", "poses", "picture")
        for target in INPUTS.get(slot, [slot])
    ],
)
def test_no_output_is_an_input(here, tmp_path, command, target, how):
    shutil.copytree(here, tmp_path / "here")
    here = tmp_path / "here"
    (here / "reference/points3D.bin").write_bytes(b"points")
    file = out = here / target
    if how != "itself":
        out = tmp_path / "out.png"
        os.link(file, out) if how == "hard" else out.symlink_to(file)
    before = {path: path.read_bytes() for path in here.rglob("*") if path.is_file()}
    paths = {name: here / name for name in NAMES} | {"out": out, "poses": tmp_path / "poses", "picture": out}
    app, options, *more = COMMANDS[command]
    result = CliRunner().invoke(app, [*(option.format(**paths) for option in options.split()), *more])
    assert result.exit_code == 2 and "cannot write" in result.stderr, result.output
    assert {path: path.read_bytes() for path in here.rglob("*") if path.is_file()} == before
    assert how != "link" or out.is_symlink()


@pytest.mark.parametrize("part", ["cameras.txt", "images.txt", "cameras.bin", "images.bin"])
def test_models_of_pipes(tmp_path, part):
    ending = Path(part).suffix
    (tmp_path / f"cameras{ending}").write_text(f"1 {CAMERA}\n" if ending == ".txt" else struct.pack("<Q", 0).decode())
    (tmp_path / f"images{ending}").write_text("1 1 0 0 0 0 0 0 1 a.jpg\n\n")
    (tmp_path / part).unlink()
    os.mkfifo(tmp_path / part)
    with pytest.raises(InputError, match="not a plain file"):
        read_reference(tmp_path)


@pytest.mark.parametrize("reader", [Model, PatchModel, Bundle.read, lambda path: read_tolerances("packed", path)])
def test_readers_of_pipes(tmp_path, reader):
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(HFNetEdgeError, match="not a plain file"):
        reader(tmp_path / "pipe")


@pytest.mark.parametrize("text", ["a = " + "[" * 20_000, "[matching]\nratio = 1" + "0" * 400])
def test_endless_tolerances(tmp_path, text):
    (tmp_path / "t.toml").write_text(text)
    with pytest.raises(InputError, match=r"t\.toml"):
        read_tolerances("packed", tmp_path / "t.toml")


@pytest.mark.parametrize("text", ["[" * 200_000, '{"task": "record", "queries": [["a", "a", [1]]]}', "[]"])
def test_endless_jobs(tmp_path, text):
    (tmp_path / runner.JOB).write_text(text)
    with pytest.raises(HFNetEdgeError, match=r"not a (job|camera)"):
        runner.run(tmp_path)
