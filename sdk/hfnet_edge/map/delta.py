"""A delta turns one map file into another, so that a device downloads what changed. It is of bytes, and knows nothing
of what is in a map.

    ┌────────────────────┐ 0
    │ header, 112 bytes  │  `HEADER`: magic, version, bytes of the signature (0 or 64), SHA-256 of base and of result,
    │                    │  size of base and of result, number of copies, bytes of the next two parts
    ├────────────────────┤ 112
    │ copies, zlib       │  12 bytes a copy, `COPY`: literals before it, base bytes that are skipped since the last
    │                    │  copy's end (negative: backwards), bytes that are copied
    ├────────────────────┤
    │ literals, zlib     │  bytes of the result that are not copied, in order; the last ones follow the last copy
    ├────────────────────┤
    │ checksum, 32 bytes │  SHA-256 of all before it
    ├────────────────────┤
    │ signature          │  Ed25519 of all before it
    └────────────────────┘

Numbers are little-endian; maps/SPEC.md, section 20, has it byte by byte. Applying takes the memory of the delta as it
is and some 200 kB, whatever it claims to unfold to; on the disk no more than `LARGEST`.
"""

from __future__ import annotations

import hashlib
import struct
import zlib
from collections.abc import Callable, Iterator
from mmap import mmap
from pathlib import Path
from typing import BinaryIO

import numpy as np

from hfnet_edge.errors import DeltaError
from hfnet_edge.map.container import open_file
from hfnet_edge.shell.reading import read_bytes
from hfnet_edge.shell.writing import atomic_write

MAGIC = b"HFDLT\r\n\x1a"  # a text-mode copy changes it
VERSION = (1, 0)  # a reader refuses another major
HEADER = struct.Struct("<8sHHI32s32sQQIII4x")
COPY = struct.Struct("<Iii")
SHORTEST = (
    16  # bytes of a copy, and of the blocks by which copies are found: a row of descriptors has that or a multiple
)
LARGEST = (1 << 31) - 1  # bytes of base, result and delta
SIGNATURE = 64  # bytes
STEP = 1 << 14  # bytes that are unfolded at a time
WINDOW = 1 << 20  # bytes of the result in which copies are sought at a time
FILTER = 24  # bits of a block's hash that say whether it is worth looking up
REMEDY = "download it again, or make it again with `hfnet-map diff`"

Bytes = bytes | mmap
Sign = Callable[[bytes], bytes]
"""Of what is signed, the 64 bytes of a signature."""

Verify = Callable[[bytes, bytes], bool]
"""Of what is signed and a signature, whether they belong together."""


def make_delta(base: Bytes, result: Bytes, sign: Sign | None = None) -> bytes:
    """What turns ``base`` into ``result``. Raises DeltaError where one is larger than `LARGEST`."""
    for data in (base, result):
        if len(data) > LARGEST:
            raise DeltaError(f"a map of {len(data)} bytes is too large for a delta", "pack it, or split it")
    rows, literals = bytearray(), zlib.compressobj(9)
    packed = bytearray()
    count = done = base_end = 0
    new = memoryview(result)
    for start, offset, length in _copies(np.frombuffer(base, np.uint8), np.frombuffer(result, np.uint8)):
        packed += literals.compress(new[done:start])
        rows += COPY.pack(start - done, offset - base_end, length)
        done, base_end, count = start + length, offset + length, count + 1
    packed += literals.compress(new[done:]) + literals.flush()
    copies = zlib.compress(rows, 9)
    head = HEADER.pack(
        MAGIC, *VERSION, SIGNATURE if sign else 0, _hash(base), _hash(result), len(base), len(result), count,
        len(copies), len(packed),
    )  # fmt: skip
    delta = head + copies + packed
    delta += _hash(delta)
    return delta + sign(delta) if sign else delta


