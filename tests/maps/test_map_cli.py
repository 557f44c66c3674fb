"""`hfnet-map` and `hfnet-eval` as they are typed."""

import json
import re
import shlex
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import PIL.Image
import pytest
from typer.testing import CliRunner

from hfnet_edge.errors import InputError
from hfnet_edge.geometry import Pose
from hfnet_edge.map.codecs import CodecName
from hfnet_edge.map.container import BLOCK, Section
from hfnet_edge.map.map_file import LocalizationMap
from hfnet_edge.networks import by_role
from hfnet_edge.shell import console
from hfnet_edge.shell.lists import write_poses
from hfnet_maps.build import builder as build
from hfnet_maps.cli import main, map_main, parse_size
from hfnet_maps.content import read_content
from hfnet_maps.eval_cli import main as eval_main
from hfnet_maps.pack import curve_picture
from hfnet_maps.pack.choice_table import choice_table
from hfnet_maps.pack.curve_picture import draw_curve
from hfnet_maps.pack.jury import Choice
from hfnet_maps.pack.packer import Packer
from hfnet_maps.pack.settings import ALL, Settings
from hfnet_maps.pack.writer import full_sections, write_map
from hfnet_maps.synthetic_town import made_place
from hloc_files import write_hloc
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


def rows(stdout):
    """The cells of the tables by what their first one says."""
    found = [[cell.strip() for cell in line.strip("│ ").split("│")] for line in stdout.splitlines() if "│" in line]
    return {cells[0]: cells[1:] for cells in found}


def contents(folder):
    """Every file below a folder, with what it holds."""
    return {path: path.read_bytes() if path.is_file() else None for path in sorted(folder.rglob("*"))}


def is_a_picture(path):
    """A PNG that shows something."""
    with PIL.Image.open(path) as picture:
        assert picture.format == "PNG"
        pixels = np.asarray(picture.convert("RGB"))
    return min(pixels.shape[:2]) > 300 and len(np.unique(pixels.reshape(-1, 3), axis=0)) > 20


class FakeModel:
    """The network, replaced by what its file says of it."""

    description = EXTRACTOR

    def __init__(self, path, threads=2):
        self.path = path
        if not path.is_file():
            raise InputError(f"cannot read the model {path}", "export one")


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

    monkeypatch.setattr(by_role, "open_network", FakeModel)
    monkeypatch.setattr(build, "load_photo", lambda path, size, camera: path)
    monkeypatch.setattr(build, "extract", lambda networks, path: p.features(p.poses[int(path.stem)], 0.5, 20))
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
    packed = folder / "scene_packed.hfmap"
    assert f"next: hfnet-map pack {folder / 'scene.hfmap'} --budget 4MB -o {packed}" in result.stdout
    assert rows(result.stdout)["landmarks"] == [f"{m.landmark_count}"]
    assert result.stderr == ""  # no progress bar, no logs

    result = run(main, "inspect", folder / "scene.hfmap")
    assert result.exit_code == 0
    table = rows(result.stdout)
    assert int(table["in all"][0]) == size == sum(int(cells[0]) for name, cells in table.items() if name != "in all")
    assert int(table["DESCRIPTORS"][0]) == m.codes.nbytes == m.description.observationCount * 32
    assert float(table["LANDMARK_POSITIONS"][2]) == 6.0 and float(table["IMAGE_POSES"][3]) == 56.0
    assert {"SOURCE_OBSERVED", "SOURCE_OTHER_DESCRIPTORS"} <= set(table)  # it can be packed
    assert "synthetic (none), weights 00000000" in result.stdout
    assert (
        f"6 images, {m.landmark_count} landmarks, {m.description.observationCount} observations, "
        f"{m.description.descriptorCount} descriptors"
    ) in result.stdout


def test_without_a_list_all_images_of_the_reference_are_mapped(folder):
    options = build_options(folder)
    at = options.index("--list")
    del options[at : at + 2]
    assert run(main, "build", *options).exit_code == 0
    assert LocalizationMap.open(folder / "scene.hfmap").image_names == tuple(f"{i}.jpg" for i in range(6))
    (folder / "images" / "2.jpg").unlink()
    (folder / "images" / "4.jpg").unlink()
    (folder / "scene.hfmap").unlink()
    assert refused(run(main, "build", *options), "2 of 6 images of", folder / "reference", "first 2.jpg", "--list")
    assert not (folder / "scene.hfmap").exists()


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
    write_map(full_sections(place(images=3, landmarks=20).source()), tmp_path / "a.hfmap")
    content = (tmp_path / "a.hfmap").read_bytes()
    (tmp_path / "a.hfmap").write_bytes(content[:-5])
    assert refused(run(main, "inspect", tmp_path / "a.hfmap"), "truncated")


