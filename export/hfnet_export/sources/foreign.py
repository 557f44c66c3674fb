"""An HF-Net of somebody else: `ForeignHFNet`, for which each format has a class of its own."""

from __future__ import annotations

import hashlib
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from hfnet_edge.networks.description import Description
from hfnet_edge.shell.reading import open_input
from hfnet_export.networks.any_hfnet import NMS_RADIUS, AnyHFNet
from hfnet_export.sources.roles import Found
from hfnet_export.tflite.embed import toolchain


@dataclass(frozen=True)
class ForeignHFNet(AnyHFNet):
    """What the user says of a network that is not ours. With `convert`, which the formats add, it is a
    `hfnet_export.trained.TrainedNetwork`.

    Attributes:
        input_range: what it expects for grey levels 0 and 255.
        outputs: role to name of an output, where names and shapes leave it open.
    """

    input_range: tuple[float, float]
    outputs: Mapping[str, str]

    def describe(
        self, found: Mapping[str, Found], more_files: Sequence[Path] = (), tools: Sequence[str] = ()
    ) -> Description:
        """Its description: the outputs are named by their roles. ``more_files`` hold weights too."""
        return Description(
            architecture=architecture_of(self.path),
            weights_hash=content_hash([self.path, *more_files]),
            precision="none",
            input_size=self.input_size,
            input_range=self.input_range,
            local_dim=found["local_descriptors"].width,
            global_dim=found["global_descriptor"].width,
            nms_radius=NMS_RADIUS,
            outputs={role: role for role in found},
            toolchain=(*toolchain(), *tools),
        )


def architecture_of(path: Path) -> str:
    """What a network in this file is called, in printable ASCII, as names in maps are: without accents, and without
    characters that then are none of it."""
    ascii_ = unicodedata.normalize("NFKD", path.stem).encode("ascii", "ignore").decode()
    return f"custom-{''.join(c for c in ascii_ if c.isprintable()) or 'network'}"


def content_hash(paths: Sequence[Path]) -> str:
    """32 hex digits over the bytes of files, and over the names and bytes of what is in folders."""
    digest = hashlib.sha256()
    for path in paths:
        for file in sorted(p for p in path.rglob("*") if p.is_file()) if path.is_dir() else [path]:
            digest.update(f"{file.relative_to(path).as_posix()} {file.stat().st_size}\n".encode())
            with open_input(file) as f:
                while block := f.read(1 << 20):
                    digest.update(block)
    return digest.hexdigest()[:32]


def short(e: Exception) -> str:
    """The first lines of what a library says, which may be pages."""
    return " ".join(str(e).split())[:300] or type(e).__name__
