"""A small place with its map, the bundled network in float and int8, and a bundle recorded with the float one: the
fixture `kit`, made once for all tests that want a whole pipeline. `patch_kit` is the same place for the parallel
method, with the bundled patch network."""

from __future__ import annotations

import shutil
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

from hfnet_edge.networks.by_role import Networks
from hfnet_edge.networks.hfnet import Model
from hfnet_edge.record.recording import Recording
from hfnet_edge.record.runner import IMAGES, MAP, MODEL, PATCHES, RecordJob
from hfnet_edge.record.runner import record as run_record
from hfnet_edge.shell.lists import read_names, read_queries
from hfnet_export.export import export_crbnet, export_hfnet
from hfnet_export.networks import weights
from hfnet_maps.build.builder import build_map
from hfnet_maps.build.reference import read_reference
from hfnet_maps.pack.writer import built_sections, full_sections, write_map
from hfnet_maps.synthetic_town.made_place import made_place, write_place
from hfnet_parity.bundle import Bundle
from hfnet_parity.record import load_network, record
from hfnet_parity.run import Verdict, judge

SIZE = (288, 384)  # of the network's input
PHOTO = (360, 480)  # of the pictures


@dataclass(frozen=True)
class Kit:
    """Everything that a parity run needs.

    Attributes:
        root: folder of place/, float.tflite, int8.tflite, place.hfmap, ref.bundle.
        bundle: the float network's.
    """

    root: Path
    bundle: Bundle

    @property
    def int8(self) -> Path:
        return self.root / "int8.tflite"

    @property
    def map(self) -> Path:
        return self.root / "place.hfmap"

    def job(self, folder: Path, model: Path | None = None, map_: Path | None = None) -> tuple[Path, RecordJob]:
        """A folder as a device gets it, for `run` to change before it is run."""
        folder.mkdir(parents=True, exist_ok=True)
        shutil.copy(model or self.int8, folder / MODEL)
        shutil.copy(map_ or self.map, folder / MAP)
        self.bundle.unpack_images(folder / IMAGES)
        files = self.bundle.files()
        return folder, RecordJob(tuple((q.name, files[q.name], q.camera) for q in self.bundle.recording.queries))

    def run(self, folder: Path, model: Path | None = None, map_: Path | None = None) -> Recording:
        """What the int8 network makes of the queries, in this process."""
        return run_record(*self.job(folder, model, map_))

    @cached_property
    def honest(self) -> Recording:
        """What `run` makes of the kit as it is, once for all tests."""
        return self.run(self.root / f"{type(self).__name__}_job")

    def judge(self, run: Recording, map_: Path | None = None) -> Verdict:
        return judge(self.bundle, run, map_ or self.map, "test")


@dataclass(frozen=True)
class PatchKit(Kit):
    """The same for landmarks that a patch network describes, with random trees.

    Attributes:
        root: also has patches_float.tflite, patches_int8.tflite, patches.hfmap, patches.bundle.
        bundle: the float networks', by the parallel method.
    """

    @property
    def map(self) -> Path:
        return self.root / "patches.hfmap"

    @property
    def patches(self) -> Path:
        return self.root / "patches_int8.tflite"

    def job(self, folder: Path, model: Path | None = None, map_: Path | None = None) -> tuple[Path, RecordJob]:
        folder, job = super().job(folder, model, map_)
        shutil.copy(self.patches, folder / PATCHES)
        return folder, replace(job, method=self.bundle.recording.method)


def make_kit(root: Path) -> Kit:
    """Makes it in a folder; half a minute."""
    place = root / "place"
    write_place(place, made_place(map_views=28, query_views=6, size=PHOTO))
    for name, precision in (("float", "none"), ("int8", "int8")):
        export_hfnet(output=root / f"{name}.tflite", quantize=precision, input_size=SIZE)
    source, _ = build_map(
        place / "images",
        place / "reference",
        read_names(place / "map.txt"),
        Model(root / "float.tflite"),
        dense=True,
    )
    write_map(full_sections(source), root / "place.hfmap")
    queries = read_queries(place / "queries_with_intrinsics.txt")
    record(
        [load_network(str(root / "float.tflite"))],
        root / "place.hfmap",
        place / "images",
        queries,
        root / "ref.bundle",
        dict(read_reference(place / "reference").poses),
    )
    return Kit(root, Bundle.read(root / "ref.bundle"))


def make_patch_kit(kit: Kit) -> PatchKit:
    """Adds to a kit's folder what the parallel method needs, with four queries: in float, the patch network takes
    seconds for each; half a minute."""
    root, place = kit.root, kit.root / "place"
    for name, precision in (("float", "none"), ("int8", "int8")):
        export_crbnet(weights.BUNDLED_CRBNET, root / f"patches_{name}.tflite", precision)
    source, _ = build_map(
        place / "images",
        place / "reference",
        read_names(place / "map.txt"),
        Networks(root / "float.tflite", root / "patches_int8.tflite"),
    )
    write_map(built_sections(source), root / "patches.hfmap")
    record(
        [load_network(str(root / name)) for name in ("float.tflite", "patches_float.tflite")],
        root / "patches.hfmap",
        place / "images",
        read_queries(place / "queries_with_intrinsics.txt")[:4],
        root / "patches.bundle",
        dict(read_reference(place / "reference").poses),
        method="parallel",
    )
    return PatchKit(root, Bundle.read(root / "patches.bundle"))
