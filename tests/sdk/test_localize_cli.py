"""`hfnet-localize` around the pipeline: what is written when, and what is never written over. What a query comes to is
said by its name; the pipeline itself is in tests/test_end_to_end.py."""

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import ClassVar

import cv2
import numpy as np
import pytest
from PIL import ExifTags, Image
from typer.testing import CliRunner

from hfnet_edge import cli
from hfnet_edge.correspondences import Match2D3D
from hfnet_edge.draw import draw_query
from hfnet_edge.errors import ImageError, ModelError
from hfnet_edge.geometry import Camera, Pose
from hfnet_edge.image.photo import load_photo
from hfnet_edge.pose.intrinsics import IntrinsicsCheck, with_focal
from hfnet_edge.report import failure_line, report_line
from hfnet_edge.result import LocalizationResult, Status
from hfnet_edge.shell import console
from hfnet_edge.shell.lists import read_poses
from hfnet_edge.trust.evidence import Evidence
from hfnet_edge.trust.tolerance import Tolerance
from hfnet_maps.evaluation.report import read_report

CAMERA = "PINHOLE 64 48 60 60 32 24"
POSE = Pose(np.array([1.0, 0, 0, 0]), np.array([1.0, 2, 1 / 3]))
EVIDENCE = Evidence(30.5, 0.5, 0.8, 0.4, 0.5, 12, 0.7, 0.0, 0.1, 0.001, 0.05, 0.1, 0.2, rival=0.0, focal=0.0)
RIGHT = IntrinsicsCheck(0.001, 0.001, (0.1, 0.2), 0.5, 0.0)
SHORT = IntrinsicsCheck(0.021, 0.001, (4.0, -3.0), 0.5, 0.2)
FOUND = LocalizationResult(
    Status.LOCALIZED,
    POSE,
    probability=0.98765432,
    wrong=0.0001234567,
    tolerance=(0.25, 2.0),
    covariance=np.diag([1e-6] * 3 + [3e-4] * 3),
    reprojection_error=0.875,
    inliers=300,
    first_inliers=30,
    inlier_ratio=0.4,
    evidence=EVIDENCE,
    intrinsics=RIGHT,
    milliseconds={"load": 1.0},
)
REFUSED = replace(FOUND, status=Status.REJECTED, pose=None, probability=0.1, wrong=0.9)


class Localizer:
    """In place of the real one; ``opened`` are the settings that they were opened with."""

    opened: ClassVar[list] = []
    place = None

    def __init__(self, *_, config, cache=None):
        self.map = SimpleNamespace(image_names=("ref.jpg",), origin=np.zeros(3))
        self.config = config
        self.opened.append(config)

    def map_of(self, result):
        return self.map

    def localize(self, image, camera, **_):
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
        result = replace(FOUND, prior_frames=np.zeros(1, np.int64), camera=camera)
        if self.config.refine_focal:
            return replace(result, camera=with_focal(camera, 1.1))
        if name.startswith("short"):
            return replace(result, intrinsics=SHORT)
        if name.startswith("rival"):
            rival = replace(EVIDENCE, rival=0.8)
            return replace(result, status=Status.AMBIGUOUS, pose=None, wrong=0.4, evidence=rival)
        if name.startswith("free"):
            loose = 100 * FOUND.covariance
            return replace(result, status=Status.AMBIGUOUS, pose=None, wrong=0.4, covariance=loose)
        return replace(REFUSED, camera=camera) if name.startswith("nothing") else result


@pytest.fixture
def here(tmp_path, monkeypatch):
    """A folder with photos/."""
    fakes(monkeypatch.setattr)
    monkeypatch.setattr(Localizer, "opened", [])
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


# --- how far a pose can be trusted


def strict(line):
    """A line of JSON as the strictest reader has it."""
    return json.loads(line, parse_constant=lambda word: pytest.fail(f"{word} is no JSON"))


def test_the_report_has_all_that_a_pose_is_judged_by():
    stated = Camera.parse(CAMERA)
    line = strict(json.dumps(report_line("a.png", replace(FOUND, camera=stated, intrinsics=SHORT), (), stated)))
    assert line["qvec"] == POSE.quaternion.tolist() and line["tvec"] == POSE.translation.tolist(), "not rounded"
    assert (line["probability"], line["wrong"], line["tolerance"]) == (0.987654, 0.000123, [0.25, 2.0])
    assert line["position_std"] == pytest.approx(0.03) and line["rotation_std"] == pytest.approx(0.0992, rel=1e-3)
    assert np.array(line["covariance"]).shape == (6, 6) and line["reprojection_error"] == 0.875
    assert (line["inliers"], line["first_inliers"], line["inlier_ratio"]) == (300, 30, 0.4)
    assert len(line["world_spread"]) == 3 and line["image_spread"] == 0.0
    assert line["evidence"] == vars(EVIDENCE) and line["camera"] is None
    assert line["intrinsics"] == {
        "focal_error": 0.021, "focal_std": 0.001, "focal_is_off": True,
        "principal_point_error": [4.0, -3.0], "principal_point_std": 0.5, "center_is_off": True,
    }  # fmt: skip


