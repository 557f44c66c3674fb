package dev.hfnet.edge.image

import dev.hfnet.edge.Memory
import kotlin.math.abs
import kotlin.math.max
import kotlin.math.min

/** N blobs, strongest first, equals row by row: where, by how many grey levels they stand out, and how large. */
public class Blobs internal constructor(
    public val xy: FloatArray,
    public val response: FloatArray,
    public val scale: FloatArray,
    /** N. */
    public val size: Int = response.size,
) {
    /** A copy out of a memory, its arrays as long as they should be. */
    internal fun own(): Blobs = Blobs(xy.copyOf(2 * size), response.copyOf(size), scale.copyOf(size))

    public companion object {
        private const val UNIT = 16 // steps of a grey level
        private const val OCTAVES = 3
        private const val MIN_CONTRAST = 8 // steps
        private const val MAX_STRETCH = 10.0
        private const val APART = 3
        private const val BORDER = 4
        private const val FAR = 4
        private const val MOST = 65535
        private const val STRENGTH = 48 // from this bit on a key holds the strength, below it the pixel and then the plane
        private const val PLANE = 3 // bits of octave and difference
        private val SCALES = doubleArrayOf(Math.sqrt(2.25), Math.sqrt(4.5))

        /**
         * The [count] strongest blobs of a photo, none near a stronger extremum; see `find_blobs` of the Python runtime,
         * which says what is compared with what.
         *
         * @param pixels grey levels, of [width] columns. @param validHeight, validWidth the part that holds the photo.
         */
        @JvmStatic
        public fun find(pixels: ByteArray, width: Int, validHeight: Int, validWidth: Int, count: Int): Blobs =
            find(pixels, width, validHeight, validWidth, count, Memory()).own()

        /** As the other one, in [memory]. */
        internal fun find(pixels: ByteArray, width: Int, h: Int, w: Int, count: Int, memory: Memory): Blobs {
            val octaves = Octaves(pixels, width, h, w, memory)
            val found = extrema(octaves, memory)
            val keys = memory.longs(EXTREMA, 0)
            java.util.Arrays.sort(keys, 0, found)
            val extrema = min(found, MOST)
            val rank = memory.ints("blobs: rank", h * w)
            rank.fill(0, 0, h * w)
            for (i in extrema - 1 downTo 0) rank[pixel(keys[i])] = extrema - i
            val most = min(count, extrema)
            val xy = memory.floats("blobs: xy", 2 * most)
            val response = memory.floats("blobs: response", most)
            val scale = memory.floats("blobs: scale", most)
            val offset = memory.doubles("blobs: offset", 2)
            var n = 0
            for (i in 0 until extrema) {
                if (n == most) break
                val pixel = pixel(keys[i])
                val x = pixel % w
                val y = pixel / w
                if (largest(rank, h, w, x, y) != extrema - i) continue
                val k = (keys[i].toInt() and (1 shl PLANE) - 1) / 2
                val plane = (keys[i].toInt() and 1) + 1
                val row = octaves.width[k]
                if (!fit(octaves.differences[k], plane, (y shr k) * row + (x shr k), row, offset)) continue
                val step = (1 shl k).toDouble()
                xy[2 * n] = (x + 0.5 + offset[0] * step).toFloat()
                xy[2 * n + 1] = (y + 0.5 + offset[1] * step).toFloat()
                response[n] = (MOST - (keys[i] ushr STRENGTH).toInt()).toFloat() / UNIT.toFloat()
                scale[n++] = (SCALES[plane - 1] * step).toFloat()
            }
            return Blobs(xy, response, scale, n)
        }

        /**
         * Blobs, scores one more than their response, and what is missing of the network's [keypoints] up to [count], of
         * these only where no blob is within four whole pixels in both x and y.
         */
        @JvmStatic
        public fun combine(blobs: Blobs, keypoints: Points, count: Int): Points =
            combine(blobs, keypoints, count, Memory()).own()

        /** As the other one, in [memory]. */
        internal fun combine(blobs: Blobs, keypoints: Points, count: Int, memory: Memory): Points {
            var w = 0
            var h = 0
            for (i in 0 until keypoints.size) {
                w = max(w, keypoints.xy[2 * i].toInt() + 1)
                h = max(h, keypoints.xy[2 * i + 1].toInt() + 1)
            }
            val near = memory.bytes("combine: near", h * w)
            near.fill(0, 0, h * w)
            for (i in 0 until blobs.size) {
                val x = blobs.xy[2 * i].toInt()
                val left = max(0, x - FAR)
                val right = min(w, x + FAR + 1)
                val y = blobs.xy[2 * i + 1].toInt()
                for (row in max(0, y - FAR)..min(h - 1, y + FAR)) {
                    for (at in row * w + left until row * w + right) near[at] = 1
                }
            }
            val most = max(count, blobs.size)
            val xy = memory.floats("combine: xy", 2 * most)
            val scores = memory.floats("combine: scores", most)
            System.arraycopy(blobs.xy, 0, xy, 0, 2 * blobs.size)
            for (i in 0 until blobs.size) scores[i] = blobs.response[i] + 1f
            var n = blobs.size
            for (i in 0 until keypoints.size) {
                if (n == most) break
                val x = keypoints.xy[2 * i]
                val y = keypoints.xy[2 * i + 1]
                if (near[y.toInt() * w + x.toInt()] != 0.toByte()) continue
                xy[2 * n] = x
                xy[2 * n + 1] = y
                scores[n++] = keypoints.scores[i]
            }
            return Points(xy, scores, n)
        }

        private val ROWS = Array(6) { "blobs: row $it" }
        private const val EXTREMA = "blobs: extrema"

        private fun pixel(key: Long): Int = (key ushr PLANE).toInt()

        /**
         * How many extrema there are; their keys are in [memory]. A key orders by strength, then pixel of the photo, octave
         * and difference.
         */
        private fun extrema(octaves: Octaves, memory: Memory): Int {
            var keys = memory.longs(EXTREMA, 1024)
            var n = 0
            for (k in 0 until octaves.count) {
                val h = octaves.height[k]
                val w = octaves.width[k]
                val among = memory.ints("blobs: among", w)
                val rows = Array(ROWS.size) { memory.ints(ROWS[it], w) }
                for (plane in 1..2) {
                    val differences = octaves.differences[k]
                    for (y in BORDER until h - BORDER) {
                        amongFour(differences[plane], y * w, w, rows, among)
                        for (x in BORDER until w - BORDER) {
                            if (among[x] >= 0 || !isExtremum(differences, plane, y * w + x, w)) continue
                            if (n == keys.size) keys = memory.longs(EXTREMA, n + 1)
                            val strength = (MOST - abs(differences[plane][y * w + x])).toLong()
                            val pixel = ((y shl k) * octaves.width[0] + (x shl k)).toLong()
                            keys[n++] = (strength shl STRENGTH) or (pixel shl PLANE) or (2L * k + plane - 1)
                        }
                    }
                }
            }
            return n
        }

        /**
         * Negative where a pixel of a row that begins at [at] is as high, or as low, as the four beside it. Signs stand for
         * conditions, and each of the [rows] is an array of its own as in [Blur], so that processors do many pixels at once.
         */
        private fun amongFour(values: IntArray, at: Int, w: Int, rows: Array<IntArray>, out: IntArray) {
            System.arraycopy(values, at, rows[0], 0, w)
            System.arraycopy(values, at - 1, rows[1], 0, w)
            System.arraycopy(values, at + 1, rows[2], 0, w)
            System.arraycopy(values, at - w, rows[3], 0, w)
            System.arraycopy(values, at + w, rows[4], 0, w)
            allBelow(rows[0], rows[1], rows[2], rows[3], rows[4], out, w)
            allAbove(rows[0], rows[1], rows[2], rows[3], rows[4], rows[5], w)
            for (x in 0 until w) out[x] = out[x] or rows[5][x]
        }

        /** Negative where no neighbour is higher. */
        private fun allBelow(m: IntArray, a: IntArray, b: IntArray, c: IntArray, d: IntArray, out: IntArray, w: Int) {
            for (x in 0 until w) {
                val above = m[x] + 1
                out[x] = (a[x] - above) and (b[x] - above) and (c[x] - above) and (d[x] - above)
            }
        }

        /** Negative where no neighbour is lower. */
        private fun allAbove(m: IntArray, a: IntArray, b: IntArray, c: IntArray, d: IntArray, out: IntArray, w: Int) {
            for (x in 0 until w) {
                val below = m[x] - 1
                out[x] = (below - a[x]) and (below - b[x]) and (below - c[x]) and (below - d[x])
            }
        }

        private fun isExtremum(differences: Array<IntArray>, plane: Int, at: Int, w: Int): Boolean {
            val here = differences[plane][at]
            if (abs(here) < MIN_CONTRAST) return false
            var high = true
            var low = true
            for (d in plane - 1..plane + 1) {
                val values = differences[d]
                for (row in at - w..at + w step w) {
                    for (i in row - 1..row + 1) {
                        high = high && values[i] <= here
                        low = low && values[i] >= here
                    }
                    if (!high && !low) return false
                }
            }
            return true
        }

        private fun largest(rank: IntArray, h: Int, w: Int, x: Int, y: Int): Int {
            var most = 0
            for (b in max(0, y - APART)..min(h - 1, y + APART)) {
                for (a in max(0, x - APART)..min(w - 1, x + APART)) most = max(most, rank[b * w + a])
            }
            return most
        }

        /** A quadratic fit in x, y and scale: [offset], or false where it is an edge or peaks elsewhere. */
        private fun fit(differences: Array<IntArray>, plane: Int, at: Int, row: Int, offset: DoubleArray): Boolean {
            val finer = differences[plane - 1]
            val here = differences[plane]
            val coarser = differences[plane + 1]
            val middle = here[at].toDouble()
            val right = here[at + 1].toDouble()
            val left = here[at - 1].toDouble()
            val below = here[at + row].toDouble()
            val above = here[at - row].toDouble()
            val more = coarser[at].toDouble()
            val less = finer[at].toDouble()
            val gx = (right - left) / 2
            val gy = (below - above) / 2
            val gs = (more - less) / 2
            val xx = right + left - 2 * middle
            val yy = below + above - 2 * middle
            val ss = more + less - 2 * middle
            val xy = mixed(here[at + 1 + row], here[at - 1 - row], here[at + 1 - row], here[at + row - 1])
            val xs = mixed(coarser[at + 1], finer[at - 1], finer[at + 1], coarser[at - 1])
            val ys = mixed(coarser[at + row], finer[at - row], finer[at + row], coarser[at - row])
            val flat = xx * yy - xy * xy
            if (!((xx + yy) * (xx + yy) * MAX_STRETCH < (MAX_STRETCH + 1) * (MAX_STRETCH + 1) * flat)) return false
            val a = yy * ss - ys * ys
            val b = xs * ys - xy * ss
            val c = xy * ys - yy * xs
            val d = xx * ss - xs * xs
            val e = xy * xs - xx * ys
            val volume = xx * a + xy * b + xs * c
            if (volume == 0.0) return false
            offset[0] = (a * gx + b * gy + c * gs) / -volume
            offset[1] = (b * gx + d * gy + e * gs) / -volume
            return abs(offset[0]) <= 1 && abs(offset[1]) <= 1
        }

        private fun mixed(a: Int, b: Int, c: Int, d: Int): Double = (a.toDouble() + b - c - d) / 4
    }

    /** Differences of blurs: four planes an octave. */
    private class Octaves(pixels: ByteArray, width: Int, h: Int, w: Int, memory: Memory) {
        val height = IntArray(OCTAVES)
        val width = IntArray(OCTAVES)
        val differences = Array(OCTAVES) { k -> Array(4) { memory.ints(PLANES[4 * k + it], 0) } }
        var count = 0

        init {
            var level = memory.ints("blobs: level", h * w)
            var spare = memory.ints("blobs: spare", h * w)
            var rows = h
            var columns = w
            for (y in 0 until h) {
                for (x in 0 until w) spare[y * w + x] = (pixels[y * width + x].toInt() and 0xff) * UNIT
            }
            while (count == 0 || (count < OCTAVES && min(rows, columns) > 2 * BORDER)) {
                val k = count++
                height[k] = rows
                this.width[k] = columns
                val planes = differences[k]
                for (i in 0 until 4) planes[i] = memory.ints(PLANES[4 * k + i], rows * columns)
                if (k == 0) {
                    BLURS[0].apply(spare, rows, columns, level, memory)
                } else {
                    for (i in 0 until 2) halve(differences[k - 1][i + 2], this.width[k - 1], planes[i], rows, columns)
                }
                for (i in (if (k == 0) 0 else 2) until 4) {
                    BLURS[i + 1].apply(level, rows, columns, spare, memory)
                    subtract(spare, level, planes[i], rows * columns)
                    level = spare.also { spare = level }
                }
                halve(level, columns, spare, (rows + 1) / 2, (columns + 1) / 2)
                level = spare.also { spare = level }
                rows = (rows + 1) / 2
                columns = (columns + 1) / 2
            }
        }

        private fun subtract(a: IntArray, b: IntArray, out: IntArray, n: Int) {
            for (i in 0 until n) out[i] = a[i] - b[i]
        }

        private fun halve(from: IntArray, width: Int, to: IntArray, h: Int, w: Int) {
            for (y in 0 until h) for (x in 0 until w) to[y * w + x] = from[2 * y * width + 2 * x]
        }

        private companion object {
            val PLANES = Array(4 * OCTAVES) { "blobs: difference $it" }
            val BLURS = arrayOf(
                Blur(1, 14, 8, 1, 0), Blur(1, 2, 1, 0, 0), Blur(1, 20, 15, 6, 1), Blur(2, 14, 8, 1, 0),
                Blur(2, 20, 15, 6, 1),
            )
        }
    }
}
