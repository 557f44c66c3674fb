"""Every ``next:`` line of the tool chain, run as it is printed: what a command knows it fills in, and what it cannot
know is a word in capitals."""

import re
import shlex
import shutil
import sys
from dataclasses import dataclass
from importlib.metadata import entry_points
from pathlib import Path

import pytest

from hfnet_device import cli as device_cli
from hfnet_edge.shell.lists import read_names
from hfnet_maps.pack.writer import full_sections, write_map
from hfnet_maps.synthetic_town import made_place
from synthetic import place as synthetic_place

KEPT = 8  # reference images of the place; its queries besides


@dataclass
class Shell:
    """Runs commands in this process, in a folder whose name holds a blank.

    Attributes:
        words: what the words in capitals stand for.
        programs: those that have printed a next line.
    """

    words: dict[str, Path]
    capture: pytest.CaptureFixture
    monkeypatch: pytest.MonkeyPatch

    def __call__(self, *typed: Path | str) -> str | None:
        """Runs a command, which has to end with 0; returns its next line, or None."""
        program, *arguments = (str(word) for word in typed)
        (script,) = entry_points(group="console_scripts", name=program)
        self.monkeypatch.setattr(sys, "argv", [program, *arguments])
        with pytest.raises(SystemExit) as end:
            script.load()()
        out, err = self.capture.readouterr()
        assert end.value.code == 0, (typed, out, err)
        lines = [line.removeprefix("next: ") for line in out.splitlines() if line.startswith("next: ")]
        assert len(lines) <= 1
        return lines[0] if lines else None

    def then(self, line: str | None, program: str) -> str | None:
        """Fills in a next line, which starts with ``program``, and runs it."""
        assert line is not None and line.startswith(f"{program} "), line
        filled = [str(self.words.get(word, word)) for word in shlex.split(line)]
        assert not [word for word in filled if re.fullmatch(r"[A-Z_]+(\.\w+)?", word)], line
        return self(*filled)


@pytest.fixture(scope="module")
def small(kit, tmp_path_factory):
    """The kit's place with fewer reference images."""
    root = tmp_path_factory.mktemp("next") / "small place"
    shutil.copytree(kit.root / "place", root)
    left_out = read_names(root / "map.txt")[KEPT:]
    (root / "map.txt").write_text("".join(f"{name}\n" for name in read_names(root / "map.txt")[:KEPT]))
    model = root / "reference" / "images.txt"
    head, *images = re.split(r"(?m)^(?=\d+ (?:[-\d.e]+ ){7}\d+ \S)", model.read_text())
    model.write_text(head + "".join(i for i in images if i.split("\n")[0].split()[-1] not in left_out))
    return root


@pytest.fixture
def shell(kit, small, tmp_path, monkeypatch, capsys):
    folder = tmp_path / "my maps"
    folder.mkdir()
    monkeypatch.chdir(folder)
    words = {
        "DIR": small / "images",
        "LIST": small / "queries_with_intrinsics.txt",
        "COLMAP_MODEL": small / "reference",
        "M.tflite": kit.int8,
        "M.hfmap": kit.map,
        "REF.bundle": kit.bundle.path,
    }
    return Shell(words, capsys, monkeypatch)


@pytest.mark.slow
def test_from_the_network_to_the_evaluation(shell):
    line = shell("hfnet-export", "hfnet", "--quantize", "none", "--input-size", "288x384", "-o", "a network.tflite")
    line = shell.then(line, "hfnet-map build")
    line = shell.then(line, "hfnet-map pack")
    line = shell.then(line, "hfnet-localize")
    line = shell.then(line, "hfnet-eval")
    assert shell.then(line, "hfnet-eval") is None and Path("above.png").is_file()


def test_from_the_example_to_the_map(shell, small, monkeypatch):
    def write_place(folder, progress):
        shutil.copytree(small, folder, dirs_exist_ok=True)

    monkeypatch.setattr(made_place, "write_place", write_place)
    shell.then(shell("hfnet-map", "example", "-o", "it's a place"), "hfnet-map build")
    assert Path("it's a place/map.hfmap").is_file()


def test_of_what_looks_into_a_map(shell, kit):
    shutil.copy(kit.map, "a map.hfmap")
    line = shell.then(shell("hfnet-map", "verify", "a map.hfmap"), "hfnet-map inspect")
    shell.then(line, "hfnet-localize")


