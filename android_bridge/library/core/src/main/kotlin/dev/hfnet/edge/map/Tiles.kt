package dev.hfnet.edge.map

import dev.hfnet.edge.Memory

/** What is stored of landmarks by tiles of 256 neighbours (SPEC, section 8): read a tile at a time, and checked. */
internal class Tiles(private val file: MapBytes, private val meta: Meta, memory: Memory) {
    private val bytes = memory.bytes("tiles: bytes", 2 * SIZE)
    private val rows = memory.longs("tiles: rows", SIZE + 1) // of each landmark the first, and after the last one's
    private val origin = memory.doubles("tiles: origin", 4) // and the step
    private var read = -1 // the tile that origin is of
    private var counted = -1 // the tile that rows are of

    /** The position of a landmark relative to the map's origin: three numbers into [out] at [at]. */
    fun position(landmark: Int, out: DoubleArray, at: Int) {
        if (landmark / SIZE != read) read(landmark / SIZE)
        file.use(Section.LANDMARK_POSITIONS, 6L * landmark, 6, bytes)
        for (axis in 0 until 3) out[at + axis] = origin[axis] + bytes.ushort(2 * axis) * origin[3]
    }

    /** The number of a landmark's first descriptor. */
    fun firstRow(landmark: Int): Long {
        if (meta.countBits == 0) return landmark.toLong()
        if (landmark / SIZE != counted) count(landmark / SIZE)
        return rows[landmark % SIZE]
    }

    /** The number after that of a landmark's last descriptor. */
    fun endOfRows(landmark: Int): Long {
        if (meta.countBits == 0) return landmark + 1L
        if (landmark / SIZE != counted) count(landmark / SIZE)
        val end = rows[landmark % SIZE + 1]
        if (end > meta.descriptorCount) throw file.fail("a descriptor past the last")
        return end
    }

    private fun read(tile: Int) {
        file.use(Section.TILES, BYTES * tile, BYTES.toInt(), bytes)
        for (i in 0 until 4) {
            val value = java.lang.Float.intBitsToFloat(bytes.uint(4 * i).toInt())
            if (!(Math.abs(value) <= Float.MAX_VALUE)) throw file.fail("tile $tile is not finite")
            origin[i] = value.toDouble()
        }
        read = tile
    }

    private fun count(tile: Int) {
        read(tile)
        rows[0] = bytes.uint(16)
        val n = minOf(SIZE.toLong(), meta.landmarkCount - SIZE.toLong() * tile).toInt()
        file.use(Section.DESCRIPTOR_COUNTS, SIZE.toLong() * tile * meta.countBits / 8, (n * meta.countBits + 7) / 8, bytes)
        for (i in 0 until n) {
            val count = if (meta.countBits == 16) bytes.ushort(2 * i) else bytes[i / 4].toLong() shr 2 * (i % 4) and 3
            rows[i + 1] = rows[i] + count + 1
        }
        counted = tile
    }

    companion object {
        const val SIZE = 256

        /** Of a tile's own row. */
        const val BYTES = 20L
    }
}
