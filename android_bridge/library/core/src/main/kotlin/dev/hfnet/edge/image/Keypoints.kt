package dev.hfnet.edge.image

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
    public fun scores(logits: Output): FloatArray {
        val n = logits.channels
        val row = logits.width * CELL
        val out = FloatArray(logits.height * CELL * row)
        val steps = FloatArray(n)
        for (y in 0 until logits.height) {
            for (x in 0 until logits.width) {
                val at = (y * logits.width + x) * n
                var most = Float.NEGATIVE_INFINITY
                for (c in 0 until n) {
                    steps[c] = Math.rint((logits[at + c] * STEPS.toFloat()).toDouble()).toFloat()
                    most = max(most, steps[c])
                }
                var total = 0f
                for (c in 0 until n) {
                    steps[c] = TABLE[min(most - steps[c], (TABLE.size - 1).toFloat()).toInt()]
                    total += steps[c]
                }
                for (c in 0 until n - 1) {
                    out[(y * CELL + c / CELL) * row + x * CELL + c % CELL] = steps[c] / total
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
    ): Points {
        val most = highest(scores, width, validHeight, validWidth, radius)
        val edge = max(border, REFINE)
        val peaks = ArrayList<Int>()
        for (y in edge until validHeight - edge) {
            for (x in edge until validWidth - edge) {
                val score = scores[y * width + x]
                if (score == most[y * validWidth + x] && score >= threshold) peaks.add(y * validWidth + x)
            }
        }
        fun score(at: Int) = scores[at / validWidth * width + at % validWidth]
        peaks.sortWith { a, b -> java.lang.Float.compare(score(b), score(a)) } // stable
        val kept = firstOfEquals(peaks, ::score, validHeight, validWidth, radius)
        val n = min(count, kept.size)
        val xy = FloatArray(2 * n)
        val found = FloatArray(n)
        for (i in 0 until n) {
            val x = kept[i] % validWidth
            val y = kept[i] / validWidth
            var total = 0f
            var dx = 0f
            var dy = 0f
            for (oy in -REFINE..REFINE) {
                for (ox in -REFINE..REFINE) {
                    val weight = scores[(y + oy) * width + x + ox]
                    total += weight
                    dx += weight * ox.toFloat()
                    dy += weight * oy.toFloat()
                }
            }
            xy[2 * i] = (x + (dx / total).toDouble() + 0.5).toFloat()
            xy[2 * i + 1] = (y + (dy / total).toDouble() + 0.5).toFloat()
            found[i] = score(kept[i])
        }
        return Points(xy, found)
    }

    /** The largest of a square about each pixel of the part (h, w). */
    private fun highest(scores: FloatArray, width: Int, h: Int, w: Int, radius: Int): FloatArray {
        val along = FloatArray(h * w)
        for (y in 0 until h) {
            for (x in 0 until w) {
                var most = Float.NEGATIVE_INFINITY
                for (k in max(0, x - radius)..min(w - 1, x + radius)) most = max(most, scores[y * width + k])
                along[y * w + x] = most
            }
        }
        val out = FloatArray(h * w)
        for (y in 0 until h) {
            for (x in 0 until w) {
                var most = Float.NEGATIVE_INFINITY
                for (k in max(0, y - radius)..min(h - 1, y + radius)) most = max(most, along[k * w + x])
                out[y * w + x] = most
            }
        }
        return out
    }

    /** Drops a peak that equals an earlier one in its window. */
    private fun firstOfEquals(peaks: List<Int>, score: (Int) -> Float, h: Int, w: Int, radius: Int): List<Int> {
        val taken = BooleanArray(h * w)
        val kept = ArrayList<Int>(peaks.size)
        for (i in peaks.indices) {
            val own = score(peaks[i])
            val equal = (i > 0 && score(peaks[i - 1]) == own) || (i + 1 < peaks.size && score(peaks[i + 1]) == own)
            if (equal) {
                val x = peaks[i] % w
                val y = peaks[i] / w
                var near = false
                for (b in max(0, y - radius)..min(h - 1, y + radius)) {
                    for (a in max(0, x - radius)..min(w - 1, x + radius)) near = near || taken[b * w + a]
                }
                if (near) continue
                taken[peaks[i]] = true
            }
            kept.add(peaks[i])
        }
        return kept
    }

    /**
     * Bilinear samples of all parts of the descriptors at points, one part after the other, of unit length times 127.
     *
     * @param maps at 1/8 of the network's input, and parts with 2 or 4 times as many rows and columns.
     * @param xy N points, x and y one after the other, pixels of the network's input.
     * @return (N, sum of channels) row by row.
     */
    @JvmStatic
    public fun descriptors(maps: List<Output>, xy: FloatArray): ByteArray {
        val n = xy.size / 2
        val width = maps.sumOf { it.channels }
        val out = ByteArray(n * width)
        val row = FloatArray(width)
        for (i in 0 until n) {
            var at = 0
            for (map in maps) {
                sample(map, (CELL * maps[0].height / map.height).toFloat(), xy[2 * i], xy[2 * i + 1], row, at)
                at += map.channels
            }
            quantize(row, 0, width, out, i * width)
        }
        return out
    }

    private fun sample(map: Output, stride: Float, px: Float, py: Float, out: FloatArray, outAt: Int) {
        val x = (px / stride - 0.5f).coerceIn(0f, (map.width - 1).toFloat())
        val y = (py / stride - 0.5f).coerceIn(0f, (map.height - 1).toFloat())
        val x0 = min(x.toInt(), map.width - 2)
        val y0 = min(y.toInt(), map.height - 2)
        val fx = x - x0
        val fy = y - y0
        val c = map.channels
        val corner = (y0 * map.width + x0) * c
        val below = corner + map.width * c
        for (k in 0 until c) {
            val top = map[corner + k] * (1 - fx) + map[corner + c + k] * fx
            val bottom = map[below + k] * (1 - fx) + map[below + c + k] * fx
            out[outAt + k] = top * (1 - fy) + bottom * fy
        }
    }

    /** (N, [width]) vectors to unit length times 127, rounded; one of zeros or with a NaN becomes zeros. */
    @JvmStatic
    public fun quantize(vectors: FloatArray, width: Int): ByteArray {
        val out = ByteArray(vectors.size)
        for (row in 0 until vectors.size / width) quantize(vectors, row * width, width, out, row * width)
        return out
    }

    private fun quantize(from: FloatArray, at: Int, width: Int, out: ByteArray, outAt: Int) {
        var sum = 0.0
        for (k in at until at + width) sum += from[k].toDouble() * from[k].toDouble()
        val norm = Math.sqrt(sum)
        for (k in 0 until width) {
            val value = if (norm > 1e-12) Math.rint(from[at + k].toDouble() * 127 / norm) else 0.0
            out[outAt + k] = if (value.isNaN()) 0 else value.toInt().toByte()
        }
    }
}
