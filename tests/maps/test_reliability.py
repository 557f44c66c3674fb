"""What probabilities are worth, in numbers that are known by hand; and `hfnet-eval --report` as it is typed."""

import json
import re

import cv2
import numpy as np
import pytest
from typer.testing import CliRunner

from hfnet_edge.errors import InputError, OutputError
from hfnet_edge.geometry import Pose
from hfnet_edge.shell.lists import write_poses
from hfnet_maps.eval_cli import main
from hfnet_maps.evaluation.errors import Threshold
from hfnet_maps.evaluation.reliability import (
    OperatingPoint,
    area_under_roc,
    binomial_interval,
    calibration_bins,
    calibration_error,
    measure_reliability,
    operating_point,
    recall_curve,
)
from hfnet_maps.evaluation.reliability_picture import draw_reliability
from synthetic import place

PROBABILITY = np.array([0.95, 0.9, 0.9, 0.62, 0.3, 0.3])
RIGHT = np.array([True, True, False, True, False, True])


# --- the numbers


def test_bins_have_their_lower_edge_and_the_last_one_has_both():
    bins = calibration_bins(np.arange(11) / 10, np.ones(11, bool))
    assert bins.count.tolist() == [1] * 9 + [2]
    bins = calibration_bins(PROBABILITY, RIGHT)
    assert bins.count.tolist() == [0, 0, 0, 2, 0, 0, 1, 0, 0, 3]
    assert bins.right[[3, 6, 9]] == pytest.approx([1 / 2, 1, 2 / 3])
    assert bins.probability[[3, 6, 9]] == pytest.approx([0.3, 0.62, 2.75 / 3])
    assert np.isnan(bins.right[0]) and np.isnan(bins.probability[0]) and np.isnan(bins.low[0])


def test_the_calibration_error_by_hand():
    by_hand = (2 * abs(0.5 - 0.3) + abs(1 - 0.62) + 3 * abs(2 / 3 - 2.75 / 3)) / 6
    assert calibration_error(PROBABILITY, RIGHT) == pytest.approx(by_hand)
    assert calibration_error(np.array([0.5, 0.5]), np.array([True, False])) == 0
    assert calibration_error(np.array([1.0, 1.0]), np.array([False, False])) == 1


@pytest.mark.parametrize(
    ("hits", "count", "low", "high"),
    [(8, 10, 0.4902, 0.9433), (0, 10, 0, 0.2775), (10, 10, 0.7225, 1), (1, 1, 0.2065, 1), (500, 1000, 0.4691, 0.5309)],
)  # scipy.stats.binomtest(hits, count).proportion_ci(method="wilson")
def test_wilsons_interval(hits, count, low, high):
    ends = binomial_interval(np.array([hits]), np.array([count]))
    assert np.ravel(ends) == pytest.approx([low, high], abs=5e-5)


def test_the_area_is_the_share_of_pairs_in_order():
    rng = np.random.default_rng(0)
    for levels in (1, 3, 10, 1000):
        for _ in range(10):
            probability, right = rng.integers(0, levels, 60) / levels, rng.random(60) < 0.7
            apart = probability[right][:, None] - probability[~right][None]
            pairs = int((apart > 0).sum()) + int((apart == 0).sum()) / 2
            assert area_under_roc(probability, right) == pairs / apart.size
    assert area_under_roc(np.array([0.9, 0.1]), np.array([True, False])) == 1
    assert area_under_roc(np.array([0.1, 0.9]), np.array([True, False])) == 0
    assert area_under_roc(np.full(5, 0.4), np.array([True, False, True, True, False])) == 0.5


