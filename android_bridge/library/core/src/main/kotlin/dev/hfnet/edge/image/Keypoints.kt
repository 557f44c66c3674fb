package dev.hfnet.edge.image

import dev.hfnet.edge.Memory
import kotlin.math.max
import kotlin.math.min

/**
 * Keypoints and integer descriptors of a network's dense outputs. Exponentials come from an integer table, all else is
 * elementwise IEEE arithmetic: the same keypoints on every machine.
 */
public object Keypoints {
    /** Pixels of a cell, each way. */
    public const val CELL: Int = 8
    private const val STEPS = 256 // of the table, to a unit of logit
    private const val REFINE = 2 // radius of the window of the soft-argmax
    private val TABLE = FloatArray(12 * STEPS) { Math.rint(StrictMath.exp(-it.toDouble() / STEPS) * 65536).toFloat() }

    /** Softmax over the 65 channels of each cell without the last, as an image of 8 h by 8 w scores. */
    @JvmStatic
    public fun scores(logits: Output): FloatArray =
        scores(logits, Memory()).copyOf(logits.height * logits.width * CELL * CELL)

    /** As the other one, in [memory]. */
    internal fun scores(logits: Output, memory: Memory): FloatArray {
        val n = logits.channels
        val row = logits.width * CELL
        val out = memory.floats("scores", logits.height * CELL * row)
        val values = logits.values(memory, "scores: logits")
        val steps = memory.floats("scores: steps", n)
        val last = (TABLE.size - 1).toFloat()
        for (y in 0 until logits.height) {
            for (x in 0 until logits.width) {
                val at = (y * logits.width + x) * n
                var most = Float.NEGATIVE_INFINITY
                for (c in 0 until n) {
                    val step = Math.rint((values[at + c] * STEPS.toFloat()).toDouble()).toFloat()
                    steps[c] = step
                    if (!(step <= most)) most = step
                }
                var total = 0f
                for (c in 0 until n) {
                    val below = most - steps[c]
                    val weight = TABLE[(if (below < last) below else last).toInt()]
                    steps[c] = weight
                    total += weight
                }
                for (b in 0 until CELL) {
                    val to = (y * CELL + b) * row + x * CELL
                    for (a in 0 until CELL) out[to + a] = steps[b * CELL + a] / total
                }
            }
        }
        return out
    }

    /**
     * Non-maximum suppression, the [count] best, and sub-pixel refinement by the mean of a 5x5 window weighted by score.
     *
     * @param scores an image of [width] columns. @param validHeight, validWidth the part of it that holds the photo.
     * @param radius a keypoint is the highest in a square of 2 radius + 1 pixels, the first of equals.
     * @param threshold lowest score. @param border pixels at the photo's edge where nothing is detected.
     * @return highest score first, equals row by row.
     */
    @JvmStatic
    public fun detect(
        scores: FloatArray,
        width: Int,
        validHeight: Int,
        validWidth: Int,
        count: Int,
        radius: Int,
        threshold: Float,
        border: Int,
    ): Points = detect(scores, width, validHeight, validWidth, count, radius, threshold, border, Memory()).own()

    /** As the other one, in [memory]. */
    internal fun detect(
        scores: FloatArray,
        width: Int,
        h: Int,
        w: Int,
        count: Int,
        radius: Int,
        threshold: Float,
        border: Int,
        memory: Memory,
    ): Points {
        var peaks = memory.longs("detect: peaks", 1024)
        var found = 0
        val edge = max(border, REFINE)
        for (y in edge until h - edge) {
            for (x in edge until w - edge) {
                val score = scores[y * width + x]
                if (!(score >= threshold) || !isHighest(scores, width, h, w, x, y, radius)) continue
                if (found == peaks.size) peaks = memory.longs("detect: peaks", found + 1)
                peaks[found++] = falling(score) or (y * width + x).toLong()
            }
        }
        java.util.Arrays.sort(peaks, 0, found)
        val kept = firstOfEquals(peaks, found, width, h, w, radius, memory)
        val n = min(count, kept)
        val xy = memory.floats("detect: xy", 2 * n)
        val best = memory.floats("detect: scores", n)
        for (i in 0 until n) {
            val at = peaks[i].toInt()
            var total = 0f
            var dx = 0f
            var dy = 0f
            for (oy in -REFINE..REFINE) {
                for (ox in -REFINE..REFINE) {
                    val weight = scores[at + oy * width + ox]
                    total += weight
                    dx += weight * ox.toFloat()
                    dy += weight * oy.toFloat()
                }
            }
            xy[2 * i] = (at % width + (dx / total).toDouble() + 0.5).toFloat()
            xy[2 * i + 1] = (at / width + (dy / total).toDouble() + 0.5).toFloat()
            best[i] = scores[at]
        }
        return Points(xy, best, n)
    }

    /** Whether no score in the square about a pixel of the part (h, w) is higher. Rows beside it mostly say no first. */
    private fun isHighest(scores: FloatArray, width: Int, h: Int, w: Int, x: Int, y: Int, radius: Int): Boolean {
        val left = max(0, x - radius)
        val right = min(w - 1, x + radius)
        val score = scores[y * width + x]
        for (i in 0..2 * radius) {
            val row = if (i % 2 == 0) y + i / 2 else y - (i + 1) / 2 // y, y - 1, y + 1, y - 2 and so on
            if (row < 0 || row >= h) continue
            for (at in row * width + left..row * width + right) if (!(scores[at] <= score)) return false
        }
        return true
    }

