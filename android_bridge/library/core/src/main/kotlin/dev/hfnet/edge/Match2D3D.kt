package dev.hfnet.edge

import dev.hfnet.edge.map.LocalizationMap

/**
 * Points of a query and where they are in the place; N of them.
 *
 * @property xy N pixels of the query. @property keypoints rows of the query's features, rising. @property landmarks rows of
 * the map's landmarks. Either is null where the method has none.
 */
public class Match2D3D private constructor(
    public val xy: DoubleArray,
    @Volatile private var points: DoubleArray?,
    public val keypoints: IntArray?,
    public val landmarks: IntArray?,
    /** Name of the method, where several were asked; else "". */
    public val foundBy: String,
    /** N. */
    public val size: Int,
    /** Where landmarks are, whose points nobody has asked for yet. */
    private val map: LocalizationMap?,
) {
    /** The first [size] of arrays that may be longer. */
    internal constructor(
        xy: DoubleArray, xyz: DoubleArray, keypoints: IntArray? = null, landmarks: IntArray? = null, foundBy: String = "",
        size: Int = xy.size / 2,
    ) : this(xy, xyz, keypoints, landmarks, foundBy, size, null)

    /** N points, relative to the map's origin from a method, in the world in a [LocalizationResult]. */
    public val xyz: DoubleArray
        get() = points ?: map!!.inWorld(map.positions(landmarks!!)).also { points = it }

    /** Those of rows, [count] of them, in a [memory] that these are not in. */
    internal fun take(rows: IntArray, count: Int = rows.size, memory: Memory = Memory()): Match2D3D {
        val from = xyz
        val xy = memory.doubles("taken: xy", 2 * count)
        val xyz = memory.doubles("taken: xyz", 3 * count)
        for (i in 0 until count) {
            System.arraycopy(this.xy, 2 * rows[i], xy, 2 * i, 2)
            System.arraycopy(from, 3 * rows[i], xyz, 3 * i, 3)
        }
        val keypoints = keypoints?.let { taken(it, rows, count, memory.ints("taken: keypoints", count)) }
        val landmarks = landmarks?.let { taken(it, rows, count, memory.ints("taken: landmarks", count)) }
        return Match2D3D(xy, xyz, keypoints, landmarks, foundBy, count)
    }

    private fun taken(all: IntArray, rows: IntArray, count: Int, out: IntArray): IntArray {
        for (i in 0 until count) out[i] = all[rows[i]]
        return out
    }

    internal fun take(chosen: BooleanArray, memory: Memory = Memory()): Match2D3D {
        val count = chosen.count(size)
        val rows = memory.ints("taken: rows", count)
        chosen.rows(size, rows)
        return take(rows, count, memory)
    }

    /** These, then others; both with rows, neither in this [memory]. */
    internal fun join(others: Match2D3D, memory: Memory = Memory()): Match2D3D {
        val n = size + others.size
        val xy = memory.doubles("joined: xy", 2 * n)
        val xyz = memory.doubles("joined: xyz", 3 * n)
        val keypoints = memory.ints("joined: keypoints", n)
        val landmarks = memory.ints("joined: landmarks", n)
        put(xy, xyz, keypoints, landmarks, 0)
        others.put(xy, xyz, keypoints, landmarks, size)
        return Match2D3D(xy, xyz, keypoints, landmarks, foundBy, n)
    }

    private fun put(xy: DoubleArray, xyz: DoubleArray, keypoints: IntArray, landmarks: IntArray, at: Int) {
        System.arraycopy(this.xy, 0, xy, 2 * at, 2 * size)
        System.arraycopy(this.xyz, 0, xyz, 3 * at, 3 * size)
        System.arraycopy(this.keypoints!!, 0, keypoints, at, size)
        System.arraycopy(this.landmarks!!, 0, landmarks, at, size)
    }

    internal fun with(
        xy: DoubleArray = this.xy, xyz: DoubleArray = this.xyz, foundBy: String = this.foundBy,
    ) = Match2D3D(xy, xyz, keypoints, landmarks, foundBy, size)

    /** With lengths times [scale], in [memory]; itself where that is 1. */
    internal fun scaled(scale: Double, memory: Memory = Memory()): Match2D3D {
        if (scale == 1.0) return this
        val from = xyz
        val xyz = memory.doubles("scaled: xyz", 3 * size)
        for (i in 0 until 3 * size) xyz[i] = from[i] * scale
        return with(xyz = xyz)
    }

    /** A copy out of a memory, its arrays as long as they should be. */
    internal fun own() = Match2D3D(
        xy.copyOf(2 * size), xyz.copyOf(3 * size), keypoints?.copyOf(size), landmarks?.copyOf(size), foundBy,
    )

    /** A copy out of a memory, in the world; where landmarks are is read from the [map] when it is asked for. */
    internal fun inWorld(map: LocalizationMap) = Match2D3D(
        xy.copyOf(2 * size), if (landmarks == null) map.inWorld(xyz.copyOf(3 * size)) else null, keypoints?.copyOf(size),
        landmarks?.copyOf(size), foundBy, size, map,
    )

    internal companion object {
        val NONE = Match2D3D(DoubleArray(0), DoubleArray(0), IntArray(0), IntArray(0))
    }
}

/** Rows at which it is true. */
internal fun BooleanArray.rows(): IntArray = IntArray(count(size)).also { rows(size, it) }

/** The same, of the first [n], into [out]. */
internal fun BooleanArray.rows(n: Int, out: IntArray) {
    var count = 0
    for (i in 0 until n) if (this[i]) out[count++] = i
}

/** How many of the first [n] are true. */
internal fun BooleanArray.count(n: Int): Int {
    var count = 0
    for (i in 0 until n) if (this[i]) count++
    return count
}
