package dev.hfnet.edge.search

import dev.hfnet.edge.Memory
import dev.hfnet.edge.map.LocalizationMap

/** What reference images [from] until [to] of some observe, one list after the other. */
internal class Seen(private val map: LocalizationMap, images: IntArray, from: Int, to: Int, private val memory: Memory) {
    /** Where the list of each image begins in [landmarks], and where the last one ends. */
    val start = IntArray(to - from + 1)
    val landmarks: IntArray

    init {
        for (i in 0 until to - from) {
            start[i + 1] = start[i] + map.observed(images[from + i], memory, LISTS, start[i])
        }
        landmarks = memory.ints(LISTS, start[to - from])
    }

    /** The landmarks of some lists, rising, each once: how many; they are in the array of this [name] in the memory. */
    inline fun union(name: String, takes: (Int) -> Boolean): Int {
        val bits = bits()
        for (list in 0 until start.size - 1) {
            if (takes(list)) for (i in start[list] until start[list + 1]) mark(bits, landmarks[i])
        }
        return marked(bits, name)
    }

    fun bits(): LongArray = memory.longs("seen: bits", (map.landmarkCount + 63) / 64) // all 0 when done

    fun mark(bits: LongArray, landmark: Int) {
        bits[landmark shr 6] = bits[landmark shr 6] or (1L shl landmark)
    }

    fun marked(bits: LongArray, name: String): Int {
        var count = 0
        for (word in 0 until (map.landmarkCount + 63) / 64) count += java.lang.Long.bitCount(bits[word])
        val out = memory.ints(name, count)
        var n = 0
        for (word in 0 until (map.landmarkCount + 63) / 64) {
            var left = bits[word]
            bits[word] = 0
            while (left != 0L) {
                out[n++] = 64 * word + java.lang.Long.numberOfTrailingZeros(left)
                left = left and (left - 1)
            }
        }
        return count
    }

    private companion object {
        const val LISTS = "seen: lists"
    }
}