def apply_delta(
    base: Bytes,
    delta: bytes,
    out: BinaryIO,
    verify: Verify | None = None,
    where: str = "the delta",
    base_name: str = "the map",
) -> None:
    """Writes the result, piece by piece. Where it raises, what has been written is to be thrown away.

    Args:
        verify: what a signature must stand before; None: none is asked for, and one that is there is not looked at.
        where, base_name: names of the files, for messages.

    Raises:
        DeltaError: the delta is damaged, is not signed as asked, or is of another base.
    """
    parts = _Parts(delta, where)
    if verify is not None:
        if not parts.signature:
            raise DeltaError(f"{where} is not signed", "get a signed one, made by `hfnet-map diff --key`")
        if not verify(delta[: -len(parts.signature)], parts.signature):
            raise DeltaError(f"{where} is not signed with the key that is trusted", "get it from whom you trust")
    found = _hash(base)
    if found == parts.result_hash != parts.base_hash:
        raise DeltaError(f"{base_name} is what {where} leads to already", "there is nothing to apply")
    if found != parts.base_hash or len(base) != parts.base_size:
        raise DeltaError(
            f"{where} is a change of the map with hash {parts.base_hash.hex()[:16]}, "
            f"{base_name} has {found.hex()[:16]}",
            "give the map that the delta was made from",
        )
    hashed = hashlib.sha256()
    for piece in parts.pieces(memoryview(base)):
        hashed.update(piece)
        out.write(piece)
    if hashed.digest() != parts.result_hash:
        raise parts.fail("does not lead to the map that it names")


def update_map(old: Path, delta: Path, output: Path, verify: Verify | None = None) -> None:
    """Writes the map that a delta leads to, as `apply_delta`; it has its name only when it is whole.

    Raises:
        DeltaError: as `apply_delta`, or the delta's file cannot be read.
        MapFormatError: the old map cannot be read.
        OutputError: the new one cannot be written.
    """
    base = open_file(old)
    try:
        changes = read_bytes(delta, LARGEST)
    except OSError as e:
        raise DeltaError(f"cannot read the delta {delta}: {e.strerror or e}", "make one with `hfnet-map diff`") from e
    with atomic_write(output) as file:
        apply_delta(base, changes, file, verify, str(delta), str(old))


class _Parts:
    """A delta whose header, lengths and checksum have been checked. Raises DeltaError."""

    def __init__(self, delta: bytes, where: str):
        self.where = where
        if len(delta) < HEADER.size or not delta.startswith(MAGIC):
            raise self.fail("is not a delta, or is cut off")
        _, major, _, signature, self.base_hash, self.result_hash, *numbers = HEADER.unpack_from(delta)
        self.base_size, self.result_size, self.count, copies, literals = numbers
        if major != VERSION[0]:
            raise DeltaError(
                f"{where} is a version {major} delta, this is a version {VERSION[0]} reader", "update hfnet-edge"
            )
        if signature not in (0, SIGNATURE) or max(self.base_size, self.result_size) > LARGEST:
            raise self.fail("claims sizes that no delta has")
        body = HEADER.size + copies + literals
        if len(delta) != body + hashlib.sha256().digest_size + signature:
            raise self.fail(f"is {len(delta)} bytes, which is not what its header says: it is cut off or padded")
        data = memoryview(delta)
        if _hash(data[:body]) != delta[body : len(delta) - signature]:
            raise self.fail("is damaged (checksum)")
        self._copies = data[HEADER.size : HEADER.size + copies]
        self._literals = data[HEADER.size + copies : body]
        self.signature = delta[len(delta) - signature :] if signature else b""

    def fail(self, what: str) -> DeltaError:
        return DeltaError(f"{self.where} {what}", REMEDY)

    def pieces(self, base: memoryview) -> Iterator[bytes | memoryview]:
        """The result, in order; never more than its size."""
        try:
            yield from self._pieces(base)
        except (zlib.error, EOFError) as e:
            raise self.fail("holds data that does not unfold to what it says") from e

    def _pieces(self, base: memoryview) -> Iterator[bytes | memoryview]:
        copies, literals = _Unfolded(self._copies), _Unfolded(self._literals)
        left, base_end = self.result_size, 0
        for _ in range(self.count):
            before, skipped, length = COPY.unpack(copies.read(COPY.size))
            offset = base_end + skipped
            base_end = offset + length
            if length < SHORTEST or before + length > left:
                raise self.fail("has a copy that is shorter or longer than any can be")
            if not 0 <= offset <= base_end <= len(base):
                raise self.fail("copies from where the map is not")
            yield from literals.pieces(before)
            yield base[offset:base_end]
            left -= before + length
        yield from literals.pieces(left)
        copies.close()
        literals.close()


