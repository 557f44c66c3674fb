"""Map files that were made to hurt their reader. Each attack says what it tries and why the reader survives."""

from __future__ import annotations

import os
import struct
import tracemalloc
import warnings
import zlib
from collections.abc import Callable
from enum import Enum

import numpy as np
import pytest

from attacks.tampering import (
    CHECKSUM_AT,
    COUNT_AT,
    ENTRY,
    HEADER,
    SIZE_AT,
    assembled,
    at_most,
    find,
    overwritten,
    parts,
    resealed,
    row_at,
    table,
    with_entry,
    with_list,
    with_meta,
    with_row,
    with_sections,
)
from attacks.victims import a_query, victim
from hfnet_edge.errors import MapFormatError, MapVersionError
from hfnet_edge.localizer import localize_features
from hfnet_edge.map.container import BLOCK, Section
from hfnet_edge.map.map_file import TILE, LocalizationMap
from hfnet_edge.map.observation_list import TILE_SIZE
from hfnet_maps.pack.observation_list import encode
from synthetic import CAMERA


class Caught(Enum):
    """What notices an attack. `check_all` notices every one that opening lets pass."""

    OPEN = "opening"
    QUERY = "the query that touches it"
    USE = "asking for it; a query does not"
    CHECK = "check_all alone; whoever asks gets an answer that is in range, and wrong"


Attack = Callable[[bytes], bytes]
ATTACKS: list[tuple[Attack, Caught, str, str]] = []


def attack(caught: Caught, word: str, kind: str = "int8 x 1-4") -> Callable[[Attack], Attack]:
    """Registers an attack on the map ``kind``: it takes the file and returns another. ``word`` is in the error."""

    def register(function: Attack) -> Attack:
        ATTACKS.append((function, caught, word, kind))
        return function

    return register


# --- The header and the section table ---------------------------------------------------------------------------------


@attack(Caught.OPEN, "overlaps")
def overlapping_sections(content: bytes) -> bytes:
    """Two sections share bytes, so that what is checked as one thing is used as another. Every section must begin
    exactly where the one before ended, rounded up to 64."""
    offset, length = find(content, Section.LANDMARK_POSITIONS)
    return with_row(content, Section.LANDMARK_POSITIONS, offset - 64, length + 64)


@attack(Caught.OPEN, "overlaps")
def all_sections_at_one_place(content: bytes) -> bytes:
    """The same, with every section at the first byte of the data."""
    start = find(content, Section.META)[0]
    for kind, _, length in table(content)[1:]:
        content = with_row(content, kind, start, length)
    return content


@attack(Caught.OPEN, "overlaps")
def section_over_the_header(content: bytes) -> bytes:
    """A section at offset 0 would read the header as data."""
    return with_row(content, Section.DESCRIPTORS, 0, find(content, Section.DESCRIPTORS)[1])


@attack(Caught.OPEN, "hole")
def hole_of_zeros(content: bytes) -> bytes:
    """64 bytes that belong to nothing, where a payload could hide. A section has one right offset: the next multiple
    of 64."""
    at = find(content, Section.DESCRIPTORS)[0]
    content = resealed(content[:at] + bytes(64) + content[at:], size=True)
    return with_row(content, Section.DESCRIPTORS, at + 64, len(content) - at - 64)


@attack(Caught.OPEN, "between its sections")
def payload_in_the_padding(content: bytes) -> bytes:
    """The padding up to the next multiple of 64 holds something. It must be zeros."""
    offset, length = find(content, Section.META)
    assert (offset + length) % 64
    return resealed(overwritten(content, offset + length, b"\x01"))


@attack(Caught.OPEN, "between its sections")
def payload_after_the_checksums(content: bytes) -> bytes:
    """The same between the checksums and the data, a place that no block's checksum covers; the header's does."""
    offset, length = find(content, Section.CHECKSUMS)
    assert (offset + length) % 64
    return resealed(overwritten(content, offset + length, b"\x01"))


@attack(Caught.OPEN, "past the file")
def offset_past_the_end(content: bytes) -> bytes:
    """A section beyond the file, which a reader without checks would fault on."""
    return with_row(content, Section.DESCRIPTORS, len(content) + 64, find(content, Section.DESCRIPTORS)[1])


@attack(Caught.OPEN, "past the file")
def offset_that_wraps(content: bytes) -> bytes:
    """offset + length is 64 in 64 bits, so that the end seems to lie in the file. Python's integers do not wrap, and
    other readers need not add: length is compared with size - offset."""
    return with_row(content, Section.DESCRIPTORS, 2**64 - 64, 128)


