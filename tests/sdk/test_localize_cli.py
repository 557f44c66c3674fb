"""`hfnet-localize` around the pipeline: what is written when, and what is never written over. What a query comes to is
said by its name; the pipeline itself is in tests/test_end_to_end.py."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
from typer.testing import CliRunner

from hfnet_edge import cli
from hfnet_edge.errors import ImageError, ModelError
from hfnet_edge.geometry import Pose
from hfnet_edge.image.photo import load_photo
from hfnet_edge.result import LocalizationResult, Status
from hfnet_edge.shell import console
from hfnet_edge.shell.lists import read_poses

CAMERA = "PINHOLE 64 48 60 60 32 24"
POSE = Pose(np.array([1.0, 0, 0, 0]), np.array([1.0, 2, 3]))


class Localizer:
    """In place of the real one."""

    def __init__(self, *_, **__):
        self.map = SimpleNamespace(image_names=("ref.jpg",), origin=np.zeros(3))

    def localize(self, image, camera):
        name = Path(image).stem
        if name.startswith("slow"):
            time.sleep(1)
        if name.startswith("runtime"):
            raise RuntimeError("tensor 7 was not allocated")
        if name.startswith("memory"):
            raise MemoryError
        if name.startswith("model"):
            raise ModelError("the network cannot be run", "export it again")
        if name.startswith("opencv"):
            cv2.resize(np.zeros((0, 0), np.uint8), (1, 1))
        if name.startswith("stop"):
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(5)
        load_photo(image, (480, 640), camera)
        pose = None if name.startswith("nothing") else POSE
        status = Status.REJECTED if pose is None else Status.LOCALIZED
        return LocalizationResult(status, pose, 30, 0.5, np.zeros(1, np.int64), milliseconds={"load": 1.0})


@pytest.fixture
def here(tmp_path, monkeypatch):
    """A folder with photos/."""
    fakes(monkeypatch.setattr)
    (tmp_path / "photos").mkdir()
    return tmp_path


def fakes(setattr):
    setattr(cli, "Localizer", Localizer)
    setattr(cli, "open_network", lambda *_: None)


def main():
    """The command with the fakes, in a process of its own."""
    fakes(setattr)
    cli.localize_main()


def arguments(here, *names, more=()):
    """The options for queries of these names, which are made."""
    for i, name in enumerate(names):
        photo = here / "photos" / name
        photo.parent.mkdir(exist_ok=True, parents=True)
        if not photo.exists():
            picture = np.full((48, 64, 3), i, np.uint8)
            photo.write_bytes(b"\xff\xd8nothing" if "damaged" in name else cv2.imencode(".png", picture)[1].tobytes())
    (here / "q.txt").write_text("".join(f"{name} {CAMERA}\n" for name in names))
    for name in ("m.hfmap", "m.tflite"):
        (here / name).write_text(name)
    return ["--map", here / "m.hfmap", "--model", here / "m.tflite", "--images", here / "photos",
            "--queries", here / "q.txt", "-o", here / "poses.txt", "--report", here / "r.jsonl", *more]  # fmt: skip


def run(here, *names, more=()):
    return CliRunner().invoke(cli.app, [str(a) for a in arguments(here, *names, more=more)])


def started(here, *names, more=()):
    code = "import signal, sys; signal.signal(signal.SIGINT, signal.default_int_handler); "  # also behind a shell's &
    code += f"sys.path[:0] = {sys.path!r}; import test_localize_cli as t; t.main()"
    command = [sys.executable, "-c", code, *map(str, arguments(here, *names, more=more))]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def report(here):
    return [json.loads(line) for line in (here / "r.jsonl").read_text().splitlines()]


# --- nothing is lost


def test_one_querys_failure_is_one_querys(here):
    names = ["a.png", "runtime.png", "memory.png", "opencv.png", "model.png", "damaged.png", "nothing.png", "b.png"]
    result = run(here, *names)
    assert result.exit_code == 2 and "5 of 8 queries were left out: RuntimeError: tensor 7" in result.stderr
    assert list(read_poses(here / "poses.txt")) == ["a.png", "b.png"]
    assert "2 of 8 queries localized, 1 could not be read, 4 failed" in result.stdout
    lines = report(here)
    assert [line["query"] for line in lines] == names
    assert [line["status"] for line in lines] == [
        "LOCALIZED", "FAILED", "FAILED", "FAILED", "FAILED", "UNREADABLE", "REJECTED", "LOCALIZED"
    ]  # fmt: skip
    assert "tensor 7" in lines[1]["error"] and "network cannot be run" in lines[4]["error"]
    assert "damaged.png does not decode" in lines[5]["error"] and " at 0x" not in lines[5]["error"]
    assert set(lines[5]) == {*lines[0], "error"}, "as the others'"
    assert sorted(p.name for p in here.iterdir() if "part" in p.name or "tmp" in p.name) == []


def test_a_picture_that_cannot_be_drawn_loses_no_pose(here, monkeypatch):
    (here / "drawn").mkdir()
    (here / "drawn/b.png").mkdir()  # in the way
    result = run(here, "a.png", "b.png", "c.png", more=("--pictures", here / "drawn"))
    assert result.exit_code == 2 and "1 of 3 pictures were not drawn" in result.stderr
    assert len(read_poses(here / "poses.txt")) == len(report(here)) == 3
    assert (here / "drawn/a.png").is_file() and (here / "drawn/c.png").is_file()


def test_an_interruption_keeps_what_was_done(here):
    (here / "poses.txt").write_text("old 1 0 0 0 0 0 0\n")
    process = started(here, "a.png", "damaged.png", "b.png", "stop.png", "c.png")
    out, err = process.communicate(timeout=60)
    assert process.returncode == 130, err
    assert "2 of 5 queries localized, 1 could not be read, stopped after 3" in out
    assert "stopped after 3" in err and "Traceback" not in err
    assert list(read_poses(here / "poses.txt")) == ["a.png", "b.png"]
    assert [line["query"] for line in report(here)] == ["a.png", "damaged.png", "b.png"]
    assert not list(here.glob("*.part"))


def test_a_kill_leaves_what_was_done_and_the_old_result(here):
    (here / "poses.txt").write_text("old 1 0 0 0 0 0 0\n")
    process = started(here, "a.png", "b.png", *(f"slow{i}.png" for i in range(30)))
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        part = here / "r.jsonl.part"
        if part.exists() and part.read_text().count("\n") >= 2:
            break
        time.sleep(0.05)
    process.kill()
    process.communicate()
    assert list(read_poses(here / "poses.txt")) == ["old"]
    assert list(read_poses(here / "poses.txt.part"))[:2] == ["a.png", "b.png"]
    result = run(here, "a.png")
    assert result.exit_code == 0 and list(read_poses(here / "poses.txt")) == ["a.png"]
    assert not list(here.glob("*.part"))
    assert "POSES.txt.part" in CliRunner().invoke(cli.app, ["--help"], env={"COLUMNS": "200"}).stdout


def test_a_run_without_an_answer_leaves_the_old_poses_and_says_why(here):
    (here / "poses.txt").write_text("old 1 0 0 0 0 0 0\n")
    result = run(here, "damaged1.png", "damaged2.png")
    assert result.exit_code == 2 and "2 of 2 queries were left out" in result.stderr
    assert [line["status"] for line in report(here)] == ["UNREADABLE"] * 2
    assert list(read_poses(here / "poses.txt")) == ["old"]
    assert run(here, "nothing.png").exit_code == 0  # an answer, and no old pose is taken for one
    assert (here / "poses.txt").read_text() == ""


# --- nothing is written over


def photos(here):
    return {path: path.read_bytes() for path in (here / "photos").rglob("*") if path.is_file()}


def test_pictures_stay_in_their_folder_whatever_a_list_says(here):
    outside = here / "outside.png"
    outside.write_bytes(cv2.imencode(".png", np.zeros((48, 64, 3), np.uint8))[1].tobytes())
    (here / "photos").mkdir(exist_ok=True)
    names = ["a.png", "../photos/a.png", str(here / "photos/a.png"), "../outside.png", "b.tif", "sub/a.png"]
    arguments(here, *names)  # makes them
    before = {**photos(here), outside: outside.read_bytes()}
    (here / "drawn").mkdir()
    result = run(here, *names, more=("--pictures", here / "drawn"))
    assert result.exit_code == 0, result.stderr
    assert {path: path.read_bytes() for path in before} == before
    drawn = [path for path in (here / "drawn").rglob("*") if path.is_file()]
    assert len(drawn) == len(names) and (here / "drawn/a.png") in drawn and (here / "drawn/sub/a.png") in drawn
    made = {"photos", "drawn", "q.txt", "m.hfmap", "m.tflite", "poses.txt", "r.jsonl", "outside.png"}
    assert {path.name for path in here.iterdir()} == made


@pytest.mark.parametrize("how", ["folder", "inside", "subfolder", "file", "hard"])
def test_pictures_never_are_photos_through_links_either(here, how):
    arguments(here, "a.png", "sub/a.png")
    before = photos(here)
    if how == "folder":
        (here / "drawn").symlink_to("photos")
    elif how == "inside":
        (here / "photos/sub").joinpath("x").mkdir()
        (here / "drawn").symlink_to("photos/sub")  # where a.png is sub/a.png
    else:
        (here / "drawn").mkdir()
    if how == "subfolder":
        (here / "drawn/sub").symlink_to("../photos/sub")
    if how == "file":
        (here / "drawn/a.png").symlink_to("../photos/a.png")
    if how == "hard":
        os.link(here / "photos/a.png", here / "drawn/a.png")
    result = run(here, "a.png", "sub/a.png", more=("--pictures", here / "drawn"))
    assert result.exit_code == 2 and result.stderr.startswith("error: ")
    assert photos(here) == before and not (here / "poses.txt").exists()


@pytest.mark.parametrize("option", ["-o", "--report"])
@pytest.mark.parametrize("target", ["photos/b.png", "photos/unlisted.jpg", "q.txt", "m.hfmap", "link", "hard"])
def test_no_text_output_is_an_input(here, option, target):
    (here / "photos/unlisted.jpg").write_text("a photo too")
    arguments(here, "a.png", "b.png")
    (here / "link").symlink_to("photos/b.png")
    os.link(here / "photos/a.png", here / "hard")
    before = (here / target).read_bytes()
    result = run(here, "a.png", "b.png", more=(option, here / target))
    assert result.exit_code == 2 and "cannot write" in result.stderr
    assert (here / target).read_bytes() == before and not (here / "poses.txt").exists()


def test_a_run_says_in_a_pipe_that_it_is_alive(here, monkeypatch):
    monkeypatch.setattr(console, "EVERY", 0.0)
    assert "localizing 0/2" in run(here, "a.png", "b.png").stderr
    monkeypatch.setattr(console, "EVERY", 60.0)
    assert run(here, "a.png", "b.png").stderr == ""


def test_photos_that_never_end_or_come_are_refused(here):
    os.mkfifo(here / "photos/pipe.png")
    with pytest.raises(ImageError, match="not a plain file"):
        load_photo(here / "photos/pipe.png", (480, 640))
    with pytest.raises(ImageError, match="not a plain file"):
        load_photo("/dev/zero", (480, 640))
