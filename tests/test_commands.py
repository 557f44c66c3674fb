"""What all ten commands have in common."""

import subprocess
import sys
from importlib.metadata import entry_points, version
from pathlib import Path

import pytest

import hfnet_edge

PROGRAMS = sorted(script.name for script in entry_points(group="console_scripts") if script.name.startswith("hfnet-"))
ROOT = Path(__file__).parents[1]


@pytest.fixture
def run(monkeypatch, capsys):
    """Runs a command in this process, which has to end well; returns what it prints."""

    def of(program: str, *arguments: str, **environment: str) -> str:
        for name, value in environment.items():
            monkeypatch.setenv(name, value)
        monkeypatch.setattr(sys, "argv", [program, *arguments])
        monkeypatch.setattr(sys.modules["__main__"], "__package__", None)  # the program is named by its script
        (script,) = entry_points(group="console_scripts", name=program)
        with pytest.raises(SystemExit) as end:
            script.load()()
        out, err = capsys.readouterr()
        assert end.value.code == 0 and err == "", err
        return out

    return of


def test_there_are_ten():
    names = (
        "bench",
        "device",
        "distill",
        "eval",
        "export",
        "localize",
        "map",
        "parity",
        "train-crbnet",
        "train-densernet",
    )
    assert [f"hfnet-{name}" for name in names] == PROGRAMS


def test_there_is_one_version():
    assert version("hfnet-edge") == hfnet_edge.__version__


@pytest.mark.parametrize("program", PROGRAMS)
def test_the_version(run, program):
    assert run(program, "--version") == f"hfnet-edge {hfnet_edge.__version__}\n"


@pytest.mark.parametrize("program", PROGRAMS)
def test_the_help_names_what_every_command_has(run, program):
    said = run(program, "--help", COLUMNS="120")
    assert all(option in said for option in ("--version", "--install-completion", "--show-completion", "--help"))


@pytest.mark.parametrize("program", PROGRAMS)
def test_the_completion_of_a_shell(run, program):
    variable = f"_{program.replace('-', '_').upper()}_COMPLETE"
    script = run(program, **{variable: "source_bash"})
    assert program in script and variable in script
    assert "--version" in run(program, **{variable: "complete_bash", "COMP_WORDS": f"{program} --v", "COMP_CWORD": "1"})


def test_subcommands_are_completed(run):
    words = {"COMP_WORDS": "hfnet-map in", "COMP_CWORD": "1"}
    assert run("hfnet-map", _HFNET_MAP_COMPLETE="complete_bash", **words).split() == ["inspect"]


@pytest.mark.parametrize("package", ["hfnet_edge", "hfnet_export", "hfnet_maps", "hfnet_parity", "hfnet_device"])
def test_every_package_has_its_types(package):
    tracked = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True)
    files = tracked.stdout.splitlines() or [str(path.relative_to(ROOT)) for path in ROOT.glob("*/*/py.typed")]
    assert [path for path in files if path.endswith(f"/{package}/py.typed")]


def test_what_users_need_is_at_the_top():
    names = {"Camera", "LocalizationConfig", "Localizer", "Method", "Pose", "PoseConfig", "Status", "__version__"}
    assert names <= set(hfnet_edge.__all__) and all(hasattr(hfnet_edge, name) for name in hfnet_edge.__all__)
