"""Queries by hloc's features, from packing hloc's files to poses, as it is typed."""

import shlex
import subprocess
import sys
from dataclasses import replace

import h5py
import numpy as np
import pytest
from typer.testing import CliRunner

from hfnet_edge.cli import app
from hfnet_edge.errors import InputError, InstallError, MapFormatError, MismatchError
from hfnet_edge.geometry import Camera
from hfnet_edge.hloc import MAX_VALUES, HlocLocalizer, read_features
from hfnet_edge.map.map_file import LocalizationMap
from hfnet_edge.methods.method import LocalizationConfig
from hfnet_edge.result import Status
from hfnet_edge.shell.lists import read_poses
from hfnet_maps.build.builder import map_from_features
from hfnet_maps.build.hloc import read_hloc
from hfnet_maps.cli import main
from hfnet_maps.pack.writer import full_sections, write_map
from hloc_files import write_features, write_hloc
from synthetic import CAMERA, EXTRACTOR, looking_at, place

LARGE = Camera("PINHOLE", 3200, 2400, tuple(5 * value for value in CAMERA.params))
QUERIES = {"query/1.jpg": CAMERA, "query/2.jpg": CAMERA, "large.jpg": LARGE}


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """hloc's files of a place and of queries in it: `scene` has all, and `queries.txt`; and the queries' true poses."""
    folder = tmp_path_factory.mktemp("scene")
    p = place(images=8, landmarks=400)
    names = [f"db/{i}.jpg" for i in range(8)]
    features = [p.features(pose, outliers=20) for pose in p.poses]
    write_hloc(folder, map_from_features(names, [CAMERA] * 8, p.poses, features, EXTRACTOR)[0])
    center = p.landmarks.mean(axis=0)
    truth = {}
    with h5py.File(folder / "features.h5", "a") as local, h5py.File(folder / "global-feats.h5", "a") as global_:
        for (name, camera), angle in zip(QUERIES.items(), (0.2, 2.5, 4.0), strict=True):
            truth[name] = looking_at(center + 14 * np.array([np.cos(angle), np.sin(angle), 0.15]), center)
            seen = p.features(truth[name], noise=0.5 * camera.width / 640, outliers=100, camera=camera)
            write_features(local, global_, name, seen, camera)
    (folder / "queries.txt").write_text("".join(f"{name} {camera}\n" for name, camera in QUERIES.items()))
    return folder, truth


@pytest.fixture
def scene(made, tmp_path, monkeypatch):
    """A copy to damage, with its map; the working folder."""
    folder, truth = made
    for path in folder.iterdir():
        if path.is_file():
            (tmp_path / path.name).write_bytes(path.read_bytes())
    if not (folder / "packed.hfmap").is_file():
        write_map(full_sections(read_hloc(*hloc(folder))), folder / "packed.hfmap")
    (tmp_path / "packed.hfmap").write_bytes((folder / "packed.hfmap").read_bytes())
    monkeypatch.chdir(tmp_path)
    return tmp_path, truth


def hloc(folder):
    return folder / "sfm", folder / "features.h5", folder / "global-feats.h5"


FILES = ["--features", "features.h5", "--global-features", "global-feats.h5"]
BASIC = ["--map", "packed.hfmap", *FILES, "--queries", "queries.txt", "-o", "poses.txt"]


def localized(*arguments):
    return CliRunner().invoke(app, list(arguments))


def refused(result, *words):
    assert result.exit_code == 2, result.output
    line = result.stderr.splitlines()[-1]
    assert line.startswith("error: ") and "; " in line and all(word in line for word in words), line
    return True


def test_the_command_that_pack_names_finds_the_queries(made, tmp_path, monkeypatch):
    folder, truth = made
    monkeypatch.chdir(tmp_path)
    sfm, features, global_features = (str(path) for path in hloc(folder))
    arguments = ["--sfm", sfm, "--features", features, "--global-features", global_features]
    result = CliRunner().invoke(main, ["pack", *arguments, "--budget", "30kB", "-o", "packed.hfmap"])
    assert result.exit_code == 0, result.output
    command = shlex.split(result.stdout.splitlines()[-1].removeprefix("next: "))
    assert command[0] == "hfnet-localize" and "--model" not in command
    command[command.index("LIST")] = str(folder / "queries.txt")
    result = localized(*command[1:])
    assert result.exit_code == 0, result.output
    poses = read_poses("poses.txt")
    assert set(poses) == set(truth)
    for name, pose in poses.items():
        assert np.linalg.norm(pose.center - truth[name].center) < 0.1, name