def test_the_curve_by_hand():
    """Of eight queries two abstained. Equal probabilities are given together."""
    curve = recall_curve(PROBABILITY, RIGHT, 8)
    assert curve.probability.tolist() == [0.95, 0.9, 0.62, 0.3]
    assert curve.wrong_share == pytest.approx([0, 1 / 3, 1 / 4, 2 / 6])
    assert curve.recall == pytest.approx([1 / 8, 2 / 8, 3 / 8, 4 / 8])
    shares = (0, 0.001, 0.2499, 0.25, 0.33, 0.34, 1)
    assert [curve.recall_at(s) for s in shares] == [1 / 8, 1 / 8, 1 / 8, 3 / 8, 3 / 8, 4 / 8, 4 / 8]
    assert [curve.probability_at(s) for s in shares] == [0.95, 0.95, 0.95, 0.62, 0.62, 0.3, 0.3]


def test_the_curve_is_what_each_threshold_gives():
    rng = np.random.default_rng(1)
    probability, right = rng.integers(0, 40, 200) / 40, rng.random(200) < 0.6
    curve = recall_curve(probability, right, 230)
    for least, wrong, recall in zip(curve.probability, curve.wrong_share, curve.recall, strict=True):
        assert operating_point(right, probability >= least, 230) == OperatingPoint(
            pytest.approx(wrong), pytest.approx(recall)
        )
    for share in (0, 0.1, 0.35, 0.4):
        allowed = [
            point.recall
            for least in (*curve.probability, 2.0)
            if (point := operating_point(right, probability >= least, 230)).wrong_share <= share
        ]
        assert curve.recall_at(share) == pytest.approx(max(allowed))


def test_where_the_best_answer_is_wrong_there_is_no_recall_without_wrong_ones():
    curve = recall_curve(np.array([0.9, 0.8]), np.array([False, True]), 2)
    assert curve.recall_at(0.001) == 0 and np.isnan(curve.probability_at(0.001)) and curve.recall_at(0.5) == 0.5


def test_another_rule():
    given = np.array([True, True, True, False, False, False])
    assert operating_point(RIGHT, given, 8) == OperatingPoint(pytest.approx(1 / 3), 2 / 8)
    assert operating_point(RIGHT, np.zeros(6, bool), 8) == OperatingPoint(0, 0)


@pytest.mark.parametrize(
    ("probability", "right", "queries", "error", "recall"),
    [
        ([0.9, 0.9, 0.9], [1, 1, 1], 4, 0.1, 0.75),
        ([0.9, 0.8], [0, 0], 2, 0.85, 0.0),
        ([0.5] * 4, [1, 0, 1, 0], 4, 0.0, 0.0),
        ([], [], 3, np.nan, 0.0),
        ([], [], 0, np.nan, np.nan),
        ([0.0, 1.0], [0, 1], 2, 0.0, 0.5),
    ],
    ids=["all right", "all wrong", "equal", "no answers", "no queries", "the ends"],
)
def test_nothing_is_too_little_to_measure(probability, right, queries, error, recall):
    with np.errstate(all="raise", invalid="ignore"):
        r = measure_reliability(np.array(probability), np.array(right, bool), queries)
    assert r.calibration_error == pytest.approx(error, nan_ok=True)
    assert r.recall_at(0.001) == pytest.approx(recall, nan_ok=True)
    assert np.isnan(r.area_under_roc) == (len(set(right)) < 2)
    assert (r.queries, r.answers, r.right) == (queries, len(probability), sum(right))
    again = json.loads(json.dumps(r.as_dict(), allow_nan=False))
    assert again["bins"]["count"] == r.bins.count.tolist() and len(again["curve"]["recall"]) == len(set(probability))


@pytest.mark.parametrize(
    ("probability", "right", "queries", "reason"),
    [
        ([1.01], [1], None, "1.01 is not in"),
        ([-0.1, 0.5], [1, 0], None, "-0.1 is not in"),
        ([np.nan], [1], None, "nan is not in"),
        ([0.5], [1, 0], None, "do not fit"),
        ([0.5, 0.6], [1, 0], 1, "do not fit"),
        ([[0.5]], [[1]], None, "do not fit"),
        (0.5, 1, None, "do not fit"),
    ],
)
def test_no_probabilities(probability, right, queries, reason):
    with pytest.raises(InputError, match=reason):
        measure_reliability(np.array(probability), np.array(right, bool), queries)


