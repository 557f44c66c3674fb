"""`hfnet-map pack` killed at any moment, on a full disk, and where it must not write: the old file stays, or the new
one is whole."""

import json
import os
import re
import resource
import shutil
import signal
import subprocess
import sys
import time
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from hfnet_edge.map.map_file import LocalizationMap
from hfnet_edge.shell import writing
from hfnet_maps import content
from hfnet_maps.cli import main, map_main
from hfnet_maps.content import read_content
from hfnet_maps.pack import budget, writer
from hfnet_maps.pack.writer import full_sections, write_map
from synthetic import place

COMMAND = Path(sys.executable).with_name("hfnet-map")
BUDGET = 40_000  # three blocks, so that the file is written in several pieces
OLD = b"the old file" * 9
ENVIRONMENT = os.environ | {"OPENBLAS_NUM_THREADS": "1", "PYTHONDONTWRITEBYTECODE": "1"}
STEPS = {writing.__file__, writer.__file__}  # each of their lines is a moment to be killed at


@pytest.fixture(scope="module")
def judged(tmp_path_factory):
    """A source with what to judge by."""
    path = tmp_path_factory.mktemp("source") / "scene.hfmap"
    write_map(full_sections(place(images=6, landmarks=300).source(noise=0.5)), path)
    return path


@pytest.fixture(scope="module")
def scene(judged):
    """The same without: packed until the budget is full."""
    path = judged.with_name("bare.hfmap")
    write_map(full_sections(read_content(judged).without_keypoints()), path)
    return path


@pytest.fixture
def output(tmp_path):
    """An old file in a folder of its own."""
    (tmp_path / "folder").mkdir()
    path = tmp_path / "folder" / "out.hfmap"
    path.write_bytes(OLD)
    return path


def options(source, output, *more):
    return ["pack", str(source), "--budget", str(BUDGET), "-o", str(output), *more]


def started(source, output, *more, **how):
    """The real command, in a process of its own."""
    return subprocess.Popen(
        [str(COMMAND), *options(source, output, *more)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=ENVIRONMENT,
        **how,
    )


def finished(process):
    out, err = process.communicate(timeout=60)
    return process.returncode, out, err


def refused(code, out, err, *words):
    """Exit code 2 and one line with these words."""
    assert code == 2, err
    (line,) = err.splitlines()
    assert line.startswith("error: ") and "; " in line and "wrote" not in out
    for word in words:
        assert str(word) in line
    return True


def is_whole(path):
    """A map within the budget, every byte and index of it checked."""
    m = LocalizationMap.open(path)
    m.check_all()
    return m.image_count == 6 and 0.95 * BUDGET <= path.stat().st_size <= BUDGET


def leftovers(output):
    """What lies beside the output; only temporary files may."""
    names = {path.name for path in output.parent.iterdir()} - {output.name}
    assert all(re.fullmatch(rf"\.{re.escape(output.name)}\.[0-9a-f]{{16}}\.hfnet-tmp", name) for name in names), names
    return names


# --- killed


@pytest.mark.parametrize("kills", [6, pytest.param(60, marks=pytest.mark.slow)])
def test_a_kill_at_any_moment_leaves_the_old_file_or_the_new_one(scene, output, kills):
    start = time.monotonic()
    code, _, err = finished(started(scene, output))
    seconds = time.monotonic() - start
    assert code == 0 and err == "" and is_whole(output) and not leftovers(output)

    rng = np.random.default_rng(kills)
    killed = 0
    for i in range(kills):
        output.write_bytes(OLD)
        process = started(scene, output)
        time.sleep((i + rng.uniform()) / kills * seconds)
        process.kill()
        code, _, _ = finished(process)
        killed += code == -signal.SIGKILL
        assert code in (0, -signal.SIGKILL)
        new = output.read_bytes() != OLD
        assert is_whole(output) if new else code != 0
        assert len(leftovers(output)) <= 1  # that of an earlier kill is gone, once a writer got so far
    assert killed >= kills // 2  # else the delays were too long to tell anything

    output.write_bytes(OLD)
    code, _, err = finished(started(scene, output))
    assert code == 0 and err == "" and is_whole(output) and not leftovers(output)


def test_a_kill_at_every_step_of_writing_leaves_the_old_file_or_the_new_one(scene, output):
    code = f"import sys; sys.path[:0] = {sys.path!r}; import test_pack_faults as t; t.kill_at_every_step(*sys.argv[1:])"
    driver = [sys.executable, "-c", code, str(scene), str(output)]  # of one thread, so that it can be forked
    result = subprocess.run(driver, capture_output=True, text=True, env=ENVIRONMENT, timeout=120)
    assert result.returncode == 0, result.stderr
    found = json.loads(result.stdout)
    assert found["old"] > 50 and found["new"] > 0  # before the renaming and after it
    assert found["partial"] >= 4  # temporary files with nothing, one block, two, and all in them
    assert is_whole(output)


def kill_at_every_step(source, output):
    """Kills the command before the first line of its writing, then before the second, and so on, until it gets to its
    end; prints what that left. The source is read once, the choice is made once, and all imports are."""
    read = read_content(source)
    chosen = budget.choose(read, BUDGET)
    content.read_content, budget.choose = lambda _: read, lambda *_: chosen
    output = Path(output)
    assert CliRunner().invoke(main, options(source, output)).exit_code == 0
    found, sizes = {"old": 0, "new": 0}, set()
    for step in range(10_000):
        output.write_bytes(OLD)
        child = os.fork()
        if not child:
            _die_at(step, options(source, output))
        code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        state = "old" if output.read_bytes() == OLD else "new"
        assert state == "old" or is_whole(output), step
        left = leftovers(output)
        sizes |= {(output.parent / name).stat().st_size for name in left}
        if code == 0:
            assert state == "new" and not left
            print(json.dumps(found | {"steps": step, "partial": len(sizes)}))
            return
        assert code == -signal.SIGKILL and len(left) <= (state == "old"), (step, code)
        found[state] += 1
    raise AssertionError("it came to no end")


def _die_at(step, arguments):
    """Never returns: kills its own process before line number ``step`` of the writing, if it has so many."""
    left, code = step, 1

    def trace(frame, event, _):
        nonlocal left
        if frame.f_code.co_filename not in STEPS:
            return None
        if event == "line":
            if left == 0:
                os.kill(os.getpid(), signal.SIGKILL)
            left -= 1
        return trace

    def traced(sections, path):
        sys.settrace(trace)
        write_map(sections, path)

    try:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        writer.write_map = traced
        sys.argv = ["hfnet-map", *arguments]
        map_main()
    except SystemExit as e:
        code = e.code
    finally:
        os._exit(code)


def test_what_a_killed_run_left_goes_with_the_next_write(scene, output):
    stray = output.with_name(f".other.hfmap.{16 * '0'}.hfnet-tmp")
    stray.write_bytes(bytes(3 * BUDGET))
    result = CliRunner().invoke(main, options(scene, output))
    assert result.exit_code == 0 and is_whole(output) and not leftovers(output)


def while_writing(monkeypatch, happens):
    """``happens(file)`` before a map's first byte is written to a file; maps are laid out in memory as before."""
    write = writer._write

    def written(sections, file):
        if not isinstance(file, BytesIO):
            happens(file)
        return write(sections, file)

    monkeypatch.setattr(writer, "_write", written)


def test_an_interruption_while_writing_leaves_the_old_file(scene, output, monkeypatch, capsys):
    def interrupted(file):
        file.write(b"half")
        assert leftovers(output)
        raise KeyboardInterrupt

    while_writing(monkeypatch, interrupted)
    monkeypatch.setattr(sys, "argv", ["hfnet-map", *options(scene, output)])
    with pytest.raises(SystemExit) as exit_:
        map_main()
    out, err = capsys.readouterr()
    assert exit_.value.code == 130 and err.strip() in ("", "stopped") and "wrote" not in out
    assert output.read_bytes() == OLD and not leftovers(output)


# --- no room


def limited(size):
    """As if the disk were full when a file has so many bytes."""
    return {"preexec_fn": lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))}


