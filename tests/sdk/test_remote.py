"""A map behind a URL: what is fetched, and what becomes of servers that fail."""

import sys
import threading
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))
from range_server import RangeServer

from hfnet_edge.errors import MapFormatError, RemoteError
from hfnet_edge.localizer import localize_features
from hfnet_edge.map import remote
from hfnet_edge.map.map_file import LocalizationMap
from hfnet_edge.map.remote import RemoteFile
from hfnet_edge.map.tiled_map import open_place
from hfnet_maps.pack.writer import full_sections, write_map
from synthetic import CAMERA, place


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """scene.hfmap of 12 images and 2,500 landmarks, and other.hfmap."""
    root = tmp_path_factory.mktemp("served")
    for name, seed in (("scene", 0), ("other", 1)):
        write_map(full_sections(place(seed, landmarks=2500).source()), root / f"{name}.hfmap")
    return root


@pytest.fixture(autouse=True)
def short(monkeypatch):
    monkeypatch.setattr(remote, "TIMEOUT", 0.5)


def a_query():
    p = place(landmarks=2500)
    return p.features(p.poses[3])


def same(a, b):
    return np.array_equal(a.pose.quaternion, b.pose.quaternion) and np.array_equal(
        a.pose.translation, b.pose.translation
    )


def test_a_query_is_answered_as_from_the_file_of_which_a_part_is_fetched(folder):
    here = LocalizationMap.open(folder / "scene.hfmap")
    with RangeServer(folder) as server:
        there = LocalizationMap.open(f"{server.url}/scene.hfmap")
        opened, requests = server.sent, server.requests
        assert requests <= 3 and opened < 0.05 * len(here.file.data)
        assert same(localize_features(there, a_query(), CAMERA), localize_features(here, a_query(), CAMERA))
        assert opened < server.sent < len(here.file.data)
        server.reset()
        localize_features(there, a_query(), CAMERA)
        assert server.requests == 0
        there.check_all()
        assert bytes(there.file.data[there.file.start :]) == bytes(here.file.data[here.file.start :])


