"""Reading what a user named, writing so that nothing is lost, keeping the two apart."""

import os
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path, PurePosixPath

import pytest

from hfnet_edge.errors import HFNetEdgeError, ImageError, OutputError
from hfnet_edge.shell.command_files import CommandFiles, names_below
from hfnet_edge.shell.reading import open_input, parse_json, parse_toml, read_text
from hfnet_edge.shell.writing import atomic_folder, atomic_write, check_writable, part_of, streamed_write


def run(code, *arguments, **how):
    """Starts Python on a piece of code."""
    return subprocess.Popen([sys.executable, "-c", code, *map(str, arguments)], stdout=subprocess.PIPE, **how)


# --- reading


def test_only_plain_files_are_opened(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "link").symlink_to("pipe")
    with socket.socket(socket.AF_UNIX) as s:
        s.bind(str(tmp_path / "socket"))
        for path in (tmp_path / "pipe", tmp_path / "link", tmp_path / "socket", tmp_path, "/dev/zero",
                     tmp_path / "missing", tmp_path / ("x" * 300), "a\0b"):  # fmt: skip
            with pytest.raises(OSError) as e:
                open_input(path)
            assert e.value.strerror
    (tmp_path / "list").write_bytes(b"\xef\xbb\xbfa.jpg\n")
    assert read_text(tmp_path / "list") == "a.jpg\n"
    with pytest.raises(OSError, match="more than 5 bytes"):
        read_text(tmp_path / "list", 5)


def test_what_is_nested_too_deeply_is_an_error_of_values():
    with pytest.raises(ValueError, match="deeply"):
        parse_json("[" * 200_000)
    with pytest.raises(ValueError, match="deeply"):
        parse_toml("a = " + "[" * 20_000)
    assert parse_toml("a = [[1]]") == parse_json('{"a": [[1]]}')


# --- writing