# --- the picture


def test_a_picture_is_drawn(tmp_path):
    r = measure_reliability(PROBABILITY, RIGHT, 8)
    draw_reliability(r, tmp_path / "a.png", Threshold(0.25, 2), {"25 inliers or more": OperatingPoint(0.2, 0.5)})
    picture = cv2.imread(str(tmp_path / "a.png")).astype(int)
    assert picture.shape[1] > 1400 and picture.shape[0] > 700
    left, right = np.array_split(picture, 2, axis=1)
    green, orange = [0x50, 0x6F, 0x1F], [0x2B, 0x82, 0xD9]
    assert (np.abs(left - green).max(axis=2) < 10).sum() > 100  # the bins that are held
    assert (np.abs(right - green).max(axis=2) < 10).sum() > 1000  # the curve
    assert (np.abs(right - orange).max(axis=2) < 10).sum() > 100 > (np.abs(left - orange).max(axis=2) < 10).sum()


def test_a_picture_that_cannot_be_written_is_an_error(tmp_path):
    with pytest.raises(OutputError):
        draw_reliability(measure_reliability(np.zeros(0), np.zeros(0, bool)), tmp_path / "nowhere" / "a.png")


# --- hfnet-eval --report

ERRORS = {"0.jpg": 0.0, "1.jpg": 0.24, "2.jpg": 0.26, "3.jpg": 5.0}  # of the poses; 4.jpg and 5.jpg have none
SAID = {"0.jpg": (0.99, 200), "1.jpg": (0.95, 24), "2.jpg": (0.4, 30), "3.jpg": (0.1, 12)}


def report_line(name, pose, **more):
    vectors = {"qvec": None, "tvec": None}
    if pose is not None:
        vectors = {"qvec": pose.quaternion.tolist(), "tvec": pose.translation.tolist()}
    probability, inliers = SAID.get(name, (0.2, 9))
    fields = {"query": name, "status": "REJECTED" if pose is None else "LOCALIZED", **vectors, "inliers": inliers}
    return {**fields, "probability": probability, "tolerance": [0.25, 2.0], "position_std": 0.01, **more}


@pytest.fixture
def run_once(tmp_path):
    """Reference, list, poses and report of six queries; ``said`` are the report's lines."""
    p = place(images=6, landmarks=10)
    (tmp_path / "reference").mkdir()
    (tmp_path / "reference/cameras.txt").write_text("1 PINHOLE 64 48 60 60 32 24\n")
    true = [(f"{i}.jpg", pose) for i, pose in enumerate(p.poses)]
    images = (f"{i + 1} {' '.join(f'{v:.17g}' for v in (*pose.quaternion, *pose.translation))} 1 {name}\n\n"
              for i, (name, pose) in enumerate(true))  # fmt: skip
    (tmp_path / "reference/images.txt").write_text("".join(images))
    (tmp_path / "queries.txt").write_text("".join(f"{name}\n" for name, _ in true))
    found = {name: Pose(pose.quaternion, pose.translation + np.array([0, ERRORS[name], 0]))
             for name, pose in true if name in ERRORS}  # fmt: skip
    write_poses(tmp_path / "poses.txt", found.items())
    said = [report_line(name, found.get(name)) for name, _ in true]
    write_report(tmp_path, said)
    return tmp_path, said


def write_report(folder, said):
    (folder / "results.jsonl").write_text("".join(f"{json.dumps(line)}\n" for line in said))


def evaluated(folder, *more):
    typed = [folder / "poses.txt", "--reference", folder / "reference", "--queries", folder / "queries.txt"]
    return CliRunner().invoke(main, [str(word) for word in (*typed, "--report", folder / "results.jsonl", *more)])


