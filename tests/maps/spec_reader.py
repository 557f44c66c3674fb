"""A second reader of map files, written from maps/SPEC.md alone: plain Python, nothing of hfnet_edge, no numpy."""

from __future__ import annotations

import hashlib
import heapq
import math
import struct
import zlib

U4, U8 = struct.Struct("<I"), struct.Struct("<Q")
FIELDS = (
    ("generator", "s"), ("architecture", "s"), ("weights_hash", "s"), ("precision", "s"), ("local_dim", "I"),
    ("global_dim", "I"), ("image_count", "I"), ("landmark_count", "I"), ("observation_count", "I"), ("origin_x", "d"),
    ("origin_y", "d"), ("origin_z", "d"), ("extractor_global_dim", "I"), ("codec", "s"), ("code_dim", "I"),
    ("subspaces", "I"), ("count_bits", "B"), ("descriptor_count", "I"),
    ("reserved", "I"), ("global_weights_hash", "s"),
    ("hypercolumn_dim", "I"), ("hypercolumn_codec", "s"), ("hypercolumn_code_dim", "I"), ("hypercolumn_subspaces", "I"),
    ("local_role", "s"),
)  # fmt: skip


def require(condition: object, what: str) -> None:
    if not condition:
        raise ValueError(what)


def up(x: int) -> int:
    return (x + 63) // 64 * 64


