"""This module says what is missing where an optional dependency is not installed; it imports none of them."""

from __future__ import annotations

from importlib.util import find_spec

from hfnet_edge.errors import InstallError


def needs(extra: str, *modules: str) -> None:
    """Checks that modules of the distribution's extra ``extra`` are there, without importing them: what takes minutes
    should not find out at its end. Raises InstallError."""
    if missing := [module for module in modules if not _there(module)]:
        verb = "is" if len(missing) == 1 else "are"
        raise InstallError(f"{', '.join(missing)} {verb} not installed", f'pip install "hfnet-edge[{extra}]"')


def _there(module: str) -> bool:
    try:
        return find_spec(module) is not None
    except ImportError:  # an import hook refuses it
        return False