@pytest.mark.parametrize("command", ["inspect", "verify"])
def test_an_empty_map_divides_by_nothing(command, tmp_path):
    write_map(full_sections(place(images=2, landmarks=0).source()), tmp_path / "a.hfmap")
    result = run(main, command, tmp_path / "a.hfmap")
    assert result.exit_code == 0 and result.stderr == ""


def test_inspect_draws_the_map(scene):
    result = run(main, "inspect", "scene.hfmap", "--picture", "above.png")
    assert result.exit_code == 0, result.output
    assert f"wrote above.png ({console.size_text(Path('above.png').stat().st_size)})" in result.stdout
    assert is_a_picture("above.png")


@pytest.mark.parametrize(
    ("picture", "words"),
    [
        ("above.pdf", ["above.pdf is not a .png"]),
        ("nowhere/above.png", ["no folder nowhere"]),
        ("scene.hfmap", ["scene.hfmap", "names the same file"]),
        ("sfm", ["sfm", "a folder"]),
    ],
)
def test_inspect_refuses_pictures(scene, picture, words):
    before = contents(scene)
    assert refused(run(main, "inspect", "scene.hfmap", "--picture", picture), *words)
    assert contents(scene) == before


# --- pack

HLOC = ["--sfm", "sfm", "--features", "features.h5", "--global-features", "global-feats.h5"]


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A small place as `hfnet-map build` and as hloc leave it, and maps that `pack` and `merge` refuse."""
    root = tmp_path_factory.mktemp("made")
    source = place(images=6, landmarks=300).source(noise=0.5)
    write_map(full_sections(source), root / "scene.hfmap")
    write_map(full_sections(source.without_keypoints()), root / "bare.hfmap")
    write_hloc(root, source)
    (root / "m.tflite").write_bytes(b"")
    (root / "notes.hfmap").write_text("not a map at all, but long enough to be one, and then some more of it\n" * 3)
    (root / "short.hfmap").write_bytes((root / "scene.hfmap").read_bytes()[:-5])
    (root / "out.hfmap").write_bytes(b"old")
    (root / "out.png").write_bytes(b"old")
    return root


@pytest.fixture
def scene(made, tmp_path, monkeypatch):
    """A copy of `made` to work in: names are typed without folders."""
    shutil.copytree(made, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(by_role, "open_network", FakeModel)
    return tmp_path


def packed(*arguments, budget=20_000, output="out.hfmap"):
    """What packing printed, and the map; it is whole, uses the budget where it can, and nothing else was left."""
    result = run(main, "pack", *arguments, "--budget", budget, "-o", output)
    assert result.exit_code == 0, result.output
    assert result.stderr == ""  # no progress bar, no logs, no warnings
    m = LocalizationMap.open(output)
    m.check_all()
    size = Path(output).stat().st_size
    assert size <= budget
    assert f"wrote {output} ({console.size_text(size)})" in result.stdout
    assert result.stdout.splitlines()[-1].startswith(f"next: hfnet-localize --map {output} ")
    assert not [path for path in Path().iterdir() if path.name.startswith(".")]
    return result.stdout, m, size


@pytest.mark.parametrize("budget", ["8kB", "20 kB", "40000"])
def test_pack_within_a_budget(scene, budget):
    before = (scene / "scene.hfmap").read_bytes()
    stdout, m, size = packed("scene.hfmap", budget=parse_size(budget))
    assert f"Left-out reference images in maps of at most {console.size_text(parse_size(budget))}" in stdout
    assert "everything, as built" in stdout and "100 %" in stdout
    assert ("it takes" in stdout) == (size < 0.9 * parse_size(budget))
    table = stdout.split("chosen: ")[0]
    assert "…" not in table and max(map(len, table.splitlines())) <= 80  # no word is cut in a pipe
    for heading in ("descriptors", "global", "found", "precise", "median", "score"):
        assert f"\n{heading}: " in table  # what it means
    assert f"chosen: {m.codec.name} " in stdout and f"{m.landmark_count} of 300 landmarks" in stdout
    assert m.image_count == 6 and not any(kind >= Section.SOURCE_IMAGES for kind in m.file.sections)
    assert (scene / "scene.hfmap").read_bytes() == before


def test_the_table_has_a_row_for_what_was_judged(scene):
    stdout, m, size = packed("scene.hfmap", budget=20_000)
    lines = stdout.split("─ \n")[1].split("descriptors:")[0].splitlines()
    table = [line for line in lines if line.strip()]
    chosen = stdout.split("chosen: ")[1].split(";")[0]
    assert table[-1].startswith("everything, as built") or table[-1].startswith(" everything, as built")
    assert "84 kB" in table[-1] and " 300 " in table[-1] and len(table) > 2
    local, global_dim = chosen.split(", global ")
    assert table[0].split() == [
        *local.split(), global_dim, *console.size_text(size).split(), f"{m.landmark_count}", *table[0].split()[-6:]
    ]  # fmt: skip
    scores = [float(line.split()[-1]) for line in table[:-1]]
    assert all(0 <= score <= scores[0] for score in scores)


def test_the_table_fits_where_figures_are_long(capsys):
    from rich.console import Console

    settings = [
        Settings(CodecName.BINARY, 1040, 0, 4, 4096),
        Settings(CodecName.INT8, 1040, 0, 16, 4096),
        Settings(CodecName.INT8, 128, 0, ALL, 512),
    ]
    scores = np.full(9, 0.5)
    choices = [Choice(s, 1_672_835, 123_456_789, 1.0, (0.00123, 0.1), scores) for s in (*settings, None)]
    Console(width=80).print(choice_table("The best at each size", choices))
    out = capsys.readouterr().out
    assert "…" not in out and "binary 1040 bits x 1-4" in out and "1672835" in out
    assert max(len(line.rstrip()) for line in out.splitlines()) <= 80


@pytest.mark.parametrize("model", [[], ["--model", "m.tflite"]])
def test_pack_from_hlocs_files(scene, model):
    stdout, m, size = packed(*HLOC, *model)
    assert size <= 20_000 and "Left-out reference images" in stdout
    assert m.image_names == read_content("scene.hfmap").names
    assert m.description.weightsHash == ("0" * 32 if model else "")
    assert ("weights unknown" in run(main, "inspect", "out.hfmap").stdout) == (not model)


@pytest.mark.parametrize("codec", list(CodecName))
def test_pack_with_one_codec(scene, codec):
    stdout, m, _ = packed("scene.hfmap", "--codec", codec, budget=14_000)
    assert m.codec.name is codec and f"chosen: {codec} " in stdout
    others = [other for other in CodecName if other is not codec]
    assert not any(f" {other} " in stdout for other in others)  # nor were they judged


def test_pack_with_pictures(scene):
    """Of accuracy against size, and of what probabilities are worth."""
    stdout, m, size = packed("scene.hfmap", "--curve", "out.png", "--reliability", "worth.png")
    (told,) = re.findall(r"calibrated on 6 left-out images, 6 of them right: .* from (0\.\d+) to (0\.\d+)\n", stdout)
    assert max(map(float, told)) < 0.3 and m.calibration.images == 6
    assert is_a_picture("worth.png") and "wrote worth.png (" in stdout
    assert "\nprobabilities: calibrated on 6 left-out images (right x " in run(main, "inspect", "out.hfmap").stdout
    assert "\nprobabilities: not calibrated to this map\n" in run(main, "inspect", "scene.hfmap").stdout
    assert "The best at each size" in stdout and "wrote out.png (" in stdout
    points = [line for line in stdout.split("The best at each size")[1].splitlines() if " %" in line]
    assert len(points) > 2 and "everything, as built" in points[-1]
    scores = [float(line.split()[-1]) for line in points[:-1]]
    assert scores == sorted(scores)
    assert any(console.size_text(size) in line for line in points)  # the chosen is one of them
    assert is_a_picture("out.png")


def test_the_curves_axes_have_units_and_plain_decimals(tmp_path, monkeypatch):
    drawn = []
    monkeypatch.setattr(curve_picture, "save_png", lambda figure, _: drawn.append(figure))
    settings = Settings(CodecName.PQ, 48, 12, 1, 512)
    for scale, error, unit in ((1e3, 0.016, "kB"), (1e3, 2.5, "kB"), (1e6, 0.00002, "MB")):
        points = [
            Choice(settings, 9, int(size * scale), 1.0, (error * (1 + 60 / size), 0.1), np.full(9, 0.5))
            for size in (20, 60, 150)
        ]
        draw_curve([*points, replace(points[-1], settings=None)], points[1], tmp_path / "out.png")
        upper, lower = drawn[-1].axes
        drawn[-1].canvas.draw()
        assert lower.get_xlabel() == f"size of the map [{unit}]" and "[map's unit]" in lower.get_ylabel()
        for axis in (lower.xaxis, lower.yaxis):
            low, high = axis.get_view_interval()
            ticks = [t for t in axis.get_ticklabels() if low <= float(t.get_text()) <= high]
            assert len(ticks) >= 3 and all(re.fullmatch(r"[0-9.]+", t.get_text()) for t in ticks)
        assert "[%]" in upper.get_ylabel()


def test_the_curve_of_one_codec(scene):
    stdout, _, _ = packed("scene.hfmap", "--codec", "int8", "--curve", "out.png")
    assert is_a_picture("out.png") and "pq" not in stdout and "binary" not in stdout


@pytest.mark.parametrize("option", ["--curve", "--reliability"])
def test_there_is_nothing_to_plot_of_a_packed_map(scene, option):
    before = contents(scene)
    result = run(main, "pack", "bare.hfmap", "--budget", "20kB", "-o", "out.hfmap", option, "out.png")
    assert refused(result, "nothing to judge by") and contents(scene) == before


def test_a_packed_map_is_packed_again(scene):
    _, first, _ = packed("scene.hfmap", "--codec", "pq", budget=14_000, output="first.hfmap")
    stdout, m, size = packed("first.hfmap", budget=12_500)
    assert m.calibration == first.calibration and m.calibration.images
    assert size >= 0.95 * 12_500 and m.codec.name is CodecName.PQ
    assert "packed already" in stdout and "Left-out" not in stdout
    before = contents(scene)
    result = run(main, "pack", "first.hfmap", "--budget", "9kB", "-o", "out.hfmap", "--codec", "int8")
    assert refused(result, "packed with the codec pq", "`build`")
    assert contents(scene) == before


def test_a_map_without_keypoints_keeps_its_codec(scene):
    stdout, m, size = packed("bare.hfmap")
    assert size >= 0.95 * 20_000 and "packed already" in stdout
    assert m.codec.name is CodecName.INT8 and m.codec.projection is None


def test_packing_does_not_destroy_its_source(scene):
    before = contents(scene)
    result = run(main, "pack", "scene.hfmap", "--budget", "20kB", "-o", "scene.hfmap")
    assert refused(result, "another option names the same file")
    assert contents(scene) == before


def test_packing_through_a_link_replaces_what_it_names(scene):
    (scene / "link.hfmap").symlink_to("out.hfmap")
    packed("bare.hfmap", output="link.hfmap")
    assert (scene / "link.hfmap").is_symlink()
    LocalizationMap.open(scene / "out.hfmap").check_all()


def test_a_budget_beyond_the_map_says_why_the_map_is_smaller(scene):
    stdout, _, size = packed("scene.hfmap", budget=10**9)
    assert f"it takes {console.size_text(size)}: no other of the sizes tried" in stdout


def test_a_place_too_small_to_leave_an_image_out_is_not_judged(scene):
    write_map(full_sections(place(images=2, landmarks=100).source()), scene / "two.hfmap")
    stdout, _, _ = packed("two.hfmap", budget=12_000)
    assert "too few images" in stdout and "not judged" in stdout and "keypoints" not in stdout
    before = contents(scene)
    result = run(main, "pack", "two.hfmap", "--budget", "12kB", "-o", "out.hfmap", "--curve", "out.png")
    assert refused(result, "2 images are too few")
    assert contents(scene) == before


def test_a_place_without_landmarks_is_refused(scene):
    write_map(full_sections(place(images=3, landmarks=0).source()), scene / "empty.hfmap")
    assert refused(run(main, "pack", "empty.hfmap", "--budget", "20kB", "-o", "out.hfmap"), "no landmarks")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["scene.hfmap", "--budget", "0"], ["'0' is not a size", "4MB"]),
        (["scene.hfmap", "--budget", "-3MB"], ["'-3MB' is not a size"]),
        (["scene.hfmap", "--budget", "four"], ["'four' is not a size"]),
        (["scene.hfmap", "--budget", ""], ["'' is not a size"]),
        (["scene.hfmap", *HLOC], ["SOURCE.hfmap and hloc's files are given", "either"]),
        (["scene.hfmap", "--features", "features.h5"], ["SOURCE.hfmap and hloc's files are given"]),
        (["scene.hfmap", "--model", "m.tflite"], ["SOURCE.hfmap and hloc's files are given"]),
        (HLOC[2:], ["--sfm is missing"]),
        (HLOC[:2] + HLOC[4:], ["--features is missing"]),
        (HLOC[:4], ["--global-features is missing"]),
        (HLOC[:2], ["--features, --global-features is missing"]),
        ([], ["nothing to pack", "SOURCE.hfmap"]),
        (["--model", "m.tflite"], ["nothing to pack"]),
        (["notes.hfmap"], ["notes.hfmap is not an hfnet-edge map", "hfnet-map build"]),
        (["short.hfmap"], ["short.hfmap", "truncated"]),
        (["nowhere.hfmap"], ["there is no map nowhere.hfmap"]),
        (["sfm"], ["sfm", "no place in tiles"]),
        (["scene.hfmap", "--curve", "out.pdf"], ["out.pdf is not a .png"]),
        (["scene.hfmap", "--curve", "nowhere/out.png"], ["no folder nowhere"]),
        (["scene.hfmap", "--curve", "scene.hfmap"], ["scene.hfmap", "names the same file"]),
        (["scene.hfmap", "--curve", "out.hfmap"], ["out.hfmap", "names the same file"]),
        (["scene.hfmap", "-o", "nowhere/out.hfmap"], ["no folder nowhere"]),
        (["scene.hfmap", "-o", "scene.hfmap/out.hfmap"], ["scene.hfmap is a file"]),
        (["scene.hfmap", "-o", "sfm"], ["sfm", "a folder"]),
        ([*HLOC, "-o", "features.h5"], ["features.h5", "names the same file"]),
        ([*HLOC, "-o", "./global-feats.h5"], ["global-feats.h5", "names the same file"]),
        ([*HLOC, "--model", "m.tflite", "-o", "m.tflite"], ["m.tflite", "names the same file"]),
        ([*HLOC, "--model", "nowhere.tflite"], ["nowhere.tflite"]),
        ([*HLOC, "--sfm", "nowhere"], ["nowhere"]),
        ([*HLOC, "--features", "nowhere.h5"], ["no file nowhere.h5"]),
        ([*HLOC, "--features", "scene.hfmap"], ["scene.hfmap is damaged or not HDF5"]),
        ([*HLOC, "--global-features", "features.h5"], ["features.h5 has no global_descriptor"]),
        (
            ["scene.hfmap", "--budget", "1000"],
            ["a budget of 1000 bytes is too small", "images and tables alone take 1"],
        ),
        (["bare.hfmap", "--budget", "1kB"], ["a budget of 1000 bytes is too small", "--budget"]),
        (["bare.hfmap", "--curve", "out.png"], ["lacks the keypoints of its reference images"]),
    ],
)
def test_pack_refuses(scene, arguments, words):
    before = contents(scene)
    defaults = [part for option in (["--budget", "20kB"], ["-o", "out.hfmap"]) if option[0] not in arguments
                for part in option]  # fmt: skip
    assert refused(run(main, "pack", *arguments, *defaults), *words)
    assert contents(scene) == before


def test_the_other_network_is_not_that_of_hlocs_files(scene, monkeypatch):
    monkeypatch.setattr(FakeModel, "description", replace(EXTRACTOR, local_dim=256))
    before = contents(scene)
    result = run(main, "pack", *HLOC, "--model", "m.tflite", "--budget", "20kB", "-o", "out.hfmap")
    assert refused(result, "the features are 32 (local) and 16 (global) wide", "256")
    assert contents(scene) == before


@pytest.mark.parametrize(
    ("typed", "words"),
    [
        (["pack", "scene.hfmap", "-o", "out.hfmap"], ["--budget"]),
        (["pack", "scene.hfmap", "--budget", "20kB"], ["--output"]),
        (["pack", "scene.hfmap", "--budget", "20kB", "-o", "out.hfmap", "--codec", "zip"], ["zip", "int8"]),
        (["merge", "-o", "out.hfmap"], ["A.hfmap"]),
        (["verify"], ["MAP"]),
    ],
)
def test_wrong_options_are_one_line(scene, typed, words, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["hfnet-map", *typed])
    before = contents(scene)
    with pytest.raises(SystemExit) as exit_:
        map_main()
    out, err = capsys.readouterr()
    assert exit_.value.code == 2 and out == "" and contents(scene) == before
    assert err.startswith("error: ") and err.endswith("; see --help\n") and err.count("\n") == 1
    for word in words:
        assert word in err


@pytest.mark.parametrize(
    ("text", "size"),
    [("4MB", 4_000_000), ("300 kB", 300_000), ("1.5GB", 1_500_000_000), ("2000", 2000), ("4mb", 4_000_000),
     ("4M", 4_000_000), ("12B", 12), (" 7 kb ", 7000), ("0.5kB", 500), ("3.MB", 3_000_000), ("1", 1)],
)  # fmt: skip
def test_sizes_are_read(text, size):
    assert parse_size(text) == size


@pytest.mark.parametrize(
    "text",
    ["", " ", "0", "0.0MB", "-3MB", "four", "MB", "4 TB", "4MiB", "1e6", "1,5MB", "4MB4", "nan", "inf", "4 M B", "4\n5",
     "9" * 400],
)  # fmt: skip
def test_what_is_not_a_size_is_refused(text):
    with pytest.raises(InputError, match="is not a size; write it like 4MB"):
        parse_size(text)


# --- merge


@pytest.fixture(scope="module")
def built_floors(made, tmp_path_factory):
    """Three places with 6, 4 and 3 images; strange.hfmap is of another network, packed.hfmap is packed."""
    root = tmp_path_factory.mktemp("floors")
    for letter, count, offset in (("a", 6, 0.0), ("b", 4, 40.0), ("c", 3, 80.0)):
        p = place(seed=ord(letter), images=count, landmarks=50 * count, offset=(1000.0 + offset, -2000.0, 50.0))
        source = replace(p.source(0.5), names=tuple(f"{letter}/{i}.jpg" for i in range(count)))
        write_map(full_sections(source), root / f"{letter}.hfmap")
    strange = replace(source, networks=replace(source.networks, weights_hash="1" * 32))
    write_map(full_sections(strange), root / "strange.hfmap")
    packer = Packer(read_content(made / "scene.hfmap"))
    write_map(packer.pack(Settings(CodecName.BINARY, 32, 0, 1, 16), 200), root / "packed.hfmap")
    return root


@pytest.fixture
def floors(scene, built_floors):
    shutil.copytree(built_floors, scene, dirs_exist_ok=True)
    return scene


@pytest.mark.parametrize(("letters", "output"), [("ab", "out.hfmap"), ("abc", "out.hfmap")])
def test_merge(floors, letters, output):
    parts = [read_content(f"{letter}.hfmap") for letter in letters]
    result = run(main, "merge", *(f"{letter}.hfmap" for letter in letters), "-o", output)
    assert result.exit_code == 0, result.output
    assert result.stderr == ""
    m = LocalizationMap.open(output)
    m.check_all()
    assert m.image_names == tuple(name for part in parts for name in part.names)
    assert m.landmark_count == sum(len(part.positions) for part in parts)
    assert m.description.observationCount == sum(len(part.landmarks) for part in parts)
    assert f"{m.image_count} images, {m.landmark_count} landmarks" in result.stdout
    assert f"wrote {output} ({console.size_text(Path(output).stat().st_size)})" in result.stdout
    assert f"next: hfnet-map pack {output} --budget 4MB" in result.stdout
    stdout, _, _ = packed(output, "--codec", "binary", budget=25_000, output="packed.hfmap")
    assert "Left-out" in stdout  # its keypoints are there, to judge by


@pytest.mark.parametrize(
    ("maps", "words"),
    [
        (["a.hfmap", "a.hfmap"], ["a/0.jpg is in two of the maps"]),
        (["a.hfmap", "b.hfmap", "./a.hfmap"], ["a/0.jpg is in two of the maps"]),
        (["a.hfmap", "strange.hfmap"], ["a.hfmap", "strange.hfmap", "1" * 32, "one model"]),
        (["a.hfmap"], ["there is one map"]),
        (["a.hfmap", "packed.hfmap"], ["packed.hfmap is packed", "hfnet-map build"]),
        (["a.hfmap", "notes.hfmap"], ["notes.hfmap is not an hfnet-edge map"]),
        (["short.hfmap", "a.hfmap"], ["short.hfmap", "truncated"]),
        (["a.hfmap", "nowhere.hfmap"], ["there is no map nowhere.hfmap"]),
        (["a.hfmap", "b.hfmap", "-o", "nowhere/out.hfmap"], ["no folder nowhere"]),
        (["a.hfmap", "b.hfmap", "-o", "sfm"], ["sfm", "a folder"]),
        (["a.hfmap", "b.hfmap", "-o", "a.hfmap"], ["another option names the same file"]),
    ],
)
def test_merge_refuses(floors, maps, words):
    before = contents(floors)
    output = [] if "-o" in maps else ["-o", "out.hfmap"]
    assert refused(run(main, "merge", *maps, *output), *words)
    assert contents(floors) == before


# --- verify


def test_verify_prints_statistics(tmp_path):
    source = place(images=4, landmarks=1500).source()
    path = tmp_path / "a[bold].hfmap"  # what rich would take for markup
    write_map(full_sections(source), path)
    result = run(main, "verify", path)
    assert result.exit_code == 0 and result.stderr == ""
    assert f"{path} is whole" in result.stdout and f"next: hfnet-map inspect '{path}'" in result.stdout
    tracks = np.bincount(source.landmarks, minlength=1500)
    seen = np.bincount(source.images, minlength=4)
    table = rows(result.stdout)
    for name, counts in (
        ("landmarks of an image", seen),
        ("images of a landmark", tracks),
        ("descriptors of a landmark", tracks),
    ):
        figures = [float(cell) for cell in table[name]]
        expected = [counts.min(), np.median(counts), counts.mean(), counts.max()]
        assert figures == pytest.approx(expected, abs=0.051)
        assert figures[0] == expected[0] and figures[3] == expected[3]
    assert seen.max() > 1000 and "e+" not in result.stdout
    assert "observed by no image" not in result.stdout


def test_verify_of_a_packed_map(scene):
    _, m, _ = packed("scene.hfmap", "--codec", "pq", budget=14_000)
    result = run(main, "verify", "out.hfmap")
    assert result.exit_code == 0 and "out.hfmap is whole" in result.stdout
    mean = float(rows(result.stdout)["descriptors of a landmark"][2])
    assert mean == pytest.approx(m.description.descriptorCount / m.landmark_count, abs=0.051)


def test_verify_counts_what_no_image_observes(tmp_path):
    source = place(images=4, landmarks=100).source()
    still = source.landmarks > 2
    source = replace(source.without_keypoints(), landmarks=source.landmarks[still], images=source.images[still])
    write_map(full_sections(source), tmp_path / "a.hfmap")
    result = run(main, "verify", tmp_path / "a.hfmap")
    assert result.exit_code == 0 and "3 landmarks are observed by no image" in result.stdout
    assert rows(result.stdout)["images of a landmark"][0] == "0"


@pytest.mark.parametrize("share", [0.001, 0.003, 0.1, 0.4, 0.7, 1.0])
def test_verify_refuses_and_names_what_is_damaged(scene, share):
    content = bytearray(Path("scene.hfmap").read_bytes())
    at = min(int(share * len(content)), len(content) - 1)
    content[at] ^= 4
    Path("scene.hfmap").write_bytes(content)
    start = LocalizationMap.open("bare.hfmap").file.start
    words = [f"the {BLOCK} bytes at", "damaged (checksum)"] if at > 2 * start else []
    assert refused(run(main, "verify", "scene.hfmap"), "scene.hfmap", *words)


@pytest.mark.parametrize(
    ("path", "words"),
    [
        ("notes.hfmap", ["not an hfnet-edge map"]),
        ("short.hfmap", ["truncated"]),
        ("nowhere.hfmap", ["there is no map"]),
        ("sfm", ["no place in tiles"]),
    ],
)
def test_verify_refuses(scene, path, words):
    assert refused(run(main, "verify", path), path, *words)


# --- example


def test_example_draws_a_place(tmp_path, monkeypatch):
    def write_place(directory, progress):
        (directory / "images").mkdir(parents=True)
        (directory / "map.txt").write_text("a.jpg\n")
        progress(1, 1)

    monkeypatch.setattr(made_place, "write_place", write_place)
    result = run(main, "example", "-o", tmp_path / "place")
    assert result.exit_code == 0, result.output
    assert f"wrote {tmp_path / 'place'} (6 B)" in result.stdout
    assert f"next: hfnet-map build --images {tmp_path / 'place'}/images" in result.stdout
    assert [f.name for f in tmp_path.iterdir()] == ["place"]
    assert refused(run(main, "example", "-o", tmp_path / "place"), "there already")

    def no_space(directory, progress):
        directory.joinpath("images").mkdir()
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(made_place, "write_place", no_space)
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
    for text in (
        "4 queries, 1 without a pose",
        "25.0 %",
        "50.0 %",
        "75.0 %",
        "0.65 units",
        "0.3 units",
        "metres where it is metric",
    ):
        assert text in result.stdout
    e = json.loads((found / "e.json").read_text())
    assert [r["recall"] for r in e["recalls"]] == [0.25, 0.5, 0.75]
    assert e["median_position"] == pytest.approx(0.65) and e["median_localized_position"] == pytest.approx(0.3)
    assert e["abstentions"] == 1 and e["errors"]["3.jpg"] == {"position": None, "rotation_deg": None}
    assert e["alignment"] is None and "another frame" not in result.stdout
    assert "next: hfnet-eval" in result.stdout


def test_names_alone_are_queries_too_and_thresholds_can_be_chosen(found):
    (found / "queries.txt").write_text("0.jpg\n1.jpg\n")
    result = run(eval_main, *eval_options(found, "--thresholds", "0.2,1 0.4,1"))
    assert "within 0.4 units, 1°" in result.stdout and "100.0 %" in result.stdout and "50.0 %" in result.stdout


def in_another_frame(folder, count, scale=0.25):
    """Poses of the first images as a reconstruction of another scale and orientation has them, 1 cm off."""
    turn, rng = np.array([[0.0, 0, 1], [1, 0, 0], [0, 1, 0]]), np.random.default_rng(0)
    poses = []
    for i, pose in enumerate(place(images=6, landmarks=300).poses[:count]):
        rotation, center = pose.rotation @ turn.T, scale * turn @ (pose.center + rng.normal(0, 0.006, 3)) + [7, 8, 9]
        poses.append((f"{i}.jpg", Pose.from_matrix(rotation, -rotation @ center)))
    write_poses(folder / "poses.txt", poses)
    (folder / "queries.txt").write_text("".join(f"{i}.jpg\n" for i in range(6)))


def test_evaluation_after_an_alignment(found):
    in_another_frame(found, 5)
    plain = run(eval_main, *eval_options(found))
    assert plain.exit_code == 0 and "another frame or scale" in plain.stdout and "median error is 0.0" in plain.stdout
    *_, line = plain.stdout.splitlines()
    typed = shlex.split(line.removeprefix("next: "))
    assert typed[0] == "hfnet-eval" and typed[-1] == "--align"
    assert run(main, "build", *build_options(found)).exit_code == 0
    picture = ["--picture", found / "a.png", "--map", found / "scene.hfmap", "--json", found / "e.json"]
    result = run(eval_main, *typed[1:], *picture)
    assert result.exit_code == 0, result.output
    scale = float(re.search(r"aligned with the reference by 5 poses: scale ([\d.]+)", result.stdout)[1])
    assert scale == pytest.approx(4, rel=2e-3) and is_a_picture(found / "a.png")
    e = json.loads((found / "e.json").read_text())
    assert e["alignment"]["poses"] == 5 and e["alignment"]["scale"] == pytest.approx(scale, rel=1e-5)
    assert e["abstentions"] == 1 and 0 < e["median_localized_position"] < 0.02
    assert [r["recall"] for r in e["recalls"]] == pytest.approx([5 / 6] * 3)


def test_two_poses_are_not_aligned(found):
    in_another_frame(found, 2)
    before = sorted(found.rglob("*"))
    assert refused(run(eval_main, *eval_options(found, "--align", "--json", found / "e.json")), "2 poses", "--align")
    assert sorted(found.rglob("*")) == before


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


@pytest.mark.parametrize("command", ["build", "pack", "merge", "verify", "inspect", "example"])
def test_help_shows_an_example(command):
    assert f"hfnet-map {command}" in run(main, command, "--help").stdout
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
    code = "from hfnet_edge.shell.console import progress\nwith progress() as report:\n  report('matching', 2, 5)"
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