def round127(p: int) -> int:
    return max(-127, min(127, (p + 63) // 127))


class Reader:
    """A map in memory. Raises ValueError for everything that the document says to refuse."""

    def __init__(self, file: bytes):
        self.file = file
        size = len(file)
        require(size >= 64 and file[:8] == bytes.fromhex("48464d41500d0a1a"), "no map")
        major, minor, count, stated = struct.unpack_from("<HHIQ", file, 8)
        require(major == 2, f"version {major}.{minor}, not 2.x")
        require(stated == size and 2 <= count <= 64 and 64 + 24 * count <= size, "header")
        self.version, self.sections = (major, minor), {}
        end, last = 64 + 24 * count, 0
        for i in range(count):
            kind, offset, length = struct.unpack_from("<I4xQQ", file, 64 + 24 * i)
            require(kind > last and offset == up(end) and offset <= size and length <= size - offset, "section table")
            require(not any(file[end:offset]), "padding")
            self.sections[kind], end, last = (offset, length), offset + length, kind
        require(end == size and 1 in self.sections, "section table")
        self.checksums, length = self.sections[1]
        self.start = up(self.checksums + length)
        require(length == 4 * ((size - self.start + 16383) // 16384), "CHECKSUMS")
        require(zlib.crc32(file[:24] + file[28 : self.start]) == U4.unpack_from(file, 24)[0], "header's checksum")
        self.checked: set[int] = set()
        self._read_meta()
        self._read_codec()

    def use(self, kind: int, at: int = 0, length: int | None = None) -> bytes:
        """Bytes of a section, after their blocks' checksums."""
        require(kind in self.sections, f"section {kind} is missing")
        offset, whole = self.sections[kind]
        length = whole - at if length is None else length
        require(0 <= at <= whole and 0 <= length <= whole - at, f"past the end of section {kind}")
        first, stop = offset + at, offset + at + length
        for block in range((first - self.start) // 16384, (stop - 1 - self.start) // 16384 + 1) if length else ():
            begin = self.start + 16384 * block
            expected = U4.unpack_from(self.file, self.checksums + 4 * block)[0]
            require(block in self.checked or zlib.crc32(self.file[begin : begin + 16384]) == expected, "block")
            self.checked.add(block)
        return self.file[first:stop]

    def shaped(self, kind: int, length: int) -> None:
        require(kind in self.sections and self.sections[kind][1] == length, f"length of section {kind}")

    def matrix(self, kind: int, rows: int, columns: int) -> list[tuple[int, ...]]:
        self.shaped(kind, rows * columns)
        return list(struct.iter_unpack(f"<{columns}b", self.use(kind)))

    def _read_meta(self) -> None:
        require(2 in self.sections and self.sections[2][1] <= 65536, "META")
        data = self.use(2)

        def get(kind: str, at: int) -> int:
            require(0 <= at <= len(data) - struct.calcsize("<" + kind), "META")
            return struct.unpack_from("<" + kind, data, at)[0]

        table = get("I", 0)
        vtable = table - get("i", table)
        self.meta: dict = {}
        for i, (name, kind) in enumerate(FIELDS):
            offset = get("H", vtable + 4 + 2 * i) if 6 + 2 * i <= get("H", vtable) else 0
            if kind != "s":
                self.meta[name] = get(kind, table + offset) if offset else 0
            elif not offset:
                self.meta[name] = ""
            else:
                at = table + offset + get("I", table + offset)
                length = get("I", at)
                require(length <= len(data) - at - 4, "META")
                self.meta[name] = data[at + 4 : at + 4 + length].decode()
                require(all(32 <= ord(c) != 127 for c in self.meta[name]), "META")
        m = self.meta
        self.M, self.L, self.R, self.D = (
            m[f"{k}"] for k in ("image_count", "landmark_count", "descriptor_count", "local_dim")
        )
        self.E, self.G, self.K, self.S = (m[k] for k in ("extractor_global_dim", "global_dim", "code_dim", "subspaces"))
        self.T = (self.L + 255) // 256
        require(1 <= self.D <= 1040 and 1 <= self.K <= 1040 and 1 <= self.G <= self.E <= 4096, "dimensions")
        require(all(abs(m[f"origin_{axis}"]) < 1e15 for axis in "xyz"), "origin")
        require(m["local_role"] in ("", "local_descriptors", "patch_descriptors"), "local_role")
        require(m["codec"] in ("int8", "pq", "binary") and m["count_bits"] in (0, 2, 16), "codec or count_bits")
        require(m["codec"] != "pq" or (1 <= self.S <= self.K <= 16 * self.S and self.K % self.S == 0), "subspaces")
        require(m["count_bits"] or self.R == self.L, "descriptor_count")

    def _read_codec(self) -> None:
        codec = self.meta["codec"]
        self.C = {"int8": self.K, "pq": self.S, "binary": (self.K + 7) // 8}[codec]
        require((5 in self.sections) == (self.G < self.E), "GLOBAL_PROJECTION")
        self.global_projection = self.matrix(5, self.G, self.E) if 5 in self.sections else None
        require(12 in self.sections or (self.K == self.D and codec != "binary"), "PROJECTION")
        self.projection = self.matrix(12, self.K, self.D) if 12 in self.sections else None
        if codec == "binary":
            self.shaped(13, 4 * self.K)
            self.thresholds = struct.unpack(f"<{self.K}i", self.use(13))
        if codec == "pq":
            self.codebook = self.matrix(14, self.S * 256, self.K // self.S)
        self.shaped(4, 56 * self.M)
        self.shaped(6, self.M * self.G)
        self.shaped(7, 4 * self.M + 4)
        self.shaped(9, 20 * self.T)
        self.shaped(10, 6 * self.L)
        self.shaped(15, self.R * self.C)
        if self.meta["count_bits"]:
            self.shaped(11, (self.L * self.meta["count_bits"] + 7) // 8)

    def names(self) -> list[str]:
        data = self.use(3)
        require(data.count(b"\n") == self.M and (not data or data[-1] == 10), "IMAGE_NAMES")
        return data.decode().split("\n")[:-1]

    def pose(self, image: int) -> tuple[float, ...]:
        values = struct.unpack("<7d", self.use(4, 56 * image, 56))
        require(all(map(math.isfinite, values)), "IMAGE_POSES")
        require(abs(math.hypot(*values[:4]) - 1) <= 1e-6, "quaternion")
        return values

    def global_descriptor(self, image: int) -> tuple[int, ...]:
        return struct.unpack(f"<{self.G}b", self.use(6, self.G * image, self.G))

    def observed(self, image: int) -> list[int]:
        begin, end = struct.unpack("<2I", self.use(7, 4 * image, 8))
        require(begin <= end <= self.sections[8][1], "OBSERVATION_OFFSETS")
        return decode_list(self.use(8, begin, end - begin), self.L)

    def tile(self, landmark: int) -> tuple[float, ...]:
        values = struct.unpack("<4fI", self.use(9, 20 * (landmark // 256), 20))
        require(all(map(math.isfinite, values[:4])), "TILES")
        return values

    def position(self, landmark: int) -> list[float]:
        *origin, step, _ = self.tile(landmark)
        return [o + s * step for o, s in zip(origin, struct.unpack("<3H", self.use(10, 6 * landmark, 6)), strict=True)]

    def count(self, landmark: int) -> int:
        if self.meta["count_bits"] == 16:
            return struct.unpack("<H", self.use(11, 2 * landmark, 2))[0] + 1
        return (self.use(11, landmark // 4, 1)[0] >> 2 * (landmark % 4) & 3) + 1

    def rows(self, landmark: int) -> range:
        if not self.meta["count_bits"]:
            return range(landmark, landmark + 1)
        first = int(self.tile(landmark)[4]) + sum(
            self.count(before) for before in range(landmark // 256 * 256, landmark)
        )
        require(first + self.count(landmark) <= self.R, "a descriptor past the last")
        return range(first, first + self.count(landmark))

    def stored(self, row: int) -> bytes:
        return self.use(15, self.C * row, self.C)

    def descriptor(self, row: int) -> list[int]:
        data = self.stored(row)
        if self.meta["codec"] == "int8":
            return list(struct.unpack(f"<{self.K}b", data))
        if self.meta["codec"] == "pq":
            return [value for s, number in enumerate(data) for value in self.codebook[256 * s + number]]
        return [1 if data[j // 8] >> j % 8 & 1 else -1 for j in range(self.K)]

    def compared(self, q: list[int]) -> list[int]:
        if self.projection is None:
            return q
        p = [sum(a * b for a, b in zip(row, q, strict=True)) for row in self.projection]
        if self.meta["codec"] == "binary":
            return [1 if value > threshold else -1 for value, threshold in zip(p, self.thresholds, strict=True)]
        return [round127(value) for value in p]

    def global_compared(self, q: list[int]) -> list[int]:
        if self.global_projection is None:
            return q
        return [round127(sum(a * b for a, b in zip(row, q, strict=True))) for row in self.global_projection]

    def distance(self, y: list[int], row: int) -> int:
        """In the way that suits the codec, from the descriptor as it is stored."""
        data = self.stored(row)
        if self.meta["codec"] == "pq":
            width, d = self.K // self.S, sum(v * v for v in y)
            for s, number in enumerate(data):
                c = self.codebook[256 * s + number]
                d += sum(v * v for v in c) - 2 * sum(
                    a * b for a, b in zip(y[width * s : width * (s + 1)], c, strict=True)
                )
            return d
        if self.meta["codec"] == "binary":
            bits = sum(1 << j for j, v in enumerate(y) if v > 0)
            return 4 * ((int.from_bytes(data, "little") ^ bits) & (1 << self.K) - 1).bit_count()
        return sum((a - b) ** 2 for a, b in zip(y, self.descriptor(row), strict=True))

    def check_parts(self) -> None:
        """Uses every part once, each by itself."""
        self.names()
        for image in range(self.M):
            self.pose(image), self.global_descriptor(image), self.observed(image)
        for landmark in range(self.L):
            self.position(landmark), [self.stored(row) for row in self.rows(landmark)]

    def check_whole(self) -> None:
        self.check_parts()
        for kind in self.sections:
            if kind != 1:
                self.use(kind)
        offsets = struct.unpack(f"<{self.M + 1}I", self.use(7))
        require(offsets[0] == 0 and offsets[-1] == self.sections[8][1], "OBSERVATION_OFFSETS")
        observations = sum(len(self.observed(image)) for image in range(self.M))
        require(observations == self.meta["observation_count"], "observation_count")
        rows = [row for landmark in range(self.L) for row in self.rows(landmark)]
        require(rows == list(range(self.R)), "descriptor_count")


class Hypercolumns:
    """The hypercolumns of a map. Raises ValueError for everything that the document says to refuse."""

    def __init__(self, r: Reader):
        self.reader, m = r, r.meta
        self.H, self.codec, self.K, self.S = (m[f"hypercolumn_{k}"] for k in ("dim", "codec", "code_dim", "subspaces"))
        require(1 <= self.H <= 1040 and 1 <= self.K <= 1040, "dimensions of hypercolumns")
        require(self.codec in ("int8", "pq", "binary"), "hypercolumn_codec")
        if self.codec == "pq":
            require(1 <= self.S <= self.K <= 16 * self.S and self.K % self.S == 0, "hypercolumn_subspaces")
        self.C = {"int8": self.K, "pq": self.S, "binary": (self.K + 7) // 8}[self.codec]
        require(24 in r.sections or (self.K == self.H and self.codec != "binary"), "HYPERCOLUMN_PROJECTION")
        self.projection = r.matrix(24, self.K, self.H) if 24 in r.sections else None
        if self.codec == "binary":
            r.shaped(25, 4 * self.K)
            self.thresholds = struct.unpack(f"<{self.K}i", r.use(25))
        if self.codec == "pq":
            self.codebook = r.matrix(26, self.S * 256, self.K // self.S)
        r.shaped(27, r.L * self.C)

    def of(self, landmark: int) -> list[int]:
        data = self.reader.use(27, self.C * landmark, self.C)
        if self.codec == "int8":
            return list(struct.unpack(f"<{self.K}b", data))
        if self.codec == "pq":
            return [value for s, number in enumerate(data) for value in self.codebook[256 * s + number]]
        return [1 if data[j // 8] >> j % 8 & 1 else -1 for j in range(self.K)]

    def compared(self, cell: list[int]) -> list[int]:
        if self.projection is None:
            return cell
        p = [sum(a * b for a, b in zip(row, cell, strict=True)) for row in self.projection]
        if self.codec == "binary":
            return [1 if value > threshold else -1 for value, threshold in zip(p, self.thresholds, strict=True)]
        return [round127(value) for value in p]

    def product(self, y: list[int], landmark: int) -> int:
        return sum(a * b for a, b in zip(y, self.of(landmark), strict=True))


class SceneTree:
    """The scene tree of a map. Raises ValueError for everything that the document says to refuse."""

    def __init__(self, r: Reader):
        require(28 in r.sections and 29 in r.sections, "both sections of the scene tree")
        r.shaped(28, 56)
        head = r.use(28)
        levels, *branches = struct.unpack_from("<5I", head)
        require(1 <= levels <= 4 and all(1 <= b <= 1024 for b in branches[:levels]), "branches")
        require(not any(branches[levels:]), "branches below the last level")
        self.branches, leaves = branches[:levels], 1
        for b in self.branches:
            leaves *= b
        require(leaves <= 1 << 24 and struct.unpack_from("<I", head, 20)[0] == r.L, "leaves, landmarks")
        self.weights_hash = head[24:56].rstrip(b"\0").decode("ascii")
        r.shaped(29, 4 * leaves)
        self.landmarks = struct.unpack(f"<{leaves}I", r.use(29))
        require(all(n < r.L or n == 2**32 - 1 for n in self.landmarks), "a leaf's landmark")

    def landmark(self, labels: list[int]) -> int:
        leaf = 0
        for label, branches in zip(labels, self.branches, strict=True):
            if not 0 <= label < branches:
                return -1
            leaf = leaf * branches + label
        found = self.landmarks[leaf]
        return -1 if found == 2**32 - 1 else found


class Georeference:
    """The georeference of a map. Raises ValueError for everything that the document says to refuse."""

    def __init__(self, r: Reader):
        require(30 in r.sections, "georeference")
        r.shaped(30, 96)
        values = struct.unpack("<12d", r.use(30))
        require(all(map(math.isfinite, values)), "finite")
        self.origin, self.metres, pose, self.residual = values[:3], values[3], values[4:11], values[11]
        latitude, longitude, altitude = self.origin
        require(abs(latitude) <= 90 and abs(longitude) <= 180 and abs(altitude) <= 1e5, "origin")
        require(1e-6 <= self.metres <= 1e6 and self.residual >= 0, "metres, residual")
        require(1e-6 < max(map(abs, pose[:4])) < 1e6 and max(map(abs, pose[4:])) < 1e12, "a pose")
        length = math.sqrt(sum(v * v for v in pose[:4]))
        w, x, y, z = (v / length for v in pose[:4])
        self.rotation = (
            (1 - 2 * (y * y + z * z), 2 * (x * y - z * w), 2 * (x * z + y * w)),
            (2 * (x * y + z * w), 1 - 2 * (x * x + z * z), 2 * (y * z - x * w)),
            (2 * (x * z - y * w), 2 * (y * z + x * w), 1 - 2 * (x * x + y * y)),
        )
        self.translation = pose[4:]

    def enu(self, xyz: list[float]) -> list[float]:
        return [
            sum(r * self.metres * v for r, v in zip(row, xyz, strict=True)) + t
            for row, t in zip(self.rotation, self.translation, strict=True)
        ]


class Place:
    """The tiles of an index. Raises ValueError for everything that the document says to refuse."""

    def __init__(self, r: Reader):
        self.reader = r
        require(31 in r.sections, "PLACE_TILES")
        length = r.sections[31][1]
        require(length % 104 == 0 and 1 <= length // 104 <= 65536, "length of PLACE_TILES")
        rows = list(struct.iter_unpack("<32sQIIII3d3d", r.use(31)))
        ends = [*(row[5] for row in rows[1:]), r.M]
        require(rows[0][5] == 0 and len({row[0] for row in rows}) == len(rows), "first, sha256")
        self.tiles = []
        for (sha256, size, head, images, core, first, *corners), end in zip(rows, ends, strict=True):
            low, high = corners[:3], corners[3:]
            require(first < end <= r.M and end - first <= core <= images and size < 1 << 63, "a tile's numbers")
            require(all(map(math.isfinite, corners)) and all(a <= b for a, b in zip(low, high, strict=True)), "a box")
            name = sha256.hex() + ".hfmap"
            self.tiles.append(
                {"name": name, "bytes": size, "head_checksum": head, "images": images, "core": core}
                | {"representatives": [first, end], "low": low, "high": high}
            )

    def check(self, tile: int, file: bytes) -> None:
        row, size = self.tiles[tile], len(file)
        require(size == row["bytes"] and U4.unpack_from(file, 24)[0] == row["head_checksum"], "another version")
        require(
            row["images"] == Reader(file).M and row["name"] == hashlib.sha256(file).hexdigest() + ".hfmap", "a tile"
        )

    def asked(self, descriptor: list[int], near: set[int]) -> tuple[list[int], list[int]]:
        """The tiles of a query that are compared, and those that are asked after them, of those that are near."""
        y = self.reader.global_compared(descriptor)
        of = {image: i for i, tile in enumerate(self.tiles) for image in range(*tile["representatives"])}
        alike = {
            image: sum(a * b for a, b in zip(y, self.reader.global_descriptor(image), strict=True)) for image in of
        }
        ranking = [of[image] for image in sorted(of, key=lambda image: -alike[image]) if of[image] in near]
        tiles = list(dict.fromkeys(ranking))[:3]
        compared = [tile for tile in tiles if ranking.index(tile) < 5]
        return compared, tiles[len(compared) :]

    def near(self, position: list[float], radius: float) -> set[int]:
        """The tiles that may show what is seen within a radius of a position."""
        centers = []
        for i in range(self.reader.M):
            w, x, y, z, *t = self.reader.pose(i)
            r = (
                (1 - 2 * (y * y + z * z), 2 * (x * y - z * w), 2 * (x * z + y * w)),
                (2 * (x * y + z * w), 1 - 2 * (x * x + z * z), 2 * (y * z - x * w)),
                (2 * (x * z - y * w), 2 * (y * z + x * w), 1 - 2 * (x * x + y * y)),
            )
            centers.append([-sum(r[k][axis] * t[k] for k in range(3)) for axis in range(3)])
        apart = [math.dist(center, position) for center in centers]
        nearest = sorted(range(len(apart)), key=lambda i: apart[i])
        images = {i for rank, i in enumerate(nearest) if rank < 20 or apart[i] <= 2 * radius}
        return {
            i
            for i, tile in enumerate(self.tiles)
            if images & {*range(*tile["representatives"])}
            or math.dist(
                position, [max(a, min(b, v)) for a, b, v in zip(tile["low"], tile["high"], position, strict=True)]
            )
            <= 2 * radius
        }


class Calibration:
    """The calibration of a map. Raises ValueError for everything that the document says to refuse."""

    def __init__(self, r: Reader):
        r.shaped(23, 20)
        names = ("right_slope", "right_offset", "precise_slope", "precise_offset", "images")
        self.fields = dict(zip(names, struct.unpack("<4iI", r.use(23)), strict=True))
        for kind in ("right", "precise"):
            require(1 <= self.fields[f"{kind}_slope"] <= 16384, f"{kind}_slope")
            require(-14000 <= self.fields[f"{kind}_offset"] <= 14000, f"{kind}_offset")
        require(self.fields["images"] <= 1 << 24, "images")

    def moved(self, kind: str, points: int) -> int:
        slope, offset = self.fields[f"{kind}_slope"], self.fields[f"{kind}_offset"]
        return max(-14000, min(14000, (points * slope >> 12) + offset))


class Trees:
    """The random trees of a map. Raises ValueError for everything that the document says to refuse."""

    def __init__(self, r: Reader):
        r.shaped(16, 80)
        names = ("trees", "depth", "dims", "nodes", "leaves", "entries", "landmarks", "cost_steps")
        *numbers, weights_hash, mu, sigma = struct.unpack("<8I32s2d", r.use(16))
        self.head = dict(zip(names, numbers, strict=True))
        trees, depth, dims, nodes, leaves, entries, landmarks, _ = numbers
        require(1 <= trees <= 64 and depth <= 23 and 1 <= dims <= 256, "RANDOM_TREES")
        require(dims == r.D and landmarks == r.L and nodes == 2 * leaves - trees, "RANDOM_TREES")
        require(weights_hash == r.meta["weights_hash"].encode().ljust(32, b"\0"), "weights_hash of RANDOM_TREES")
        self.head |= {"weights_hash": weights_hash.rstrip(b"\0").decode(), "mu": mu, "sigma": sigma}

        def numbers_of(kind: int, letter: str, count: int) -> tuple[int, ...]:
            r.shaped(kind, count * struct.calcsize(f"<{letter}"))
            return struct.unpack(f"<{count}{letter}", r.use(kind))

        costs = numbers_of(17, "H", 512)
        self.costs = costs[:256], costs[256:]
        self.roots = numbers_of(18, "I", trees)
        self.tests, self.children = numbers_of(19, "B", nodes), numbers_of(20, "I", nodes)
        self.starts, self.landmarks = numbers_of(21, "I", leaves + 1), numbers_of(22, "I", entries)
        self._check(depth, dims, leaves, r.L)

    def _check(self, depth: int, dims: int, leaves: int, landmarks: int) -> None:
        top, nodes = 1 << 31, len(self.children)
        require([c - top for c in self.children if c >= top] == list(range(leaves)), "numbers of leaves")
        named = [*self.roots]
        require(all(root < nodes for root in self.roots), "TREE_ROOTS")
        for node, child in enumerate(self.children):
            if child < top:
                require(node + 1 < child < nodes and self.tests[node] < dims, "an inner node")
                named += [node + 1, child]
        require(sorted(named) == list(range(nodes)), "a node that is named twice or not at all")
        deep = dict.fromkeys(self.roots, 0)
        for node, child in enumerate(self.children):  # a node's number is below those of all nodes under it
            require(deep[node] <= depth, "depth")
            if child < top:
                deep[node + 1] = deep[child] = deep[node] + 1
        starts = self.starts
        require(starts[0] == 0 and starts[-1] == len(self.landmarks) and sorted(starts) == [*starts], "TREE_LEAVES")
        for leaf in range(leaves):
            held = self.held(leaf)
            require(sorted(set(held)) == held and all(one < landmarks for one in held), "TREE_LANDMARKS")

    def held(self, leaf: int) -> list[int]:
        return [*self.landmarks[self.starts[leaf] : self.starts[leaf + 1]]]

    def prior_leaves(self, q: list[int], count: int) -> list[int]:
        queue, found = [(0, root) for root in self.roots], []
        heapq.heapify(queue)
        while queue and len(found) < count:
            cost, node = heapq.heappop(queue)
            if self.children[node] >= 1 << 31:
                found.append(self.children[node] - (1 << 31))
                continue
            v = q[self.tests[node]] & 255
            heapq.heappush(queue, (cost + self.costs[0][v], node + 1))
            heapq.heappush(queue, (cost + self.costs[1][v], self.children[node]))
        return found


def decode_list(data: bytes, landmarks: int) -> list[int]:
    if not data:
        return []
    at = 0

    def varint() -> int:
        nonlocal at
        value = 0
        for place in range(5):
            require(at < len(data), "a number that does not end")
            byte, at = data[at], at + 1
            value |= (byte & 127) << 7 * place
            if byte < 128:
                return value
        raise ValueError("a number of more than five bytes")

    n, t = varint(), varint()
    require(1 <= t <= n <= 256 * t and t <= len(data) - at and n <= 8 * (len(data) - at), "n or t")
    k = (256 * t // n).bit_length() - 1
    high_bits = n + ((256 * t - 1) >> k)
    tiles: list[int] = []
    for _ in range(t):
        tiles.append(varint() + (tiles[-1] + 1 if tiles else 0))
        require(256 * tiles[-1] < landmarks, "a tile past the last")
    low, high = at, at + (n * k + 7) // 8
    require(high + (high_bits + 7) // 8 == len(data), "length of a list")

    def bit(start: int, j: int) -> int:
        return data[start + j // 8] >> j % 8 & 1

    place, last, found = 0, -1, []
    for i in range(n):
        while True:
            require(place < high_bits, "high parts")
            if bit(high, place):
                break
            place += 1
        local = (place - i) << k | sum(bit(low, i * k + j) << j for j in range(k))
        place += 1
        require(last < local < 256 * t, "a list that does not rise")
        last = local
        found.append(256 * tiles[local >> 8] + (local & 255))
    require(found[-1] < landmarks, "a landmark past the last")
    require(not any(bit(high, j) for j in range(place, 8 * (len(data) - high))), "high parts")
    return found


def read_delta(delta: bytes, base: bytes) -> tuple[bytes, bytes, bytes]:
    """The result of a delta; what its signature is of, and the signature, empty where there is none."""
    magic, major, _, signature, base_hash, result_hash, base_size, result_size, count, copies, literals = (
        struct.unpack_from("<8sHHI32s32sQQIII", delta)
    )
    require(magic == b"HFDLT\r\n\x1a" and major == 1 and signature in (0, 64), "no delta of version 1")
    require(max(base_size, result_size) < 1 << 31, "too large")
    end = 112 + copies + literals
    require(len(delta) == end + 32 + signature, "length")
    require(hashlib.sha256(delta[:end]).digest() == delta[end : end + 32], "checksum")
    require(len(base) == base_size and hashlib.sha256(base).digest() == base_hash, "another base")
    rows, rest = zlib.decompress(delta[112 : 112 + copies]), zlib.decompress(delta[112 + copies : end])
    require(len(rows) == 12 * count, "copies")
    result, at, base_at = b"", 0, 0
    for before, skipped, length in struct.iter_unpack("<Iii", rows):
        base_at += skipped
        require(length >= 16 and 0 <= base_at <= len(base) - length and at + before <= len(rest), "a copy")
        result += rest[at : at + before] + base[base_at : base_at + length]
        at, base_at = at + before, base_at + length
    result += rest[at:]
    require(len(result) == result_size and hashlib.sha256(result).digest() == result_hash, "another result")
    return result, delta[: end + 32], delta[end + 32 :]
