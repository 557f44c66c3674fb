"""`hfnet-map` and `hfnet-eval` as they are typed."""

import json
import subprocess
import sys

import numpy as np
import pytest
from typer.testing import CliRunner

from hfnet_edge import console
from hfnet_edge.errors import InputError
from hfnet_edge.geometry import Pose
from hfnet_edge.lists import write_poses
from hfnet_edge.map_file import LocalizationMap
from hfnet_maps import build
from hfnet_maps.cli import eval_main, main
from hfnet_maps.writer import write_map
from synthetic import CAMERA, EXTRACTOR, place


def run(app, *arguments):
    return CliRunner().invoke(app, [str(a) for a in arguments])


def refused(result, *words):
    """Exit code 2, one line with these words on stderr, and neither a traceback nor output."""
    assert result.exit_code == 2, result.output
    assert result.stdout == ""
    (line,) = result.stderr.splitlines()
    assert line.startswith("error: ") and "; " in line
    for word in words:
        assert str(word) in line
    return True


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """Images, reference and lists of a place; the network is replaced by what it would find."""
    p = place(images=6, landmarks=300)
    (tmp_path / "images").mkdir()
    (tmp_path / "reference").mkdir()
    (tmp_path / "reference" / "cameras.txt").write_text(f"1 {CAMERA}\n")
    lines = []
    for i, pose in enumerate(p.poses):
        values = " ".join(f"{v:.17g}" for v in (*pose.quaternion, *pose.translation))
        lines.append(f"{i + 1} {values} 1 {i}.jpg\n\n")
        (tmp_path / "images" / f"{i}.jpg").write_bytes(b"not looked into")
    (tmp_path / "reference" / "images.txt").write_text("".join(lines))
    (tmp_path / "map.txt").write_text("".join(f"{i}.jpg\n" for i in range(6)))
    (tmp_path / "queries.txt").write_text("".join(f"{i}.jpg {CAMERA}\n" for i in range(4)))

    class FakeModel:
        description = EXTRACTOR

        def __init__(self, path):
            if not path.is_file():
                raise InputError(f"cannot read the model {path}", "export one")

    monkeypatch.setattr("hfnet_edge.model.Model", FakeModel)
    monkeypatch.setattr(build, "load_photo", lambda path, size, camera: path)
    monkeypatch.setattr(build, "extract", lambda model, path: p.features(p.poses[int(path.stem)], 0.5, 20))
    (tmp_path / "m.tflite").write_bytes(b"")
    return tmp_path


def build_options(folder, **changed):
    options = {
        "--images": folder / "images",
        "--reference": folder / "reference",
        "--list": folder / "map.txt",
        "--model": folder / "m.tflite",
        "-o": folder / "scene.hfmap",
    }
    return [part for item in (options | changed).items() for part in item]


def test_build_then_inspect(folder):
    result = run(main, "build", *build_options(folder))
    assert result.exit_code == 0, result.output
    m = LocalizationMap.open(folder / "scene.hfmap")
    size = (folder / "scene.hfmap").stat().st_size
    assert f"wrote {folder / 'scene.hfmap'} ({console.size_text(size)})" in result.stdout
    assert "next: hfnet-localize --map" in result.stdout
    assert f"{len(m.landmark_positions)}" in result.stdout
    assert result.stderr == ""  # no progress bar, no logs

    result = run(main, "inspect", folder / "scene.hfmap")
    assert result.exit_code == 0
    rows = {
        cells[0]: cells[1:]
        for line in result.stdout.splitlines()
        if "│" in line
        for cells in [[cell.strip() for cell in line.strip("│ ").split("│")]]
    }
    assert int(rows["in all"][0]) == size == sum(int(cells[0]) for name, cells in rows.items() if name != "in all")
    assert int(rows["OBSERVATION_DESCRIPTORS"][0]) == m.observation_descriptors.nbytes
    assert float(rows["LANDMARK_POSITIONS"][2]) == 12.0 and float(rows["IMAGE_POSES"][3]) == 56.0
    assert "synthetic (none), weights 00000000" in result.stdout
    assert (
        f"6 images, {len(m.landmark_positions)} landmarks, {len(m.observation_landmarks)} observations" in result.stdout
    )


