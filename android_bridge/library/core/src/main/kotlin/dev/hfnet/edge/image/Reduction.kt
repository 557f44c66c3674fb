package dev.hfnet.edge.image

import dev.hfnet.edge.Memory

/** Grey images made smaller in whole numbers: each pixel is the mean of the area that it covers, a half rounded up. */
public object Reduction {
    /** Reduces (h, w) grey levels to ([toHeight], [toWidth]), at most as large. [stride]: bytes from row to row. */
    @JvmStatic
    public fun shrink(grey: ByteArray, h: Int, w: Int, stride: Int, toHeight: Int, toWidth: Int): ByteArray =
        shrink(grey, h, w, stride, toHeight, toWidth, Memory()).copyOf(toHeight * toWidth)

    /** As the other one, in [memory]. */
    internal fun shrink(
        grey: ByteArray, h: Int, w: Int, stride: Int, toHeight: Int, toWidth: Int, memory: Memory,
    ): ByteArray {
        require(toHeight in 1..h && toWidth in 1..w) { "${h}x$w is not reduced to ${toHeight}x$toWidth" }
        val out = memory.bytes("reduction", toHeight * toWidth)
        if (toHeight == h && toWidth == w) {
            for (y in 0 until h) System.arraycopy(grey, y * stride, out, y * w, w)
            return out
        }
        val rows = Span(h, toHeight)
        val columns = Span(w, toWidth)
        val area = rows.covered.toLong() * columns.covered
        if (511 * area <= Int.MAX_VALUE) {
            inInts(grey, rows, columns, stride, area.toInt(), out, memory)
        } else {
            inLongs(grey, rows, columns, stride, area, out, memory)
        }
        return out
    }

    private fun inInts(
        grey: ByteArray, rows: Span, columns: Span, stride: Int, area: Int, out: ByteArray, memory: Memory,
    ) {
        val w = columns.length
        val line = memory.ints("reduction: line", w)
        for (y in 0 until rows.reduced) {
            line.fill(0, 0, w)
            rows.each(y) { pixel, weight -> add(grey, pixel * stride, weight, line, w) }
            for (x in 0 until columns.reduced) {
                var sum = 0
                columns.each(x) { pixel, weight -> sum += line[pixel] * weight }
                out[y * columns.reduced + x] = ((2 * sum + area) / (2 * area)).toByte()
            }
        }
    }

    private fun add(grey: ByteArray, at: Int, weight: Int, line: IntArray, w: Int) {
        for (x in 0 until w) line[x] += (grey[at + x].toInt() and 0xff) * weight
    }

    private fun inLongs(
        grey: ByteArray, rows: Span, columns: Span, stride: Int, area: Long, out: ByteArray, memory: Memory,
    ) {
        val w = columns.length
        val line = memory.longs("reduction: long line", w)
        for (y in 0 until rows.reduced) {
            line.fill(0, 0, w)
            rows.each(y) { pixel, weight ->
                for (x in 0 until w) line[x] += (grey[pixel * stride + x].toInt() and 0xff) * weight.toLong()
            }
            for (x in 0 until columns.reduced) {
                var sum = 0L
                columns.each(x) { pixel, weight -> sum += line[pixel] * weight }
                out[y * columns.reduced + x] = ((2 * sum + area) / (2 * area)).toByte()
            }
        }
    }

    /** Which pixels of an axis of [length] the reduced ones cover, in units of a fraction of a pixel. */
    private class Span(val length: Int, val reduced: Int) {
        private val unit: Int
        val covered: Int

        init {
            var a = length
            var b = reduced
            while (b != 0) a = b.also { b = a % b }
            covered = length / a
            unit = reduced / a
        }

        inline fun each(at: Int, use: (Int, Int) -> Unit) {
            val start = at.toLong() * covered
            val end = start + covered
            var pixel = (start / unit).toInt()
            var from = start
            while (from < end) {
                val to = minOf((pixel + 1L) * unit, end)
                use(pixel++, (to - from).toInt())
                from = to
            }
        }
    }
}
