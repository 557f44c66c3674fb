"""Shared fixtures. Everything is made by code; tests that want the benchmark scenes skip where they are absent."""

from __future__ import annotations

from pathlib import Path

import pytest

SHARED = Path(__file__).parents[2] / "shared" / "data"


@pytest.fixture(autouse=True)
def no_progress(monkeypatch):
    """Commands that are run in this process print no progress on stderr, however busy the machine is."""
    monkeypatch.setattr("hfnet_edge.shell.console.EVERY", 3600.0)


@pytest.fixture
def shared_data() -> Path:
    """The benchmark data beside the checkout."""
    if not (SHARED / "scenes").is_dir():
        pytest.skip(f"the benchmark scenes are not at {SHARED}")
    return SHARED


@pytest.fixture(scope="session")
def kit(tmp_path_factory):
    """See `kit.Kit`."""
    pytest.importorskip("tensorflow")
    from kit import make_kit

    return make_kit(tmp_path_factory.mktemp("kit"))


@pytest.fixture(scope="session")
def patch_kit(kit):
    """See `kit.PatchKit`."""
    from kit import make_patch_kit

    return make_patch_kit(kit)
