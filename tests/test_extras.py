"""Commands where an extra is not installed: one line that names it, before any work; and what needs none works."""

import json
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from hfnet_maps.pack.writer import full_sections, write_map
from synthetic import place

EXPORT = ["tensorflow", "keras", "ai_edge_quantizer", "onnx", "onnxruntime"]
ALL = [*EXPORT, "pycolmap", "pymetis", "h5py", "matplotlib", "jinja2", "markupsafe", "cryptography"]

# Runs each case in a fork, so that what needs no extra is imported once.
DRIVER = """
import json, os, sys
from importlib.metadata import entry_points
from typer.testing import CliRunner
import hfnet_device.cli, hfnet_edge.cli, hfnet_edge.draw, hfnet_export.cli, hfnet_maps.cli
import hfnet_parity.bench_cli, hfnet_parity.cli
assert CliRunner().invoke(hfnet_edge.cli.app, ["--help"]).exit_code == 0  # imports what typer leaves for later
assert not set(sys.modules) & set(json.loads(sys.argv[2]))

class Hidden:
    def __init__(self, names): self.names = set(names)
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in self.names:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

for hidden, typed, out in json.loads(sys.argv[1]):
    sys.stdout.flush()
    if not (child := os.fork()):
        for stream, end in ((1, "out"), (2, "err")):
            os.dup2(os.open(f"{out}.{end}", os.O_WRONLY | os.O_CREAT), stream)
        sys.meta_path.insert(0, Hidden(hidden))
        sys.argv = typed
        (script,) = entry_points(group="console_scripts", name=typed[0])
        try:
            script.load()()
        except SystemExit as e:
            sys.stdout.flush(), sys.stderr.flush()
            os._exit(e.code or 0)  # tearing all those modules down takes longer than the case
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""

BUILD = ["hfnet-map", "build", "--images", "images", "--reference", "nowhere", "--model", "no.tflite", "-o", "OUT"]
PACK = ["hfnet-map", "pack", "nowhere.hfmap", "--budget", "4MB", "-o", "OUT"]
HLOC = ["--sfm", "no", "--features", "no.h5", "--global-features", "no2.h5"]
EVAL = ["hfnet-eval", "no.txt", "--reference", "no", "--queries", "queries.txt"]
LOCALIZE = ["hfnet-localize", "--map", "no.hfmap", "--queries", "queries.txt", "-o", "OUT"]
RECORD = ["hfnet-parity", "record", "--images", "images", "--queries", "queries.txt", "-o", "OUT"]
DISTILL = ["hfnet-distill", "--images", "no", "--global-teacher", "no.npz", "-o", "OUT", "--local-teacher"]
CRBNET = ["hfnet-train-crbnet", "--scenes", "no", "--images", "no", "--hold-out", "a", "-o", "OUT"]

# The command, what is not there, and the extra that has it. Input files that are not there either: nothing looks.
REFUSED = [
    (BUILD, ["pycolmap"], "maps"),
    ([*BUILD, "--list", "no.txt"], ["pycolmap"], "maps"),
    ([*PACK, "--curve", "OUT.png"], ["matplotlib"], "maps"),
    ([*PACK[:2], *HLOC, *PACK[3:]], ["h5py"], "maps"),
    (["hfnet-map", "inspect", "a.hfmap", "--picture", "OUT.png"], ["matplotlib"], "maps"),
    (["hfnet-map", "example", "-o", "OUT"], ["pycolmap"], "maps"),
    (["hfnet-map", "tile", "no.hfmap", "-o", "OUT"], ["pymetis"], "maps"),
    (["hfnet-map", "diff", "no.hfmap", "no2.hfmap", "--key", "no.pem", "-o", "OUT"], ["cryptography"], "signing"),
    (["hfnet-map", "apply", "no.hfmap", "no.hfdelta", "--trust", "no.pem", "-o", "OUT"], ["cryptography"], "signing"),
    ([*EVAL, "--picture", "OUT.png"], ["matplotlib"], "maps"),
    ([*EVAL, "--report", "no.jsonl", "--reliability", "OUT.png"], ["matplotlib"], "maps"),
    ([*LOCALIZE, "--features", "no.h5", "--global-features", "no2.h5"], ["h5py"], "maps"),
    (
        [*LOCALIZE, "--features", "no.h5", "--global-features", "no2.h5", "--tolerance", "1%,2", "--refine-focal"],
        ["h5py"],
        "maps",
    ),
    ([*RECORD, "--from-hloc", "no"], ["h5py"], "maps"),
    ([*RECORD, "--model", "hfnet", "--map", "no.hfmap"], ["keras"], "export"),
    ([*RECORD, "--model", "no.onnx", "--map", "no.hfmap"], ["onnxruntime"], "export"),
    (["hfnet-parity", "run", "no.bundle", "--model", "no", "--map", "no", "--html", "OUT.html"], ["jinja2"], "parity"),
    (["hfnet-export", "-o", "OUT"], ["tensorflow"], "export"),
    (["hfnet-export", "-o", "OUT"], ["ai_edge_quantizer"], "export"),
    (["hfnet-export", "crbnet", "-o", "OUT"], ["keras"], "export"),
    (["hfnet-export", "no.onnx", "-o", "OUT"], ["onnx"], "export"),
    (["hfnet-export", "-o", "OUT", "--gate", "no.bundle"], ["keras"], "export"),
    ([*DISTILL, "no.npz"], ["keras"], "export"),
    ([*DISTILL, "no.npz"], ["matplotlib"], "export"),
    ([*DISTILL, "no.onnx"], ["onnxruntime"], "export"),
    (CRBNET, ["tensorflow"], "export"),
    (CRBNET, ["matplotlib"], "export"),
    (CRBNET, ["pycolmap"], "maps"),
]
# Where no extra is there at all, one that is needed is named.
NEEDED = {tuple(typed): {other[2] for other in REFUSED if other[0] == typed} for typed, _, _ in REFUSED}

PROGRAMS = [
    "hfnet-export", "hfnet-distill", "hfnet-train-crbnet", "hfnet-map", "hfnet-localize", "hfnet-eval", "hfnet-parity",
    "hfnet-bench", "hfnet-device",
]  # fmt: skip
WORKS = [
    *([program, "--help"] for program in PROGRAMS),
    *(
        ["hfnet-map", command, "--help"]
        for command in ("build", "pack", "merge", "update", "diff", "apply", "verify", "inspect", "example")
    ),
    *(["hfnet-parity", command, "--help"] for command in ("record", "run")),
    ["hfnet-map", "verify", "a.hfmap"],
    ["hfnet-map", "inspect", "a.hfmap"],
    ["hfnet-map", "pack", "a.hfmap", "--budget", "20kB", "-o", "packed.hfmap"],
    ["hfnet-map", "merge", "a.hfmap", "b.hfmap", "-o", "merged.hfmap"],
    ["hfnet-map", "diff", "a.hfmap", "b.hfmap", "-o", "b.hfdelta"],
    ["hfnet-map", "apply", "a.hfmap", "b.hfdelta", "-o", "b_too.hfmap"],
    ["hfnet-device", "list"],
]


@pytest.fixture(scope="module")
def ran(tmp_path_factory):
    """Exit code, stdout, stderr of every case by its words and what was hidden, and the folder that they ran in."""
    root, said = tmp_path_factory.mktemp("extras"), tmp_path_factory.mktemp("said")
    (root / "images").mkdir()
    (root / "queries.txt").write_text("a.png PINHOLE 640 480 500 500 320 240\n")
    source = place(images=4, landmarks=200).source(noise=0.5)
    write_map(full_sections(source), root / "a.hfmap")
    write_map(full_sections(replace(source, names=tuple(f"b/{name}" for name in source.names))), root / "b.hfmap")
    before = set(root.iterdir())
    cases = [(typed, hidden) for typed, hidden, _ in REFUSED] + [(typed, ALL) for typed in (*NEEDED, *WORKS)]
    words = [(hidden, typed, str(said / str(i))) for i, (typed, hidden) in enumerate(cases)]
    done = subprocess.run(
        [sys.executable, "-c", DRIVER, json.dumps(words), json.dumps(ALL)], cwd=root, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    found = {
        (tuple(typed), tuple(hidden)): (int(code), Path(f"{out}.out").read_text(), Path(f"{out}.err").read_text())
        for (hidden, typed, out), code in zip(words, done.stdout.split(), strict=True)
    }
    return found, {path.name for path in set(root.iterdir()) - before}


def named(ran, typed, hidden):
    """What is said to be missing, and the extra that has it: on one line, with exit code 2 and nothing else."""
    code, out, err = ran[0][tuple(typed), tuple(hidden)]
    found = re.fullmatch(r'error: (\w+(?:, \w+)*) (?:is|are) not installed; pip install "hfnet-edge\[(\w+)\]"\n', err)
    assert code == 2 and out == "" and found, err
    return found.groups()


@pytest.mark.parametrize(("typed", "hidden", "extra"), REFUSED, ids=lambda v: " ".join(v) if isinstance(v, list) else v)
def test_a_missing_extra_is_one_line_before_the_work(ran, typed, hidden, extra):
    assert named(ran, typed, hidden) == (hidden[0], extra)


@pytest.mark.parametrize("typed", NEEDED, ids=" ".join)
def test_without_any_extra_one_is_named(ran, typed):
    missing, extra = named(ran, typed, ALL)
    assert extra in NEEDED[typed] and set(missing.split(", ")) <= set(ALL)


@pytest.mark.parametrize("typed", WORKS, ids=" ".join)
def test_what_needs_no_extra_works_without(ran, typed):
    code, out, err = ran[0][tuple(typed), tuple(ALL)]
    assert code == 0 and out, err


def test_nothing_is_left_behind(ran):
    assert ran[1] == {"packed.hfmap", "merged.hfmap", "b.hfdelta", "b_too.hfmap"}