def test_a_map_packed_again_names_files_to_give(scene):
    result = CliRunner().invoke(main, ["pack", "packed.hfmap", "--budget", "30kB", "-o", "again.hfmap"])
    command = f"hfnet-localize --map again.hfmap {' '.join(FILES)} --queries LIST -o poses.txt"
    assert result.stdout.splitlines()[-1] == f"next: {command}"


def test_a_reference_image_by_its_own_features_is_what_was_packed(made):
    folder, _ = made
    source = read_hloc(*hloc(folder))
    with h5py.File(folder / "features.h5") as local, h5py.File(folder / "global-feats.h5") as global_:
        for i, name in enumerate(source.names):
            packed, found = source.features(i), read_features(local, global_, name, CAMERA)
            here, there = (np.lexsort(one.descriptors.T) for one in (found, packed))
            assert np.array_equal(found.descriptors[here], packed.descriptors[there])
            assert np.abs(found.keypoints[here] - packed.keypoints[there]).max() < 0.3  # float16's rounding
            assert np.median(found.keypoints[here] - packed.keypoints[there]) == 0
            assert np.array_equal(found.global_descriptor, packed.global_descriptor) and found.pixel == 1.0
        assert read_features(local, global_, "large.jpg", LARGE).pixel == 3200 / 1024


def test_the_best_keypoint_comes_first(scene):
    with h5py.File("features.h5", "r+") as local, h5py.File("global-feats.h5") as global_:
        ranks = np.random.default_rng(0).permutation(len(local["large.jpg/scores"]))
        local["large.jpg/scores"][:] = ranks
        found = read_features(local, global_, "large.jpg", LARGE)
        assert found.scores.tolist() == sorted(ranks, reverse=True)
        best = local["large.jpg/keypoints"][np.argmax(ranks)].astype(float)
        assert np.array_equal(found.keypoints[0], best + 0.5)


def lacking(key, name):
    def damage():
        with h5py.File(key, "r+") as file:
            del file[name]

    return damage


def replaced(key, dataset, change):
    def damage():
        with h5py.File(key, "r+") as file:
            values = file[dataset][()]
            del file[dataset]
            file[dataset] = change(values)

    return damage


def bomb():
    """A dataset of a few bytes that claims to be of terabytes."""
    with h5py.File("features.h5", "r+") as file:
        del file["query/2.jpg/descriptors"]
        file.create_dataset("query/2.jpg/descriptors", (32, MAX_VALUES), "f2", chunks=(32, 1024))


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (lacking("features.h5", "query/2.jpg"), "features.h5 lacks query/2.jpg"),
        (lacking("global-feats.h5", "query/2.jpg"), "global-feats.h5 lacks query/2.jpg"),
        (lacking("features.h5", "query/2.jpg/keypoints"), "has no keypoints of query/2.jpg"),
        (replaced("features.h5", "query/2.jpg/keypoints", lambda xy: xy * np.nan), "keypoints of query/2.jpg that are"),
        (replaced("features.h5", "query/2.jpg/keypoints", lambda xy: xy[:-1]), "descriptors of query/2.jpg with key"),
        (replaced("features.h5", "query/2.jpg/scores", lambda s: s[:-1]), "scores of query/2.jpg"),
        (bomb, "has no descriptors of query/2.jpg"),
    ],
)
def test_what_one_query_lacks_does_not_lose_the_others(scene, damage, words):
    _, truth = scene
    damage()
    assert refused(localized(*BASIC), "1 of 3 queries", words)
    assert set(read_poses("poses.txt")) == set(truth) - {"query/2.jpg"}