def test_of_a_place_in_tiles(shell, kit):
    shutil.copy(kit.map, "a map.hfmap")
    assert shell("hfnet-map", "tile", "a map.hfmap", "--images", "12", "-o", "a place.tiles").startswith(
        "hfnet-map pack"
    )
    line = shell.then(shell("hfnet-map", "verify", "a place.tiles"), "hfnet-map inspect")
    shell.then(line, "hfnet-localize")


@pytest.mark.slow
def test_of_packing_a_place_in_tiles(shell, kit):
    shutil.copy(kit.map, "a map.hfmap")
    line = shell("hfnet-map", "tile", "a map.hfmap", "--images", "12", "-o", "a place.tiles")
    shell.then(shell.then(line, "hfnet-map pack"), "hfnet-map inspect")


def test_of_what_changed(shell):
    for images in (3, 4):
        write_map(full_sections(synthetic_place(images=images, landmarks=100).source()), f"{images} images.hfmap")
    line = shell("hfnet-map", "diff", "3 images.hfmap", "4 images.hfmap", "-o", "what changed.hfdelta")
    line = shell.then(line, "hfnet-map apply")
    assert Path("3 images_new.hfmap").read_bytes() == Path("4 images.hfmap").read_bytes()
    shell.then(line, "hfnet-map inspect")


def test_of_the_merge(shell):
    for name in "ab":
        source = synthetic_place(seed=ord(name), images=3, landmarks=100).source()
        object.__setattr__(source, "names", tuple(f"{name}/{i}.jpg" for i in range(3)))
        write_map(full_sections(source), f"{name}.hfmap")
    shell.then(shell("hfnet-map", "merge", "a.hfmap", "b.hfmap", "-o", "both of them.hfmap"), "hfnet-map pack")


def test_of_the_reference(shell, kit):
    place = kit.root / "place"
    line = shell(
        "hfnet-parity", "record", "--model", kit.root / "float.tflite", "--map", kit.map, "--images", place / "images",
        "--queries", place / "queries_with_intrinsics.txt", "-o", "a reference.bundle",
    )  # fmt: skip
    assert str(kit.map) in line  # it knows the map
    shell.then(line, "hfnet-parity run")


@pytest.mark.slow
def test_of_the_patch_network(shell):
    shell.words["P.tflite"] = Path("a network.tflite")
    line = shell("hfnet-export", "crbnet", "--quantize", "int8", "-o", "a network.tflite")
    line = shell.then(line, "hfnet-map build")
    assert "'a network.tflite'" in line
    shell.then(line, "hfnet-localize")
    shell.then(shell("hfnet-map", "inspect", "scene.hfmap"), "hfnet-localize")
    line = shell("hfnet-map", "pack", "scene.hfmap", "--budget", "4MB", "-o", "packed.hfmap")
    shell.then(line, "hfnet-localize")


@pytest.mark.slow
@pytest.mark.parametrize("program", ["hfnet-distill", "hfnet-train-crbnet"])
def test_of_the_training(shell, small, monkeypatch, program):
    from hfnet_export.networks import weights
    from hfnet_export.training import crbnet_runs, runs

    hfnet = program == "hfnet-distill"
    files = ("losses.png", "local.csv", "global.csv")

    def trained(*arguments):
        run = arguments[3]
        run.mkdir()
        for name in files:
            (run / name).write_bytes(b"0")
        return Path(shutil.copy(weights.BUNDLED if hfnet else weights.BUNDLED_CRBNET, run / "weights.npz"))

    monkeypatch.setattr(runs, "run_distillation", trained)
    monkeypatch.setattr(crbnet_runs, "run_crbnet", trained)
    own = ["--local-teacher", "a", "--global-teacher", "b"] if hfnet else ["--scenes", "s", "--hold-out", "x"]
    shell.then(shell(program, "--images", small / "images", *own, "-o", "a run"), "hfnet-export")


@pytest.mark.slow
def test_of_the_device(shell, monkeypatch):
    monkeypatch.setattr(device_cli, "prepare", lambda: shell.words["DIR"])
    line = shell("hfnet-device", "prepare-arm64")
    assert line.endswith(" --backend arm64")
    shell.then(line.removesuffix(" --backend arm64"), "hfnet-parity run")  # here, in place of the emulator
