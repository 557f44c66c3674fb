"""The whole product on a place drawn by code, through the commands that users run."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from dataclasses import replace
from importlib.metadata import entry_points
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from commands import called
from hfnet_edge import Localizer, Model, Pose, Prior, RigFrame, Status
from hfnet_edge.errors import InputError
from hfnet_edge.features import extract
from hfnet_edge.image.photo import load_photo
from hfnet_edge.shell.lists import read_poses, read_queries
from hfnet_edge.video import frames_of
from hfnet_maps.build.reference import read_reference
from hfnet_maps.synthetic_town.made_place import made_place

pytest.importorskip("tensorflow")
from hfnet_export.export import export_hfnet
from kit import PHOTO

BIN = Path(sys.executable).parent


def started(*command: str | Path, code: int = 0) -> subprocess.CompletedProcess:
    """Runs one of our commands as a user would, in a process of its own."""
    words = [str(word) for word in command]
    done = subprocess.run([str(BIN / words[0]), *words[1:]], capture_output=True, text=True)
    assert done.returncode == code and "Traceback" not in done.stderr, done.stdout + done.stderr
    return done


def run(*command: str | Path, code: int = 0) -> subprocess.CompletedProcess:
    """Runs one of our commands in this process, which has imported everything."""
    program, *arguments = command
    (script,) = entry_points(group="console_scripts", name=str(program))
    return called(script.load(), str(program), *arguments, code=code)


def refused(*command: str | Path) -> str:
    """What a command that has to end with exit code 2 says."""
    return run(*command, code=2).stderr


@pytest.fixture(scope="session")
def square(kit, tmp_path_factory):
    """The kit's place and model, and maps made by the commands."""
    root = tmp_path_factory.mktemp("square")
    (root / "place").symlink_to(kit.root / "place")
    shutil.copy(kit.int8, root / "hfnet_int8.tflite")
    built = run(
        "hfnet-map", "build", "--images", root / "place/images", "--reference", root / "place/reference",
        "--list", root / "place/map.txt", "--model", root / "hfnet_int8.tflite", "-o", root / "square.hfmap",
    )  # fmt: skip
    assert "hfnet-map pack" in built.stdout, "the next command is named"
    packed = run(  # of one codec: test_next_lines and tests/maps choose among all
        "hfnet-map", "pack", root / "square.hfmap", "--budget", "150kB", "--codec", "int8",
        "-o", root / "packed.hfmap",
    )  # fmt: skip
    assert "hfnet-localize" in packed.stdout
    assert (root / "packed.hfmap").stat().st_size <= 150_000
    return root


def localize(square: Path, *more: str | Path, code: int = 0, packed: str = "square.hfmap", how=run):
    return how("hfnet-localize", "--map", square / packed, "--model", square / "hfnet_int8.tflite", *more, code=code)


def queries(square: Path) -> list:
    return read_queries(square / "place/queries_with_intrinsics.txt")


@pytest.mark.parametrize("packed", ["square.hfmap", "packed.hfmap"])
def test_held_out_views_are_localized_and_evaluated(square, tmp_path, packed):
    listed = square / "place/queries_with_intrinsics.txt"
    out = localize(
        square, "--images", square / "place/images", "--queries", listed, "-o", tmp_path / "poses.txt",
        "--report", tmp_path / "r.jsonl", "--pictures", tmp_path / "pictures", packed=packed,
    )  # fmt: skip
    assert "hfnet-eval" in out.stdout
    run(
        "hfnet-eval", tmp_path / "poses.txt", "--reference", square / "place/reference", "--queries", listed,
        "--json", tmp_path / "e.json", "--picture", tmp_path / "map.png", "--map", square / packed,
    )  # fmt: skip
    truth = read_reference(square / "place/reference").poses
    poses = read_poses(tmp_path / "poses.txt")
    errors = [np.linalg.norm(poses[name].center - truth[name].center) for name in poses]
    assert len(poses) >= 4, "at least four of six queries"
    assert np.median(errors) < 0.05, "metres"
    assert max(errors) < 0.25, "metres"
    lines = [json.loads(line) for line in (tmp_path / "r.jsonl").read_text().splitlines()]
    assert [line["query"] for line in lines] == [name for name, _ in queries(square)]
    for line in lines:
        assert (line["status"] == "LOCALIZED") == (line["query"] in poses)
        assert len(line["retrieved"]) == 10 and {"load", "extract", "decode"} <= set(line["milliseconds"])
    assert len(list((tmp_path / "pictures").iterdir())) == 6
    assert Image.open(tmp_path / "map.png").size[0] > 400


