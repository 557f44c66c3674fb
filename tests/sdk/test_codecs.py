"""Codecs: each against its definition, in Python's integers, and nearest descriptors against exact search."""

from functools import cache

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hfnet_edge.image.keypoints import quantize
from hfnet_edge.map.codecs import CENTROIDS, UNIT, Codec, CodecName, project, rounded
from hfnet_edge.map.map_file import MAX_LOCAL_DIM
from hfnet_edge.methods.matching import COLUMNS, nearest_two
from hfnet_maps.pack.codebooks import encode, fit_codec

FITTED = [
    (CodecName.INT8, 32, 0),
    (CodecName.INT8, 20, 0),
    (CodecName.PQ, 32, 8),
    (CodecName.PQ, 24, 6),
    (CodecName.PQ, 24, 24),
    (CodecName.PQ, 30, 1),
    (CodecName.BINARY, 32, 0),
    (CodecName.BINARY, 27, 0),
]


def unit_rows(seed, count, dim=32):
    return quantize(np.random.default_rng(seed).normal(size=(count, dim)))


@cache
def fitted(name, dim, subspaces):
    """A codec, stored descriptors, and queries that resemble some of them."""
    kept = unit_rows(1, 700)
    codec = fit_codec(name, kept, dim, subspaces)
    queries = np.concatenate([kept[:20], quantize(kept[20:60] + np.random.default_rng(2).normal(0, 8, (40, 32)))])
    return codec, encode(codec, kept), kept, queries