def test_an_image_that_sees_nothing_is_mentioned(folder):
    lines = (folder / "reference" / "images.txt").read_text().splitlines(keepends=True)
    fields = lines[4].split()
    fields[1:5] = ["0", "1", "0", "0"]
    lines[4] = " ".join(fields) + "\n"
    (folder / "reference" / "images.txt").write_text("".join(lines))
    assert "1 images see no landmark, first 2.jpg" in run(main, "build", *build_options(folder)).stdout


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"--images": "nowhere"}, ["no folder nowhere", "--images"]),
        ({"--reference": "nowhere"}, ["nowhere", "cameras.bin"]),
        ({"--list": "nowhere.txt"}, ["nowhere.txt"]),
        ({"--model": "nowhere.tflite"}, ["nowhere.tflite"]),
        ({"-o": "nowhere/scene.hfmap"}, ["no folder nowhere"]),
    ],
)
def test_build_refuses_what_is_not_there(folder, change, words):
    before = sorted(folder.rglob("*"))
    assert refused(run(main, "build", *build_options(folder, **change)), *words)
    assert sorted(folder.rglob("*")) == before


def test_build_leaves_the_old_map_where_it_fails(folder):
    (folder / "scene.hfmap").write_bytes(b"old")
    (folder / "map.txt").write_text("0.jpg\n1.jpg\nelsewhere.jpg\n")
    before = sorted(folder.rglob("*"))
    assert refused(run(main, "build", *build_options(folder)), "elsewhere.jpg")
    assert sorted(folder.rglob("*")) == before and (folder / "scene.hfmap").read_bytes() == b"old"


def test_inspect_refuses_what_is_no_map(tmp_path):
    assert refused(run(main, "inspect", tmp_path / "no.hfmap"), "no.hfmap", "hfnet-map build")
    write_map(place(images=3, landmarks=20).map(), tmp_path / "a.hfmap")
    content = (tmp_path / "a.hfmap").read_bytes()
    (tmp_path / "a.hfmap").write_bytes(content[:-5])
    assert refused(run(main, "inspect", tmp_path / "a.hfmap"), "truncated")


def test_inspect_of_an_empty_map_divides_by_nothing(tmp_path):
    p = place(images=2, landmarks=0)
    write_map(p.map(), tmp_path / "a.hfmap")
    assert run(main, "inspect", tmp_path / "a.hfmap").exit_code == 0


# --- example


def test_example_draws_a_place(tmp_path, monkeypatch):
    def write_place(directory, progress):
        (directory / "images").mkdir(parents=True)
        (directory / "map.txt").write_text("a.jpg\n")
        progress(1, 1)

    monkeypatch.setattr("hfnet_maps.made_place.write_place", write_place)
    result = run(main, "example", "-o", tmp_path / "place")
    assert result.exit_code == 0, result.output
    assert f"wrote {tmp_path / 'place'} (6 B)" in result.stdout
    assert f"next: hfnet-map build --images {tmp_path / 'place'}/images" in result.stdout
    assert [f.name for f in tmp_path.iterdir()] == ["place"]
    assert refused(run(main, "example", "-o", tmp_path / "place"), "there already")

    def no_space(directory, progress):
        directory.mkdir()
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("hfnet_maps.made_place.write_place", no_space)
    assert refused(run(main, "example", "-o", tmp_path / "other"), "No space left")
    assert [f.name for f in tmp_path.iterdir()] == ["place"]


# --- hfnet-eval


@pytest.fixture
def found(folder):
    """Poses of three of four queries, 0, 0.3 and 1 m wrong."""
    p = place(images=6, landmarks=300)
    wrong = [(f"{i}.jpg", Pose(p.poses[i].quaternion, p.poses[i].translation + np.array([e, 0, 0]))) for i, e in
             enumerate((0.0, 0.3, 1.0))]  # fmt: skip
    write_poses(folder / "poses.txt", wrong)
    return folder


def eval_options(folder, *more):
    return [folder / "poses.txt", "--reference", folder / "reference", "--queries", folder / "queries.txt", *more]


