package dev.hfnet.edge.search

import dev.hfnet.edge.Memory
import dev.hfnet.edge.map.LocalizationMap
import dev.hfnet.edge.map.dot

/** Prior retrieval: the reference images that look most like the query (HF-Net, section 3). */
public object Retrieval {
    /**
     * The [count] reference images whose descriptors have the largest product with the query's, equals by lower number.
     *
     * @param descriptor the query's global descriptor, as the network gives it, int8. @param among whether each of the
     *   reference images may be retrieved; null: all.
     */
    @JvmStatic
    @JvmOverloads
    public fun priorFrames(
        map: LocalizationMap, descriptor: ByteArray, count: Int, among: BooleanArray? = null,
    ): IntArray = priorFrames(map, descriptor, count, among, Memory())

    /** How much the most similar reference image looks like a query: the product of their descriptors; 0 without any. */
    internal fun likeness(map: LocalizationMap, descriptor: ByteArray): Int {
        val similar = similarities(map.globalCompared(descriptor), map.globalDescriptors)
        return maxOf(0, similar.maxOrNull() ?: 0)
    }

    /** As the other one, with work in [memory]; what is returned is the caller's. */
    internal fun priorFrames(
        map: LocalizationMap, descriptor: ByteArray, count: Int, among: BooleanArray?, memory: Memory,
    ): IntArray {
        val asked = if (among == null) count else map.imageCount
        val ranked = retrieve(map.globalCompared(descriptor), map.globalDescriptors, asked, memory)
        return if (among == null) ranked else ranked.filter { among[it] }.take(count).toIntArray()
    }

    internal fun retrieve(query: ByteArray, references: ByteArray, count: Int, memory: Memory = Memory()): IntArray {
        val n = references.size / query.size
        val keys = memory.longs("retrieval: keys", n) // order by falling similarity, then number
        for (i in 0 until n) {
            keys[i] = (-dot(references, i * query.size, query, 0, query.size).toLong() shl 32) + i
        }
        java.util.Arrays.sort(keys, 0, n)
        return IntArray(minOf(count, n)) { keys[it].toInt() }
    }

    internal fun similarities(query: ByteArray, references: ByteArray): IntArray =
        IntArray(references.size / query.size) { dot(references, it * query.size, query, 0, query.size) }
}
