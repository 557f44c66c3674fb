import numpy as np
import pytest

from hfnet_edge.errors import InputError
from hfnet_edge.geometry import Camera, Pose
from hfnet_edge.shell.lists import read_names, read_photos, read_poses, read_queries, write_poses


def test_poses_survive_the_file(tmp_path):
    rng = np.random.default_rng(0)
    q = rng.normal(size=4)
    poses = {"a/b.jpg": Pose(q / np.linalg.norm(q), rng.normal(size=3) * 100)}
    write_poses(tmp_path / "p.txt", poses.items())
    back = read_poses(tmp_path / "p.txt")
    np.testing.assert_allclose(back["a/b.jpg"].quaternion, poses["a/b.jpg"].quaternion, atol=1e-11)
    np.testing.assert_allclose(back["a/b.jpg"].translation, poses["a/b.jpg"].translation, rtol=1e-11)


def test_a_line_may_have_a_name_alone(tmp_path):
    (tmp_path / "q.txt").write_text("a.jpg PINHOLE 6 4 5 5 3 2\n\n  sub/b.jpg  \n# c.jpg\n")
    camera = Camera.parse("PINHOLE 6 4 5 5 3 2")
    assert read_photos(tmp_path / "q.txt") == [("a.jpg", camera), ("sub/b.jpg", None)]


@pytest.mark.parametrize(
    ("reader", "content", "word"),
    [
        (read_queries, "a.jpg PINHOLE 640 480 500 500 320 240\nb.jpg PINHOLE 640\n", "line 2"),
        (read_queries, "a.jpg WIDE 640 480 500 500 320 240\n", "line 1.*WIDE"),
        (read_queries, "a.jpg PINHOLE 6 4 5 5 3 2\na.jpg PINHOLE 6 4 5 5 3 2\n", "line 2.*twice"),
        (read_queries, "my photo.jpg PINHOLE 6 4 5 5 3 2\n", "line 1.*blank"),
        (read_queries, "a.jpg PINHOLE 6 4 5 5 3 2\nb.jpg\n", "line 2.*b.jpg has no camera"),
        (read_photos, "a.jpg\nb.jpg PINHOLE 640\n", "line 2"),
        (read_photos, "a.jpg\na.jpg PINHOLE 6 4 5 5 3 2\n", "line 2.*twice"),
        (read_photos, "my PINHOLE.jpg PINHOLE 6 4 5 5 3 2\n", "line 1.*blank"),
        (read_photos, "# only a comment\n", "no queries"),
        (read_queries, "# only a comment\n\n", "no queries"),
        (read_names, "", "no images"),
        (read_poses, "a.jpg 1 0 0 0 0 0\n", "line 1"),
        (read_poses, "a.jpg 1 0 0 0 0 0 nan\n", "line 1"),
        (read_poses, "a.jpg 0 0 0 0 0 0 0\n", "line 1"),
        (read_poses, "a.jpg 1 0 0 0 0 0 0\na.jpg 1 0 0 0 0 0 0\n", "line 2.*twice"),
    ],
)
def test_broken_lines_are_named(tmp_path, reader, content, word):
    (tmp_path / "list.txt").write_text(content)
    with pytest.raises(InputError, match=word) as e:
        reader(tmp_path / "list.txt")
    assert "list.txt" in str(e.value)
    assert e.value.remedy


@pytest.mark.parametrize("reader", [read_names, read_queries, read_photos, read_poses])
def test_a_missing_or_binary_list_is_named(tmp_path, reader):
    (tmp_path / "binary").write_bytes(b"\xff\xfe\x00\x81")
    for name in ("missing", "binary"):
        with pytest.raises(InputError, match=name):
            reader(tmp_path / name)