def test_threads_fetch_each_block_once(folder):
    with RangeServer(folder) as server:
        there = LocalizationMap.open(f"{server.url}/scene.hfmap")
        results = []
        threads = [
            threading.Thread(target=lambda: results.append(localize_features(there, a_query(), CAMERA)))
            for _ in range(4)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        sent = server.sent
    with RangeServer(folder) as server:
        localize_features(LocalizationMap.open(f"{server.url}/scene.hfmap"), a_query(), CAMERA)
        assert server.sent == sent
    assert len(results) == 4 and all(same(results[0], r) for r in results)


def test_what_is_not_there(folder):
    with RangeServer(folder) as server, pytest.raises(MapFormatError, match="there is no map http"):
        LocalizationMap.open(f"{server.url}/none.hfmap")
    with pytest.raises(RemoteError, match="cannot fetch"):
        LocalizationMap.open(f"{server.url}/scene.hfmap")
    for url in ("http://", "http://[/x.hfmap", "http://127.0.0.1:99999/x.hfmap", "http://a b/x.hfmap"):
        with pytest.raises(RemoteError):
            LocalizationMap.open(url)


def test_a_server_that_goes_away_and_comes_back(folder):
    away = False

    def change(name, answer):
        return (503, {"Content-Length": "0"}, b"") if away else answer

    with RangeServer(folder, change) as server:
        there = LocalizationMap.open(f"{server.url}/scene.hfmap")
        away = True
        with pytest.raises(RemoteError, match="answers 503"):
            localize_features(there, a_query(), CAMERA)
        away = False
        here = LocalizationMap.open(folder / "scene.hfmap")
        assert same(localize_features(there, a_query(), CAMERA), localize_features(here, a_query(), CAMERA))


def test_a_connection_that_was_closed_meanwhile(folder):
    with RangeServer(folder) as server:
        there = LocalizationMap.open(f"{server.url}/scene.hfmap")
        port = int(server.url.rsplit(":", 1)[1])
    with RangeServer(folder, port=port):
        assert localize_features(there, a_query(), CAMERA).pose is not None


CHANGES = {
    "whole files": (lambda s, h, b: (200, {"Content-Length": "3"}, b"abc"), RemoteError, "sends whole files"),
    "another part": (
        lambda s, h, b: (s, {**h, "Content-Range": h["Content-Range"].replace("bytes 0-", "bytes 1-")}, b),
        RemoteError,
        "another part",
    ),
    "no Content-Range": (
        lambda s, h, b: (s, {k: v for k, v in h.items() if k != "Content-Range"}, b),
        RemoteError,
        "another part",
    ),
    "a size of no file": (
        lambda s, h, b: (s, {**h, "Content-Range": "bytes 0-20479/999999999999999999"}, b),
        (RemoteError, MapFormatError),
        "room|should be|another part",
    ),
    "compressed": (lambda s, h, b: (s, {**h, "Content-Encoding": "gzip"}, b), RemoteError, "another part"),
    "cut": (lambda s, h, b: (s, h, b[: len(b) // 2]), RemoteError, "cannot fetch"),
    "cut and said so": (
        lambda s, h, b: (s, {**h, "Content-Length": str(len(b) // 2)}, b[: len(b) // 2]),
        RemoteError,
        "in part",
    ),
    "too much": (
        lambda s, h, b: (s, {**h, "Content-Length": str(len(b) + 9)}, b + b"123456789"),
        RemoteError,
        "in part",
    ),
    "nothing": (lambda s, h, b: (s, {**h, "Content-Length": "0"}, b""), RemoteError, "in part"),
    "a circle": (
        lambda s, h, b: (302, {"Location": "scene.hfmap", "Content-Length": "0"}, b""),
        RemoteError,
        "nowhere",
    ),
    "leads to a file": (
        lambda s, h, b: (302, {"Location": "file:///etc/passwd", "Content-Length": "0"}, b""),
        RemoteError,
        "leads to",
    ),
    "damage": (lambda s, h, b: (s, h, b[:26] + bytes([b[26] ^ 1]) + b[27:]), MapFormatError, "damaged header"),
    "another file": (lambda s, h, b: (s, h, b"<html>" + b[6:]), MapFormatError, "is not an hfnet-edge map"),
}


@pytest.mark.parametrize("what", CHANGES)
def test_servers_that_answer_otherwise(folder, what):
    change, error, words = CHANGES[what]
    with RangeServer(folder, lambda name, answer: change(*answer)) as server, pytest.raises(error, match=words):
        LocalizationMap.open(f"{server.url}/scene.hfmap")


def test_damage_on_the_way_is_noticed_and_not_kept(folder):
    bad = False

    def change(name, answer):
        status, headers, body = answer
        return (status, headers, bytes([body[0] ^ 1]) + body[1:]) if bad else answer

    with RangeServer(folder, change) as server:
        there = LocalizationMap.open(f"{server.url}/scene.hfmap")
        bad = True
        with pytest.raises(MapFormatError, match="damaged"):
            localize_features(there, a_query(), CAMERA)
        bad = False
        assert localize_features(there, a_query(), CAMERA).pose is not None


@pytest.mark.parametrize("etag", [True, False])
def test_a_file_that_is_replaced_between_requests(folder, tmp_path, etag):
    (tmp_path / "scene.hfmap").write_bytes((folder / "scene.hfmap").read_bytes())

    def change(name, answer):
        status, headers, body = answer
        return status, headers if etag else {k: v for k, v in headers.items() if k != "ETag"}, body

    with RangeServer(tmp_path, change) as server:
        there = LocalizationMap.open(f"{server.url}/scene.hfmap")
        (tmp_path / "scene.hfmap").write_bytes((folder / "other.hfmap").read_bytes())
        with pytest.raises(MapFormatError, match="another file than it was" if etag else "another file|damaged"):
            localize_features(there, a_query(), CAMERA)


def test_it_follows_where_a_server_leads(folder):
    def change(name, answer):
        return answer if name != "moved.hfmap" else (302, {"Location": "/scene.hfmap", "Content-Length": "0"}, b"")

    with RangeServer(folder, change) as server:
        assert LocalizationMap.open(f"{server.url}/moved.hfmap").image_count == 12


def test_a_cache_is_what_its_blocks_are(folder, tmp_path):
    """What was fetched stays, over runs; what is damaged there, or of another version, is fetched again."""
    here = localize_features(LocalizationMap.open(folder / "scene.hfmap"), a_query(), CAMERA)
    with RangeServer(folder) as server:

        def sent():
            server.reset()
            found = localize_features(open_place(f"{server.url}/scene.hfmap", tmp_path / "cache"), a_query(), CAMERA)
            assert same(found, here)
            return server.sent

        first, second = sent(), sent()
        assert second == remote.FIRST < first
        (kept,) = (tmp_path / "cache").iterdir()
        content = bytearray(kept.read_bytes())
        content[len(content) // 2] ^= 1
        content[-5] ^= 1
        kept.write_bytes(content)
        assert second < sent() < first
        kept.write_bytes(bytes(len(content)))
        assert sent() == first


def test_a_file_of_the_wrong_size_is_refused_before_it_is_read(folder):
    with RangeServer(folder) as server, pytest.raises(MapFormatError, match="than its index names"):
        RemoteFile(f"{server.url}/scene.hfmap", size=12345)