def test_a_view_of_another_place_gets_no_pose(square):
    other = made_place(seed=11, map_views=2, query_views=3, size=PHOTO)
    localizer = Localizer(square / "square.hfmap", square / "hfnet_int8.tflite")
    for view in other.views:
        Image.fromarray(other.render(view)).save(square / "other.png")
        result = localizer.localize(square / "other.png", view.camera)
        assert result.pose is None and result.status in (Status.REJECTED, Status.TOO_FEW_MATCHES), view.name


def test_threads_and_repetition_change_nothing(square):
    name, camera = queries(square)[1]
    results = []
    for threads in (1, 2, 2):
        model = Model(square / "hfnet_int8.tflite", threads)
        localizer = Localizer(square / "square.hfmap", model)
        features = extract(model, load_photo(square / "place/images" / name, model.description.input_size, camera))
        results.append((features, localizer.localize(square / "place/images" / name, camera)))
    for features, result in results[1:]:
        for field in ("keypoints", "descriptors", "global_descriptor"):
            np.testing.assert_array_equal(getattr(features, field), getattr(results[0][0], field))
        np.testing.assert_array_equal(result.matches.landmarks, results[0][1].matches.landmarks)
        np.testing.assert_array_equal(result.pose.translation, results[0][1].pose.translation)


def test_one_photo_in_one_command(square):
    name, camera = queries(square)[1]
    out = localize(square, "--image", square / "place/images" / name, "--camera", str(camera), how=started)
    assert "cam_from_world" in out.stdout and "inliers" in out.stdout


def test_a_sideways_photo_gives_the_pose_of_the_camera_as_described(square, tmp_path):
    """Stored turned by 90 degrees with EXIF 6, and a camera of the stored size: the same place, the camera rolled."""
    name, camera = queries(square)[1]
    upright = Image.open(square / "place/images" / name)
    exif = Image.Exif()
    exif[0x0112] = 6
    upright.transpose(Image.Transpose.ROTATE_90).save(tmp_path / "s.png", exif=exif)
    fx, fy, cx, cy = camera.params
    stored = type(camera)("PINHOLE", camera.height, camera.width, (fy, fx, cy, camera.width - cx))
    localizer = Localizer(square / "square.hfmap", square / "hfnet_int8.tflite")
    upright.save(tmp_path / "u.png")
    straight, turned = localizer.localize(tmp_path / "u.png", camera), localizer.localize(tmp_path / "s.png", stored)
    np.testing.assert_allclose(straight.pose.center, turned.pose.center, atol=0.02)
    roll = turned.pose.rotation @ straight.pose.rotation.T
    np.testing.assert_allclose(roll @ [1, 0, 0], [0, -1, 0], atol=0.01)


@pytest.mark.parametrize("kind", ["black", "white", "noise"])
def test_an_image_that_shows_nothing_gets_a_reason(square, tmp_path, kind):
    pixels = {
        "black": np.zeros((480, 640), np.uint8),
        "white": np.full((480, 640), 255, np.uint8),
        "noise": np.random.default_rng(0).integers(0, 256, (480, 640)).astype(np.uint8),
    }[kind]
    Image.fromarray(pixels).save(tmp_path / "q.png")
    out = localize(square, "--image", tmp_path / "q.png", "--camera", "PINHOLE 640 480 554 554 320 240", code=1)
    assert "no pose" in out.stdout


