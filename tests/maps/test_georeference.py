"""Where on Earth a map is: by fixes with noise, with outliers, along a street; and what is refused."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from hfnet_edge.errors import InputError
from hfnet_edge.geometry import Pose
from hfnet_edge.map.georeference import Earth, metres_per_degree
from hfnet_edge.map.map_file import LocalizationMap
from hfnet_maps.build.georeference import Fixes, exif_fixes, georeference, gps_of, listed_fixes, up_of
from hfnet_maps.content import read_content
from hfnet_maps.pack.writer import full_sections, to_map, write_map
from synthetic import looking_at, place

METRES, TURN, LATITUDE, LONGITUDE = 2.5, 0.7, 55.7, 13.19


def street(count=30, across=1.0, noise=0.0, outliers=0, seed=0):
    """Cameras in a map of z up, and their fixes, for a true similarity."""
    rng = np.random.default_rng(seed)
    xyz = np.stack([np.linspace(0, 40, count), rng.normal(0, across, count), rng.normal(0.6, 0.02, count)], axis=1)
    c, s = np.cos(TURN), np.sin(TURN)
    east, north = METRES * np.array([[c, -s], [s, c]]) @ xyz[:, :2].T + rng.normal(0, noise, (2, count))
    by_latitude, by_longitude = metres_per_degree(LATITUDE)
    wgs84 = np.stack([LATITUDE + north / by_latitude, LONGITUDE + east / by_longitude, 40 + METRES * xyz[:, 2]], axis=1)
    wgs84[:outliers, 0] += 0.003
    return Fixes(tuple(map(str, range(count))), xyz, wgs84)


UP = np.array([0.0, 0, 1])


@pytest.mark.parametrize("across", [3.0, 1e-9])
def test_a_similarity_is_found_along_a_street_too(across):
    fixes = street(across=across)
    earth, off = georeference(fixes, UP)
    assert earth.metres == pytest.approx(METRES, rel=1e-4) and off.max() < 0.02 and earth.up == pytest.approx(UP)
    for xyz, wgs84 in zip(fixes.xyz, fixes.wgs84, strict=True):
        assert earth.to_wgs84(xyz) == pytest.approx(tuple(wgs84), abs=0.1)
        assert earth.to_map(*wgs84) == pytest.approx(xyz, abs=0.1)


def test_noise_is_told_and_outliers_are_left_out():
    fixes = street(noise=3.0, outliers=6)
    earth, off = georeference(fixes, UP)
    assert earth.metres == pytest.approx(METRES, rel=0.05) and 2 < earth.residual < 7
    assert off[:6].min() > 100 and np.median(off[6:]) < 8


def test_up_is_what_level_cameras_say():
    tilt = Pose(np.array([0.9, 0.1, 0.3, -0.2]) / np.linalg.norm([0.9, 0.1, 0.3, -0.2]), np.zeros(3))
    rng = np.random.default_rng(0)
    poses = [
        looking_at(rng.normal(size=3), rng.normal(size=3) * [9, 9, 1]) @ tilt.inverse for _ in range(20)
    ]  # in a world that is turned by `tilt`
    assert up_of(poses) == pytest.approx(tilt.rotation @ UP, abs=1e-6)


@pytest.mark.parametrize(
    ("fixes", "says"),
    [
        (street(2), "do not say"),
        (replace(street(5), xyz=np.zeros((5, 3))), "all in one place"),
        (replace(street(5), wgs84=np.tile([55.7, 13.2, 40], (5, 1))), "all in one place"),
        (replace(street(3), wgs84=np.array([[0.0, 0, 0], [40, 40, 0], [-40, 90, 0]])), "km apart"),
    ],
)
def test_fixes_that_say_nothing_are_refused(fixes, says):
    with pytest.raises(InputError, match=says):
        georeference(fixes, UP)


def test_altitudes_may_be_missing():
    fixes = street()
    earth, _ = georeference(replace(fixes, wgs84=fixes.wgs84 * [1, 1, np.nan]), UP)
    assert np.isfinite(earth.to_enu(fixes.xyz)).all() and abs(np.median(earth.to_enu(fixes.xyz)[:, 2])) < 0.1


def photo(path, latitude=None, longitude=None):
    exif = Image.Exif()
    if latitude is not None:
        d, m, s = int(abs(latitude)), int(abs(latitude) * 60 % 60), abs(latitude) * 3600 % 60
        e, n, t = int(abs(longitude)), int(abs(longitude) * 60 % 60), abs(longitude) * 3600 % 60
        gps = {1: "N" if latitude >= 0 else "S", 2: (d, m, s), 3: "E" if longitude >= 0 else "W", 4: (e, n, t), 6: 12.5}
        exif[0x8825] = gps
    Image.fromarray(np.zeros((64, 64), np.uint8)).save(path, exif=exif)


def test_gps_is_read_from_exif(tmp_path):
    for latitude, longitude in ((55.7031, 13.1911), (-33.8568, 151.2153), (40.6892, -74.0445)):
        photo(tmp_path / "a.jpg", latitude, longitude)
        assert gps_of(tmp_path / "a.jpg") == pytest.approx((latitude, longitude, 12.5), abs=1e-6)
    photo(tmp_path / "b.jpg")
    assert gps_of(tmp_path / "b.jpg") is None
    photo(tmp_path / "c.jpg", 0.0, 0.0)  # a receiver without a fix
    assert gps_of(tmp_path / "c.jpg") is None
    with pytest.raises(InputError, match="0 of 12"):
        exif_fixes(place().map(), tmp_path)


def test_lists_are_read_and_their_lines_named(tmp_path):
    map_, path = place().map(), tmp_path / "f.csv"
    path.write_text("image,latitude,longitude,altitude\n000.jpg,55.7,13.2,\n001.jpg,55.8,13.3,20\n")
    fixes = listed_fixes(map_, path)
    assert fixes.names == ("000.jpg", "001.jpg") and np.isnan(fixes.wgs84[0, 2]) and fixes.wgs84[1, 2] == 20
    assert fixes.xyz[0] == pytest.approx(map_.pose(0).center)
    path.write_text("x,y,z,latitude,longitude\n1,2,3,55.7,13.2\n")
    assert listed_fixes(map_, path).xyz.tolist() == [[1, 2, 3]]
    for text, says in (
        ("", "no head"),
        ("name,lat\na,1\n", "no head"),
        ("image,latitude,longitude\nno.jpg,55,13\n", "line 2.*no image"),
        ("image,latitude,longitude\n000.jpg,north,13\n", "line 2"),
        ("x,y,z,latitude,longitude\n1,2,3,95,13\n", "line 2"),
        ("x,y,z,latitude,longitude\n1,2,nan,5,13\n", "line 2"),
        ("x,y,z,latitude,longitude\n1,2\n", "line 2"),
    ):
        path.write_text(text)
        with pytest.raises(InputError, match=says):
            listed_fixes(map_, path)
    with pytest.raises(InputError, match="cannot read"):
        listed_fixes(map_, tmp_path / "none.csv")


def test_a_place_on_earth_survives_packing_and_reading(tmp_path):
    earth = Earth(55.7, 13.2, 30.0, 1.5, Pose(np.array([0.6, 0, 0, 0.8]), np.array([1.0, 2, 3])), 0.5)
    source = replace(place().source(), earth=earth)
    write_map(full_sections(source), tmp_path / "a.hfmap")
    again = read_content(tmp_path / "a.hfmap")
    assert LocalizationMap.open(tmp_path / "a.hfmap").earth.to_enu(np.eye(3)) == pytest.approx(earth.to_enu(np.eye(3)))
    for content in (again, again.without_images(np.array([0])), again.encoded()):
        assert content.earth.metres == 1.5
    assert to_map(full_sections(place().source())).earth is None
