"""Chooses how to spend a budget of bytes, judged by localizing reference images that were left out of the map."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from hfnet_edge.errors import InputError
from hfnet_edge.map.codecs import CodecName
from hfnet_edge.map.container import Section
from hfnet_edge.shell.console import Report, silent
from hfnet_edge.shell.one_thread import one_thread
from hfnet_maps.content import BuiltMap, MapContent, PackedMap
from hfnet_maps.pack.calibrate import calibrate
from hfnet_maps.pack.folds import folds_of
from hfnet_maps.pack.jury import Choice
from hfnet_maps.pack.ladder import Ladder
from hfnet_maps.pack.packer import Packer
from hfnet_maps.pack.settings import Settings, all_settings, global_dim
from hfnet_maps.pack.writer import Sections, size_of

USUAL = 12  # bytes of a descriptor, where there is nothing to judge by


def choose(
    source: MapContent,
    budget: int,
    codec: CodecName | None = None,
    progress: Report = silent,
    ladder: Ladder | None = None,
) -> tuple[Sections, list[Choice]]:
    """The best map within a budget, and the calibration of its probabilities where there are images to leave out.

    Args:
        budget: bytes of the file, at most.
        codec: only this one.
        ladder: of the source and the codec, where there is one already.

    Returns:
        Its sections, and what was judged: the chosen first, everything as it is last.

    Raises:
        InputError: the budget is too small for the images alone, or there are no landmarks.
    """
    if not len(source.positions):
        raise InputError("the source has no landmarks", "build it again, with images that overlap")
    with one_thread():
        if isinstance(source, PackedMap):
            fixed = _as_packed(source)
            if codec is not None and codec is not fixed.codec:
                raise InputError(
                    f"this map is packed with the codec {fixed.codec}", "pack it again from the map that `build` wrote"
                )
            return _filled(Packer(source), fixed, budget)
        ladder = ladder or Ladder(source, codec)
        options = all_settings(ladder.packer.source, budget, codec)
        if not ladder.folds:
            usual = [s for s in options if s.per_landmark == 4 and (s.row_bytes == USUAL or codec is not None)]
            return _filled(Packer(source), (usual or options)[0], budget)
        leanest = min(options, key=lambda s: ladder.packer.sizes(s)[0])
        if ladder.packer.estimate(leanest, budget) <= 1:
            ladder.packer.fit(leanest, budget)  # says now, before the long part, how small is too small
        best = ladder.best(budget, progress)
        assert best.settings is not None
        sections, chosen = _exactly(ladder.packer, best.settings, best.landmarks, budget)
        if chosen.landmarks != best.landmarks:  # its trees are larger than they were thought to be
            judged = ladder.jury.judge(chosen)
            assert judged is not None
            chosen = judged
        else:
            chosen = replace(best, size=chosen.size)
        calibrated = calibrate(ladder.jury.maps(chosen), ladder.jury.images, ladder.jury.config, progress)
        sections = {**sections, Section.CALIBRATION: calibrated.calibration.to_bytes()}
        chosen = replace(chosen, calibrated=calibrated)
        others = sorted((t for t in ladder.judged if t is not best and t.size <= budget), key=lambda t: -t.score)
        return sections, [chosen, *others, ladder.jury.full]


def curve(
    source: MapContent, codec: CodecName | None = None, progress: Report = silent, ladder: Ladder | None = None
) -> list[Choice]:
    """The best at each size of a `Ladder`, from the smallest sensible one to where all is kept, and the uncompacted map
    last.

    Raises:
        InputError: the source keeps nothing to judge by.
    """
    built = check_judged(source)
    with one_thread():
        ladder = ladder or Ladder(built, codec)
        return [*ladder.steps(progress), ladder.jury.full]


def check_judged(source: MapContent) -> BuiltMap:
    """The map, which has what settings can be judged by. Raises InputError where there is nothing."""
    if not isinstance(source, BuiltMap):
        raise InputError(
            "the source lacks the keypoints of its reference images, so there is nothing to judge by",
            "give the map that `hfnet-map build` wrote, or --sfm with --features",
        )
    if not folds_of(source):
        raise InputError(
            f"{len(source.names)} images are too few to leave one out and judge by it",
            "pack without --curve and --reliability",
        )
    return source


def _filled(packer: Packer, settings: Settings, budget: int) -> tuple[Sections, list[Choice]]:
    """As many landmarks as there is room for, not judged."""
    sections, chosen = _exactly(packer, settings, packer.fit(settings, budget), budget)
    return sections, [chosen]


def _exactly(packer: Packer, settings: Settings, count: int, budget: int) -> tuple[Sections, Choice]:
    """A map of so many landmarks; of fewer where its trees do not fit."""
    while True:
        sections = {**packer.pack(settings, count), **packer.trees(count)}
        if size_of(sections) <= budget:
            return sections, Choice(settings, count, size_of(sections))
        if count == 1:
            raise InputError(f"a budget of {budget} bytes is too small for random trees", "give a larger --budget")
        count = max(1, count * 97 // 100)  # trees of fewer landmarks are a little larger for each


def _as_packed(source: PackedMap) -> Settings:
    """The settings that a packed map was made with."""
    codec = source.codec
    most = int(np.bincount(source.described).max(initial=1))
    subspaces = 0 if codec.codebook is None else len(codec.codebook)
    return Settings(codec.name, codec.dim, subspaces, most, global_dim(source, 0))