class _Unfolded:
    """What a zlib stream unfolds to, a little at a time. Raises zlib.error, and EOFError where it has not what is asked
    of it, or more."""

    def __init__(self, packed: memoryview):
        self._packed, self._fed, self._zlib, self._ready = packed, 0, zlib.decompressobj(), b""

    def read(self, count: int) -> bytes:
        """The next ``count`` bytes, at most `STEP`."""
        while len(self._ready) < count:
            if not self._unfold():
                raise EOFError
        taken, self._ready = self._ready[:count], self._ready[count:]
        return taken

    def pieces(self, count: int) -> Iterator[bytes]:
        """The next ``count`` bytes, any number of them."""
        while count:
            piece = self.read(min(count, STEP))
            count -= len(piece)
            yield piece

    def close(self) -> None:
        """Checks that this was all."""
        while not self._ready and self._unfold():
            pass
        if self._ready or not self._zlib.eof or self._zlib.unused_data or self._fed < len(self._packed):
            raise EOFError

    def _unfold(self) -> bool:
        """Whether there was anything left to do."""
        packed = self._zlib.unconsumed_tail
        if not packed:
            packed = bytes(self._packed[self._fed : self._fed + STEP])
            self._fed += len(packed)
        unfolded = b"" if self._zlib.eof else self._zlib.decompress(packed, STEP)
        self._ready += unfolded
        return bool(packed or unfolded)


def _copies(base: np.ndarray, new: np.ndarray) -> Iterator[tuple[int, int, int]]:
    """Where ``new`` has what ``base`` has: start in new, start in base, bytes; in order, without overlaps.

    Blocks of `SHORTEST` bytes of the base at multiples of that are looked up at every byte of the new, and extended to
    both sides, so whatever is the same in twice `SHORTEST` bytes is found.
    """
    hashes, first = np.unique(_window_hashes(base, SHORTEST), return_index=True)
    known = np.zeros(1 << FILTER, bool)
    known[hashes >> np.uint64(64 - FILTER)] = True
    end = base_end = 0  # of the last copy
    for begin in range(0, len(new) - SHORTEST + 1, WINDOW):
        window = _window_hashes(new[begin : begin + WINDOW + SHORTEST - 1], 1)
        likely = np.flatnonzero(known[window >> np.uint64(64 - FILTER)])
        rank = np.searchsorted(hashes, window[likely]).clip(max=len(hashes) - 1)
        there = hashes[rank] == window[likely]
        starts, blocks = likely[there] + begin, first[rank[there]] * SHORTEST
        i = 0
        while (i := int(np.searchsorted(starts, end)) if i < len(starts) and starts[i] < end else i) < len(starts):
            start, offset = int(starts[i]), int(blocks[i])
            ahead = base_end + start - end  # where the last copy would go on: of equal blocks the likely one
            if ahead + SHORTEST <= len(base) and np.array_equal(
                base[ahead : ahead + SHORTEST], new[start : start + SHORTEST]
            ):
                offset = ahead
            before = _common(base[:offset][::-1], new[end:start][::-1])
            after = _common(base[offset:], new[start:])
            i += 1
            if before + after >= SHORTEST:  # else the hash lied
                end, base_end = start + after, offset + after
                yield start - before, offset - before, before + after


def _window_hashes(data: np.ndarray, step: int) -> np.ndarray:
    """A hash of the `SHORTEST` bytes at each multiple of ``step``, uint64."""
    if len(data) < SHORTEST:
        return np.zeros(0, np.uint64)
    windows = np.lib.stride_tricks.sliding_window_view(data, SHORTEST)[::step]
    low, high = np.ascontiguousarray(windows).view("<u8").T
    mixed = low * np.uint64(0x9E3779B97F4A7C15) + (high ^ high >> np.uint64(29)) * np.uint64(0xC2B2AE3D27D4EB4F)
    return mixed ^ mixed << np.uint64(32)


def _common(a: np.ndarray, b: np.ndarray) -> int:
    """How many bytes are the same at the beginning of both."""
    size, at, step = min(len(a), len(b)), 0, 64
    while at < size:
        stop = min(at + step, size)
        differ = a[at:stop] != b[at:stop]
        if differ.any():
            return at + int(differ.argmax())
        at, step = stop, min(2 * step, WINDOW)
    return size


def _hash(data: Bytes | memoryview) -> bytes:
    return hashlib.sha256(data).digest()
