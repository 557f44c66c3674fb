package dev.hfnet.edge.map

import java.nio.ByteBuffer

/** Lists of observed landmarks, Elias-Fano codes (SPEC, section 7). */
internal object ObservationList {
    /** Landmarks, rising. Throws [dev.hfnet.edge.MapFormatException]: another list than a writer may write. */
    fun decode(bytes: ByteBuffer, landmarkCount: Long, file: MapBytes): IntArray {
        val end = bytes.limit()
        if (end == 0) return IntArray(0)
        val tileCount = (landmarkCount + 255) / 256
        var at = 0

        fun require(condition: Boolean) {
            if (!condition) throw file.fail("a list of observed landmarks is damaged")
        }

        fun varint(): Long {
            var value = 0L
            for (i in 0 until 5) {
                require(at < end)
                val byte = bytes.get(at++).toInt() and 0xff
                value = value or ((byte and 0x7f).toLong() shl 7 * i)
                if (byte < 0x80) {
                    require(i == 0 || byte != 0) // in as few bytes as possible
                    require(value <= 0xffffffffL)
                    return value
                }
            }
            throw file.fail("a list of observed landmarks is damaged")
        }

        val n = varint()
        val t = varint()
        require(t in 1..n && n <= 256 * t && t <= end - at && n <= 8L * (end - at))
        val k = 63 - java.lang.Long.numberOfLeadingZeros(256 * t / n)
        val h = (256 * t - 1) shr k
        val tiles = IntArray(t.toInt())
        var tile = -1L
        for (r in tiles.indices) {
            tile += varint() + 1
            require(tile < tileCount)
            tiles[r] = tile.toInt()
        }
        val low = at
        val high = low + (n * k + 7) / 8
        require(high + (n + h + 7) / 8 == end.toLong())
        val bits = n + h

        fun bit(start: Long, j: Long): Int = bytes.get((start + (j shr 3)).toInt()).toInt() shr (j and 7).toInt() and 1

        val out = IntArray(n.toInt())
        val seen = BooleanArray(tiles.size)
        var place = 0L
        var last = -1L
        for (i in out.indices) {
            while (true) {
                require(place < bits)
                if (bit(high, place) == 1) break
                place++
            }
            var rest = 0L
            for (j in 0 until k) rest = rest or (bit(low.toLong(), i.toLong() * k + j).toLong() shl j)
            val local = ((place - i) shl k) or rest
            place++
            require(local > last && local < 256 * t)
            last = local
            val rank = (local shr 8).toInt()
            seen[rank] = true
            val landmark = 256L * tiles[rank] + (local and 255)
            require(landmark < landmarkCount)
            out[i] = landmark.toInt()
        }
        for (j in place until 8 * (end - high)) require(bit(high, j) == 0)
        for (j in n * k until 8 * (high - low)) require(bit(low.toLong(), j) == 0)
        require(seen.all { it }) // no tile without a landmark
        return out
    }
}
