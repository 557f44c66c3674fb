package dev.hfnet.edge.map

import dev.hfnet.edge.Memory

/** Lists of observed landmarks, Elias-Fano codes (SPEC, section 7). */
internal object ObservationList {
    /**
     * How many landmarks there are, which are put into the array of this [name] in [memory] from [start] on, rising.
     * Throws [dev.hfnet.edge.MapFormatException]: another list than a writer may write.
     *
     * @param bytes the list, [end] of them.
     */
    fun decode(
        bytes: ByteArray, end: Int, landmarkCount: Long, file: MapBytes, memory: Memory, name: String, start: Int,
    ): Int {
        if (end == 0) return 0
        val read = Reader(bytes, end, file)
        val n = read.varint()
        val t = read.varint()
        val rest = end - read.at
        read.require(t in 1..n && n <= 256 * t && t <= rest && n <= 8L * rest)
        val k = 63 - java.lang.Long.numberOfLeadingZeros(256 * t / n) // at most 8
        val h = (256 * t - 1) shr k
        val tiles = memory.ints("observed: tiles", t.toInt())
        val tileCount = (landmarkCount + 255) / 256
        var tile = -1L
        for (r in 0 until t.toInt()) {
            tile += read.varint() + 1
            read.require(tile < tileCount)
            tiles[r] = tile.toInt()
        }
        val low = read.at
        val high = low + (n * k + 7) / 8
        read.require(high + (n + h + 7) / 8 == end.toLong())
        val out = memory.ints(name, Math.addExact(start, n.toInt()))
        val bits = n + h
        val first = high.toInt()
        val mask = (1 shl k) - 1
        var place = 0L
        var last = -1L
        var seen = -1 // tiles up to here have a landmark
        for (i in 0 until n.toInt()) {
            while (true) {
                read.require(place < bits)
                if (bit(bytes, first, place) == 1) break
                place++
            }
            val at = i.toLong() * k
            val from = low + (at shr 3).toInt()
            val after = if (from + 1 < end) bytes[from + 1].toInt() and 0xff else 0
            val two = (bytes[from].toInt() and 0xff) or (after shl 8)
            val local = ((place - i) shl k) or ((two shr (at and 7).toInt()) and mask).toLong()
            place++
            read.require(local > last && local < 256 * t)
            last = local
            val rank = (local shr 8).toInt()
            read.require(rank <= seen + 1) // no tile without a landmark
            seen = rank
            val landmark = 256L * tiles[rank] + (local and 255)
            read.require(landmark < landmarkCount)
            out[start + i] = landmark.toInt()
        }
        read.require(seen == t.toInt() - 1)
        for (j in place until 8 * (end - high)) read.require(bit(bytes, first, j) == 0)
        for (j in n * k until 8 * (high - low)) read.require(bit(bytes, low, j) == 0)
        return n.toInt()
    }

    private fun bit(bytes: ByteArray, start: Int, j: Long): Int =
        bytes[start + (j shr 3).toInt()].toInt() shr (j and 7).toInt() and 1

    private class Reader(private val bytes: ByteArray, private val end: Int, private val file: MapBytes) {
        var at = 0

        fun require(condition: Boolean) {
            if (!condition) throw file.fail("a list of observed landmarks is damaged")
        }

        fun varint(): Long {
            var value = 0L
            for (i in 0 until 5) {
                require(at < end)
                val byte = bytes[at++].toInt() and 0xff
                value = value or ((byte and 0x7f).toLong() shl 7 * i)
                if (byte < 0x80) {
                    require(i == 0 || byte != 0) // in as few bytes as possible
                    require(value <= 0xffffffffL)
                    return value
                }
            }
            throw file.fail("a list of observed landmarks is damaged")
        }
    }
}
