package dev.hfnet.edge.image

import kotlin.math.abs
import kotlin.math.max
import kotlin.math.min

/** N blobs, strongest first, equals row by row: where, by how many grey levels they stand out, and how large. */
public class Blobs internal constructor(
    public val xy: FloatArray,
    public val response: FloatArray,
    public val scale: FloatArray,
) {
    /** N. */
    public val size: Int get() = response.size

    public companion object {
        private const val UNIT = 16 // steps of a grey level
        private const val OCTAVES = 3
        private const val MIN_CONTRAST = 8 // steps
        private const val MAX_STRETCH = 10.0
        private const val APART = 3
        private const val BORDER = 4
        private const val FAR = 4
        private const val MOST = 65535
        private val SCALES = doubleArrayOf(Math.sqrt(2.25), Math.sqrt(4.5))
        private val KERNELS = arrayOf(
            intArrayOf(1, 8, 14, 8, 1),
            intArrayOf(1, 2, 1),
            intArrayOf(1, 6, 15, 20, 15, 6, 1),
            intArrayOf(1, 0, 8, 0, 14, 0, 8, 0, 1),
            intArrayOf(1, 0, 6, 0, 15, 0, 20, 0, 15, 0, 6, 0, 1),
        )

        /**
         * The [count] strongest blobs of a photo, none near a stronger extremum; see `find_blobs` of the Python runtime,
         * which says what is compared with what.
         *
         * @param pixels grey levels, of [width] columns. @param validHeight, validWidth the part that holds the photo.
         */
        @JvmStatic
        public fun find(pixels: ByteArray, width: Int, validHeight: Int, validWidth: Int, count: Int): Blobs {
            val octaves = octaves(pixels, width, validHeight, validWidth)
            val found = octaves.flatMapIndexed { k, octave -> extrema(octave).map { Extremum(k, it, octave) } }
            val order = found.sortedWith(compareBy({ -it.strength }, { it.y * validWidth + it.x })).take(MOST)
            val rank = IntArray(validHeight * validWidth)
            for (i in order.indices.reversed()) rank[order[i].y * validWidth + order[i].x] = order.size - i
            val kept = ArrayList<Extremum>()
            for (i in order.indices) {
                if (largest(rank, validHeight, validWidth, order[i].x, order[i].y) == order.size - i) kept.add(order[i])
            }
            val xy = ArrayList<Float>()
            val response = ArrayList<Float>()
            val scale = ArrayList<Float>()
            for (one in kept) {
                val offset = fit(one.octave, one.at) ?: continue
                if (response.size == count) break
                val step = (1 shl one.k).toDouble()
                xy.add((one.x + 0.5 + offset[0] * step).toFloat())
                xy.add((one.y + 0.5 + offset[1] * step).toFloat())
                response.add(one.strength.toFloat() / UNIT.toFloat())
                scale.add((SCALES[one.at / one.octave.size - 1] * step).toFloat())
            }
            return Blobs(xy.toFloatArray(), response.toFloatArray(), scale.toFloatArray())
        }

        /**
         * Blobs, scores one more than their response, and what is missing of the network's [keypoints] up to [count], of
         * these only where no blob is within four whole pixels in both x and y.
         */
        @JvmStatic
        public fun combine(blobs: Blobs, keypoints: Points, count: Int): Points {
            val missing = max(0, count - blobs.size)
            val cells = HashSet<Long>()
            for (i in 0 until blobs.size) cells.add(cell(blobs.xy[2 * i].toInt(), blobs.xy[2 * i + 1].toInt()))
            val xy = blobs.xy.toMutableList()
            val scores = blobs.response.map { it + 1f }.toMutableList()
            for (i in 0 until keypoints.size) {
                if (scores.size == blobs.size + missing) break
                val x = keypoints.xy[2 * i].toInt()
                val y = keypoints.xy[2 * i + 1].toInt()
                val near = (-FAR..FAR).any { b -> (-FAR..FAR).any { a -> cell(x + a, y + b) in cells } }
                if (near) continue
                xy.add(keypoints.xy[2 * i])
                xy.add(keypoints.xy[2 * i + 1])
                scores.add(keypoints.scores[i])
            }
            return Points(xy.toFloatArray(), scores.toFloatArray())
        }

        private fun cell(x: Int, y: Int): Long = (x.toLong() shl 32) or (y.toLong() and 0xffffffffL)

        private fun octaves(pixels: ByteArray, width: Int, h: Int, w: Int): List<Octave> {
            val octaves = ArrayList<Octave>()
            var image = IntArray(h * w) { (pixels[it / w * width + it % w].toInt() and 0xff) * UNIT }
            var height = h
            var columns = w
            while (octaves.isEmpty() || (octaves.size < OCTAVES && min(height, columns) > 2 * BORDER)) {
                val last = octaves.lastOrNull()
                val octave = Octave(height, columns)
                var level = if (last == null) blur(image, height, columns, KERNELS[0]) else image
                if (last != null) {
                    for (k in 0 until 2) halve(last.differences[k + 2], last.width, octave.differences[k], height, columns)
                }
                for (k in (if (last == null) 0 else 2) until 4) {
                    val next = blur(level, height, columns, KERNELS[k + 1])
                    for (i in next.indices) octave.differences[k][i] = next[i] - level[i]
                    level = next
                }
                octaves.add(octave)
                val half = IntArray((height + 1) / 2 * ((columns + 1) / 2))
                halve(level, columns, half, (height + 1) / 2, (columns + 1) / 2)
                image = half
                height = (height + 1) / 2
                columns = (columns + 1) / 2
            }
            return octaves
        }

        private fun halve(from: IntArray, width: Int, to: IntArray, h: Int, w: Int) {
            for (y in 0 until h) for (x in 0 until w) to[y * w + x] = from[2 * y * width + 2 * x]
        }

        private fun blur(image: IntArray, h: Int, w: Int, kernel: IntArray): IntArray {
            val reach = kernel.size / 2
            val rows = IntArray(h * w)
            for (y in 0 until h) {
                for (x in 0 until w) {
                    var sum = 0
                    for (k in kernel.indices) {
                        if (kernel[k] != 0) sum += kernel[k] * image[y * w + Photo.mirrored(x + k - reach, w)]
                    }
                    rows[y * w + x] = sum
                }
            }
            val total = kernel.sum()
            val shift = 2 * (31 - Integer.numberOfLeadingZeros(total))
            val out = IntArray(h * w)
            for (y in 0 until h) {
                for (x in 0 until w) {
                    var sum = 0
                    for (k in kernel.indices) {
                        if (kernel[k] != 0) sum += kernel[k] * rows[Photo.mirrored(y + k - reach, h) * w + x]
                    }
                    out[y * w + x] = halfToEven(sum, shift)
                }
            }
            return out
        }

        private fun halfToEven(value: Int, shift: Int): Int {
            val whole = value shr shift
            val rest = value - (whole shl shift)
            val half = 1 shl (shift - 1)
            return if (rest > half || (rest == half && whole and 1 == 1)) whole + 1 else whole
        }

        private fun extrema(octave: Octave): List<Int> {
            val found = ArrayList<Int>()
            val h = octave.height
            val w = octave.width
            for (k in 1..2) {
                for (y in BORDER until h - BORDER) {
                    for (x in BORDER until w - BORDER) {
                        val here = octave.differences[k][y * w + x]
                        if (abs(here) < MIN_CONTRAST) continue
                        var high = true
                        var low = true
                        for (d in k - 1..k + 1) {
                            val plane = octave.differences[d]
                            for (b in y - 1..y + 1) {
                                for (a in x - 1..x + 1) {
                                    val other = plane[b * w + a]
                                    high = high && other <= here
                                    low = low && other >= here
                                }
                            }
                        }
                        if (high || low) found.add(k * h * w + y * w + x)
                    }
                }
            }
            return found
        }

        private fun largest(rank: IntArray, h: Int, w: Int, x: Int, y: Int): Int {
            var most = 0
            for (b in max(0, y - APART)..min(h - 1, y + APART)) {
                for (a in max(0, x - APART)..min(w - 1, x + APART)) most = max(most, rank[b * w + a])
            }
            return most
        }

        /** A quadratic fit in x, y and scale: the offset, or null where it is an edge or peaks elsewhere. */
        private fun fit(octave: Octave, at: Int): DoubleArray? {
            val row = octave.width
            val level = octave.size

            fun v(step: Int): Double {
                val place = at + step
                return octave.differences[place / level][place % level].toDouble()
            }

            fun mixed(a: Int, b: Int) = (v(a + b) + v(-a - b) - v(a - b) - v(b - a)) / 4
            val middle = v(0)
            val gx = (v(1) - v(-1)) / 2
            val gy = (v(row) - v(-row)) / 2
            val gs = (v(level) - v(-level)) / 2
            val xx = v(1) + v(-1) - 2 * middle
            val yy = v(row) + v(-row) - 2 * middle
            val ss = v(level) + v(-level) - 2 * middle
            val xy = mixed(1, row)
            val xs = mixed(1, level)
            val ys = mixed(row, level)
            val flat = xx * yy - xy * xy
            if (!((xx + yy) * (xx + yy) * MAX_STRETCH < (MAX_STRETCH + 1) * (MAX_STRETCH + 1) * flat)) return null
            val a = yy * ss - ys * ys
            val b = xs * ys - xy * ss
            val c = xy * ys - yy * xs
            val d = xx * ss - xs * xs
            val e = xy * xs - xx * ys
            val volume = xx * a + xy * b + xs * c
            if (volume == 0.0) return null
            val dx = (a * gx + b * gy + c * gs) / -volume
            val dy = (b * gx + d * gy + e * gs) / -volume
            return if (abs(dx) <= 1 && abs(dy) <= 1) doubleArrayOf(dx, dy) else null
        }
    }

    private class Octave(val height: Int, val width: Int) {
        val size = height * width
        val differences = Array(4) { IntArray(size) }
    }

    private class Extremum(val k: Int, val at: Int, val octave: Octave) {
        private val place = at % octave.size
        val x = (place % octave.width) shl k
        val y = (place / octave.width) shl k
        val strength = abs(octave.differences[at / octave.size][place])
    }
}
