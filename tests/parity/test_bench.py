"""The bench on a small place drawn by code, through the command that users run."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from commands import called
from hfnet_edge.errors import BackendError, InputError, MismatchError
from hfnet_edge.geometry import Camera
from hfnet_edge.localizer import Localizer
from hfnet_edge.map.container import BLOCK
from hfnet_edge.map.map_file import LocalizationMap
from hfnet_edge.networks.hfnet import Model
from hfnet_edge.record.bench import BenchRun, peak_rss
from hfnet_edge.record.runner import BENCH, JOB, OUT, run
from hfnet_edge.shell.lists import read_queries
from hfnet_parity.bench import WHOLE, Measured, guess_cameras, is_busy, measure, tables, to_json
from hfnet_parity.bench_cli import bench_main

pytest.importorskip("tensorflow")
STAGES = ("load", "extract", "decode", "retrieve", "cluster", "match", "pose", "second_look", "trust")
MAP_STAGES = STAGES[3:]


@pytest.fixture(scope="module")
def here(kit) -> Path:
    """A folder with a place, its map, and its network in int8 and in float."""
    return kit.root


def queries(here: Path) -> list[tuple[str, Camera]]:
    return read_queries(here / "place/queries_with_intrinsics.txt")


@pytest.fixture(scope="module")
def three(here) -> Path:
    """A list of three of them."""
    (here / "three.txt").write_text("".join(f"{name} {camera}\n" for name, camera in queries(here)[:3]))
    return here / "three.txt"


def bench(here: Path, *more: str | Path, code: int = 0) -> tuple[str, str]:
    """What the command says on stdout and on stderr; only its measurements are processes of their own."""
    done = called(bench_main, "hfnet-bench", "--map", here / "place.hfmap", *more, code=code)
    return done.stdout, done.stderr


@pytest.fixture(scope="module")
def measured(here, three) -> tuple[dict, str]:
    """What the command makes of int8 against float: its JSON and what it prints."""
    said, _ = bench(
        here, "--model", here / "int8.tflite", "--model", here / "float.tflite", "--images", here / "place/images",
        "--queries", three, "--rounds", "2", "--json", here / "bench.json",
    )  # fmt: skip
    return json.loads((here / "bench.json").read_text()), said


def test_every_stage_has_its_numbers_and_they_add_up(here, measured):
    found, _ = measured
    listed = [name for name, _ in queries(here)[:3]]
    assert [(Path(one["model"]).stem, one["threads"]) for one in found["measured"]] == [
        ("int8", 1), ("int8", 2), ("float", 1), ("float", 2),
    ]  # fmt: skip
    assert [one["precision"] for one in found["measured"]] == ["int8", "int8", "none", "none"]
    assert found["cores"] >= 1 and found["processor"] and not found["cameras_guessed"]
    for one in found["measured"]:
        assert one["localized"] >= 2, "of three"
        assert list(one["stages"]) == [*STAGES, WHOLE]
        for stage, numbers in one["stages"].items():
            assert 0 < numbers["p50"] <= numbers["p95"], stage
            assert numbers["timed"] == 2 * len(listed)
        assert [one_round["threads"] for one_round in one["rounds"]] == 2 * [one["threads"]]
        for query in (query for one_round in one["rounds"] for query in one_round["queries"]):
            assert query["name"] in listed
            assert query["whole"] >= sum(query["milliseconds"].values()) > 0
        timed = [query["milliseconds"] for one_round in one["rounds"] for query in one_round["queries"]]
        assert one["stages"][WHOLE]["p50"] > sum(min(ms[stage] for ms in timed) for stage in STAGES)
        size = Path(one["model"]).stat().st_size
        assert one["peak_rss"] > 20e6 + size, "Python, numpy, OpenCV, LiteRT and the model"


def test_bytes_are_those_of_the_files_and_of_the_blocks_of_the_map(here, measured):
    found, _ = measured
    total = (here / "place.hfmap").stat().st_size
    for one in found["measured"]:
        first_run = one["rounds"][0]
        assert first_run["model_bytes"] == Path(one["model"]).stat().st_size
        assert one["bytes_opened"] == first_run["model_bytes"] + first_run["map_bytes"]
        assert 0 < first_run["map_bytes"] < total
        first, *others = first_run["queries"]
        for query in first_run["queries"]:
            assert query["bytes"]["load"] == (here / "place/images" / query["name"]).stat().st_size
        of_map = [sum(q["bytes"][stage] for stage in MAP_STAGES) for q in first_run["queries"]]
        assert of_map[0] > 0 and of_map[0] % BLOCK in (0, last_block(here)), "whole blocks"
        assert of_map[1] < of_map[0], "the second query finds most of its blocks read"
        assert first_run["map_bytes"] + sum(of_map) <= total
        assert one["stages"][WHOLE]["bytes_first_query"] == of_map[0] + first["bytes"]["load"]
        assert one["stages"]["match"]["bytes_all_queries"] == sum(q["bytes"]["match"] for q in (first, *others))
        assert [q["bytes"] for q in one["rounds"][1]["queries"]] == [q["bytes"] for q in first_run["queries"]]


def last_block(here: Path) -> int:
    file = LocalizationMap.open(here / "place.hfmap").file
    return (len(file.data) - file.start) % BLOCK


def test_touching_everything_reads_the_whole_file(here):
    m = LocalizationMap.open(here / "place.hfmap")
    before = m.file.touched
    m.check_all()
    assert before < m.file.touched == (here / "place.hfmap").stat().st_size


def test_peak_memory_is_of_this_process_alone():
    """Not of the one that started it, which has held more."""
    program = "import numpy as np; from hfnet_edge.record.bench import peak_rss; print(peak_rss()); "
    program += "np.ones(25_000_000); print(peak_rss())"
    mine = np.ones(50_000_000).nbytes
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    before, after = (int(line) for line in done.stdout.split())
    assert 20e6 < before < mine < peak_rss()
    assert 150e6 < after - before < 250e6, "200 MB were held"


def test_ratios_are_of_pairs(here, measured):
    found, _ = measured
    int8, float_ = found["measured"][0], found["measured"][2]
    assert all(numbers["ratio"] == 1 for numbers in int8["stages"].values()), "to itself"
    pairs = [
        b["milliseconds"]["extract"] / a["milliseconds"]["extract"]
        for x, y in zip(int8["rounds"], float_["rounds"], strict=True)
        for a, b in zip(x["queries"], y["queries"], strict=True)
    ]
    assert float_["stages"]["extract"]["ratio"] == pytest.approx(np.median(pairs))
    assert float_["stages"]["extract"]["ratio"] > 1.2, "int8 is faster by more than that"


def test_the_table_is_for_people(measured):
    found, printed = measured
    assert "int8.tflite (int8)" in printed and "times the milliseconds of int8.tflite" in printed
    assert found["processor"] in printed and f"{found['cores']} cores" in printed
    for stage in (*STAGES, WHOLE):
        assert printed.count(f"│ {stage} ") == 2, "once a model"
    assert max(len(line) for line in printed.splitlines() if line[:1] in "│┃┏├└") <= 80
    assert ("the machine was busy" in printed) == found["busy"]
    assert "poses mean nothing" not in printed


def test_without_a_list_cameras_are_guessed_and_said_to_be(here, tmp_path):
    images = tmp_path / "images"
    (images / "sub").mkdir(parents=True)
    view = Image.open(here / "place/images" / queries(here)[0][0])
    view.save(images / "a.png")
    view.transpose(Image.Transpose.ROTATE_90).save(images / "sub" / "b.jpg")
    (images / "notes.txt").write_text("no image")
    assert guess_cameras(images) == [
        ("a.png", Camera("SIMPLE_PINHOLE", 480, 360, (576, 240, 180))),
        ("sub/b.jpg", Camera("SIMPLE_PINHOLE", 360, 480, (576, 180, 240))),
    ]
    said, _ = bench(
        here, "--model", here / "int8.tflite", "--images", images, "--rounds", "1", "--json", tmp_path / "o.json"
    )
    assert "poses mean nothing" in said
    found = json.loads((tmp_path / "o.json").read_text())
    assert found["cameras_guessed"]
    assert [q["name"] for q in found["measured"][0]["rounds"][0]["queries"]] == ["a.png", "sub/b.jpg"]
    (images / "c.png").write_bytes(b"not a picture")
    assert "c.png" in bench(here, "--model", here / "int8.tflite", "--images", images, code=2)[1]


def test_emulated_timings_are_refused_with_the_reason(here):
    _, error = bench(
        here, "--model", here / "int8.tflite", "--images", here / "place/images", "--backend", "arm64", code=2
    )
    assert "emulator" in error and "--backend adb" in error


def test_what_cannot_be_measured_is_said_in_one_line(here, tmp_path):
    images, listed = here / "place/images", here / "place/queries_with_intrinsics.txt"
    model = ("--model", here / "int8.tflite")
    for options, word in [
        ((*model, "--images", tmp_path / "none"), "there is no folder"),
        ((*model, "--images", tmp_path), "no images"),
        ((*model, "--images", tmp_path, "--queries", listed), "6 of 6 queries are not in"),
        ((*model, "--images", images, "--device", "X"), "--backend adb"),
        (("--model", tmp_path / "none.tflite", "--images", images), "none.tflite"),
        ((*model, "--images", images, "--json", here / "int8.tflite"), "another option names the same file"),
    ]:
        assert word in bench(here, *options, code=2)[1], word


class NoMachine:
    """A backend that must not be asked, or returns what it is given."""

    name = "nowhere"

    def __init__(self, content: str | None = None):
        self.content = content

    def run(self, job: Path, progress=None) -> None:
        assert self.content is not None, "asked"
        (job / OUT).mkdir(exist_ok=True)
        (job / OUT / BENCH).write_text(self.content)


def test_a_model_of_another_map_is_refused_before_anything_is_sent(here, tmp_path):
    from hfnet_export.tflite.embed import embed
    from hfnet_export.tflite.graph import Graph

    content = (here / "float.tflite").read_bytes()
    other = replace(Model(here / "float.tflite").description, weights_hash="f" * 32)
    (tmp_path / "other.tflite").write_bytes(embed(Graph.parse(content), other))
    name, camera = queries(here)[0]
    todo = [(name, here / "place/images" / name, camera)]
    with pytest.raises(MismatchError, match="f" * 32):
        measure(NoMachine(), [here / "int8.tflite", tmp_path / "other.tflite"], here / "place.hfmap", todo, 1)


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"queries": [{}]}'])
def test_what_is_no_measurement_is_a_typed_error(here, content):
    name, camera = queries(here)[0]
    todo = [(name, here / "place/images" / name, camera)]
    with pytest.raises(BackendError, match="nowhere"):
        measure(NoMachine(content), [here / "int8.tflite"], here / "place.hfmap", todo, 1)


def test_the_runs_take_turns(here, measured):
    """There and back, with every model and number of threads once a round."""
    asked = []

    class Listening(NoMachine):
        def run(self, job: Path, progress=None) -> None:
            asked.append(((job / "model.tflite").stat().st_size, json.loads((job / JOB).read_text())["threads"]))
            super().run(job)

    name, camera = queries(here)[0]
    todo = [(name, here / "place/images" / name, camera)]
    models = [here / "int8.tflite", here / "float.tflite"]
    run_json = json.dumps(measured[0]["measured"][0]["rounds"][0])
    found = measure(Listening(run_json), models, here / "place.hfmap", todo, 2)
    sizes = [model.stat().st_size for model in models]
    there = [(sizes[0], 1), (sizes[0], 2), (sizes[1], 1), (sizes[1], 2)]
    assert asked == there + there[::-1]
    assert [(one.model, one.threads, len(one.runs)) for one in found] == [(m, t, 2) for m in models for t in (1, 2)]


def test_a_query_that_stops_early_is_not_timed_further(here, measured):
    """Stages that it did not come to are neither zero nor in the ratios; a busy machine is noticed."""
    fields = measured[0]["measured"][0]["rounds"][0]
    black = {"name": "black", "status": "NO_KEYPOINTS", "milliseconds": {"load": 1.0, "extract": 2.0, "decode": 3.0}}
    black |= {"whole": 7.0, "bytes": {"load": 10}}
    idle = BenchRun.from_json(fields | {"queries": [*fields["queries"], black], "load": 0.0, "cores": 2})
    one = Measured(here / "int8.tflite", 1, (idle,))
    assert one.milliseconds("pose").shape == (1, 4) and np.isnan(one.milliseconds("pose")[0, -1])
    assert one.percentile("pose", 50) == np.median([q["milliseconds"]["pose"] for q in fields["queries"]])
    assert one.bytes(WHOLE)[-1] == 10 and one.milliseconds(WHOLE)[0, -1] == 7
    nothing = Measured(here / "int8.tflite", 1, (BenchRun.from_json(fields | {"queries": [black]}),))
    assert nothing.percentile("pose", 50) is None and nothing.ratio(nothing, "pose") is None
    assert to_json([nothing, nothing], "host", False)["measured"][0]["stages"]["pose"]["p95"] is None
    assert len(tables([nothing, nothing])) == 1
    assert not is_busy([one]) and is_busy([one, Measured(one.model, 2, (replace(idle, load=2.5),))])
    assert not is_busy([Measured(one.model, 2, (replace(idle, load=None),))])


def test_a_job_that_is_none_is_refused(tmp_path):
    for content in ('{"task": "bench"}', '{"task": "benches", "threads": 1, "queries": []}', "{"):
        (tmp_path / JOB).write_text(content)
        with pytest.raises(InputError, match="is not a job"):
            run(tmp_path)


def test_the_stages_are_those_of_the_localizer(here):
    name, camera = queries(here)[0]
    localizer = Localizer(here / "place.hfmap", here / "int8.tflite")
    assert tuple(localizer.localize(here / "place/images" / name, camera).milliseconds) == STAGES
