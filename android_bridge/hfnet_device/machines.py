"""The machines of a command's ``--backend``."""

from __future__ import annotations

from hfnet_device.adb import Adb
from hfnet_device.arm64 import CPUS, Arm64
from hfnet_device.backends import Backend, Host
from hfnet_device.jvm import Jvm, JvmArm64
from hfnet_edge.errors import InputError


def machines(name: str, device: str | None = None, device_python: str | None = None) -> list[Backend]:
    """The machines of ``--backend``: this one for "host" and, by the library for the JVM, for "jvm", both emulated
    processors for "arm64" and "jvm-arm64", one device for "adb".

    Args:
        device: serial number, with adb. device_python: a Python on the device, with adb.

    Raises:
        InputError: an option is not for this backend. BackendError: it is not available.
    """
    if name != "adb" and (device is not None or device_python is not None):
        raise InputError("--device and --device-python are for --backend adb", "leave them out")
    if name == "arm64":
        return [Arm64(cpu) for cpu in CPUS]
    if name == "jvm":
        return [Jvm()]
    if name == "jvm-arm64":
        return [JvmArm64(cpu) for cpu in CPUS]
    if name == "adb":
        return [Adb(device, device_python)]
    return [Host()]
