"""`hfnet-device`."""

from __future__ import annotations

from collections.abc import Callable

import typer
from rich.table import Table

from hfnet_device import jvm
from hfnet_device.adb import READY, devices
from hfnet_device.arm64 import CPUS, missing_tools, prepare, prepared
from hfnet_device.debian import install_line
from hfnet_edge.errors import BackendError
from hfnet_edge.shell.console import reports_errors, run, wrote
from hfnet_edge.shell.tables import show

main = typer.Typer(
    pretty_exceptions_enable=False,
    no_args_is_help=True,
    help="Processors and devices that jobs run on.",
)


@main.command("prepare-arm64")
@reports_errors
def prepare_arm64() -> None:
    """Make the arm64 root that the backends arm64 and adb run: once, in the user's cache, without root rights.

    Example:

        hfnet-device prepare-arm64
    """
    root = prepare()
    wrote(root, "hfnet-parity run REF.bundle --model M.tflite --map M.hfmap --backend arm64")


@main.command("prepare-jvm-arm64")
@reports_errors
def prepare_jvm_arm64() -> None:
    """Make the arm64 root with Java that the backend jvm-arm64 runs: once, in the user's cache, without root rights.

    Example:

        hfnet-device prepare-jvm-arm64
    """
    root = jvm.prepare()
    wrote(root, "hfnet-parity run REF.bundle --model M.tflite --map M.hfmap --backend jvm-arm64")


@main.command("list")
@reports_errors
def list_backends() -> None:
    """Show the machines that a job can run on, and what those that are not there lack.

    Example:

        hfnet-device list
    """
    table = Table(title="Backends", title_justify="left")
    for column in ("backend", "state"):
        table.add_column(column)
    table.add_row("host", "ready")
    table.add_row("arm64", _arm64_state())
    table.add_row("jvm", _state(jvm.Jvm))
    table.add_row("jvm-arm64", _state(jvm.prepared))
    try:
        there = devices()
    except BackendError as e:
        table.add_row("adb", str(e))
    else:
        for device in there:
            state = "ready" if device.state == READY else f"{device.state}; {device.remedy}"
            table.add_row("adb", f"{device.serial}: {state}")
        if not there:
            table.add_row("adb", "no device is connected")
    show(table)


def _state(open_it: Callable[[], object]) -> str:
    try:
        open_it()
    except BackendError as e:
        return str(e)
    return "ready"


def _arm64_state() -> str:
    if missing := missing_tools():
        return f"{', '.join(missing)} not found; {install_line(missing)}"
    try:
        root = prepared()
    except BackendError as e:
        return str(e)
    return f"ready: {', '.join(f'{cpu} ({what})' for cpu, what in CPUS.items())}; {root}"


def device_main() -> None:
    """Entry point."""
    run(main)