def test_the_report_in_numbers(run_once):
    folder, _ = run_once
    result = evaluated(folder, "--reliability", folder / "r.png", "--json", folder / "e.json")
    assert result.exit_code == 0, result.output
    for text in ("the probabilities of 4 poses", "right: within 0.25 units, 2°", "recall at 0.1 % wrong answers",
                 "0.1400", "1.0000", "33.3 %", "0.9500", "25 inliers or more", "16.7 %", "50.0 %"):  # fmt: skip
        assert text in result.stdout
    assert f"wrote {folder / 'r.png'}" in result.stdout and (folder / "r.png").read_bytes().startswith(b"\x89PNG")
    r = json.loads((folder / "e.json").read_text())["reliability"]
    assert r["calibration_error"] == pytest.approx((2 * abs(1 - 0.97) + 0.4 + 0.1) / 4) and r["area_under_roc"] == 1
    assert r["at_low_wrong_share"] == {"wrong_share": 0.001, "recall": pytest.approx(2 / 6), "probability": 0.95}
    assert r["rules"] == {"25 inliers or more": {"wrong_share": 0.5, "recall": pytest.approx(1 / 6)}}
    assert r["tolerance"] == [0.25, 2.0] and (r["queries"], r["answers"], r["right"]) == (6, 4, 2)


def test_the_rule_counts_inliers_of_the_methods_own_matches(run_once):
    """Where the report tells them from those of the second look."""
    folder, said = run_once
    write_report(folder, [{**line, "first_inliers": line["inliers"], "inliers": 300} for line in said])
    assert evaluated(folder, "--json", folder / "e.json").exit_code == 0
    rules = json.loads((folder / "e.json").read_text())["reliability"]["rules"]
    assert rules == {"25 inliers or more": {"wrong_share": 0.5, "recall": pytest.approx(1 / 6)}}


def test_without_a_report_nothing_is_said_of_probabilities(run_once):
    folder, _ = run_once
    typed = [folder / "poses.txt", "--reference", folder / "reference", "--queries", folder / "queries.txt"]
    result = CliRunner().invoke(main, [*map(str, typed), "--json", str(folder / "e.json")])
    assert result.exit_code == 0 and "probabilit" not in result.stdout and "--reliability" not in result.stdout
    assert "reliability" not in json.loads((folder / "e.json").read_text())


def test_the_tolerance_is_in_the_maps_unit(run_once):
    """A map of a quarter of the reference's scale, without errors but one, of which the alignment makes 0.6 units."""
    folder, _ = run_once
    poses = place(images=6, landmarks=10).poses
    found = {f"{i}.jpg": Pose(p.quaternion, 0.25 * (p.translation + (i == 5) * np.array([0, 0.7, 0])))
             for i, p in enumerate(poses)}  # fmt: skip
    write_poses(folder / "poses.txt", found.items())
    write_report(folder, [report_line(name, pose, tolerance=[0.2, 2.0]) for name, pose in found.items()])
    result = evaluated(folder, "--align", "--json", folder / "e.json")
    assert result.exit_code == 0, result.output
    e = json.loads((folder / "e.json").read_text())
    assert e["reliability"]["tolerance"][0] == pytest.approx(0.2 * e["alignment"]["scale"]) == pytest.approx(0.8, 0.05)
    assert 0.2 < e["errors"]["5.jpg"]["position"] < 0.8 and e["reliability"]["right"] == 6
    assert "next:" in result.stdout and "--reliability reliability.png" in result.stdout.splitlines()[-1]


def test_of_a_report_without_poses(run_once):
    folder, said = run_once
    write_poses(folder / "poses.txt", [])
    write_report(folder, [{"query": line["query"], "status": "UNREADABLE", "qvec": None} for line in said])
    result = evaluated(folder, "--reliability", folder / "r.png")
    assert result.exit_code == 0, result.output
    assert "the probabilities of 0 poses" in result.stdout and (folder / "r.png").is_file()


def without(field):
    return lambda line: line.pop(field)


