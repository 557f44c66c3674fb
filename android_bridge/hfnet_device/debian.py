"""Debian packages of any architecture, unpacked into a folder: no root rights, and the system's own packages and apt's
lists stay as they are.

apt-get downloads with a configuration of its own and checks Debian's signature; dpkg-deb unpacks. No script of a
package runs, so this suits programs and libraries, not services.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterable, Sequence
from pathlib import Path

from hfnet_device.backends import ask
from hfnet_edge.errors import BackendError

MIRROR = "http://deb.debian.org/debian"
KEYRING = Path("/usr/share/keyrings/debian-archive-keyring.gpg")
PACKAGE_OF = {"apt-get": "apt", "dpkg-deb": "dpkg", KEYRING.name: "debian-archive-keyring"}
SAID = 400  # characters of what a failed program said

CONFIGURATION = """\
Dir::Etc::main "/dev/null";
Dir::Etc::parts "/dev/null";
Dir::Etc::sourcelist "{folder}/sources.list";
Dir::Etc::sourceparts "/dev/null";
Dir::Etc::preferences "/dev/null";
Dir::Etc::preferencesparts "/dev/null";
Dir::State "{folder}";
Dir::State::status "{folder}/status";
Dir::Cache "{folder}";
Dir::Log "{folder}";
APT::Architecture "{architecture}";
APT::Architectures {{ "{architecture}"; }};
APT::Sandbox::User "root";
Acquire::Languages "none";
"""


def missing_tools() -> list[str]:
    """What is not installed of what `unpack` needs."""
    tools = [tool for tool in ("apt-get", "dpkg-deb") if shutil.which(tool) is None]
    return tools + ([] if KEYRING.is_file() else [str(KEYRING)])


def install_line(missing: Iterable[str]) -> str:
    """How to install tools or files by name."""
    packages = sorted({PACKAGE_OF.get(Path(name).name, name) for name in missing})
    return f"run `apt-get install {' '.join(packages)}` as root, on Debian or Ubuntu"


def unpack(packages: Sequence[str], architecture: str, suites: Sequence[str], into: Path) -> None:
    """Downloads packages and unpacks them into a folder. What they depend on has to be listed too.

    Args:
        packages: names, with ``/suite`` where a later suite's is wanted.
        suites: as in "bookworm", "bookworm-backports"; of the main section.

    Raises:
        BackendError: a tool is missing, or Debian's server is not reached.
    """
    if missing := missing_tools():
        raise BackendError(f"{', '.join(missing)} not found", install_line(missing))
    with tempfile.TemporaryDirectory(prefix="hfnet-apt-") as name:
        folder = Path(name)
        for below in ("lists/partial", "archives/partial", "debs"):
            (folder / below).mkdir(parents=True)
        (folder / "status").touch()
        (folder / "sources.list").write_text(
            "".join(f"deb [signed-by={KEYRING} arch={architecture}] {MIRROR} {suite} main\n" for suite in suites)
        )
        (folder / "apt.conf").write_text(
            _acquire_settings() + CONFIGURATION.format(folder=folder, architecture=architecture)
        )
        _apt(folder, "update", "--error-on=any")
        _apt(folder, "download", *packages)
        for deb in sorted((folder / "debs").glob("*.deb")):
            _run(["dpkg-deb", "-x", str(deb), str(into)])
    _keep_links_inside(into)


def _keep_links_inside(root: Path) -> None:
    """Makes absolute links relative, for ``/etc`` here is another than the root's. What leads nowhere is removed."""
    for path in root.rglob("*"):
        if not path.is_symlink():
            continue
        target = os.readlink(path)
        if target.startswith("/"):
            path.unlink()
            path.symlink_to(os.path.relpath(root / target[1:], path.parent))
        if not path.exists():
            path.unlink()


def _acquire_settings() -> str:
    """How this machine's apt reaches the network: proxies, time-outs, certificates."""
    said = _run(["apt-config", "dump", "Acquire"])
    return "".join(
        f"{line}\n"
        for line in said.splitlines()
        if line.startswith("Acquire::") and not line.startswith(("Acquire::IndexTargets", "Acquire::Languages"))
    )


def _apt(folder: Path, *arguments: str) -> None:
    _run(["apt-get", "--quiet", *arguments], folder / "debs", {"APT_CONFIG": str(folder / "apt.conf")})


def _run(command: list[str], folder: Path | None = None, environment: dict[str, str] | None = None) -> str:
    """What the program prints. Raises BackendError with the end of what it said where it fails."""
    done = ask(command, os.environ | (environment or {}) | {"LC_ALL": "C"}, folder)
    if done.returncode:
        errors = [line for line in done.stdout.splitlines() if line.startswith(("E:", "Err:", "dpkg-deb: error"))]
        said = " ".join(" ".join(errors or done.stdout.splitlines()[-3:]).split())[-SAID:]
        full = "No space left" in done.stdout
        raise BackendError(
            f"{' '.join(command[:3])} failed: {said}",
            "make 1 GB of room on the disk" if full else f"check that {MIRROR} is reached, and try again",
        )
    return done.stdout