@pytest.mark.parametrize("share", [0.0, 0.3, 1.0])
def test_a_full_disk_leaves_the_old_file(scene, output, share):
    room = round(share * (0.95 * BUDGET - 1))  # less than the map in any case
    result = finished(started(scene, output, **limited(room)))
    assert refused(*result, f"cannot write {output}", "File too large", "free space")
    assert result[1] == ""
    assert output.read_bytes() == OLD and not leftovers(output)


def test_room_for_the_map_but_not_for_the_curve(judged, output, tmp_path):
    (tmp_path / "curve.png").write_bytes(OLD)
    result = finished(started(judged, output, "--codec", "int8", "--curve", str(tmp_path / "curve.png"),
                              **limited(BUDGET)))  # fmt: skip
    code, _, err = result
    assert code == 2 and f"error: cannot write {tmp_path / 'curve.png'}: File too large" in err.splitlines()[-1]
    assert "Traceback" not in err
    LocalizationMap.open(output).check_all()
    assert not leftovers(output)
    assert (tmp_path / "curve.png").read_bytes() == OLD
    assert sorted(path.name for path in tmp_path.iterdir()) == ["curve.png", "folder"]


# --- no place


@pytest.mark.parametrize("old", [OLD, None])
def test_a_folder_that_is_read_only(scene, output, old):
    if old is None:
        output.unlink()
    output.parent.chmod(0o555)
    try:
        if os.access(output.parent, os.W_OK):
            pytest.skip("root may write everywhere")
        assert refused(*finished(started(scene, output)), f"cannot write {output}", "is not writable")
    finally:
        output.parent.chmod(0o755)
    assert (output.read_bytes() == old) if old else not output.exists()
    assert not leftovers(output)


def test_an_output_that_is_a_folder(scene, output):
    output.unlink()
    output.mkdir()
    (output / "kept").write_bytes(OLD)
    assert refused(*finished(started(scene, output)), f"cannot write {output}", "a folder")
    assert [path.name for path in output.iterdir()] == ["kept"] and not leftovers(output)


def test_a_link_that_leads_nowhere(scene, output):
    output.unlink()
    output.symlink_to(output.parent.parent / "gone" / "out.hfmap")
    assert refused(*finished(started(scene, output)), "gone/out.hfmap")
    assert output.is_symlink() and not leftovers(output)


@pytest.mark.parametrize("change", ["the folder goes", "the output becomes a folder"])
def test_a_place_that_goes_while_it_is_written(scene, output, monkeypatch, change):
    def changed(_):
        if change == "the folder goes":
            shutil.rmtree(output.parent)
        else:
            output.unlink()
            output.mkdir()

    while_writing(monkeypatch, changed)
    result = CliRunner().invoke(main, options(scene, output))
    assert refused(result.exit_code, result.stdout, result.stderr, f"cannot write {output}")
    assert not output.parent.exists() or (output.is_dir() and not leftovers(output))
