package dev.hfnet.edge.trust

import dev.hfnet.edge.Camera
import dev.hfnet.edge.Features
import dev.hfnet.edge.Match2D3D
import dev.hfnet.edge.Memory
import dev.hfnet.edge.Pose
import dev.hfnet.edge.map.Columns
import dev.hfnet.edge.map.LocalizationMap
import dev.hfnet.edge.map.dot
import dev.hfnet.edge.pose.LinearAlgebra
import dev.hfnet.edge.pose.RefinedPose
import dev.hfnet.edge.pose.Refinement
import dev.hfnet.edge.pose.Support
import dev.hfnet.edge.pose.distance
import dev.hfnet.edge.pose.spread
import dev.hfnet.edge.rows
import java.util.Arrays
import kotlin.math.sqrt

/** Other poses that explain a query as well as the one that was found: of a repeated structure, or the flip of a flat one. */
internal object Rivals {
    const val FEW = 16
    private const val SAMPLE = 96
    private const val ALTERNATIVES = 4
    private const val ALIKE_PERCENT = 150f
    private const val APART = 4
    private const val FIRM = 0.3
    private const val BLOCK = 2048 // landmarks at a time

    /** What a sample of the inliers also looks like, elsewhere, in [memory]; none where that is nothing much. */
    fun alternatives(
        map: LocalizationMap, query: Features, one: Match2D3D, refined: RefinedPose, camera: Camera, maxError: Double,
        landmarks: Landmarks, memory: Memory = Memory(),
    ): Match2D3D {
        val inlierCount = refined.inlierCount
        if (inlierCount < FEW || landmarks.size == 0) return Match2D3D.NONE
        val inliers = memory.ints("rivals: inliers", inlierCount)
        refined.inliers.rows(refined.size, inliers)
        val sample = memory.ints("rivals: sample", SAMPLE) // rows of one
        var size = 0
        var before = -1
        for (k in 0 until SAMPLE) {
            val at = spread(inlierCount - 1, SAMPLE, k)
            if (at != before) sample[size++] = inliers[at]
            before = at
        }
        val compared = query.compared(map.codec)
        val falls = Support.projected(refined.pose, landmarks.positions, landmarks.size, camera, memory)
        val likest = Likest(one, sample, size, compared, query.size, landmarks, memory)
        likest.search(falls, (APART * maxError) * (APART * maxError))
        val xy = memory.doubles("rivals: xy", 2 * size * ALTERNATIVES)
        val xyz = memory.doubles("rivals: xyz", 3 * size * ALTERNATIVES)
        val keypoints = memory.ints("rivals: keypoints", size * ALTERNATIVES)
        val ids = memory.ints("rivals: landmarks", size * ALTERNATIVES)
        var found = 0
        var different = 0
        for (k in 0 until size) {
            val bound = likest.own(k).toFloat() * ALIKE_PERCENT
            if (likest.squared[ALTERNATIVES * k].toFloat() * 100f < bound) different++
            for (at in ALTERNATIVES * k until ALTERNATIVES * (k + 1)) {
                if (!(likest.squared[at].toFloat() * 100f < bound)) break
                System.arraycopy(one.xy, 2 * sample[k], xy, 2 * found, 2)
                System.arraycopy(landmarks.positions, 3 * likest.landmark[at], xyz, 3 * found, 3)
                keypoints[found] = one.keypoints!![sample[k]]
                ids[found++] = landmarks.ids[likest.landmark[at]]
            }
        }
        return if (different < FEW) Match2D3D.NONE else Match2D3D(xy, xyz, keypoints, ids, "", found)
    }