def with_(**fields):
    return lambda line: line.update(fields)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (without("probability"), "line 2: there is no probability: an older version wrote it; localize again"),
        (with_(probability=1.2), "line 2 .*1.2 is not in"),
        (with_(probability=-0.1), "line 2 .*-0.1 is not in"),
        (with_(probability=float("nan")), "line 2 .*nan is not in"),
        (with_(probability=None), "line 2 .*probability is missing or malformed"),
        (with_(probability=True), "line 2 .*probability is missing or malformed"),
        (with_(probability=7, qvec=None, tvec=None), "line 2 .*7 is not in"),
        (with_(probability="0.5"), "line 2 .*probability is missing or malformed"),
        (without("tolerance"), "line 2 .*tolerance is missing or malformed"),
        (with_(tolerance=[0.25]), "line 2 .*tolerance is missing"),
        (with_(tolerance=[0.25, 0]), "line 2 .*not a length and an angle"),
        (with_(tolerance=[10**400, 2]), "line 2 .*tolerance is missing"),
        (with_(tolerance=[0.5, 2]), "several tolerances: 0.25 units, 2° and 0.5 units, 2°"),
        (without("inliers"), "line 2 .*inliers is missing"),
        (with_(inliers=-1), "line 2 .*number of matches"),
        (with_(inliers=float("inf")), "line 2 .*number of matches"),
        (with_(qvec=[1, 0, 0]), "line 2 .*qvec is missing or malformed"),
        (with_(qvec=[0, 0, 0, 0]), "line 2 .*is no rotation"),
        (without("tvec"), "line 2 .*tvec is missing"),
        (without("query"), "line 2 .*no JSON object with a query"),
        (with_(query="0.jpg"), "line 2 .*0.jpg has a line already"),
        (with_(query="other.jpg"), "lacks 1 of 6 queries, first 1.jpg"),
        (with_(tvec=[0.0, 0.0, 0.0]), "another answer to 1.jpg than the list of poses"),
        (with_(qvec=None), "another answer to 1.jpg than the list of poses"),
    ],
)
def test_reports_that_are_refused(run_once, change, reason):
    folder, said = run_once
    change(said[1])
    write_report(folder, said)
    assert refused(folder, reason)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "tells of no query"),
        (b"{\n", "line 1 is no line of a report"),
        (b"\n[1]\n", "line 2 .*no JSON object"),
        (b"[" * 100_000, "nested too deeply"),
        (b"\xff\xfe", "is not text"),
        (None, "No such file"),
    ],
)
def test_files_that_are_no_report(run_once, content, reason):
    folder, _ = run_once
    (folder / "results.jsonl").unlink()
    if content is not None:
        (folder / "results.jsonl").write_bytes(content)
    assert refused(folder, reason)


@pytest.mark.parametrize(
    ("more", "reason"),
    [
        (["--reliability", "r.jpg"], "--reliability r.jpg is not a .png"),
        (["--reliability", "nowhere/r.png"], "no folder nowhere"),
        (["--reliability", "same.png", "--picture", "same.png"], "another option names the same file"),
    ],
)
def test_options_that_are_refused(run_once, more, reason):
    folder, _ = run_once
    assert refused(folder, reason, *more)


def test_a_picture_of_probabilities_needs_them():
    typed = ["no.txt", "--reference", "no", "--queries", "no.txt", "--reliability", "r.png"]
    result = CliRunner().invoke(main, typed)
    assert result.exit_code == 2 and "give --report results.jsonl too" in result.stderr


def refused(folder, reason, *more):
    """Exit code 2, one line on stderr that says why, and nothing is written."""
    before = sorted(folder.rglob("*"))
    result = evaluated(folder, *more)
    assert result.exit_code == 2 and result.stdout == "", result.output
    (line,) = result.stderr.splitlines()
    assert line.startswith("error: ") and "; " in line and re.search(reason, line), line
    return sorted(folder.rglob("*")) == before