    /** The upper half of a key that orders by falling score. */
    private fun falling(score: Float): Long {
        val bits = (score + 0f).toRawBits() // of -0 as of 0
        return (bits xor (bits shr 31 and Int.MAX_VALUE)).inv().toLong() shl 32
    }

    /** Drops peaks that equal an earlier one in their window; how many stay. */
    private fun firstOfEquals(
        peaks: LongArray, found: Int, width: Int, h: Int, w: Int, radius: Int, memory: Memory,
    ): Int {
        val taken = memory.bytes("detect: taken", h * width)
        taken.fill(0, 0, h * width)
        var kept = 0
        var before = 1L // no key's upper half, shifted
        for (i in 0 until found) {
            val own = peaks[i] shr 32
            val equal = (i > 0 && before == own) || (i + 1 < found && peaks[i + 1] shr 32 == own)
            before = own
            if (equal) {
                val at = peaks[i].toInt()
                if (isNear(taken, width, h, w, at % width, at / width, radius)) continue
                taken[at] = 1
            }
            peaks[kept++] = peaks[i]
        }
        return kept
    }

    private fun isNear(taken: ByteArray, width: Int, h: Int, w: Int, x: Int, y: Int, radius: Int): Boolean {
        for (row in max(0, y - radius)..min(h - 1, y + radius)) {
            for (i in max(0, x - radius)..min(w - 1, x + radius)) if (taken[row * width + i] != 0.toByte()) return true
        }
        return false
    }

    /**
     * Bilinear samples of all parts of the descriptors at points, one part after the other, of unit length times 127.
     *
     * @param maps at 1/8 of the network's input, and parts with 2 or 4 times as many rows and columns.
     * @param xy N points, x and y one after the other, pixels of the network's input.
     * @return (N, sum of channels) row by row.
     */
    @JvmStatic
    public fun descriptors(maps: List<Output>, xy: FloatArray): ByteArray =
        descriptors(maps, xy, xy.size / 2, Memory()).copyOf(xy.size / 2 * maps.sumOf { it.channels })

    /** As the other one, of the first [n] points, in [memory]. */
    internal fun descriptors(maps: List<Output>, xy: FloatArray, n: Int, memory: Memory): ByteArray {
        var width = 0
        for (k in maps.indices) width += maps[k].channels
        val vectors = memory.floats("descriptors: vectors", n * width)
        var first = 0
        for (k in maps.indices) {
            val map = maps[k]
            val corners = memory.floats("descriptors: corners", 4 * map.channels)
            val stride = (CELL * maps[0].height / map.height).toFloat()
            for (i in 0 until n) sample(map, stride, xy[2 * i], xy[2 * i + 1], corners, vectors, i * width + first)
            first += map.channels
        }
        val out = memory.bytes("descriptors", n * width)
        for (i in 0 until n) quantize(vectors, i * width, width, out, i * width)
        return out
    }

    private fun sample(
        map: Output, stride: Float, px: Float, py: Float, corners: FloatArray, out: FloatArray, outAt: Int,
    ) {
        val x = (px / stride - 0.5f).coerceIn(0f, (map.width - 1).toFloat())
        val y = (py / stride - 0.5f).coerceIn(0f, (map.height - 1).toFloat())
        val x0 = min(x.toInt(), map.width - 2)
        val y0 = min(y.toInt(), map.height - 2)
        val c = map.channels
        val corner = (y0 * map.width + x0) * c
        map.read(corner, 2 * c, corners, 0)
        map.read(corner + map.width * c, 2 * c, corners, 2 * c)
        blend(corners, c, x - x0, y - y0, out, outAt)
    }

    private fun blend(v: FloatArray, c: Int, fx: Float, fy: Float, out: FloatArray, at: Int) {
        for (k in 0 until c) {
            val top = v[k] * (1 - fx) + v[c + k] * fx
            val bottom = v[2 * c + k] * (1 - fx) + v[3 * c + k] * fx
            out[at + k] = top * (1 - fy) + bottom * fy
        }
    }

    /** (N, [width]) vectors to unit length times 127, rounded; one of zeros or with a NaN becomes zeros. */
    @JvmStatic
    public fun quantize(vectors: FloatArray, width: Int): ByteArray {
        val out = ByteArray(vectors.size)
        for (row in 0 until vectors.size / width) quantize(vectors, row * width, width, out, row * width)
        return out
    }

    internal fun quantize(from: FloatArray, at: Int, width: Int, out: ByteArray, outAt: Int) {
        var sum = 0.0
        for (k in at until at + width) sum += from[k].toDouble() * from[k].toDouble()
        val norm = Math.sqrt(sum)
        if (!(norm > 1e-12)) {
            out.fill(0, outAt, outAt + width)
            return
        }
        for (k in 0 until width) out[outAt + k] = Math.rint(from[at + k].toDouble() * 127 / norm).toInt().toByte()
    }
}