def test_writers_of_one_file_at_once_leave_one_of_theirs(tmp_path):
    path, size, torn, failed = tmp_path / "map", 300_000, [], []

    def write(letter):
        for _ in range(10):
            try:
                with atomic_write(path) as file:
                    for _ in range(10):
                        file.write(letter * (size // 10))
            except OutputError as e:
                failed.append(e)
            content = path.read_bytes()
            torn.append(len(content) != size or len(set(content)) != 1)

    threads = [threading.Thread(target=write, args=(bytes([65 + i]),)) for i in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failed and len(torn) == 80 and not any(torn)
    assert [p.name for p in tmp_path.iterdir()] == ["map"]


def test_what_a_killed_run_left_goes_and_what_a_running_one_writes_stays(tmp_path):
    code = (
        "import sys; from hfnet_edge.shell.writing import atomic_write, atomic_folder\n"
        "with atomic_write(sys.argv[1]) as f, atomic_folder(sys.argv[2]) as folder:\n"
        "    f.write(b'half'); f.flush(); (folder / 'x').write_text('half'); print('there', flush=True)\n"
        "    sys.stdin.readline()\n"
    )
    others = [run(code, tmp_path / f"a{i}", tmp_path / f"b{i}", stdin=subprocess.PIPE, text=True) for i in range(2)]
    for other in others:
        assert other.stdout.readline() == "there\n"
    (tmp_path / ".mine.tmp").write_text("not ours")
    assert len(list(tmp_path.iterdir())) == 5
    others[0].kill()
    others[0].wait()
    with atomic_write(tmp_path / "c") as file:
        file.write(b"whole")
    assert len([p for p in tmp_path.iterdir() if p.name.endswith(".hfnet-tmp")]) == 2  # of the second, still running
    others[1].communicate("\n")
    assert sorted(p.name for p in tmp_path.iterdir()) == [".mine.tmp", "a1", "b1", "c"]
    assert (tmp_path / "b1" / "x").read_text() == "half" and (tmp_path / "a1").read_bytes() == b"half"


def test_a_new_file_has_the_rights_of_any_other(tmp_path):
    before = os.umask(0o027)
    try:
        with atomic_write(tmp_path / "file"), atomic_folder(tmp_path / "folder"):
            pass
        with streamed_write(tmp_path / "lines") as write:
            write("a")
    finally:
        os.umask(before)
    rights = {p.name: p.stat().st_mode & 0o777 for p in tmp_path.iterdir()}
    assert rights == {"file": 0o640, "folder": 0o750, "lines": 0o640}


@pytest.mark.parametrize("name", ["x" * 250, "é" * 127, "x" * 255])
def test_names_may_be_as_long_as_names_can_be(tmp_path, name):
    with atomic_write(tmp_path / name) as file:
        file.write(b"1")
    with streamed_write(tmp_path / name) as write:
        write("2")
        assert part_of(tmp_path / name).read_text() == "2\n"
    assert [(p.name, p.read_text()) for p in tmp_path.iterdir()] == [(name, "2\n")]
    with pytest.raises(OutputError, match="too long"):
        check_writable(tmp_path / f"{name}{'x' * 10}")


@pytest.mark.parametrize("end", [KeyboardInterrupt, HFNetEdgeError, ZeroDivisionError])
def test_a_stream_is_whole_whatever_ends_it(tmp_path, end):
    path = tmp_path / "poses.txt"
    path.write_text("old\n")
    with pytest.raises(end), streamed_write(path) as write:
        write("a")
        assert path.read_text() == "old\n" and part_of(path).read_text() == "a\n"
        write()
        write("b", "c")
        raise end("stop")
    assert path.read_text() == "a\nb\nc\n" and not part_of(path).exists()


def test_a_stream_that_nothing_came_into_leaves_the_old_file(tmp_path):
    (tmp_path / "old").write_text("old\n")
    with pytest.raises(KeyboardInterrupt), streamed_write(tmp_path / "old"):
        raise KeyboardInterrupt
    assert [(p.name, p.read_text()) for p in tmp_path.iterdir()] == [("old", "old\n")]
    with streamed_write(tmp_path / "old") as write:
        write()  # no line is an answer, too
    assert (tmp_path / "old").read_text() == ""


def test_a_stream_that_is_killed_leaves_its_part_and_two_do_not_mix(tmp_path):
    path = tmp_path / "poses.txt"
    code = (
        "import sys; from hfnet_edge.shell.writing import streamed_write\n"
        "with streamed_write(sys.argv[1]) as write:\n    write('a'); print(flush=True); sys.stdin.readline()\n"
    )
    path.write_text("old\n")
    other = run(code, path, stdin=subprocess.PIPE)
    other.stdout.readline()
    with pytest.raises(OutputError, match="another run"), streamed_write(path):
        pass
    other.kill()
    other.wait()
    assert path.read_text() == "old\n" and part_of(path).read_text() == "a\n"
    with streamed_write(path) as write:
        write("b")
    assert path.read_text() == "b\n" and not part_of(path).exists()


def test_a_full_disk_keeps_what_was_streamed_and_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "poses.txt"
    path.write_text("old\n")

    def full(_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OutputError, match=r"No space.*poses\.txt\.part"), streamed_write(path) as write:
        write("a")
    assert path.read_text() == "old\n" and part_of(path).read_text() == "a\n"


# --- keeping them apart


def test_no_output_is_an_input_whatever_leads_to_it(tmp_path):
    photo, folder = tmp_path / "photos/a.jpg", tmp_path / "elsewhere"
    photo.parent.mkdir()
    photo.write_text("photo")
    folder.symlink_to("photos")
    (tmp_path / "link").symlink_to("photos/a.jpg")
    os.link(photo, tmp_path / "hard")
    (tmp_path / "dangling").symlink_to("photos/b.jpg")
    files = CommandFiles(photo, tmp_path / "photos/b.jpg", None)
    for name in ("photos/a.jpg", "photos/../photos/a.jpg", "elsewhere/a.jpg", "link", "hard", "dangling"):
        with pytest.raises(OutputError, match="cannot write"):
            files.writes(tmp_path / name)
    files.writes(tmp_path / "new")
    with pytest.raises(OutputError, match="the output"):
        files.writes(tmp_path / "." / "new")
    (tmp_path / "list.part").write_text("an input")
    with pytest.raises(OutputError, match="the input"):
        CommandFiles(tmp_path / "list.part").writes(tmp_path / "list", streamed=True)
    with pytest.raises(OutputError, match="picture"):
        CommandFiles().writes(photo)  # of no list
    CommandFiles().writes(photo, picture=True)


def test_an_output_stays_in_its_folder(tmp_path):
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos/a.jpg").write_text("photo")
    (tmp_path / "drawn").mkdir()
    (tmp_path / "drawn/sub").symlink_to("../photos")
    (tmp_path / "drawn/one.jpg").symlink_to("../new.jpg")
    os.link(tmp_path / "photos/a.jpg", tmp_path / "drawn/hard.jpg")
    files = CommandFiles(tmp_path / "photos/a.jpg")
    for name in ("sub/a.jpg", "sub/new.jpg", "one.jpg", "hard.jpg", "../other.jpg"):
        with pytest.raises(OutputError, match="cannot write"):
            files.writes_below(tmp_path / "drawn", tmp_path / "drawn" / name)
    files.writes_below(tmp_path / "drawn", tmp_path / "drawn/new/a.jpg")


def test_every_name_gets_a_path_of_its_own_below():
    names = ["../a.jpg", "a.jpg", "/etc/a.jpg", "C:\\photos\\a.jpg", "A.JPG", "x/../../a.jpg", "..", "", "b.tif"]
    names += [".jpg", "b.tif.jpg", "x" * 300, "y/a.png", "a-2.jpg"]
    paths = names_below(names, (".jpg", ".png"), ".jpg")
    assert list(paths) == names
    assert all(not path.is_absolute() and ".." not in path.parts for path in paths.values())
    assert all(path.suffix.lower() in (".jpg", ".png") and len(path.name) < 250 for path in paths.values())
    assert len({str(path).casefold() for path in paths.values()}) == len(names)
    for name in ("a.jpg", "y/a.png"):
        assert paths[name] == PurePosixPath(name)
    many = [f"{'../' * i}a.jpg" for i in range(1000)]
    start = time.process_time()
    assert len(set(names_below(many, (".jpg",), ".jpg").values())) == 1000
    assert time.process_time() - start < 2


def test_messages_show_no_addresses():
    e = ImageError(f"the image a.jpg does not decode: cannot identify image file {object()!r}", "give a JPEG")
    assert str(e) == "the image a.jpg does not decode: cannot identify image file; give a JPEG"
    assert e.problem == "the image a.jpg does not decode: cannot identify image file"
    assert str(ImageError("the map <a> at 0x10 is damaged")) == "the map <a> at 0x10 is damaged"


def test_a_circle_of_links_is_named(tmp_path):
    (tmp_path / "a").symlink_to("b")
    (tmp_path / "b").symlink_to("a")
    with pytest.raises(OutputError, match="symbolic links"):
        CommandFiles(tmp_path / "b").writes(Path(tmp_path / "a"))
