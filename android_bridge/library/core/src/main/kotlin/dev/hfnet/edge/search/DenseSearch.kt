package dev.hfnet.edge.search

import dev.hfnet.edge.Memory
import dev.hfnet.edge.image.Keypoints
import dev.hfnet.edge.image.Output
import dev.hfnet.edge.map.Columns
import dev.hfnet.edge.map.dot

/** Rows of the landmarks that were found, rising, and where: x and y one after the other, pixels of the network's input. */
public class Found internal constructor(public val rows: IntArray, public val xy: DoubleArray)

/** Exhaustive search: where in a query each landmark looks like its hypercolumn (Germain et al., section 4). */
public object DenseSearch {
    private const val ALIKE_PERCENT = 80
    private const val FEW = 0.006
    private const val MOST = 1000

    /** Hypercolumns of the cells that the photo touches, (h, w, C) of unit length times 127. */
    @JvmStatic
    public fun cells(hypercolumns: Output, validHeight: Int, validWidth: Int): ByteArray {
        val h = (validHeight + Keypoints.CELL - 1) / Keypoints.CELL
        val w = (validWidth + Keypoints.CELL - 1) / Keypoints.CELL
        val c = hypercolumns.channels
        val vectors = FloatArray(h * w * c) { at ->
            val cell = at / c
            hypercolumns[(cell / w * hypercolumns.width + cell % w) * c + at % c]
        }
        return Keypoints.quantize(vectors, c)
    }

    /** Finds [landmarks] (L, K) among [cells] (h, w, K); see `search` of the Python runtime's dense_search. */
    @JvmStatic
    public fun search(cells: ByteArray, h: Int, w: Int, landmarks: ByteArray): Found {
        val n = h * w
        val k = cells.size / n
        val allowed = 1 + (FEW * h * w).toInt()
        val similar = IntArray(n)
        val kept = ArrayList<One>()
        val columns = Columns(Memory(), k)
        columns.take(cells, k, 0, n)
        val short = Columns.fits(cells, n, landmarks, landmarks.size / k, k)
        for (row in 0 until landmarks.size / k) {
            var best = 0
            if (short) {
                columns.products(landmarks, row * k, similar)
            } else {
                for (cell in 0 until n) similar[cell] = dot(cells, cell * k, landmarks, row * k, k)
            }
            for (cell in 0 until n) if (similar[cell] > similar[best]) best = cell
            val top = similar[best]
            if (top <= 0) continue
            val least = top.toLong() * ALIKE_PERCENT / 100
            var alike = 0
            for (cell in 0 until n) if (similar[cell] > least) alike++
            if (alike > allowed) continue
            val own = dot(landmarks, row * k, landmarks, row * k, k).toDouble()
            val other = dot(cells, best * k, cells, best * k, k).toDouble()
            val cosine = top.toDouble() * top.toDouble() / (own * other)
            val x = best % w
            val y = best / w
            val dx = if (x in 1 until w - 1) aside(similar[best - 1], top, similar[best + 1]) else 0.0
            val dy = if (y in 1 until h - 1) aside(similar[best - w], top, similar[best + w]) else 0.0
            kept.add(One(row, best, cosine, (x + 0.5 + dx) * Keypoints.CELL, (y + 0.5 + dy) * Keypoints.CELL))
        }
        val first = kept.sortedWith(compareBy({ it.cell }, { -it.cosine }, { it.row })).distinctBy { it.cell }
        val most = first.sortedWith(compareBy({ -it.cosine }, { it.row })).take(MOST).sortedBy { it.row }
        return Found(
            IntArray(most.size) { most[it].row },
            DoubleArray(2 * most.size) { if (it % 2 == 0) most[it / 2].x else most[it / 2].y },
        )
    }

    private fun aside(before: Int, here: Int, after: Int): Double {
        val bend = 2.0 * here - before - after
        return if (bend > 0) (after.toDouble() - before) / (2 * bend) else 0.0
    }

    private class One(val row: Int, val cell: Int, val cosine: Double, val x: Double, val y: Double)
}