@attack(Caught.OPEN, "past the file")
def length_that_wraps(content: bytes) -> bytes:
    """The same with the right offset and a length of nearly 2**64."""
    offset = find(content, Section.TILES)[0]
    return with_row(content, Section.TILES, offset, 2**64 - offset + 64)


@attack(Caught.OPEN, "past the file")
def length_of_2_to_the_63(content: bytes) -> bytes:
    """Negative, as a signed number."""
    return with_row(content, Section.DESCRIPTORS, find(content, Section.DESCRIPTORS)[0], 2**63)


@attack(Caught.OPEN, "META implies")
def section_a_row_short(content: bytes) -> bytes:
    """The last descriptor lies past the end of its section and of the file. Lengths must be those that META's counts
    imply, to the byte."""
    return with_sections(content, DESCRIPTORS=parts(content)[Section.DESCRIPTORS][:-32])


@attack(Caught.OPEN, "after its last section")
def bytes_after_the_last_section(content: bytes) -> bytes:
    """A payload at the end, that the header's size includes."""
    return resealed(content + bytes(range(64)), size=True)


@attack(Caught.OPEN, "claims 4294967295 sections")
def section_count_of_2_to_the_32(content: bytes) -> bytes:
    """A table of 100 GB. At most 64 sections are read, and only where they fit in the file."""
    return resealed(overwritten(content, COUNT_AT, struct.pack("<I", 2**32 - 1)))


@attack(Caught.OPEN, "sections")
def section_count_past_the_file(content: bytes) -> bytes:
    """A header of 64 sections and nothing else."""
    return resealed(overwritten(content[: HEADER.size], COUNT_AT, struct.pack("<I", 64)), size=True)


@attack(Caught.OPEN, "sections")
def no_sections(content: bytes) -> bytes:
    """Nothing to check, so everything seems right."""
    return resealed(overwritten(content[: HEADER.size], COUNT_AT, bytes(4)), size=True)


@attack(Caught.OPEN, "repeat or are out of order")
def section_twice(content: bytes) -> bytes:
    """Two METAs: one is checked, the other is used. Kinds must increase."""
    content = resealed(overwritten(content, row_at(content, Section.IMAGE_NAMES), struct.pack("<I", Section.META)))
    assert [kind for kind, _, _ in table(content)].count(Section.META) == 2
    return content


@attack(Caught.OPEN, "repeat or are out of order")
def sections_out_of_order(content: bytes) -> bytes:
    """A file that is whole, with META last."""
    sections = parts(content)
    return assembled({kind: sections[kind] for kind in sorted(sections, reverse=True)})


@attack(Caught.OPEN, "should be 1152921504606846976 bytes")
def file_size_of_2_to_the_60(content: bytes) -> bytes:
    """An exabyte is promised, for somebody who allocates before reading. The size must be the file's."""
    return resealed(overwritten(content, SIZE_AT, struct.pack("<Q", 2**60)))


@attack(Caught.OPEN, "checksum for each of its blocks")
def too_few_checksums(content: bytes) -> bytes:
    """The last block has no checksum, so damage or an index past the checksums goes unnoticed."""
    offset, length = find(content, Section.CHECKSUMS)
    return with_row(content, Section.CHECKSUMS, offset, length - 4)