def test_what_is_wrong_is_said_in_one_line(square, tmp_path):
    """Bad input to hfnet-localize: exit code 2, a line that names the file and the remedy, no output left behind."""
    images, listed = square / "place/images", square / "place/queries_with_intrinsics.txt"
    name, camera = queries(square)[1]
    broken_list, damaged_map, damaged_model = (tmp_path / n for n in ("broken.txt", "damaged.hfmap", "damaged.tflite"))
    broken_list.write_text(f"{name} {camera}\n{name} PINHOLE 480 360\n")
    content = bytearray((square / "square.hfmap").read_bytes())
    for at in range(8000, len(content), 4096):  # wherever the query looks
        content[at] ^= 1
    damaged_map.write_bytes(bytes(content))
    damaged_model.write_bytes((square / "hfnet_int8.tflite").read_bytes()[:100_000])
    truncated = tmp_path / "truncated.jpg"
    truncated.write_bytes((images / name).read_bytes()[:5000])
    out = tmp_path / "poses.txt"
    base = {"--map": square / "square.hfmap", "--model": square / "hfnet_int8.tflite", "--images": images}
    base |= {"--queries": listed, "-o": out}
    for change, word in [
        ({"--queries": broken_list}, "broken.txt, line 2"),
        ({"--queries": tmp_path / "none.txt"}, "none.txt"),
        ({"--images": tmp_path / "nowhere"}, "nowhere"),
        ({"--images": tmp_path}, queries(square)[0][0]),
        ({"--map": damaged_map}, "damaged.hfmap"),
        ({"--map": tmp_path / "no.hfmap"}, "no.hfmap"),
        ({"--model": damaged_model}, "damaged.tflite"),
        ({"--model": listed}, "queries_with_intrinsics.txt"),
        ({"-o": tmp_path / "no" / "poses.txt"}, "no"),
        ({"-o": None}, "-o"),
    ]:
        arguments = [v for k, v in (base | change).items() if v is not None for v in (k, v)]
        assert word in refused("hfnet-localize", *arguments)
        assert not out.exists()
    size = f"{PHOTO[1]}x{PHOTO[0]}"
    for camera_text, word in [("EQUIRECTANGULAR 640 480 1 2", "EQUIRECTANGULAR"), ("PINHOLE 99 99 1 1 1 1", size)]:
        command = ("hfnet-localize", "--map", base["--map"], "--model", base["--model"])
        assert word in refused(*command, "--image", images / name, "--camera", camera_text)
    assert "truncated.jpg" in refused(*command, "--image", truncated, "--camera", str(camera))