def slow_query(codec, descriptor):
    """What a descriptor is compared as, from the definition."""
    if codec.projection is None:
        return [int(v) for v in descriptor]
    products = [sum(int(a) * int(b) for a, b in zip(row, descriptor, strict=True)) for row in codec.projection]
    if codec.name is CodecName.BINARY:
        return [1 if p > int(t) else -1 for p, t in zip(products, codec.thresholds, strict=True)]
    return [max(-127, min(127, (p + 63) // 127)) for p in products]


def slow_decode(codec, row):
    if codec.name is CodecName.PQ:
        return [int(v) for s, code in enumerate(row) for v in codec.codebook[s][int(code)]]
    if codec.name is CodecName.BINARY:
        return [2 * (int(row[i // 8]) >> i % 8 & 1) - 1 for i in range(codec.dim)]
    return [int(v) - 256 * (v > 127) for v in row.tolist()]


def squared(a, b):
    return sum((int(x) - int(y)) ** 2 for x, y in zip(a, b, strict=True))


@pytest.mark.parametrize(("name", "dim", "subspaces"), FITTED)
def test_queries_and_stored_rows_are_what_the_definition_says(name, dim, subspaces):
    codec, rows, _, queries = fitted(name, dim, subspaces)
    assert rows.shape == (700, codec.row_bytes) and rows.dtype == np.uint8
    found = codec.query(queries)
    assert found.dtype == np.int8 and found.tolist() == [slow_query(codec, q) for q in queries]
    found = codec.decode(rows[:100])
    assert found.dtype == np.int8 and found.tolist() == [slow_decode(codec, row) for row in rows[:100]]
    assert codec.query(queries[:0]).shape == codec.decode(rows[:0]).shape == (0, dim)


@pytest.mark.parametrize(("name", "dim", "subspaces"), FITTED)
def test_what_is_stored_is_the_nearest_that_can_be(name, dim, subspaces):
    codec, rows, kept, _ = fitted(name, dim, subspaces)
    for row, descriptor in zip(rows[:15], kept[:15], strict=True):
        wanted = slow_query(codec, descriptor)
        if codec.codebook is None:
            assert slow_decode(codec, row) == wanted
            continue
        size = dim // subspaces
        for s, code in enumerate(row):
            distances = [squared(c, wanted[s * size : (s + 1) * size]) for c in codec.codebook[s]]
            assert int(code) == distances.index(min(distances))


@pytest.mark.parametrize(("dim", "subspaces"), [(32, 8), (24, 6), (24, 24), (30, 1)])
def test_sums_of_a_querys_tables_are_the_squared_distances(dim, subspaces):
    """Asymmetric distances, as a reader without matrix products would compute them."""
    codec, rows, _, queries = fitted(CodecName.PQ, dim, subspaces)
    wanted = codec.query(queries[:5])
    size = dim // subspaces
    for q in wanted:
        tables = [[squared(c, q[s * size : (s + 1) * size]) for c in codec.codebook[s]] for s in range(subspaces)]
        sums = [sum(tables[s][code] for s, code in enumerate(row)) for row in rows.tolist()]
        decoded = codec.decode(rows).astype(np.int64)
        assert ((decoded - q) ** 2).sum(axis=1).tolist() == sums
    first, second, d1, d2 = nearest_two(wanted[-1:], codec.decode(rows))
    order = sorted(range(len(sums)), key=lambda i: (sums[i], i))
    assert [int(first[0]), int(second[0])] == order[:2] and [int(d1[0]), int(d2[0])] == sorted(sums)[:2]


@pytest.mark.parametrize("dim", [32, 27, 8])
def test_a_squared_distance_of_signs_is_four_times_hammings(dim):
    codec, rows, _, queries = fitted(CodecName.BINARY, dim, 0)
    packed = np.packbits(codec.query(queries) > 0, axis=1, bitorder="little")
    for q, bits in zip(codec.query(queries).astype(np.int64), packed, strict=True):
        hamming = [sum((int(a) ^ int(b)).bit_count() for a, b in zip(row, bits, strict=True)) for row in rows[:50]]
        assert ((codec.decode(rows[:50]) - q) ** 2).sum(axis=1).tolist() == [4 * h for h in hamming]


def test_bits_past_the_last_dimension_do_not_count():
    codec, rows, _, _ = fitted(CodecName.BINARY, 27, 0)
    other = rows.copy()
    other[:, -1] ^= 0b11111000
    np.testing.assert_array_equal(codec.decode(rows), codec.decode(other))


@pytest.mark.parametrize("seed", range(3))
def test_projections_are_exact_at_the_widest_descriptor(seed):
    """All that int8 vectors up to 127 can be, not unit ones alone: every partial sum fits in float32."""
    rng = np.random.default_rng(seed)
    vectors = rng.choice([-127, -126, 126, 127], (50, MAX_LOCAL_DIM)).astype(np.int8)
    projection = rng.integers(-127, 128, (40, MAX_LOCAL_DIM)).astype(np.int8)
    projection[0] = vectors[0] = 127
    projection[1] = -127
    projection[2:20] = vectors[2:20]  # sums near the largest
    found = project(vectors, projection)
    assert found.dtype == np.int32 and found.max() == 127 * 127 * 1040
    np.testing.assert_array_equal(found, vectors.astype(np.int64) @ projection.astype(np.int64).T)


@given(st.lists(st.integers(-(2**24), 2**24), min_size=1, max_size=50))
@settings(deadline=None)
def test_products_are_rounded_to_the_nearest(products):
    for product, found in zip(products, rounded(np.array(products, np.int32)).tolist(), strict=True):
        assert found == max(-UNIT, min(UNIT, (product + 63) // 127))
        assert abs(found * UNIT - product) <= 63 or abs(found) == UNIT


@pytest.mark.parametrize(("name", "dim", "subspaces"), FITTED)
def test_nearest_descriptors_are_those_of_exact_search(name, dim, subspaces):
    """Under every codec, equals by lower number, within a block and across."""
    codec, rows, _, queries = fitted(name, dim, subspaces)
    rows = np.concatenate([rows, rows[::-1], rows[:300], rows[:1], rows[:1]])  # everything twice and more
    assert len(rows) > COLUMNS + 300
    references, wanted = codec.decode(rows), codec.query(queries)
    exact = ((wanted[:, None].astype(np.int64) - references.astype(np.int64)) ** 2).sum(axis=2)
    order = np.argsort(exact, axis=1, kind="stable")[:, :2]
    first, second, d1, d2 = nearest_two(wanted, references)
    np.testing.assert_array_equal(np.stack([first, second], axis=1), order)
    np.testing.assert_array_equal(np.stack([d1, d2], axis=1), np.take_along_axis(exact, order, axis=1))
    assert (d1 == d2).all()


def test_nearest_signs_are_exact_at_the_most_bits():
    """Few distances are possible, so most are ties."""
    rng = np.random.default_rng(0)
    codec = Codec(CodecName.BINARY, MAX_LOCAL_DIM, np.zeros((1, 1), np.int8), np.zeros(1, np.int32))
    rows = rng.integers(0, 256, (1500, codec.row_bytes)).astype(np.uint8)
    rows[1000:] = rows[:500]
    wanted = codec.decode(rows[rng.choice(1500, 40)] ^ (rng.random((40, codec.row_bytes)) < 0.02).astype(np.uint8))
    exact = ((wanted[:, None].astype(np.int64) - codec.decode(rows)) ** 2).sum(axis=2)
    first, second, d1, _ = nearest_two(wanted, codec.decode(rows))
    order = np.argsort(exact, axis=1, kind="stable")
    np.testing.assert_array_equal(np.stack([first, second], axis=1), order[:, :2])
    np.testing.assert_array_equal(d1, exact.min(axis=1))


def test_every_byte_is_a_sub_vector():
    codebook = np.random.default_rng(0).integers(-127, 128, (3, CENTROIDS, 2)).astype(np.int8)
    codec = Codec(CodecName.PQ, 6, codebook=codebook)
    rows = np.repeat(np.arange(256, dtype=np.uint8)[:, None], 3, axis=1)
    np.testing.assert_array_equal(codec.decode(rows), codebook.transpose(1, 0, 2).reshape(256, 6))