@pytest.mark.parametrize(
    ("key", "dataset", "change"),
    [
        ("features.h5", "descriptors", lambda d: d[:16]),
        ("global-feats.h5", "global_descriptor", lambda g: g[:8]),
    ],
)
def test_features_of_another_width_are_refused(scene, key, dataset, change):
    for name in QUERIES:
        replaced(key, f"{name}/{dataset}", change)()
    assert refused(localized(*BASIC), "(local) and", "(global) wide, the map's 32 and 16")


def test_a_map_of_a_known_network_wants_that_network(scene):
    folder, _ = scene
    p = place(images=3, landmarks=50)
    write_map(full_sections(p.source()), folder / "known.hfmap")
    arguments = [a if a != "packed.hfmap" else "known.hfmap" for a in BASIC]
    assert refused(localized(*arguments), "synthetic", "0" * 32, "--model")
    assert not (folder / "poses.txt").exists()


def test_pictures_want_the_photos(scene):
    folder, _ = scene
    import PIL.Image

    for name in QUERIES:
        (folder / "photos" / name).parent.mkdir(parents=True, exist_ok=True)
        PIL.Image.new("L", (QUERIES[name].width, QUERIES[name].height), 90).save(folder / "photos" / name)
    result = localized(*BASIC, "--images", "photos", "--pictures", "drawn", "--report", "r.jsonl")
    assert result.exit_code == 0, result.output
    assert all((folder / "drawn" / name).is_file() for name in QUERIES)
    assert len((folder / "r.jsonl").read_text().splitlines()) == 3


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (BASIC[:2] + BASIC[4:], "go together"),
        ([*BASIC, "--model", "m.tflite"], "go together"),
        ([*BASIC, "--images", "."], "only for --pictures"),
        ([*BASIC, "--pictures", "drawn"], "only for --pictures"),
        (["--map", "packed.hfmap", *FILES, "--image", "a.jpg", "--camera", str(CAMERA)], "for --queries"),
        (["--map", "packed.hfmap", "--queries", "queries.txt", "-o", "poses.txt"], "there is no --model"),
        (["--map", "packed.hfmap", *FILES, "--queries", "queries.txt"], "-o"),
        ([*BASIC, "--method", "parallel"], "trees"),
        ([*BASIC[:-1], "features.h5"], "cannot write features.h5"),
        ([a if a != "features.h5" else "nowhere.h5" for a in BASIC], "there is no file nowhere.h5"),
        ([a if a != "features.h5" else "queries.txt" for a in BASIC], "queries.txt is damaged or not HDF5"),
    ],
)
def test_wrong_options(scene, arguments, words):
    assert refused(localized(*arguments), words)


def test_by_code(scene):
    folder, truth = scene
    localizer = HlocLocalizer("packed.hfmap", *hloc(folder)[1:], LocalizationConfig("retrieval"))
    result = localizer.localize("query/1.jpg", CAMERA)
    assert result.status is Status.LOCALIZED and "load" in result.milliseconds
    assert np.linalg.norm(result.pose.center - truth["query/1.jpg"].center) < 0.1
    with pytest.raises(InputError, match=r"lacks elsewhere\.jpg"):
        localizer.localize("elsewhere.jpg", CAMERA)
    with pytest.raises(MapFormatError):
        HlocLocalizer("nowhere.hfmap", *hloc(folder)[1:])
    known = replace(LocalizationMap.open("packed.hfmap"))
    known.description.weightsHash = "1" * 32
    with pytest.raises(MismatchError, match="1" * 32):
        HlocLocalizer(known, *hloc(folder)[1:])


def test_without_h5py_one_line_says_what_to_install(scene, monkeypatch):
    folder, _ = scene
    monkeypatch.setitem(sys.modules, "h5py", None)
    with pytest.raises(InstallError, match=r"pip install \"hfnet-edge\[maps\]\""):
        HlocLocalizer("packed.hfmap", *hloc(folder)[1:])
    assert refused(localized(*BASIC), "h5py", 'pip install "hfnet-edge[maps]"')


def test_the_runtime_imports_no_h5py():
    code = "import sys, hfnet_edge.cli, hfnet_edge.hloc; sys.exit('h5py' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