def test_frames_that_are_turned_come_with_what_is_known_and_as_a_video(square, tmp_path):
    folder, model = square / "place", Model(square / "hfnet_int8.tflite")
    localizer = Localizer(square / "square.hfmap", model)
    name, camera = read_queries(folder / "queries_with_intrinsics.txt")[0]
    rgb = np.asarray(Image.open(folder / "images" / name).convert("RGB"))
    upright = localizer.localize(rgb, camera, colors="rgb")
    assert upright.status is Status.LOCALIZED
    (fx, fy, cx, cy), w, h = camera.params, camera.width, camera.height
    sideways = replace(camera, width=h, height=w, params=(fy, fx, cy, w - cx))
    turned = np.rot90(rgb)  # counterclockwise: clockwise undoes it
    assert localizer.localize(turned, sideways, colors="rgb").status is not Status.LOCALIZED
    for rotation in (90, "any"):
        r = localizer.localize(turned, sideways, colors="rgb", rotation=rotation)
        assert r.rotation == 90 and np.linalg.norm(r.pose.center - upright.pose.center) < 1e-6
    down = Prior(gravity=(1.0, 0.0, 0.0), position=tuple(upright.pose.center), radius=2.0)
    known = localizer.localize(turned, sideways, colors="rgb", prior=down)
    assert known.rotation == 90 and known.status is Status.LOCALIZED and not known.notes

    video, motion = tmp_path / "v.mp4", tmp_path / "tum.txt"
    writer = cv2.VideoWriter(str(video), cv2.VideoWriter.fourcc(*"mp4v"), 10.0, (w, h))
    for _ in range(3):
        writer.write(np.ascontiguousarray(rgb[..., ::-1]))
    writer.release()
    motion.write_text("".join(f"{5 + t / 10} 0 0 0 0 0 0 1\n" for t in range(3)))
    out = run(
        "hfnet-localize", "--map", square / "square.hfmap", "--model", square / "hfnet_int8.tflite", "--video", video,
        "--odometry", motion, "--camera", str(camera), "-o", tmp_path / "p.txt", "--report", tmp_path / "r.jsonl",
        "--annotated", tmp_path / "out.mp4",
    )  # fmt: skip
    assert "3 of 3 frames localized" in out.stdout
    poses = read_poses(tmp_path / "p.txt")
    assert list(poses) == ["frame_000000", "frame_000001", "frame_000002"]
    assert all(np.linalg.norm(pose.center - upright.pose.center) < 0.1 for pose in poses.values())
    lines = [json.loads(line) for line in (tmp_path / "r.jsonl").read_text().splitlines()]
    assert [line["how"] for line in lines] == ["found", "tracked", "tracked"]
    assert sum(1 for _ in frames_of(tmp_path / "out.mp4")) == 3
    base = ("hfnet-localize", "--map", square / "square.hfmap", "--model", square / "hfnet_int8.tflite")
    one = (*base, "--image", folder / "images" / name, "--camera", str(camera))
    for wrong, word in (
        (("--rotation", "45"), "--rotation"),
        (("--near", "1,2,3"), "--near"),
        (("--near", "1,2,x,4"), "--near"),
        (("--gps", "55,13,5"), "georeference"),
        (("--gravity", "0,0,0"), "gravity"),
        (("--among", "nowhere/*"), "nowhere"),
        (("--odometry", motion), "--video"),
    ):
        assert word in refused(*one, *wrong)
    assert "no video" in refused(*base, "--video", tmp_path / "none.mp4", "--camera", str(camera))
    assert "--camera" in refused(*base, "--video", video)


def test_no_output_destroys_an_input(square, tmp_path):
    images, listed, o = square / "place/images", tmp_path / "q.txt", tmp_path / "o"
    shutil.copy(square / "place/queries_with_intrinsics.txt", listed)
    inputs = (square / "square.hfmap", square / "hfnet_int8.tflite", listed)
    before = {p: p.read_bytes() for p in inputs}
    command = ("hfnet-localize", "--map", inputs[0], "--model", inputs[1], "--images", images, "--queries", listed)
    for target in before:
        refused(*command, "-o", target)
        refused(*command, "-o", o, "--report", target)
    refused(*command, "-o", "o", "--report", "o")
    refused(*command, "-o", o, "--pictures", images)
    assert {p: p.read_bytes() for p in before} == before
    assert not o.exists()


def test_one_bad_photo_does_not_lose_the_others(square, tmp_path):
    (first, camera), (second, _) = queries(square)[1:3]
    (tmp_path / "images").mkdir()
    shutil.copy(square / "place/images" / first, tmp_path / "images")
    (tmp_path / "images" / second).write_bytes((square / "place/images" / second).read_bytes()[:4000])
    # As a Windows editor writes it: a byte order mark and carriage returns.
    (tmp_path / "q.txt").write_bytes(f"\ufeff{second} {camera}\r\n{first}\t{camera}\r\n".encode())
    out = localize(
        square, "--images", tmp_path / "images", "--queries", tmp_path / "q.txt", "-o", tmp_path / "p.txt", code=2,
        how=started,
    )  # fmt: skip
    assert second in out.stderr and "1 of 2" in out.stderr
    assert list(read_poses(tmp_path / "p.txt")) == [first]