    /** Of some matches, [count] rows of them in [sample], the landmarks whose first descriptor is most like their keypoint. */
    private class Likest(
        private val one: Match2D3D, private val sample: IntArray, private val count: Int, private val compared: ByteArray,
        private val keypointCount: Int, private val landmarks: Landmarks, private val memory: Memory,
    ) {
        private val dim = landmarks.described.dim
        private val vectors = memory.bytes("rivals: vectors", landmarks.size * dim)
        private val lengths = memory.ints("rivals: lengths", landmarks.size)
        private val least = memory.ints("rivals: least", count)

        /** (N, ALTERNATIVES), squared distances of those elsewhere, the least first, and their landmarks. */
        val squared = memory.ints("rivals: squared", count * ALTERNATIVES)
        val landmark = memory.ints("rivals: landmark", count * ALTERNATIVES)

        init {
            val described = landmarks.described
            for (row in described.size - 1 downTo 0) {
                System.arraycopy(described.vectors, row * dim, vectors, described.owners[row] * dim, dim)
            }
            for (j in 0 until landmarks.size) lengths[j] = dot(vectors, j * dim, vectors, j * dim, dim)
        }

        /** [falls]: pixels of landmarks; what is nearer to a keypoint than the root of [away] is where it should be. */
        fun search(falls: DoubleArray, away: Double) {
            squared.fill(Int.MAX_VALUE, 0, count * ALTERNATIVES)
            least.fill(Int.MAX_VALUE, 0, count)
            val fits = Columns.fits(compared, keypointCount, vectors, landmarks.size, dim)
            val columns = Columns(memory, dim)
            val products = memory.ints("rivals: products", BLOCK)
            for (first in 0 until landmarks.size step BLOCK) {
                val n = minOf(BLOCK, landmarks.size - first)
                if (fits) columns.take(vectors, dim, first, n)
                for (k in 0 until count) {
                    val at = one.keypoints!![sample[k]] * dim
                    if (fits) columns.products(compared, at, products)
                    else for (j in 0 until n) products[j] = dot(compared, at, vectors, (first + j) * dim, dim)
                    enter(k, products, first, n, falls, away)
                }
            }
        }

        /** Squared distance of a match's own landmark; where that is not among these, of the one most like it. */
        fun own(k: Int): Int {
            val there = Arrays.binarySearch(landmarks.ids, 0, landmarks.size, one.landmarks!![sample[k]])
            if (there < 0) return least[k]
            val at = one.keypoints!![sample[k]] * dim
            return lengths[there] - 2 * dot(compared, at, vectors, there * dim, dim) + dot(compared, at, compared, at, dim)
        }

        private fun enter(k: Int, products: IntArray, first: Int, n: Int, falls: DoubleArray, away: Double) {
            val at = one.keypoints!![sample[k]] * dim
            val square = dot(compared, at, compared, at, dim)
            val last = ALTERNATIVES * (k + 1) - 1
            for (j in 0 until n) {
                val apart = lengths[first + j] - 2 * products[j] + square
                if (apart < least[k]) least[k] = apart
                if (apart >= squared[last]) continue
                val dx = falls[2 * (first + j)] - one.xy[2 * sample[k]]
                val dy = falls[2 * (first + j) + 1] - one.xy[2 * sample[k] + 1]
                if (dx * dx + dy * dy < away) continue // of NaN, behind the camera, it is not
                var to = last
                while (to > ALTERNATIVES * k && squared[to - 1] > apart) {
                    squared[to] = squared[to - 1]
                    landmark[to] = landmark[to - 1]
                    to--
                }
                squared[to] = apart
                landmark[to] = first + j
            }
        }
    }

    /** The other pose of a flat support: its plane seen from the other side of the line of sight; null: there is none. */
    fun flip(
        refined: RefinedPose, matches: Match2D3D, camera: Camera, maxError: Double, memory: Memory = Memory(),
    ): RefinedPose? {
        if (refined.inlierCount < 4 || refined.rotationStd < FIRM) return null
        val own = matches.take(refined.inliers, memory.part("flip: inliers"))
        val seen = memory.doubles("flip: seen", 3 * own.size)
        refined.pose.transform(own.xyz, own.size, seen)
        val middle = DoubleArray(3)
        for (i in 0 until 3 * own.size) middle[i % 3] += seen[i] / own.size
        val moments = DoubleArray(9)
        for (n in 0 until own.size) {
            for (i in 0 until 3) {
                for (k in 0 until 3) moments[3 * i + k] += (seen[3 * n + i] - middle[i]) * (seen[3 * n + k] - middle[k])
            }
        }
        val (squares, axes) = LinearAlgebra.eigen(moments, 3)
        if (!(sqrt(maxOf(0.0, squares[2])) < 0.2 * sqrt(maxOf(0.0, squares[1])))) return null
        val length = distance(middle, DoubleArray(3))
        val first = axes.copyOfRange(0, 3)
        val second = axes.copyOfRange(3, 6)
        val a = mirrored(first, middle, length)
        val b = mirrored(second, middle, length)
        val to = arrayOf(a, b, cross(a, b))
        val from = arrayOf(first, second, cross(first, second))
        val turned = DoubleArray(9) { at -> (0 until 3).sumOf { to[it][at / 3] * from[it][at % 3] } }
        val r = refined.pose.r
        val rotation = DoubleArray(9) { at -> (0 until 3).sumOf { turned[at / 3 * 3 + it] * r[3 * it + at % 3] } }
        val t = refined.pose.translation
        val translation = DoubleArray(3) { i ->
            middle[i] - (0 until 3).sumOf { turned[3 * i + it] * (middle[it] - t[it]) }
        }
        val other = Refinement.refine(Pose.fromMatrix(rotation, translation), own, camera, maxError, false, memory)
        return other.takeIf { distance(it.pose.r, r) > 0.05 }
    }

    /** A direction on the other side of the line of sight to [middle]. */
    private fun mirrored(axis: DoubleArray, middle: DoubleArray, length: Double): DoubleArray {
        var along = 0.0
        for (i in 0 until 3) along += middle[i] / length * axis[i]
        return DoubleArray(3) { axis[it] - 2 * along * (middle[it] / length) }
    }

    private fun cross(a: DoubleArray, b: DoubleArray) = doubleArrayOf(
        a[1] * b[2] - a[2] * b[1], a[2] * b[0] - a[0] * b[2], a[0] * b[1] - a[1] * b[0],
    )
}
