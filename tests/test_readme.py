"""What README.md and the pages of docs/ print: commands that take the options that they are given; and of the README
those that run as printed after `make demo`, here on a smaller place."""

import ast
import re
import shlex
import shutil
import sys
import tomllib
from importlib.metadata import entry_points
from pathlib import Path

import pytest
import typer.core
from PIL import Image

import hfnet_edge
from hfnet_edge import Camera
from hfnet_edge.shell.lists import read_queries

ROOT = Path(__file__).parents[1]
README = ROOT / "README.md"
PAGES = [README, *sorted((ROOT / "docs").glob("*.md"))]
SLOW = ("hfnet-export", "hfnet-map build", "hfnet-map pack")  # other tests run them
MADE = {"scene.hfmap": "demo/place.hfmap", "small.hfmap": "demo/packed.hfmap"}  # by these


def blocks(page: Path, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", page.read_text(encoding="utf-8"), re.M | re.S)


def commands(page: Path) -> list[list[str]]:
    """The words of each line of the page's shell blocks."""
    text = "".join(blocks(page, "sh")).replace("\\\n", " ")
    return [words for line in text.splitlines() if (words := shlex.split(line, comments=True))]


@pytest.fixture(scope="module")
def demo(kit, tmp_path_factory):
    """What `make demo` leaves behind: queries of its size, 640x480, in the smaller place."""
    root = tmp_path_factory.mktemp("readme")
    place = root / "demo" / "place"
    shutil.copytree(kit.root / "place", place)
    listed = []
    for name, camera in read_queries(place / "queries_with_intrinsics.txt")[:4]:
        with Image.open(place / "images" / name) as photo:
            photo.resize((640, 480)).save(place / "images" / name)
        scale = 640 / camera.width
        listed.append(f"{name} {Camera(camera.model, 640, 480, tuple(scale * v for v in camera.params))}\n")
    (place / "queries_with_intrinsics.txt").write_text("".join(listed))
    for name, path in {
        "hfnet_int8.tflite": kit.int8,
        "hfnet_float.tflite": kit.root / "float.tflite",
        "place.hfmap": kit.map,
        "packed.hfmap": kit.map,
    }.items():
        shutil.copy(path, root / "demo" / name)
    for made, of in MADE.items():
        shutil.copy(root / of, root / made)
    return root


def test_the_commands_run_as_printed(demo, monkeypatch, capsys):
    monkeypatch.chdir(demo)
    ran = []
    for words in commands(README):
        if not words[0].startswith("hfnet-") or " ".join(words).startswith(SLOW):
            continue
        (script,) = entry_points(group="console_scripts", name=words[0])
        monkeypatch.setattr(sys, "argv", words)
        with pytest.raises(SystemExit) as end:
            script.load()()
        out, err = capsys.readouterr()
        assert end.value.code == 0 and out, (words, err)
        ran.append(words[0])
    assert set(ran) == {"hfnet-map", "hfnet-localize", "hfnet-eval", "hfnet-parity", "hfnet-bench"}
    for written in ("poses.txt", "results.jsonl", "pictures", "above.png", "map.png", "ref.bundle", "report.html"):
        assert (demo / written).exists(), written


def test_the_three_lines_run_as_printed(demo, monkeypatch):
    monkeypatch.chdir(demo)
    (lines,) = blocks(README, "python")
    names: dict = {}
    exec(lines, names)
    assert len(ast.parse(lines).body) == 3 and names["result"].status is hfnet_edge.Status.LOCALIZED


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_command_takes_its_options(page, monkeypatch):
    monkeypatch.setattr(typer.core.TyperCommand, "invoke", lambda command, context: None, raising=False)
    for words in commands(page):
        if words[0].startswith("hfnet-"):
            (script,) = entry_points(group="console_scripts", name=words[0])
            monkeypatch.setattr(sys, "argv", words)
            with pytest.raises(SystemExit) as end:
                script.load()()
            assert end.value.code == 0, words


def test_what_make_and_pip_are_given_is_there():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    targets = re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(), re.M)
    wheel = f"dist/hfnet_edge-{hfnet_edge.__version__}-py3-none-any.whl"
    there = {"make": 0, "pip": 0}
    for words in commands(README):
        if words[0] == "make":
            assert words[1] in targets
        elif words[0] == "pip":
            file, _, extras = words[-1].rstrip("]").partition("[")
            assert file == wheel and set(filter(None, extras.split(","))) <= set(project["optional-dependencies"])
        there[words[0]] = there.get(words[0], 0) + 1
    assert there["make"] and there["pip"] and wheel in README.read_text(encoding="utf-8")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_link_leads_to_a_file_and_a_heading(page):
    for link in re.findall(r"\]\(([^)\s]+)\)", page.read_text(encoding="utf-8")):
        if link.startswith("https://"):
            continue
        path, _, anchor = link.partition("#")
        target = (page.parent / path) if path else page
        assert target.exists(), link
        if anchor:
            headings = re.findall(r"^#+ (.*)$", target.read_text(encoding="utf-8"), re.M)
            assert anchor in {re.sub(r"[^\w\- ]", "", head.lower()).replace(" ", "-") for head in headings}, link


def test_the_readme_is_short():
    assert len(README.read_text(encoding="utf-8").splitlines()) <= 200
