"""One network, one localizer, many threads: every call gets its own photo's answer."""

from __future__ import annotations

import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from math import ceil

import numpy as np
import pytest

pytest.importorskip("tensorflow")

from hfnet_edge.errors import ModelError
from hfnet_edge.localizer import Localizer
from hfnet_edge.methods.method import LocalizationConfig
from hfnet_edge.networks.hfnet import Model
from hfnet_edge.networks.network import Network
from hfnet_edge.networks.patches import PatchModel

THREADS = 8


def orders(count: int) -> list[np.ndarray]:
    rng = np.random.default_rng(0)
    return [rng.permutation(count)[: ceil(count / 2)] for _ in range(THREADS)]


def in_threads(call, count: int) -> list[tuple[int, object]]:
    """(number, answer) of all threads, each of which asks half of ``count`` questions in an order of its own."""
    with ThreadPoolExecutor(THREADS) as pool:
        return [pair for part in pool.map(lambda order: [(i, call(i)) for i in order], orders(count)) for pair in part]


def test_a_shared_network_answers_each_thread(kit):
    model = Model(kit.int8)
    rng = np.random.default_rng(1)
    images = [rng.integers(0, 256, model.description.input_size, np.uint8) for _ in range(5)]
    alone = [model(image) for image in images]
    for i, outputs in in_threads(lambda i: model(images[i]), len(images)):
        for role, value in vars(outputs).items():
            np.testing.assert_array_equal(value, getattr(alone[i], role))


def test_a_shared_patch_network_answers_each_thread(patch_kit):
    model = PatchModel(patch_kit.patches)
    rng = np.random.default_rng(2)
    patches = [rng.integers(0, 256, (150, 32, 32), np.uint8) for _ in range(4)]
    alone = [model(some) for some in patches]
    for i, descriptors in in_threads(lambda i: model(patches[i]), len(patches)):
        np.testing.assert_array_equal(descriptors, alone[i])


@pytest.mark.parametrize(("method", "count"), [("hierarchical", 3), ("parallel", 2)])
def test_a_shared_localizer_answers_each_thread(kit, patch_kit, method, count):
    if method == "hierarchical":
        localizer = Localizer(kit.map, kit.int8)
    else:
        localizer = Localizer(patch_kit.map, kit.int8, patch_kit.patches, config=LocalizationConfig(method))
    queries = [(kit.root / "place" / "images" / q.name, q.camera) for q in kit.bundle.recording.queries[-count:]]
    alone = [localizer.localize(*query) for query in queries]
    assert sum(result.pose is not None for result in alone) >= count * 2 / 3
    for i, result in in_threads(lambda i: localizer.localize(*queries[i]), len(queries)):
        assert result.status is alone[i].status
        np.testing.assert_array_equal(result.prior_frames, alone[i].prior_frames)
        np.testing.assert_array_equal(result.matches.landmarks, alone[i].matches.landmarks)
        if result.pose is not None:
            np.testing.assert_array_equal(result.pose.quaternion, alone[i].pose.quaternion)
            np.testing.assert_array_equal(result.pose.translation, alone[i].pose.translation)


class Stumbling(Network):
    """Every second run fails as LiteRT fails."""

    runs = 0

    def _open(self):
        opened, run = super()._open(), None
        run = opened.run

        def stumble(image):
            Stumbling.runs += 1
            if Stumbling.runs % 2:
                raise RuntimeError("Node number 3 (CONV_2D) failed to invoke.")
            return run(image)

        opened.run = stumble
        return opened


def test_a_failure_of_litert_is_typed_and_the_next_call_runs(kit):
    model = Stumbling(kit.int8)
    image = np.zeros((1, *model.description.input_size), np.uint8)
    for _ in range(THREADS):  # more often than there are interpreters at once
        with pytest.raises(ModelError, match=r"int8\.tflite failed on an image: Node number 3"):
            model.run(image)
        assert set(model.run(image)) == set(model.description.outputs)


LOAD = """
import os, sys, threading
sys.path[:0] = {path!r}
from hfnet_edge.networks.hfnet import Model
{setup}
errors = []
def load():
    try:
        for _ in range(2):
            Model({model!r}, 1)
    except BaseException as e:
        errors.append(e)
threads = [threading.Thread(target=load) for _ in range(4)]
[t.start() for t in threads]; [t.join() for t in threads]
{after}
os.write({channel}, repr(errors).encode())
"""


def loading(kit, setup: str = "", after: str = "", channel: int = 1) -> subprocess.CompletedProcess:
    """Loads models in four threads of a new process, which writes what went wrong."""
    code = LOAD.format(path=sys.path, setup=setup, model=str(kit.int8), after=after, channel=channel)
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)


@pytest.mark.parametrize("owner", ["", "from hfnet_edge.shell.quiet import own_process; own_process()"])
def test_loading_in_threads_leaves_stdout_and_stderr_where_they_are(kit, owner):
    done = loading(kit, owner, after="print('still here'); print('and here', file=sys.stderr); sys.stdout.flush()")
    assert done.returncode == 0 and done.stdout == "still here\n[]" and "and here" in done.stderr
    if owner:
        assert done.stderr == "and here\n"  # a command keeps LiteRT's remarks to itself


@pytest.mark.parametrize("closed", [(1,), (2,), (1, 2)])
@pytest.mark.parametrize("owner", ["", "from hfnet_edge.shell.quiet import own_process; own_process()"])
def test_models_load_with_stdout_or_stderr_closed(kit, tmp_path, closed, owner):
    file = tmp_path / "said.txt"
    setup = f"channel = os.open({str(file)!r}, os.O_CREAT | os.O_WRONLY)\nos.dup2(channel, 9)\n"
    setup += "".join(f"os.close({descriptor})\n" for descriptor in closed) + owner
    done = loading(kit, setup, channel=9)
    assert done.returncode == 0 and file.read_text() == "[]"


def test_models_load_where_no_temporary_file_can_be_made(kit):
    setup = """
import tempfile
def full(*args, **kwargs):
    raise OSError(30, "Read-only file system")
tempfile.TemporaryFile = full
from hfnet_edge.shell.quiet import own_process; own_process()
"""
    done = loading(kit, setup)
    assert done.returncode == 0 and done.stdout == "[]" and done.stderr == ""