@attack(Caught.OPEN, "checksum for each of its blocks")
def no_checksums(content: bytes) -> bytes:
    """The table begins with META."""
    sections = parts(content)
    start = HEADER.size + len(sections) * ENTRY.size
    data, rows, at = b"", b"", -(-start // 64) * 64
    for kind, part in sections.items():
        data += bytes(-len(data) % 64)
        rows += ENTRY.pack(kind, at + len(data), len(part))
        data += part
    head = HEADER.pack(content[:8], 2, 0, len(sections), at + len(data), 0) + rows
    return resealed(head + bytes(at - len(head)) + data)


@attack(Caught.OPEN, "damaged header")
def wrong_head_checksum(content: bytes) -> bytes:
    """The checksum of the header itself, turned over."""
    return overwritten(content, CHECKSUM_AT, bytes([content[CHECKSUM_AT] ^ 0xFF]))


@attack(Caught.QUERY, "damaged")
def wrong_block_checksum(content: bytes) -> bytes:
    """A block's checksum is wrong, the header's is right: noticed where the block is used."""
    offset, length = find(content, Section.CHECKSUMS)
    at = offset + length - 4
    return _head_sealed(overwritten(content, at, bytes([content[at] ^ 1])))


def _head_sealed(content: bytes) -> bytes:
    """With the header's checksum made right, and the blocks' left as they are."""
    offset, length = find(content, Section.CHECKSUMS)
    head = content[: -(-(offset + length) // 64) * 64]
    checksum = zlib.crc32(head[CHECKSUM_AT + 4 :], zlib.crc32(head[:CHECKSUM_AT]))
    return overwritten(content, CHECKSUM_AT, struct.pack("<I", checksum))


# --- META -------------------------------------------------------------------------------------------------------------


@attack(Caught.OPEN, "META implies")
def promise_of_4_billion_landmarks(content: bytes) -> bytes:
    """An allocation of 2**32 - 1 of anything. Counts are believed only where the sections' lengths agree; nothing is
    allocated by them."""
    return with_meta(content, landmarkCount=2**32 - 1, descriptorCount=2**32 - 1)


@attack(Caught.OPEN, "META implies")
def promise_of_4_billion_images(content: bytes) -> bytes:
    """The same of images: their offsets would take 16 GB."""
    return with_meta(content, imageCount=2**32 - 1)


@attack(Caught.OPEN, "META implies")
def promise_of_4_billion_descriptors(content: bytes) -> bytes:
    """The same of descriptors."""
    return with_meta(content, descriptorCount=2**32 - 1)


@attack(Caught.CHECK, "observations, META says")
def promise_of_4_billion_observations(content: bytes) -> bytes:
    """The same of observations. No reader allocates by it; a query does not need it."""
    return with_meta(content, observationCount=2**32 - 1)


@attack(Caught.OPEN, "META is damaged")
def garbage_in_meta(content: bytes) -> bytes:
    """Python's flatbuffers does not verify. Whatever it trips over becomes a MapFormatError."""
    return with_sections(content, META=bytes(np.random.default_rng(0).integers(0, 256, 300).astype(np.uint8)))


@attack(Caught.OPEN, "META")
def nothing_in_meta(content: bytes) -> bytes:
    """Not even a root."""
    return with_sections(content, META=b"")


@attack(Caught.OPEN, "dimensions")
def zeros_in_meta(content: bytes) -> bytes:
    """A root that is itself, with a table of functions that is itself: all fields are absent, so zero."""
    return with_sections(content, META=bytes(200))


@attack(Caught.OPEN, "META")
def meta_that_points_to_itself(content: bytes) -> bytes:
    """Offsets in a circle. Nothing follows offsets more than once: a table, its fields, their strings."""
    return with_sections(content, META=struct.pack("<IiHHIII", 4, -4, 16, 16, 0, 4, 2**32 - 4) * 8)


@attack(Caught.OPEN, "META")
def string_of_4_gigabytes_in_meta(content: bytes) -> bytes:
    """The architecture's length is 2**32 - 1. The string ends with META, and its zeros are in no name."""
    meta = parts(content)[Section.META]
    at = meta.index(b"synthetic") - 4
    return with_sections(content, META=overwritten(meta, at, b"\xff\xff\xff\xff"))


@attack(Caught.OPEN, "META is damaged")
def terminal_codes_in_meta(content: bytes) -> bytes:
    """A generator that moves the cursor of whoever inspects the map. Names are printable."""
    return with_meta(content, generator="\x1b[2J\x1b]0;owned\x07")


@attack(Caught.OPEN, "META has")
def huge_meta(content: bytes) -> bytes:
    """META of 16 MB, which would be copied and parsed by whoever only opens. It may have 64 KiB."""
    return with_sections(content, META=parts(content)[Section.META] + bytes(16 << 20))


@attack(Caught.OPEN, "the codec 'exec' does not exist")
def codec_that_does_not_exist(content: bytes) -> bytes:
    """A name that could be looked up as something else. There is a list of three."""
    return with_meta(content, codec="exec")


@attack(Caught.OPEN, "codec '' does not exist")
def no_codec(content: bytes) -> bytes:
    """A field that is absent."""
    return with_meta(content, codec=None)


@attack(Caught.OPEN, "do not split", "pq")
def subspaces_that_do_not_divide(content: bytes) -> bytes:
    """32 dimensions in 7 subspaces: sub-vectors would be cut off, or read past the codebook."""
    return with_meta(content, subspaces=7)


@attack(Caught.OPEN, "do not split", "pq")
def no_subspaces(content: bytes) -> bytes:
    """A division by zero."""
    return with_meta(content, subspaces=0)


@attack(Caught.OPEN, "do not split", "pq")
def more_subspaces_than_dimensions(content: bytes) -> bytes:
    """Sub-vectors of no dimensions."""
    return with_meta(content, subspaces=2**32 - 1)


@attack(Caught.OPEN, "META implies", "pq")
def codebook_of_255(content: bytes) -> bytes:
    """The byte 255 stands for a sub-vector past the codebook's end. A codebook always has 256, so every byte is one."""
    book = np.frombuffer(parts(content)[Section.CODEBOOK], np.uint8).reshape(8, 256, 4)
    return with_sections(content, CODEBOOK=book[:, :255].tobytes())


@attack(Caught.OPEN, "possible", "pq")
def code_of_a_billion_dimensions(content: bytes) -> bytes:
    """Each stored byte would decode to 2**30 dimensions. At most 1040 are possible."""
    return with_meta(content, codeDim=2**30, subspaces=1)


@attack(Caught.OPEN, "possible")
def local_descriptors_too_wide_to_be_exact(content: bytes) -> bytes:
    """Past 1040 dimensions sums of products need not fit in float32, and devices could disagree."""
    return with_meta(content, localDim=1041, codeDim=1041)


@attack(Caught.OPEN, "possible")
def no_dimensions(content: bytes) -> bytes:
    """Descriptors of nothing, which are all alike."""
    return with_meta(content, localDim=0, codeDim=0)


@attack(Caught.OPEN, "possible")
def more_global_dimensions_than_there_are(content: bytes) -> bytes:
    """A projection to more dimensions than the extractor has."""
    return with_meta(content, globalDim=17)


@attack(Caught.OPEN, "3 bits")
def counts_of_three_bits(content: bytes) -> bytes:
    """Entries that straddle bytes. Only widths that divide a tile into bytes are known."""
    return with_meta(content, countBits=3)


@attack(Caught.OPEN, "origin")
def origin_nowhere(content: bytes) -> bytes:
    """NaN, which no comparison finds. Everything from the file that is a float is asked whether it is finite."""
    return with_meta(content, originX=np.nan)


@attack(Caught.OPEN, "origin")
def origin_beyond_everything(content: bytes) -> bytes:
    """Finite, and infinite once it is turned into the camera's frame: the answer would be a pose of infinities."""
    return with_meta(content, originX=1.7e308, originY=1.7e308, originZ=1.7e308)


# --- Sections that are missing, or of nothing -------------------------------------------------------------------------


@attack(Caught.OPEN, "OBSERVATION_LISTS is missing")
def no_observation_lists(content: bytes) -> bytes:
    """All offsets are 0, so that nothing seems to be missing."""
    offsets = bytes(len(parts(content)[Section.OBSERVATION_OFFSETS]))
    return with_sections(content, OBSERVATION_LISTS=None, OBSERVATION_OFFSETS=offsets)


@attack(Caught.OPEN, "DESCRIPTOR_COUNTS is missing")
def no_landmarks_and_no_counts(content: bytes) -> bytes:
    """A map of no landmarks whose counts, of no bytes, are not there at all; with `source_of` that was a KeyError."""
    content = with_meta(content, landmarkCount=0, descriptorCount=0, observationCount=0)
    empty = {"OBSERVATION_LISTS": b"", "TILES": b"", "LANDMARK_POSITIONS": b"", "DESCRIPTORS": b""}
    offsets = bytes(len(parts(content)[Section.OBSERVATION_OFFSETS]))
    return with_sections(content, DESCRIPTOR_COUNTS=None, OBSERVATION_OFFSETS=offsets, **empty)


@attack(Caught.QUERY, "GLOBAL_DESCRIPTORS is missing")
def no_global_descriptors(content: bytes) -> bytes:
    """Noticed by the query that would be compared with them."""
    return with_sections(content, GLOBAL_DESCRIPTORS=None)


@attack(Caught.QUERY, "GLOBAL_DESCRIPTORS has")
def global_descriptor_a_byte_short(content: bytes) -> bytes:
    """The last image's would be read past the end."""
    return with_sections(content, GLOBAL_DESCRIPTORS=parts(content)[Section.GLOBAL_DESCRIPTORS][:-1])


@attack(Caught.OPEN, "GLOBAL_PROJECTION", "int8 x all")
def no_global_projection(content: bytes) -> bytes:
    """A query's 16 dimensions against the map's 8."""
    return with_sections(content, GLOBAL_PROJECTION=None)


@attack(Caught.OPEN, "PROJECTION is missing", "binary")
def no_projection(content: bytes) -> bytes:
    """Signs of nothing."""
    return with_sections(content, PROJECTION=None)


# --- Observations -----------------------------------------------------------------------------------------------------


@attack(Caught.QUERY, "OBSERVATION_LISTS")
def offsets_past_the_lists(content: bytes) -> bytes:
    """A list that reaches into the sections behind, and past the file."""
    return with_entry(content, Section.OBSERVATION_OFFSETS, 5, 2**32 - 1, "<u4")


@attack(Caught.QUERY, "observations of image|does not rise")
def offsets_that_decrease(content: bytes) -> bytes:
    """A list of negative length."""
    return with_entry(content, Section.OBSERVATION_OFFSETS, 2, 0, "<u4")


@attack(Caught.CHECK, "does not rise from 0")
def bytes_before_the_first_list(content: bytes) -> bytes:
    """A payload that is in no list."""
    sections = parts(content)
    offsets = np.frombuffer(sections[Section.OBSERVATION_OFFSETS], "<u4") + np.uint32(8)
    lists = b"payload!" + sections[Section.OBSERVATION_LISTS]
    return with_sections(content, OBSERVATION_OFFSETS=offsets.tobytes(), OBSERVATION_LISTS=lists)


@attack(Caught.CHECK, "longer than its last list")
def bytes_after_the_last_list(content: bytes) -> bytes:
    """The same at the end."""
    return with_sections(content, OBSERVATION_LISTS=parts(content)[Section.OBSERVATION_LISTS] + b"payload!")


@attack(Caught.CHECK, "observations, META says")
def fewer_observations_than_promised(content: bytes) -> bytes:
    """An image that observes nothing: a list like any other."""
    return with_list(content, 2, b"")


@attack(Caught.QUERY, "past the last")
def landmark_past_the_last(content: bytes) -> bytes:
    """A landmark that has no position. The last number of a list must be below the number of landmarks; lists
    increase, so all are."""
    return with_list(content, 0, encode(np.array([0, 5, 280])))


@attack(Caught.QUERY, "past the last")
def landmark_far_past_the_last(content: bytes) -> bytes:
    """The largest number that 32 bits hold, in a tile that is not there."""
    return with_list(content, 0, encode(np.array([0, 5, 2**32 - 1])))


@attack(Caught.QUERY, "a tile past the last", "binary")
def landmarks_that_wrap(content: bytes) -> bytes:
    """A million gaps between tiles, of 2**35 each: in 64 bits the last landmark is 0 and seems to be there, while those
    before it are far out. No gap and no sum of gaps may be past the last tile; so no sum that wraps is believed."""
    count = 1 << 20
    tiles = count // TILE_SIZE
    content = with_meta(content, landmarkCount=count, descriptorCount=count)
    content = with_sections(
        content, TILES=bytes(tiles * TILE.itemsize), LANDMARK_POSITIONS=bytes(6 * count), DESCRIPTORS=bytes(4 * count)
    )
    head, gap = b"\x80\x80\x40" * 2, b"\xff\xff\xff\xff\x7f"
    fields = encode(np.arange(count) * TILE_SIZE)[len(head) + count :]
    return with_list(content, 0, head + gap * (count - 1) + b"\xff\xff\x3f" + fields)


@attack(Caught.QUERY, "observations of image 0 are damaged: .*increase")
def list_that_does_not_increase(content: bytes) -> bytes:
    """A landmark three times, so that it counts three times: n = 4, t = 2, gaps 0, low parts 0, high parts 0 0 0 2."""
    return with_list(content, 0, bytes([4, 2, 0, 0]) + bytes(4) + bytes([0b0100111]))


@attack(Caught.QUERY, "more or fewer high parts")
def list_of_too_many_high_bits(content: bytes) -> bytes:
    """More ones than landmarks: more low parts are read than there are."""
    return with_list(content, 0, bytes([4, 2, 0, 0]) + bytes(4) + bytes([0b1111111]))


@attack(Caught.QUERY, "more or fewer high parts")
def list_of_too_few_high_bits(content: bytes) -> bytes:
    """Fewer ones: a reader that scans for the next one runs past the end."""
    return with_list(content, 0, bytes([4, 2, 0, 0]) + bytes(5))


@attack(Caught.QUERY, "a number that does not end")
def varint_that_never_ends(content: bytes) -> bytes:
    """A number whose every byte says that there is another. It ends with the list, and after five bytes."""
    return with_list(content, 0, b"\x80" * 1000)


@attack(Caught.QUERY, "more than five bytes")
def varint_of_six_bytes(content: bytes) -> bytes:
    """A number of more than 35 bits, that others would shift out of range."""
    return with_list(content, 0, b"\x80\x80\x80\x80\x80\x01\x01" + bytes(50))


@attack(Caught.QUERY, "landmarks in")
def list_of_4_billion(content: bytes) -> bytes:
    """n = 2**32 - 1 in 20 bytes. A landmark takes a bit at least; n is compared with the list's length, and with the
    map's landmarks, before anything is allocated."""
    return with_list(content, 0, b"\xff\xff\xff\xff\x0f\xff\xff\xff\x07" + bytes(11))


@attack(Caught.QUERY, "landmarks in")
def list_of_nobody_in_many_tiles(content: bytes) -> bytes:
    """t > n: log2(256 t / n) has no bound."""
    return with_list(content, 0, b"\x01\xff\xff\x07" + bytes(11))


@attack(Caught.QUERY, "landmarks in")
def list_that_divides_by_zero(content: bytes) -> bytes:
    """n = 0, which an empty list says by being empty."""
    return with_list(content, 0, b"\x00\x00")


# --- Landmarks --------------------------------------------------------------------------------------------------------


@attack(Caught.QUERY, "not finite")
def tile_nowhere(content: bytes) -> bytes:
    """A position of NaN, that the solver would carry on to the pose."""
    return with_entry(content, Section.TILES, 0, np.nan, "<f4")


@attack(Caught.QUERY, "not finite")
def steps_without_end(content: bytes) -> bytes:
    """An infinite step times zero is NaN."""
    return with_entry(content, Section.TILES, 8, np.inf, "<f4")


@attack(Caught.QUERY, "past the last")
def descriptors_past_the_last(content: bytes) -> bytes:
    """The second tile's descriptors begin past the end. Their end is computed in 64 bits and compared."""
    return with_entry(content, Section.TILES, 9, 2**32 - 1, "<u4")


@attack(Caught.QUERY, "past the last", "int8 x all")
def landmark_of_65536_descriptors(content: bytes) -> bytes:
    """A count as large as can be."""
    return with_entry(content, Section.DESCRIPTOR_COUNTS, 3, 2**16 - 1, "<u2")


@attack(Caught.QUERY, "landmarks share descriptors", "int8 x all")
def tiles_that_claim_all_rows(content: bytes) -> bytes:
    """Both tiles begin at row 0, and one landmark of each has nearly all rows. With many tiles a query would gather
    each row many times over: tiles times the file. No more rows than there are can be of different landmarks."""
    sections = parts(content)
    tiles = np.frombuffer(sections[Section.TILES], TILE).copy()
    counts = np.zeros(280, "<u2")
    rows = len(sections[Section.DESCRIPTORS]) // 32
    counts[0], counts[256] = rows - 256, rows - 24
    tiles["first_descriptor"] = 0
    return with_sections(content, TILES=tiles.tobytes(), DESCRIPTOR_COUNTS=counts.tobytes())


@attack(Caught.CHECK, "descriptors overlap")
def tiles_that_share_some_rows(content: bytes) -> bytes:
    """The second tile begins at row 3: the landmarks look like others. That is as good as writing the same descriptors
    twice, so a query need not care; the rows that it gathers are no more than there are."""
    return with_entry(content, Section.TILES, 9, 3, "<u4")


@attack(Caught.QUERY, "not finite")
def pose_of_nan(content: bytes) -> bytes:
    """A reference pose that is not a number. The second look asks for the nearest ones."""
    return with_entry(content, Section.IMAGE_POSES, 5, np.nan, "<f8")


@attack(Caught.QUERY, "unit length")
def quaternion_of_zeros(content: bytes) -> bytes:
    """A rotation that would be normalised by a division by zero."""
    return resealed(overwritten(content, find(content, Section.IMAGE_POSES)[0], bytes(32)))


@attack(Caught.QUERY, "unit length")
def quaternion_beyond_numbers(content: bytes) -> bytes:
    """Finite, and its square is not: a warning on the console before the refusal. Components are cut off first."""
    return with_entry(content, Section.IMAGE_POSES, 0, 1e300, "<f8")


@attack(Caught.USE, "not UTF-8")
def names_that_are_no_text(content: bytes) -> bytes:
    """Bytes that do not decode."""
    return with_entry(content, Section.IMAGE_NAMES, 0, 0xFF, "u1")


@attack(Caught.USE, "names, META says")
def fewer_names_than_images(content: bytes) -> bytes:
    """A number that has no name."""
    return with_sections(content, IMAGE_NAMES=b"one.jpg\n")


@attack(Caught.USE, "names, META says")
def last_name_without_its_end(content: bytes) -> bytes:
    """As if cut off."""
    return with_sections(content, IMAGE_NAMES=parts(content)[Section.IMAGE_NAMES][:-1])


# --- Calibration ------------------------------------------------------------------------------------------------------


def calibrated(content: bytes, *numbers: int) -> bytes:
    """With a calibration of slope, offset, slope, offset and images."""
    return with_sections(content, CALIBRATION=struct.pack("<4iI", *numbers))


@attack(Caught.QUERY, "CALIBRATION has 0 bytes, not 20")
def calibration_of_nothing(content: bytes) -> bytes:
    """A section without its numbers."""
    return with_sections(content, CALIBRATION=b"")


@attack(Caught.QUERY, "CALIBRATION has 19 bytes, not 20")
def calibration_a_byte_short(content: bytes) -> bytes:
    """Its last number ends past the section, and the file."""
    return with_sections(content, CALIBRATION=struct.pack("<4iI", 4096, 0, 4096, 0, 9)[:-1])


@attack(Caught.QUERY, "CALIBRATION is too long")
def calibration_of_a_megabyte(content: bytes) -> bytes:
    """More to check and to copy for each map than a calibration is: it is refused by its length."""
    return with_sections(content, CALIBRATION=bytes(1 << 20))


@attack(Caught.QUERY, "moves points by 0 / 4096")
def slope_of_0(content: bytes) -> bytes:
    """All poses are as probable as each other, whatever speaks for them."""
    return calibrated(content, 0, 14000, 4096, 0, 9)


@attack(Caught.QUERY, "moves points by -4096 / 4096")
def slope_below_0(content: bytes) -> bytes:
    """The worse a pose, the surer."""
    return calibrated(content, -4096, 0, 4096, 0, 9)


@attack(Caught.QUERY, "moves points by 2147483647 / 4096")
def slope_that_overflows(content: bytes) -> bytes:
    """A product that is beyond 32 bits, of the other kind of points."""
    return calibrated(content, 4096, 0, 2**31 - 1, 0, 9)


@attack(Caught.QUERY, "moves points by 4096 / 4096 and 2147483647")
def offset_that_overflows(content: bytes) -> bytes:
    """The sum of points and offset is negative in 32 bits."""
    return calibrated(content, 4096, 2**31 - 1, 4096, 0, 9)


@attack(Caught.QUERY, "moves points by 4096 / 4096 and -2147483648")
def offset_without_an_absolute_value(content: bytes) -> bytes:
    """-2^31, whose absolute value in 32 bits is itself."""
    return calibrated(content, 4096, 0, 4096, -(2**31), 9)


@attack(Caught.QUERY, "fitted on 4294967295 images")
def calibration_of_4_billion_images(content: bytes) -> bytes:
    """A number for people, that a reader might make room for."""
    return calibrated(content, 4096, 0, 4096, 0, 2**32 - 1)


# --- The attacks carried out ------------------------------------------------------------------------------------------


def ask_everything(m: LocalizationMap) -> None:
    """All that the map knows, where the answers are in range; then a query."""
    assert len(m.image_names) == len(m.image_poses) == m.image_count
    for image in range(m.image_count):
        landmarks = m.observed(image)
        assert (np.diff(landmarks) > 0).all() and not (landmarks >= m.landmark_count).any()
        assert np.isfinite(m.positions(landmarks)).all()
        descriptors, owners = m.descriptors(landmarks)
        assert len(descriptors) == len(owners) <= m.description.descriptorCount
    a_query_in(m)


def a_query_in(m: LocalizationMap) -> None:
    pose = localize_features(m, a_query(), CAMERA).pose
    assert pose is None or np.isfinite([*pose.quaternion, *pose.translation]).all()


def refused(content: bytes, word: str, use: Callable[[LocalizationMap], None] | None = None) -> None:
    """Opening, or using what was opened, raises MapFormatError: soon, without allocating much, without warnings."""
    m = None if use is None else LocalizationMap.read(content)
    tracemalloc.start()
    try:
        with at_most(1.0), warnings.catch_warnings(), pytest.raises(MapFormatError, match=word):
            warnings.simplefilter("error")
            LocalizationMap.read(content) if m is None or use is None else use(m)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 20 * len(content) + (8 << 20)


@pytest.mark.parametrize(("function", "caught", "word", "kind"), ATTACKS, ids=[f.__name__ for f, *_ in ATTACKS])
def test_attack(function, caught, word, kind):
    assert function.__doc__
    content = function(victim(kind).content)
    if caught is Caught.OPEN:
        refused(content, word)
        return
    refused(content, word, LocalizationMap.check_all)
    if caught is Caught.CHECK:
        ask_everything(LocalizationMap.read(content))
    else:
        refused(content, word, a_query_in if caught is Caught.QUERY else ask_everything)
    if caught is Caught.USE:
        a_query_in(LocalizationMap.read(content))


@pytest.mark.parametrize("kind", ["int8 x 1-4", "int8 x all", "pq", "binary"])
def test_the_victims_are_well(kind):
    """What the attacks are made of is not refused by itself."""
    content = victim(kind).content
    for same in (content, resealed(content), with_meta(content), with_sections(content), with_list(
        content, 0, encode(LocalizationMap.read(content).observed(0))
    )):  # fmt: skip
        m = LocalizationMap.read(same)
        m.check_all()
        ask_everything(m)


# --- What is no file --------------------------------------------------------------------------------------------------


def refused_at(path, word):
    with at_most(5.0, of_cpu=False), pytest.raises(MapFormatError, match=word) as caught:
        LocalizationMap.open(path)
    assert str(path) in str(caught.value)


def test_an_empty_file(tmp_path):
    """Cannot be mapped into memory."""
    (tmp_path / "empty.hfmap").touch()
    refused_at(tmp_path / "empty.hfmap", "is empty")


def test_a_folder(tmp_path):
    """Opens like a file, and reads like none."""
    refused_at(tmp_path, "not a file")


def test_a_pipe_that_nobody_writes(tmp_path):
    """Opening it waits for a writer, for ever. It is opened without waiting, then refused for what it is."""
    os.mkfifo(tmp_path / "pipe.hfmap")
    refused_at(tmp_path / "pipe.hfmap", "not a file")


def test_a_device(tmp_path):
    """Has no size and no end."""
    (tmp_path / "zero.hfmap").symlink_to("/dev/zero")
    refused_at(tmp_path / "zero.hfmap", "not a file")


def test_a_link_to_itself(tmp_path):
    """The system gives up; its word is passed on."""
    (tmp_path / "loop.hfmap").symlink_to("loop.hfmap")
    refused_at(tmp_path / "loop.hfmap", "cannot read")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_file_that_may_not_be_read(tmp_path):
    (tmp_path / "secret.hfmap").write_bytes(victim("int8").content)
    (tmp_path / "secret.hfmap").chmod(0)
    refused_at(tmp_path / "secret.hfmap", "Permission denied")


def test_a_file_with_nothing_but_size(tmp_path):
    """A terabyte on paper, of zeros; and one whose header is right. Opening reads a header and a table."""
    for head in (b"", victim("int8").content):
        with (tmp_path / "sparse.hfmap").open("wb") as file:
            file.write(head)
            file.truncate(1 << 40)
        refused_at(tmp_path / "sparse.hfmap", "not an hfnet-edge map|truncated or padded")


def test_a_version_is_refused_before_anything_else_is_read():
    """Everything after the version may be laid out differently: only its number is in the message."""
    for major in (0, 1, 3, 65535):
        head = HEADER.pack(victim("int8").content[:8], major, 7, 2**32 - 1, 2**64 - 1, 0)
        with pytest.raises(MapVersionError, match=rf"version {major}\.7 map"):
            LocalizationMap.read(head)


# --- Bombs: files that unfold -----------------------------------------------------------------------------------------


def peak_of(use):
    tracemalloc.start()
    try:
        with pytest.raises(MapFormatError):
            use()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def test_a_list_of_a_million_landmarks_in_a_map_of_few():
    """250 kB unfold to 30 MB of numbers, once for each image: refused by the count."""
    content = with_list(victim("int8").content, 0, encode(np.arange(1_000_000)))
    assert peak_of(lambda: LocalizationMap.read(content).observed(0)) < 100_000


def test_a_byte_that_decodes_to_a_thousand_dimensions():
    """One subspace of 1040 dimensions: a row of a byte unfolds to 1040, and ten times that while it is compared. A
    sub-vector has 16 dimensions at most."""
    content = with_meta(victim("pq").content, codeDim=1040, subspaces=1)
    rows = len(parts(content)[Section.DESCRIPTORS])
    content = with_meta(content, landmarkCount=rows, descriptorCount=rows)
    tiles = -(-rows // TILE_SIZE)
    content = with_sections(
        content,
        PROJECTION=bytes(1040 * 32),
        CODEBOOK=bytes(256 * 1040),
        TILES=bytes(tiles * TILE.itemsize),
        LANDMARK_POSITIONS=bytes(rows * 6),
    )
    with pytest.raises(MapFormatError, match="do not split"):
        LocalizationMap.read(content)


def test_a_checksum_covers_what_it_should():
    """The blocks are counted from where the data begins; the last is short. A byte in each is noticed."""
    content = victim("as built").content
    offset, length = find(content, Section.CHECKSUMS)
    start = -(-(offset + length) // 64) * 64
    assert length // 4 == -(-(len(content) - start) // BLOCK) > 3
    for at in [*range(start, len(content), BLOCK), *range(start + BLOCK - 1, len(content), BLOCK), len(content) - 1]:
        damaged = overwritten(content, at, bytes([content[at] ^ 0x20]))
        with pytest.raises(MapFormatError, match=f"{start + (at - start) // BLOCK * BLOCK} are damaged"):
            LocalizationMap.read(damaged).check_all()
