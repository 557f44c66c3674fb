"""`hfnet-export` with its option --gate: the command of `hfnet_export`, given the gate of this package."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import hfnet_export.cli

if TYPE_CHECKING:
    from hfnet_parity.gate import Gate


def open_gate(bundle: Path, max_loss: str) -> Gate:
    """Opens the gate of a bundle, and says where it has few queries. Raises InputError, RecordingError."""
    from hfnet_parity.gate import FEW, Gate

    gate = Gate(bundle, max_loss)
    count = len(gate.bundle.recording.queries)
    if count < FEW:
        print(f"{count} queries are few: each is {100 / count:.0f} points of recall, and medians prove little")
    return gate


def export_main() -> None:
    hfnet_export.cli.export_main(open_gate)
