package dev.hfnet.edge.image

/** Grey images made smaller in whole numbers: each pixel is the mean of the area that it covers, a half rounded up. */
public object Reduction {
    /** Reduces (h, w) grey levels to ([toHeight], [toWidth]), at most as large. [stride]: bytes from row to row. */
    @JvmStatic
    public fun shrink(grey: ByteArray, h: Int, w: Int, stride: Int, toHeight: Int, toWidth: Int): ByteArray {
        require(toHeight in 1..h && toWidth in 1..w) { "${h}x$w is not reduced to ${toHeight}x$toWidth" }
        val rows = Span(h, toHeight)
        val columns = Span(w, toWidth)
        val area = rows.covered.toLong() * columns.covered
        val out = ByteArray(toHeight * toWidth)
        val line = LongArray(w)
        for (y in 0 until toHeight) {
            line.fill(0)
            rows.each(y) { pixel, weight ->
                for (x in 0 until w) line[x] += (grey[pixel * stride + x].toInt() and 0xff) * weight.toLong()
            }
            for (x in 0 until toWidth) {
                var sum = 0L
                columns.each(x) { pixel, weight -> sum += line[pixel] * weight }
                out[y * toWidth + x] = ((2 * sum + area) / (2 * area)).toByte()
            }
        }
        return out
    }

    /** Which pixels of an axis of [length] the reduced ones cover, in units of a fraction of a pixel. */
    private class Span(private val length: Int, reduced: Int) {
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
            while (pixel < length && pixel.toLong() * unit < end) {
                val weight = minOf((pixel + 1L) * unit, end) - maxOf(pixel.toLong() * unit, start)
                use(pixel, weight.toInt())
                pixel++
            }
        }
    }
}
