package dev.hfnet.edge.search

import dev.hfnet.edge.Memory
import dev.hfnet.edge.map.LocalizationMap

/**
 * Parallel search (Zhang et al., section 3.2): a keypoint's candidates are the landmarks in its own prior leaves and those
 * that the prior frames observe.
 */
public object ParallelSearch {
    private const val SEEN = "parallel: seen"

    /** The landmarks that some reference images observe, rising. */
    @JvmStatic
    public fun seenBy(map: LocalizationMap, frames: IntArray): IntArray {
        val memory = Memory()
        val count = Seen(map, frames, 0, frames.size, memory).union(SEEN) { true }
        return memory.ints(SEEN, count).copyOf(count)
    }

    /**
     * Matches each keypoint among its candidates.
     *
     * @param descriptors of the keypoints, (N, D) int8. @param shared candidates of every keypoint, rising.
     * @param own further candidates of each keypoint, rising; empty: none have any.
     */
    @JvmStatic
    public fun search(map: LocalizationMap, descriptors: ByteArray, shared: IntArray, own: List<IntArray>): Matches {
        val queries = map.codec.compared(descriptors)
        val dim = map.codec.dim
        val n = queries.size / dim
        val first = IntArray(n) { -1 }
        val second = IntArray(n) { -1 }
        val d1 = IntArray(n) { Int.MAX_VALUE }
        val d2 = IntArray(n) { Int.MAX_VALUE }
        val ofAll = map.descriptors(shared)
        for (i in 0 until n) {
            val query = queries.copyOfRange(i * dim, (i + 1) * dim)
            val further = own.getOrNull(i)?.filter { java.util.Arrays.binarySearch(shared, it) < 0 }?.toIntArray() ?: IntArray(0)
            for ((landmarks, described) in listOf(shared to ofAll, further to map.descriptors(further))) {
                for (row in described.owners.indices) {
                    val distance = squared(query, described.vectors, row * dim, dim)
                    val landmark = landmarks[described.owners[row]]
                    if (before(distance, landmark, d1[i], first[i])) {
                        d2[i] = d1[i]
                        second[i] = first[i]
                        d1[i] = distance
                        first[i] = landmark
                    } else if (before(distance, landmark, d2[i], second[i])) {
                        d2[i] = distance
                        second[i] = landmark
                    }
                }
            }
        }
        return Matching.distinct(Nearest(first, second, d1, d2), map.landmarkCount, Memory()).own()
    }

    /** Whether a descriptor comes before another: nearer, or as near and of a lower landmark. */
    private fun before(distance: Int, landmark: Int, than: Int, other: Int): Boolean =
        other < 0 || distance < than || (distance == than && landmark < other)

    private fun squared(query: ByteArray, vectors: ByteArray, at: Int, dim: Int): Int {
        var sum = 0
        for (j in 0 until dim) {
            val apart = query[j] - vectors[at + j]
            sum += apart * apart
        }
        return sum
    }
}