def test_what_is_not_known_is_null_and_the_fields_are_the_same():
    nothing = LocalizationResult(Status.NO_KEYPOINTS)
    open_ = replace(REFUSED, covariance=None, intrinsics=replace(RIGHT, center_std=float("inf")))
    lines = [report_line("a", FOUND), report_line("a", nothing), report_line("a", open_)]
    lines.append(failure_line("a", ModelError("the network cannot be run")))
    found, empty, loose, failed = (strict(json.dumps(line)) for line in lines)
    assert set(found) == set(empty) == set(loose) == set(failed) - {"error"}
    for field in ("qvec", "tolerance", "position_std", "covariance", "reprojection_error", "evidence", "intrinsics"):
        assert empty[field] is None and failed[field] is None
    assert (empty["probability"], empty["wrong"], failed["status"]) == (0.0, 1.0, "FAILED")
    assert loose["rotation_std"] is None and loose["intrinsics"]["principal_point_std"] is None


def test_the_evaluation_reads_the_report(here):
    assert run(here, "a.png", "nothing.png", "damaged.png").exit_code == 2
    said = read_report(here / "r.jsonl")
    said.check(read_poses(here / "poses.txt"), ["a.png", "nothing.png", "damaged.png"])
    assert (said.tolerance.position, said.tolerance.rotation) == (0.25, 2.0)
    answer = said.answers["a.png"]
    assert (answer.probability, answer.inliers) == (0.987654, 30), "inliers of the method's own matches"
    assert said.answers["nothing.png"] is said.answers["damaged.png"] is None


def alone(here, name, *more, camera=CAMERA):
    """One query."""
    arguments(here, name)
    known = () if camera is None else ("--camera", camera)
    words = ["--map", here / "m.hfmap", "--model", here / "m.tflite", "--image", here / "photos" / name, *known, *more]
    return CliRunner().invoke(cli.app, [str(word) for word in words])


def test_one_query_is_told_with_its_uncertainty(here):
    out = alone(here, "a.png").stdout
    for words in ("within 0.25 units and 2° with probability 0.988", "± 0.03 units, ± 0.099°, 300 inliers",
                  "reprojection error 0.88 px"):  # fmt: skip
        assert words in out
    assert "focal length" not in out and "principal point" not in out


def test_a_camera_that_is_off_is_said(here):
    out = alone(here, "short.png").stdout
    assert "the focal length seems 2.1 % too short (inliers say 61 px, the camera 60): check the camera, or" in out
    assert "the principal point seems off (inliers say 36 21, the camera 32 24)" in out
    out = alone(here, "short.png", "--refine-focal").stdout
    assert "seems" not in out and "focal length found with the pose: 66 px (60 stated)" in out


def test_a_refusal_has_a_reason(here):
    for name, words in [
        (
            "rival.png",
            "no pose, AMBIGUOUS: another pose has 80 % of its support, 300 inliers, wrong with probability 0.4",
        ),
        ("free.png", "no pose, AMBIGUOUS: its inliers leave it free to move by 0.3 units and 0.99°, 300 inliers"),
        ("nothing.png", "no pose, REJECTED: 300 inliers, wrong with probability 0.9"),
    ]:
        result = alone(here, name)
        assert result.exit_code == 1 and words in result.stdout


def test_many_queries_that_agree_on_the_focal_length_are_one_line(here):
    remark = "3 of 4 localized queries say that the focal length is off: the focal length seems 2.1 % too short"
    assert remark in run(here, "short1.png", "short2.png", "short3.png", "a.png", "rival.png").stdout
    for names in (["short1.png", "short2.png", "a.png"], ["short1.png", "a.png"]):
        assert "focal length" not in run(here, *names).stdout
    out = run(here, "rival1.png", "rival2.png", "nothing.png").stdout
    assert "2 without a pose: AMBIGUOUS" in out and "1 without a pose: REJECTED" in out


def test_settings_reach_the_localizer(here):
    assert run(here, "a.png").exit_code == 0
    run(here, "a.png", more=("--tolerance", "1%,5", "--max-wrong", "0.5%", "--refine-focal"))
    run(here, "a.png", more=("--max-wrong", "0.02"))
    first, second, third = Localizer.opened
    assert (first.tolerance, first.max_wrong, first.refine_focal) == (Tolerance(0.25, 2.0), 0.001, False)
    assert (second.tolerance, second.max_wrong) == (Tolerance(0.01, 5.0, relative=True), 0.005)
    assert second.refine_focal and third.max_wrong == 0.02


