package dev.hfnet.edge.search

import dev.hfnet.edge.Memory
import dev.hfnet.edge.map.Columns
import dev.hfnet.edge.map.Described
import dev.hfnet.edge.map.LocalizationMap
import dev.hfnet.edge.map.dot
import java.util.concurrent.ForkJoinPool

/** Query keypoints, and the landmark that each shows, by row. */
public class Matches internal constructor(
    public val keypoints: IntArray,
    public val landmarks: IntArray,
    /** How many they are. */
    public val size: Int = keypoints.size,
) {
    /** A copy out of a memory, its arrays as long as they should be. */
    internal fun own(): Matches = Matches(keypoints.copyOf(size), landmarks.copyOf(size))
}

/** 2D-3D matching of query keypoints with the landmarks of one place, in whole numbers. */
public object Matching {
    private const val RATIO_PERCENT = 95L
    private const val FIRST = 512 // references that are compared in full, so that there are two of each query
    private const val BLOCK = 2048 // further ones at a time
    private val HEADS = intArrayOf(32, 64) // components by which most references are seen to be too far
    private const val MANY = 1L shl 22 // comparisons that are shared by two threads
    private val FEW = intArrayOf(64, 16) // one in so many may be left then, for a look at all components, one by one

    /**
     * Nearest landmarks of a place, with the paper's modified ratio test (HF-Net, section 5.2). Of several keypoints that
     * match one landmark the nearest stays, equals by lower number.
     *
     * @param descriptors of the query's keypoints, (N, D) int8 row by row.
     * @param landmarks of the place, rising.
     */
    @JvmStatic
    public fun match(map: LocalizationMap, descriptors: ByteArray, landmarks: IntArray): Matches =
        match(map, descriptors, descriptors.size / map.codec.queryDim, landmarks, landmarks.size, Memory()).own()

    /** As the other one, of the first [n] descriptors and [count] landmarks, in [memory]. */
    internal fun match(
        map: LocalizationMap, descriptors: ByteArray, n: Int, landmarks: IntArray, count: Int, memory: Memory,
    ): Matches {
        return matchCompared(map, map.codec.compared(descriptors, n, memory), n, landmarks, count, memory)
    }

    /** As [match], of what descriptors are [compared] as. */
    internal fun matchCompared(
        map: LocalizationMap, compared: ByteArray, n: Int, landmarks: IntArray, count: Int, memory: Memory,
    ): Matches {
        val described = map.descriptors(landmarks, count, memory)
        if (described.size < 2 || n == 0) return Matches(IntArray(0), IntArray(0))
        val nearest = nearestTwo(compared, n, described, memory)
        for (i in 0 until n) {
            nearest.first[i] = landmarks[described.owners[nearest.first[i]]]
            nearest.second[i] = landmarks[described.owners[nearest.second[i]]]
        }
        return distinct(nearest, map.landmarkCount, memory)
    }

    /** The ratio test, and one keypoint a landmark. [nearest]: landmarks in place of rows; -1: there is none. */
    internal fun distinct(nearest: Nearest, landmarkCount: Int, memory: Memory): Matches {
        val first = nearest.first
        val d1 = nearest.firstDistance
        val best = memory.ints("matches: best", landmarkCount) // of a landmark, its keypoint and 1; 0 again when done
        for (keypoint in 0 until nearest.size) {
            val passes = d1[keypoint] * 100L * 100L < nearest.secondDistance[keypoint] * RATIO_PERCENT * RATIO_PERCENT
            val second = nearest.second[keypoint]
            if (second < 0 || !(first[keypoint] == second || passes)) continue
            val other = best[first[keypoint]] - 1
            if (other < 0 || d1[keypoint] < d1[other]) best[first[keypoint]] = keypoint + 1
        }
        val keypoints = memory.ints("matches: keypoints", nearest.size)
        val landmarks = memory.ints("matches: landmarks", nearest.size)
        var n = 0
        for (keypoint in 0 until nearest.size) {
            val landmark = first[keypoint]
            if (landmark < 0 || best[landmark] != keypoint + 1) continue
            keypoints[n] = keypoint
            landmarks[n++] = landmark
        }
        for (i in 0 until n) best[landmarks[i]] = 0
        return Matches(keypoints, landmarks, n)
    }

    /** The two nearest of (R, K) [references] to each query (N, K), by squared distance, equals by lower number. */
    internal fun nearestTwo(queries: ByteArray, references: Described): Nearest {
        val n = queries.size / references.dim
        return nearestTwo(queries, n, references, Memory()).own()
    }

    /**
     * As the other one, of the first [n] queries, in [memory].
     *
     * The nearest is that of the largest `2 q c - c c`, its score. Of most references the first components say that they
     * are none of the two nearest: by Cauchy and Schwarz, what the others add to q c is the product of their lengths at
     * most. Half of a score fits into 16 bits for vectors of about unit length times 127.
     */
    internal fun nearestTwo(queries: ByteArray, n: Int, references: Described, memory: Memory): Nearest {
        val best = Nearest(
            memory.ints("nearest: first", n), memory.ints("nearest: second", n), memory.ints("nearest: score", n),
            memory.ints("nearest: next score", n), n,
        )
        best.first.fill(-1, 0, n)
        best.second.fill(-1, 0, n)
        best.firstDistance.fill(Int.MIN_VALUE, 0, n)
        best.secondDistance.fill(Int.MIN_VALUE, 0, n)
        val dim = references.dim
        val of = Lengths(queries, n, dim, memory, "queries")
        val to = Lengths(references.vectors, references.size, dim, memory, "references")
        if ((Math.sqrt(of.most.toDouble()) + 2) * (Math.sqrt(to.most.toDouble()) + 2) + to.most / 2 < Short.MAX_VALUE) {
            if (n.toLong() * references.size < MANY) {
                search(queries, references, of, to, 0, n, best, memory)
            } else { // the same for each query, whoever looks for it
                val part = memory.part("nearest: the second thread")
                val half = ForkJoinPool.commonPool().submit {
                    search(queries, references, of, to, 0, n / 2, best, part)
                }
                search(queries, references, of, to, n / 2, n, best, memory)
                half.join()
            }
        } else {
            for (i in 0 until n) {
                for (row in 0 until references.size) {
                    best.enter(i, row, 2 * dot(queries, i * dim, references.vectors, row * dim, dim) - to.squares[row])
                }
            }
        }
        for (i in 0 until n) {
            val square = of.squares[i]
            best.firstDistance[i] = if (best.first[i] < 0) Int.MAX_VALUE else square - best.firstDistance[i]
            best.secondDistance[i] = if (best.second[i] < 0) Int.MAX_VALUE else square - best.secondDistance[i]
        }
        return best
    }

