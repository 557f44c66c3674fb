"""Every command that prints names, versions or states of others, with ones that would steer the terminal."""

from __future__ import annotations

import os
import re
import shutil

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from hfnet_device.cli import main as device
from hfnet_edge.cli import app as localize
from hfnet_edge.geometry import Pose
from hfnet_edge.shell.lists import write_poses
from hfnet_maps.cli import main as hfnet_map
from hfnet_maps.eval_cli import main as eval_main
from hfnet_maps.pack.writer import built_sections, write_map
from synthetic import place

NAME = "\x1b]0;owned\x07\x1b[2J\u202egpj.[/]a.jpg"
SHOWN = r"\x1b]0;owned\x07\x1b[2J\u202egpj.[/]a.jpg"
FILE, FILE_SHOWN = NAME.replace("[/]", ""), SHOWN.replace("[/]", "")
ON_MAPS, ON_MAPS_SHOWN = "\x9b2J\u202ea[/].jpg", r"\x9b2J\u202ea[/].jpg"  # the format has no codes below 32
CAMERA = "PINHOLE 640 480 500 500 320 240"
UPRIGHT = Pose(np.array([1.0, 0, 0, 0]), np.zeros(3))


def said(app, *arguments, name: str = SHOWN) -> str:
    """What a command prints: the name, as it can be shown, and nothing that steers."""
    result = CliRunner().invoke(app, [str(a) for a in arguments])
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    assert result.output.replace("\n", "").count(name), result.output
    assert not re.search("[\0-\x09\x0b-\x1f\x7f-\x9f\u202e]", result.output)
    return result.output


@pytest.fixture
def model(tmp_path):
    """A COLMAP text model of images with such names."""
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "cameras.txt").write_text(f"1 {CAMERA}\n")
    (folder / "images.txt").write_text(f"1 1 0 0 0 0 0 0 1 {NAME}\n\n2 1 0 0 0 1 0 0 1 b.jpg\n\n")
    (folder / "points3D.txt").write_text("")
    return folder


@pytest.fixture
def queries(tmp_path):
    path = tmp_path / "queries.txt"
    path.write_text(f"{NAME} {CAMERA}\n")
    return path


def map_of_hostile_names(path):
    source = place().source()
    names = tuple(f"{i}{ON_MAPS}" for i in range(len(source.names)))
    write_map(built_sections(type(source)(**vars(source) | {"names": names})), path)
    return path


def test_localizing_a_list(tmp_path, queries):
    (tmp_path / "images").mkdir()
    (tmp_path / "m.tflite").write_bytes(b"x" * 100)
    m = map_of_hostile_names(tmp_path / "m.hfmap")
    options = ("--map", m, "--model", tmp_path / "m.tflite", "--images", tmp_path / "images", "-o", tmp_path / "p.txt")
    twice = tmp_path / "twice.txt"
    twice.write_text(queries.read_text() * 2)
    assert "appears twice" in said(localize, *options, "--queries", twice)
    bad = tmp_path / "bad.txt"
    bad.write_text(f"a.jpg {NAME} 640 480 1 1 1 1\n")
    said(localize, *options, "--queries", bad)


def test_evaluating_poses(tmp_path, queries, model):
    write_poses(tmp_path / "poses.txt", [(NAME, UPRIGHT)])
    (tmp_path / "queries2.txt").write_text("c.jpg\n")
    (tmp_path / "twice.txt").write_text((tmp_path / "poses.txt").read_text() * 2)
    said(eval_main, tmp_path / "twice.txt", "--reference", model, "--queries", queries)
    (model / "images.txt").write_text("1 1 0 0 0 0 0 0 1 b.jpg\n\n")
    said(eval_main, tmp_path / "poses.txt", "--reference", model, "--queries", queries)


def test_building_a_map(tmp_path, model):
    (tmp_path / "images").mkdir()
    options = ("--images", tmp_path / "images", "--model", tmp_path / "m.tflite", "-o", tmp_path / "m.hfmap")
    said(hfnet_map, "build", *options, "--reference", model, "--list", tmp_path / FILE, name=FILE_SHOWN)


def test_merging_maps(tmp_path):
    a = map_of_hostile_names(tmp_path / "a.hfmap")
    shutil.copy(a, tmp_path / "b.hfmap")
    said(hfnet_map, "merge", a, tmp_path / "b.hfmap", "-o", tmp_path / "c.hfmap", name=ON_MAPS_SHOWN)


@pytest.mark.parametrize("command", ["verify", "inspect"])
def test_a_map_in_a_file_of_such_a_name(tmp_path, command):
    m = map_of_hostile_names(tmp_path / "m.hfmap")
    os.rename(m, tmp_path / FILE)
    said(hfnet_map, command, tmp_path / FILE, name=FILE_SHOWN)


def test_a_photo_of_such_a_name(tmp_path):
    Image.fromarray(np.zeros((16, 16), np.uint8)).save(tmp_path / "a.png")
    os.rename(tmp_path / "a.png", tmp_path / FILE)
    options = ("--model", tmp_path / FILE, "--image", tmp_path / FILE)
    said(localize, "--map", tmp_path / FILE, *options, "--camera", CAMERA, name=FILE_SHOWN)
    said(localize, "--map", "none.hfmap", *options, "--camera", NAME)


def test_a_device_that_says_such_a_state(tmp_path, monkeypatch):
    (tmp_path / "adb").write_text("#!/bin/sh\nprintf 'List of devices attached\\n%s\\tdevice\\n\\n' \"$NAME\"\n")
    (tmp_path / "adb").chmod(0o755)
    monkeypatch.setenv("NAME", NAME)
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    said(device, "list")
