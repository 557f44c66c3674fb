"""`benchmarks/drawn_places.py`: what is drawn lies where the camera says, and equal things look equal."""

import sys
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "benchmarks"))
import drawn_places as drawn
from drawn_places import SKY, Sheet, render

from hfnet_edge.geometry import Camera
from hfnet_maps.synthetic_town.views import camera_pose

CAMERA = Camera("PINHOLE", 200, 150, (180.0, 170.0, 103.0, 71.5))
UP, BEFORE = np.array([0, 0, 1.0]), np.deg2rad(90)


def area_and_centre(polygon: np.ndarray) -> tuple[float, np.ndarray]:
    """Of a polygon (N, 2), by the shoelace formula."""
    x, y = polygon.T
    next_x, next_y = np.roll(polygon, -1, axis=0).T
    cross = x * next_y - next_x * y
    area = cross.sum() / 2
    return abs(area), np.array([((x + next_x) * cross).sum(), ((y + next_y) * cross).sum()]) / (6 * area)


@pytest.mark.parametrize("row", [0, 1])
@pytest.mark.parametrize("column", [0, 1])
def test_each_quarter_of_a_sheet_lies_where_the_camera_projects_it(row, column):
    texture = np.full((256, 512), SKY)
    texture[128 * row : 128 * (row + 1), 256 * column : 256 * (column + 1)] = 0
    sheet = Sheet.of((-0.7, 3, 0.6), (1.3, 0.5, 0), (0.1, 0, -1), texture)
    pose = camera_pose(np.array([0.2, 0, 0.2]), BEFORE + 0.1, 0.05, 0.2)
    s, t = np.array([0, 1, 1, 0]) / 2 + column / 2, np.array([0, 0, 1, 1]) / 2 + row / 2
    quarter = sheet.corner + s[:, None] * sheet.across + t[:, None] * sheet.down
    area, centre = area_and_centre(CAMERA.project(pose.transform(quarter)))
    dark = 1 - render([sheet], CAMERA, pose) / SKY
    y, x = np.mgrid[0.5:150, 0.5:200]
    found = np.array([(x * dark).sum(), (y * dark).sum()]) / dark.sum()
    assert dark.sum() == pytest.approx(area, rel=0.01)
    assert found == pytest.approx(centre, abs=0.05)


def test_a_floor_that_goes_on_behind_the_camera_is_drawn_below_the_horizon_alone():
    floor = Sheet.of((-500, 500, 0), (1000, 0, 0), (0, -1000, 0), np.zeros((8, 8)))
    image = render([floor], CAMERA, camera_pose(1.5 * UP, BEFORE, 0.0, 0.0))
    assert (image[:71] == SKY).all()
    assert (image[73:] == 0).all()


def test_later_sheets_cover_earlier_ones():
    sheets = [Sheet.of((-1, depth, 1), (2, 0, 0), (0, 0, -2), np.full((8, 8), depth)) for depth in (5, 4)]
    pose = camera_pose(np.zeros(3), BEFORE, 0.0, 0.0)
    assert render(sheets, CAMERA, pose)[75, 100] == 4
    assert render(sheets[::-1], CAMERA, pose)[75, 100] == 5


def test_the_facade_looks_the_same_a_tile_further_on_until_its_end_is_seen():
    sheets = drawn.facade()
    here, on, at_end = (
        render(sheets, CAMERA, camera_pose(np.array([x, -6, 1.7]), BEFORE - 0.1, 0.1, 0.02)) for x in (9.0, 11.0, 21.0)
    )
    assert np.abs(here - on).max() < 1
    assert here.std() > 20
    assert np.abs(here - at_end).max() > 50


def test_each_of_two_posters_looks_the_same():
    sheets, looks = drawn.room(5.0, posters=2), []
    for turns in (0, 1):
        ((_, pose),) = drawn.before_poster(
            np.random.default_rng(0), 5.0, np.array([1.5]), np.array([20.0]), turns=turns
        )
        looks.append(render(sheets, CAMERA, pose))
    assert np.abs(looks[0] - looks[1]).max() < 1
    assert looks[0].std() > 10


def test_a_place_is_drawn_the_same_every_time_and_no_two_pictures_are():
    sheets = drawn.room(5.0)
    stand = CAMERA, camera_pose(np.array([0, 1, 1.5]), BEFORE, 0.0, 0.0)
    first, second = (drawn.draw("some", sheets, [stand, stand], [stand]) for _ in range(2))
    assert [v.name for v in first.references + first.queries] == ["map_000.jpg", "map_001.jpg", "query_000.jpg"]
    images = [v.image for v in first.references + first.queries]
    for a, b in zip(images, second.references + second.queries, strict=True):
        assert (a == b.image).all()
    assert (images[0] != images[1]).mean() > 0.5
    assert (images[0] != images[2]).mean() > 0.5


@pytest.fixture
def stands(monkeypatch):
    """Makes the stands of a place's references and queries, and draws nothing."""
    monkeypatch.setattr(drawn, "draw", lambda name, sheets, references, queries: (sheets, references, queries))
    return lambda name: drawn.PLACES[name]()


def test_most_queries_of_the_facade_see_no_end_of_it_and_those_of_the_marked_one_the_mark(stands):
    ends = np.array([(x, 0, z) for x in (0, 24) for z in np.linspace(0, 7.5, 100)])
    assert [drawn.in_image(stand, ends).any() for stand in stands("tiles")[2]] == 18 * [False] + 6 * [True]
    sheets, _, queries = stands("tiles_marked")
    assert len(queries) == 24
    assert all(drawn.in_image(stand, sheets[-1].corners).all() for stand in queries)


def test_posters_are_seen_as_each_place_promises(stands):
    (*_, poster), _, queries = stands("poster_small")
    corners = [camera.project(pose.transform(poster.corners)) for camera, pose in queries]
    assert all(37 < np.linalg.norm(xy[1] - xy[2]) * 0.6 / np.hypot(0.6, 0.4) < 115 for xy in corners)
    (*_, far, right), references, queries = stands("poster_twice")
    assert len(references) == 24
    sees = [[drawn.in_image(stand, sheet.corners).any() for sheet in (far, right)] for stand in queries]
    assert sees == 10 * [[True, False]] + 10 * [[False, True]] + 4 * [[True, True]]
    for name in ("poster_small", "poster_oblique", "poster_large"):
        (*_, poster), references, queries = stands(name)
        assert all(drawn.in_image(stand, poster.corners.mean(axis=0)[None]).all() for stand in references + queries)