    private fun search(
        queries: ByteArray, references: Described, of: Lengths, to: Lengths, begin: Int, end: Int, best: Nearest,
        memory: Memory,
    ) {
        val dim = references.dim
        val columns = Columns(memory, dim)
        val start = memory.shorts("nearest: start", BLOCK)
        val rests = Array(to.rests.size) { memory.shorts(RESTS[it], BLOCK) }
        val halves = memory.shorts("nearest: halves", BLOCK) // of scores, rounded up
        val left = memory.ints("nearest: left", BLOCK)
        var first = 0
        while (first < references.size) {
            val count = minOf(if (first == 0) FIRST else BLOCK, references.size - first)
            columns.take(references.vectors, dim, first, count)
            for (i in 0 until count) start[i] = (-(to.squares[first + i] shr 1)).toShort()
            for (k in rests.indices) for (i in 0 until count) rests[k][i] = to.rests[k][first + i].toShort()
            for (i in begin until end) {
                System.arraycopy(start, 0, halves, 0, count)
                var from = 0
                if (first > 0) {
                    for (k in rests.indices) {
                        Columns.one(halves, rests[k], count, of.rests[k][i])
                        columns.add(queries, i * dim, from, HEADS[k], halves)
                        val n = more(halves, count, best.secondDistance[i] shr 1, left)
                        if (n <= count / FEW[k]) {
                            look(i, queries, references, to.squares, first, left, n, best)
                            from = dim
                            break
                        }
                        Columns.one(halves, rests[k], count, -of.rests[k][i])
                        from = HEADS[k]
                    }
                }
                if (from == dim) continue
                columns.add(queries, i * dim, from, dim, halves)
                enter(i, halves, to.squares, first, count, best)
            }
            first += count
        }
    }

    /** Compares a query with the [n] references that are [left] of a block. */
    private fun look(
        query: Int, queries: ByteArray, references: Described, squares: IntArray, first: Int, left: IntArray, n: Int,
        best: Nearest,
    ) {
        val dim = references.dim
        for (k in 0 until n) {
            val row = first + left[k]
            best.enter(query, row, 2 * dot(queries, query * dim, references.vectors, row * dim, dim) - squares[row])
        }
    }

    private fun enter(query: Int, halves: ShortArray, squares: IntArray, first: Int, count: Int, best: Nearest) {
        var least = best.secondDistance[query] shr 1 // whose half is no more has no higher score
        for (i in 0 until count) {
            if (halves[i] <= least) continue
            best.enter(query, first + i, 2 * halves[i] - (squares[first + i] and 1))
            least = best.secondDistance[query] shr 1
        }
    }

    /** Which of the first [count] numbers are more than [least]: how many, and where. Without a branch to mispredict. */
    private fun more(numbers: ShortArray, count: Int, least: Int, where: IntArray): Int {
        var n = 0
        for (i in 0 until count) {
            where[n] = i
            n += (least - numbers[i]) ushr 31
        }
        return n
    }

    /** Squared lengths of vectors, and lengths without the first components, as many as `HEADS` says, rounded up. */
    private class Lengths(vectors: ByteArray, n: Int, dim: Int, memory: Memory, name: String) {
        val squares = memory.ints("nearest: squares of $name", n)
        val rests = Array(HEADS.count { 3 * it <= 2 * dim }) { memory.ints("nearest: rests $it of $name", n) }

        /** The largest square. */
        var most = 0

        init {
            for (i in 0 until n) {
                val at = i * dim
                var end = dim
                var square = 0
                for (k in rests.indices.reversed()) {
                    square += dot(vectors, at + HEADS[k], vectors, at + HEADS[k], end - HEADS[k])
                    rests[k][i] = Math.ceil(Math.sqrt(square.toDouble())).toInt()
                    end = HEADS[k]
                }
                squares[i] = square + dot(vectors, at, vectors, at, end)
                most = maxOf(most, squares[i])
            }
        }
    }

    private val RESTS = Array(HEADS.size) { "nearest: rests $it" }
}

/** Rows of the two nearest of each query, and their squared distances; while they are sought, their scores. */
internal class Nearest(
    val first: IntArray,
    val second: IntArray,
    val firstDistance: IntArray,
    val secondDistance: IntArray,
    val size: Int = first.size,
) {
    /** A row after all others that entered: equals stay behind. */
    fun enter(query: Int, row: Int, score: Int) {
        if (score > firstDistance[query]) {
            second[query] = first[query]
            secondDistance[query] = firstDistance[query]
            first[query] = row
            firstDistance[query] = score
        } else if (score > secondDistance[query]) {
            second[query] = row
            secondDistance[query] = score
        }
    }

    fun own(): Nearest = Nearest(
        first.copyOf(size), second.copyOf(size), firstDistance.copyOf(size), secondDistance.copyOf(size),
    )
}