def test_evaluation_in_numbers(found):
    result = run(eval_main, *eval_options(found, "--json", found / "e.json"))
    assert result.exit_code == 0, result.output
    for text in ("4 queries, 1 without a pose", "25.0 %", "50.0 %", "75.0 %", "0.650 m", "0.300 m"):
        assert text in result.stdout
    e = json.loads((found / "e.json").read_text())
    assert [r["recall"] for r in e["recalls"]] == [0.25, 0.5, 0.75]
    assert e["median_position_m"] == pytest.approx(0.65) and e["median_localized_position_m"] == pytest.approx(0.3)
    assert e["abstentions"] == 1 and e["errors"]["3.jpg"] == {"position_m": None, "rotation_deg": None}
    assert "next: hfnet-eval" in result.stdout


def test_names_alone_are_queries_too_and_thresholds_can_be_chosen(found):
    (found / "queries.txt").write_text("0.jpg\n1.jpg\n")
    result = run(eval_main, *eval_options(found, "--thresholds", "0.2,1 0.4,1"))
    assert "within 0.4 m, 1°" in result.stdout and "100.0 %" in result.stdout and "50.0 %" in result.stdout


def test_evaluation_with_a_picture(found):
    assert run(main, "build", *build_options(found)).exit_code == 0
    result = run(eval_main, *eval_options(found, "--picture", found / "a.png", "--map", found / "scene.hfmap"))
    assert result.exit_code == 0, result.output
    assert (found / "a.png").read_bytes().startswith(b"\x89PNG")
    assert f"wrote {found / 'a.png'}" in result.stdout


@pytest.mark.parametrize(
    ("more", "words"),
    [
        (["--thresholds", "0.25"], ["'0.25' is not a threshold"]),
        (["--thresholds", ""], ["no thresholds"]),
        (["--map", "a.hfmap"], ["--picture"]),
        (["--picture", "nowhere/a.png"], ["no folder nowhere"]),
        (["--json", "nowhere/e.json"], ["no folder nowhere"]),
        (["--reference", "nowhere"], ["nowhere"]),
        (["--queries", "nowhere.txt"], ["nowhere.txt"]),
    ],
)
def test_evaluation_refuses(found, more, words):
    before = sorted(found.rglob("*"))
    assert refused(run(eval_main, *eval_options(found, *more)), *words)
    assert sorted(found.rglob("*")) == before


@pytest.mark.parametrize("arguments", [["build", "--help"], ["inspect", "--help"], ["example", "--help"]])
def test_help_shows_an_example(arguments):
    assert f"hfnet-map {arguments[0]}" in run(main, *arguments).stdout
    assert "hfnet-eval poses.txt" in run(eval_main, "--help").stdout


# --- what the commands share


def test_an_error_is_one_line_and_code_two(capsys):
    @console.reports_errors
    def fails():
        raise InputError("this\nbroke", "do that")

    with pytest.raises(SystemExit) as exit_:
        fails()
    assert exit_.value.code == 2
    assert capsys.readouterr().err == "error: this broke; do that\n"


def test_a_bug_keeps_its_traceback():
    @console.reports_errors
    def fails():
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fails()


def test_a_bar_on_a_terminal_and_nothing_in_a_pipe():
    code = "from hfnet_edge.console import progress\nwith progress() as report:\n  report('matching', 2, 5)"
    piped = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert piped.stdout == piped.stderr == ""
    pty = pytest.importorskip("pty")
    import os

    leader, follower = pty.openpty()
    subprocess.run([sys.executable, "-c", code], stderr=follower, check=True)
    os.close(follower)
    drawn = os.read(leader, 65536).decode()
    os.close(leader)
    assert "matching" in drawn and "2/5" in drawn


@pytest.mark.parametrize(
    ("size", "text"),
    [(0, "0 B"), (999, "999 B"), (1000, "1 kB"), (24_120, "24.1 kB"), (999_499, "999 kB"), (999_600, "1 MB"),
     (3_420_000, "3.42 MB"), (5_000_000_000, "5 GB")],
)  # fmt: skip
def test_sizes_for_people(size, text):
    assert console.size_text(size) == text
