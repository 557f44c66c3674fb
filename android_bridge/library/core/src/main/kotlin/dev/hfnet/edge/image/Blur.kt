package dev.hfnet.edge.image

import dev.hfnet.edge.Memory

/**
 * A symmetric kernel of whole numbers whose sum is a power of two, along rows and columns: the weights of the middle and
 * of what is [step], twice and three times that away on both sides. Edges are mirrored without themselves.
 *
 * Rows that are added up are copied to arrays of their own first: virtual machines see then that they may take many
 * pixels at once, which takes less time than the copies do. Longer sums in one loop are not seen by all of them.
 */
internal class Blur(
    private val step: Int,
    private val w0: Int,
    private val w1: Int,
    private val w2: Int,
    private val w3: Int,
) {
    private val reach = step * (if (w3 != 0) 3 else if (w2 != 0) 2 else 1)
    private val shift = 2 * (31 - Integer.numberOfLeadingZeros(w0 + 2 * (w1 + w2 + w3)))

    /** Blurs (h, w) from one array into another, rounded to the nearest integer, a half to the even one. */
    fun apply(from: IntArray, h: Int, w: Int, to: IntArray, memory: Memory) {
        val ring = Array(2 * reach + 1) { memory.ints(RING[it], w) } // row y is in place (y + reach) % ring.size
        for (y in -reach until reach) System.arraycopy(from, Photo.mirrored(y, h) * w, ring[y + reach], 0, w)
        val line = memory.ints("blur: line", w + 2 * reach)
        val down = memory.ints("blur: down", w)
        val taps = Array(7) { memory.ints(TAPS[it], w) }
        for (y in 0 until h) {
            val next = (y + 2 * reach) % ring.size
            System.arraycopy(from, Photo.mirrored(y + reach, h) * w, ring[next], 0, w)
            add(
                tap(ring, y, 0), tap(ring, y, -1), tap(ring, y, 1), tap(ring, y, -2), tap(ring, y, 2), tap(ring, y, -3),
                tap(ring, y, 3), down, w,
            )
            System.arraycopy(down, 0, line, reach, w)
            for (x in 1..reach) {
                line[reach - x] = down[Photo.mirrored(-x, w)]
                line[reach + w - 1 + x] = down[Photo.mirrored(w - 1 + x, w)]
            }
            for (k in -3..3) {
                if (Math.abs(k) * step <= reach) System.arraycopy(line, reach + k * step, taps[k + 3], 0, w)
            }
            add(taps[3], taps[2], taps[4], taps[1], taps[5], taps[0], taps[6], down, w)
            round(down, w)
            System.arraycopy(down, 0, to, y * w, w)
        }
    }

    /** The row that is so many steps from row [y]; any row where there is no such tap. */
    private fun tap(ring: Array<IntArray>, y: Int, k: Int): IntArray =
        if (Math.abs(k) * step > reach) ring[0] else ring[(y + reach + k * step) % ring.size]

    private fun add(
        m: IntArray, a: IntArray, b: IntArray, c: IntArray, d: IntArray, e: IntArray, f: IntArray,
        out: IntArray, w: Int,
    ) {
        five(m, a, b, c, d, out, w, w0, w1, w2)
        if (w3 != 0) more(e, f, out, w, w3)
    }

    private fun more(e: IntArray, f: IntArray, out: IntArray, w: Int, w3: Int) {
        for (x in 0 until w) out[x] += w3 * (e[x] + f[x])
    }

    private fun five(
        m: IntArray, a: IntArray, b: IntArray, c: IntArray, d: IntArray,
        out: IntArray, w: Int, w0: Int, w1: Int, w2: Int,
    ) {
        for (x in 0 until w) out[x] = w0 * m[x] + w1 * (a[x] + b[x]) + w2 * (c[x] + d[x])
    }

    private fun round(values: IntArray, w: Int) {
        val bits = shift
        val half = (1 shl (bits - 1)) - 1
        for (x in 0 until w) values[x] = (values[x] + half + ((values[x] shr bits) and 1)) shr bits
    }

    private companion object {
        val RING = Array(13) { "blur: row $it" }
        val TAPS = Array(7) { "blur: tap $it" }
    }
}