@pytest.mark.parametrize(
    ("command", "word"),
    [
        (("hfnet-export", "--quantize", "int4", "-o", "x.tflite"), "int4"),
        (("hfnet-export", "--input-size", "480", "-o", "x.tflite"), "480"),
        (("hfnet-export", "--input-size", "481x640", "-o", "x.tflite"), "481"),
        (("hfnet-export", "--global-dim", "9999", "-o", "x.tflite"), "9999"),
        (("hfnet-export", "net.keras", "-o", "x.tflite"), "net.keras"),
        (("hfnet-map", "build"), "--model"),
        (("hfnet-map", "build", "--model", "m.tflite", "-o", "x.hfmap"), "--images"),
        (("hfnet-localize", "--map", "a", "--model", "b", "--threads", "100000", "--image", "c"), "--threads"),
        (
            ("hfnet-distill", "--images", "nowhere", "--local-teacher", "a", "--global-teacher", "b", "-o", "r"),
            "nowhere",
        ),
    ],
)
def test_wrong_options_are_one_line(tmp_path, monkeypatch, command, word):
    monkeypatch.chdir(tmp_path)
    assert word in refused(*command)
    assert not (tmp_path / "x.tflite").exists()


def test_a_map_for_another_model_is_refused_by_name(square, tmp_path):
    export_hfnet(output=tmp_path / "narrow.tflite", quantize="none", input_size=(96, 128), global_dim=16)
    name, camera = queries(square)[1]
    said = refused(
        "hfnet-localize", "--map", square / "square.hfmap", "--model", tmp_path / "narrow.tflite",
        "--image", square / "place/images" / name, "--camera", str(camera),
    )  # fmt: skip
    assert "global" in said and "square.hfmap" in said


def test_a_map_is_not_built_where_it_cannot_be_written(square, tmp_path):
    arguments = ("--images", square / "place/images", "--reference", square / "place/reference", "--list",
                 square / "place/map.txt", "--model", square / "hfnet_int8.tflite")  # fmt: skip
    assert "nowhere" in refused("hfnet-map", "build", *arguments, "-o", tmp_path / "nowhere" / "m.hfmap")
    (tmp_path / "folder").mkdir()
    refused("hfnet-map", "build", *arguments, "-o", tmp_path / "folder")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["folder"]


def test_the_runtime_needs_no_training_framework():
    """Importing and using the runtime loads neither TensorFlow nor Keras nor torch, and is quick."""
    code = (
        "import sys, time; t = time.perf_counter(); import hfnet_edge; took = time.perf_counter() - t;"
        "import hfnet_edge.cli, hfnet_edge.draw;"
        "print(took, [m for m in ('tensorflow', 'keras', 'torch', 'pycolmap') if m in sys.modules])"
    )
    out = [subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True) for _ in range(3)]
    assert all(o.stdout.split(maxsplit=1)[1].strip() == "[]" for o in out)
    assert min(float(o.stdout.split()[0]) for o in out) < 1.0, "0.5 s is the goal, 1 s allows for a busy machine"


def test_a_rig_of_photos_is_one_query(square):
    localizer = Localizer(square / "square.hfmap", Model(square / "hfnet_int8.tflite"))
    place, reference = square / "place", read_reference(square / "place/reference")
    queries = read_queries(place / "queries_with_intrinsics.txt")[:2]
    (first, _), *_ = queries
    frames = [
        RigFrame(place / "images" / name, camera, reference.pose(name) @ reference.pose(first).inverse)
        for name, camera in queries
    ]
    together = localizer.localize_rig(frames)
    assert together.status is Status.LOCALIZED
    assert np.linalg.norm(together.pose.center - reference.pose(first).center) < 0.1
    wrong = localizer.localize_rig(frames, prior=Prior(position=(900.0, 0.0, 0.0), radius=1.0))
    assert "the prior was dropped" in wrong.notes[0] and wrong.pose.center == pytest.approx(together.pose.center)
    with pytest.raises(InputError, match="no frames"):
        localizer.localize_rig([])
    with pytest.raises(InputError, match="cam_from_rig"):
        localizer.localize_rig([replace(frames[0], cam_from_rig=Pose(np.full(4, np.nan), np.zeros(3)))])
