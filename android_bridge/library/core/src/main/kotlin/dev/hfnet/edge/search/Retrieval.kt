package dev.hfnet.edge.search

import dev.hfnet.edge.map.LocalizationMap
import dev.hfnet.edge.map.dot

/** Prior retrieval: the reference images that look most like the query (HF-Net, section 3). */
public object Retrieval {
    /**
     * The [count] reference images whose descriptors have the largest product with the query's, equals by lower number.
     *
     * @param descriptor the query's global descriptor, as the network gives it, int8.
     */
    @JvmStatic
    public fun priorFrames(map: LocalizationMap, descriptor: ByteArray, count: Int): IntArray =
        retrieve(map.globalCompared(descriptor), map.globalDescriptors, count)

    internal fun retrieve(query: ByteArray, references: ByteArray, count: Int): IntArray {
        val similar = similarities(query, references)
        val order = similar.indices.sortedWith(compareBy({ -similar[it] }, { it }))
        return order.take(count).toIntArray()
    }

    internal fun similarities(query: ByteArray, references: ByteArray): IntArray =
        IntArray(references.size / query.size) { dot(references, it * query.size, query, 0, query.size) }
}
