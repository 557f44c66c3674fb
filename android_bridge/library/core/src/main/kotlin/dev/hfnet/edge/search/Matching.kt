package dev.hfnet.edge.search

import dev.hfnet.edge.map.Described
import dev.hfnet.edge.map.LocalizationMap
import dev.hfnet.edge.map.dot

/** Query keypoints, and the landmark that each shows, by row. */
public class Matches internal constructor(public val keypoints: IntArray, public val landmarks: IntArray)

/** 2D-3D matching of query keypoints with the landmarks of one place, in whole numbers. */
public object Matching {
    private const val RATIO_PERCENT = 95L

    /**
     * Nearest landmarks of a place, with the paper's modified ratio test (HF-Net, section 5.2). Of several keypoints that
     * match one landmark the nearest stays, equals by lower number.
     *
     * @param descriptors of the query's keypoints, (N, D) int8 row by row.
     * @param landmarks of the place, rising.
     */
    @JvmStatic
    public fun match(map: LocalizationMap, descriptors: ByteArray, landmarks: IntArray): Matches {
        val described = map.descriptors(landmarks)
        if (described.owners.size < 2 || descriptors.isEmpty()) return Matches(IntArray(0), IntArray(0))
        val nearest = nearestTwo(map.codec.compared(descriptors), described)
        val first = IntArray(nearest.first.size) { landmarks[described.owners[nearest.first[it]]] }
        val second = IntArray(nearest.second.size) { landmarks[described.owners[nearest.second[it]]] }
        return distinct(first, second, nearest.firstDistance, nearest.secondDistance)
    }

    internal fun distinct(first: IntArray, second: IntArray, d1: IntArray, d2: IntArray): Matches {
        val best = HashMap<Int, Int>() // of a landmark, its keypoint
        for (keypoint in first.indices) {
            val passes = d1[keypoint] * 100L * 100L < d2[keypoint] * RATIO_PERCENT * RATIO_PERCENT
            if (second[keypoint] < 0 || !(first[keypoint] == second[keypoint] || passes)) continue
            val other = best[first[keypoint]]
            if (other == null || d1[keypoint] < d1[other]) best[first[keypoint]] = keypoint
        }
        val keypoints = best.values.sorted().toIntArray()
        return Matches(keypoints, IntArray(keypoints.size) { first[keypoints[it]] })
    }

    /** The two nearest of (R, K) [references] to each query (N, K), by squared distance, equals by lower number. */
    internal fun nearestTwo(queries: ByteArray, references: Described): Nearest {
        val dim = references.dim
        val count = references.owners.size
        val own = IntArray(count) { dot(references.vectors, it * dim, references.vectors, it * dim, dim) }
        val n = queries.size / dim
        val found = Nearest(IntArray(n), IntArray(n), IntArray(n), IntArray(n))
        for (i in 0 until n) {
            val square = dot(queries, i * dim, queries, i * dim, dim)
            var d1 = Int.MAX_VALUE
            var d2 = Int.MAX_VALUE
            var first = -1
            var second = -1
            for (row in 0 until count) {
                val d = square + own[row] - 2 * dot(queries, i * dim, references.vectors, row * dim, dim)
                if (d < d1) {
                    d2 = d1
                    second = first
                    d1 = d
                    first = row
                } else if (d < d2) {
                    d2 = d
                    second = row
                }
            }
            found.first[i] = first
            found.second[i] = second
            found.firstDistance[i] = d1
            found.secondDistance[i] = d2
        }
        return found
    }
}

/** Rows of the two nearest of each query, and their squared distances. */
internal class Nearest(
    val first: IntArray,
    val second: IntArray,
    val firstDistance: IntArray,
    val secondDistance: IntArray,
)