@pytest.mark.parametrize(
    ("more", "word"),
    [
        (("--tolerance", "0.25"), "no tolerance"),
        (("--tolerance", "0,2"), "no tolerance"),
        (("--max-wrong", "little"), "no share"),
        (("--max-wrong", "0"), "max_wrong"),
        (("--max-wrong", "100%"), "max_wrong"),
        (("--max-wrong", "nan"), "max_wrong"),
        (("--fov", "65"), "without a camera"),
        (("--fov", "400"), "no field of view"),
    ],
)
def test_settings_that_make_no_sense(here, more, word):
    result = run(here, "a.png", more=more)
    assert result.exit_code == 2 and word in result.stderr and not (here / "poses.txt").exists()


# --- cameras that nobody knows


def with_exif(path, focal=27):
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 1
    exif.get_ifd(ExifTags.IFD.Exif)[ExifTags.Base.FocalLengthIn35mmFilm] = focal
    Image.new("RGB", (64, 48)).save(path, exif=exif)


def test_a_photo_without_a_camera_is_guessed_and_its_focal_length_sought(here):
    with_exif(here / "photos/phone.png")
    out = alone(here, "phone.png", camera=None).stdout
    assert "1 camera was guessed, by EXIF or --fov: the focal length was sought with the pose" in out
    assert "focal length found with the pose: 55 px (50 stated)" in out
    assert [config.refine_focal for config in Localizer.opened] == [True]
    assert "found with the pose: 61 px (55 stated)" in alone(here, "a.png", "--fov", "60", camera=None).stdout
    refused = alone(here, "a.png", camera=None)
    assert refused.exit_code == 2 and "is not known" in refused.stderr and "--fov" in refused.stderr


def test_lines_of_a_name_alone_in_a_list(here):
    with_exif(here / "photos/phone.png")
    words = arguments(here, "a.png", "phone.png", "bare.png")
    (here / "q.txt").write_text(f"a.png {CAMERA}\nphone.png\nbare.png\n")
    result = CliRunner().invoke(cli.app, [str(word) for word in words])
    assert result.exit_code == 2 and "1 of 3 queries were left out: the camera of" in result.stderr
    assert "1 camera was guessed" in result.stdout and list(read_poses(here / "poses.txt")) == ["a.png", "phone.png"]
    known, guessed, unknown = report(here)
    assert known["camera"] is None and guessed["camera"].startswith("SIMPLE_PINHOLE 64 48 54.915")
    assert unknown["status"] == "UNREADABLE"
    assert [config.refine_focal for config in Localizer.opened] == [False, True]
    result = CliRunner().invoke(cli.app, [str(word) for word in (*words, "--fov", 60)])
    assert result.exit_code == 0 and "2 cameras were guessed" in result.stdout


def test_the_cameras_beside_a_map_are_those_of_its_device(here):
    refused = alone(here, "a.png", camera="of-map")
    assert refused.exit_code == 2 and "the map has no cameras beside it" in refused.stderr
    (here / "m.cameras.txt").write_text(f"PINHOLE 128 96 60 60 32 24\n{CAMERA}  # 3 of 4 photos, Phone\n")
    result = alone(here, "a.png", camera="of-map")
    assert result.exit_code == 0 and "guessed" not in result.stdout
    assert [config.refine_focal for config in Localizer.opened] == [False]
    words = arguments(here, "a.png", "b.png", more=("--camera", "of-map"))
    (here / "q.txt").write_text(f"a.png {CAMERA}\nb.png\nother.png\n")
    Image.new("RGB", (65, 48)).save(here / "photos/other.png")
    result = CliRunner().invoke(cli.app, [str(word) for word in words])
    assert result.exit_code == 2 and "other.png is 65x48, and the map's cameras are 128x96, 64x48" in result.stderr
    assert list(read_poses(here / "poses.txt")) == ["a.png", "b.png"]


# --- the picture


def test_inliers_are_coloured_by_their_error(here):
    """The camera of the pose counts, not the stated one."""
    arguments(here, "a.png")
    stated, pose = Camera.parse(CAMERA), Pose(np.array([1.0, 0, 0, 0]), np.zeros(3))
    xyz = np.array([[-0.3, -0.2, 1.0], [0.3, 0.2, 1.0]])
    xy = with_focal(stated, 1.1).project(xyz) + np.array([[0, 0], [0, 4]])
    result = replace(FOUND, pose=pose, camera=with_focal(stated, 1.1), matches=Match2D3D(xy, xyz),
                     inlier_mask=np.ones(2, bool))  # fmt: skip
    picture = draw_query(here / "photos/a.png", stated, result)
    (bx, by), (rx, ry) = np.floor(xy).astype(int)
    blue, green, red = picture[by, bx].astype(int)
    assert green > red + 50 and green > blue + 50
    blue, green, red = picture[ry, rx].astype(int)
    assert red > green + 50 and red > blue + 50
    refused = draw_query(here / "photos/a.png", stated, replace(result, pose=None, status=Status.AMBIGUOUS))
    assert refused.shape == picture.shape and not np.array_equal(refused, picture)
