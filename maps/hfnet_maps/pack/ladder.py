"""The best map of each of a fixed series of sizes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import cached_property

import numpy as np

from hfnet_edge.map.codecs import CodecName
from hfnet_edge.shell.console import Report, silent
from hfnet_maps.content import BuiltMap, DescribedMap
from hfnet_maps.pack.folds import Fold, folds_of
from hfnet_maps.pack.jury import Choice, Jury
from hfnet_maps.pack.packer import Packer
from hfnet_maps.pack.selection import cover
from hfnet_maps.pack.settings import Settings, all_settings, global_sizes

COVER = 50  # landmarks: twice an accepted pose's fewest inliers, and some that do not match
SERIES = (10, 12, 15, 20, 25, 30, 40, 50, 60, 80)  # leading digits of the sizes that are tried, whatever the budget
OFTEN = (10, 20, 50)  # of those where other settings are tried
FEWEST = 0.6  # of the landmarks that the smallest descriptors leave room for: settings that keep fewer are hopeless


class Ladder:
    """The best map of each of a fixed series of sizes, climbed from the smallest sensible one.

    A step tries the best settings so far with as many landmarks as its size has room for, and at every 1, 2 and 5 all
    other settings too that keep about as many, and wider or narrower global descriptors. What is not
    better stays out, so the best never falls from a step to the next. Nothing depends on the budget but how far it is
    climbed; the end is where there is room for all landmarks and the uncompacted map is no better.

    Attributes:
        packer: of the whole source.
        judged: all that was judged to its end, in the order of trial.
    """

    def __init__(self, source: BuiltMap | DescribedMap, codec: CodecName | None = None):
        self.packer, self._codec = Packer(source, calibrated=isinstance(source, BuiltMap)), codec
        self._seen: set[tuple[Settings, int]] = set()
        self._steps: list[tuple[int, Choice]] = []
        self.judged: list[Choice] = []

    @cached_property
    def folds(self) -> list[Fold]:
        """What there is to judge by."""
        return folds_of(self.packer.source)

    @cached_property
    def jury(self) -> Jury:
        """Made when it is first asked."""
        return Jury(self.packer, self.folds)

    @cached_property
    def sizes(self) -> list[int]:
        """Bytes of the steps: from where every image has `COVER` landmarks (K-cover) to where all is kept."""
        p = self.packer
        need = cover(p.source, p.order, COVER)
        least = min(p.sizes(s)[max(need - 1, 0)] for s in all_settings(p.source, 0, self._codec) if s.per_landmark == 1)
        most = p.sizes(all_settings(p.source, 1 << 60, self._codec)[-1])[-1]
        found: list[int] = []
        for size in _series():
            if size >= least:
                found.append(size)
            if size >= most and found:
                return found
        raise AssertionError

    def best(self, budget: int, progress: Report = silent) -> Choice:
        """The best map of at most ``budget`` bytes; below the smallest step the best of that size alone."""
        sizes = [size for size in self.sizes if size <= budget]
        if not sizes:
            return self._climb(budget, 0, None)
        for i, size in enumerate(sizes):
            progress("judging", i, len(sizes))
            if i == len(self._steps) and not self._is_done():
                before = self._steps[-1] if self._steps else (0, None)
                self._steps.append((size, self._climb(size, *before)))
        progress("judging", len(sizes), len(sizes))
        return self._steps[: len(sizes)][-1][1]

    def _is_done(self) -> bool:
        """Whether the last step leaves nothing to gain: it had room for all landmarks, and the best is no worse than
        everything as it is."""
        if not self._steps or _leading(self._steps[-1][0]) not in OFTEN:
            return False
        size, best = self._steps[-1]
        all_kept = any(t.landmarks == len(self.packer.order) and t.size <= size for t in self.judged)
        return all_kept and best.score >= self.jury.full.score

    def steps(self, progress: Report = silent) -> list[Choice]:
        """The best at each step, to the last."""
        self.best(self.sizes[-1], progress)
        return [choice for _, choice in self._steps]

    def _climb(self, size: int, before: int, best: Choice | None) -> Choice:
        for settings in self._moves(size, before, best):
            count = self.packer.fit(settings, size)
            if (settings, count) in self._seen:
                continue
            self._seen.add((settings, count))
            found = self.jury.judge(Choice(settings, count, self.packer.size(settings, count)), best)
            if found is None:
                continue
            self.judged.append(found)
            if best is None or (found.score, found.landmarks) > (best.score, best.landmarks):
                best = found
        assert best is not None
        return best

    def _moves(self, size: int, before: int, best: Choice | None) -> list[Settings]:
        """What to try at a step: settings that can use more bytes than the step before had."""
        here = best.settings if best is not None else None
        count = len(self.packer.order)
        room: dict[Settings, int] = {}
        full: set[tuple[int, CodecName]] = set()  # all landmarks are there
        for s in all_settings(self.packer.source, size, self._codec):
            s = s if here is None else replace(s, global_dim=here.global_dim)
            if s.per_landmark > 1 and (s.row_bytes, s.codec) not in full:
                continue  # one more landmark is worth more than one more descriptor of another
            full.discard((s.row_bytes, s.codec))
            sizes = self.packer.sizes(s)
            fitting = int(np.searchsorted(sizes, size))
            if fitting >= count:
                full.add((s.row_bytes, s.codec))
            if sizes[-1] > before:
                room[s] = fitting
        most = max(room.values(), default=0)
        usable = [s for s in room if room[s] >= FEWEST * most]
        if here is None:
            return usable
        if _leading(size) not in OFTEN:
            return [here] if here in usable else usable[:1]
        widths = sorted({*global_sizes(self.packer.source), here.global_dim})
        others = [replace(here, global_dim=width) for width in _beside(widths, here.global_dim) if here in usable]
        return sorted(usable, key=lambda s: s != here) + others


def _series() -> Iterator[int]:
    """The sizes of all ladders, in bytes."""
    for power in range(2, 15):
        yield from (size * 10**power for size in SERIES)


def _leading(size: int) -> int:
    """The two leading digits."""
    return int(str(size)[:2])


def _beside(values: Sequence[int], value: int) -> list[int]:
    """The next smaller and the next larger of increasing values."""
    at = values.index(value)
    return [*values[max(0, at - 1) : at], *values[at + 1 : at + 2]]
