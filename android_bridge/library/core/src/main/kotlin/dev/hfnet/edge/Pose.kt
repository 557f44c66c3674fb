package dev.hfnet.edge

import kotlin.math.abs
import kotlin.math.sqrt

/**
 * `cam_from_world`: maps world points to the camera's frame, `R x + t`. OpenCV's axes: x right, y down, z forward.
 *
 * @property quaternion w, x, y, z, of unit length. @property translation in the world's unit.
 */
public class Pose(quaternion: DoubleArray, translation: DoubleArray) {
    private val q = quaternion.copyOf()
    private val t = translation.copyOf()

    init {
        require(q.size == 4 && t.size == 3) { "a pose is a quaternion of four numbers and a translation of three" }
    }

    public val quaternion: DoubleArray get() = q.copyOf()
    public val translation: DoubleArray get() = t.copyOf()

    /** The rotation matrix, nine numbers row by row. */
    public val rotation: DoubleArray get() = r.copyOf()

    /** The camera's position in the world, x, y, z. */
    public val center: DoubleArray get() = DoubleArray(3) { -(r[it] * t[0] + r[3 + it] * t[1] + r[6 + it] * t[2]) }

    /** The way back: of `cam_from_world` `world_from_cam`. */
    public val inverse: Pose get() = Pose(doubleArrayOf(q[0], -q[1], -q[2], -q[3]), center)

    internal val r: DoubleArray = DoubleArray(9).also { rotation(q, it) }

    /** First [other], then this: `cam_from_rig * rig_from_world` is `cam_from_world`. */
    public operator fun times(other: Pose): Pose {
        val (w, x, y, z) = other.q
        val product = doubleArrayOf(
            q[0] * w - q[1] * x - q[2] * y - q[3] * z,
            q[0] * x + q[1] * w + q[2] * z - q[3] * y,
            q[0] * y - q[1] * z + q[2] * w + q[3] * x,
            q[0] * z + q[1] * y - q[2] * x + q[3] * w,
        )
        return Pose(unit(product), transform(other.t))
    }

    /** World points, N of three numbers, in the camera's frame. */
    public fun transform(xyz: DoubleArray): DoubleArray = DoubleArray(xyz.size).also { transform(xyz, xyz.size / 3, it) }

    internal fun transform(xyz: DoubleArray, count: Int, out: DoubleArray): Unit = transform(r, t, xyz, count, out)

    internal fun copyInto(quaternion: DoubleArray, translation: DoubleArray) {
        q.copyInto(quaternion)
        t.copyInto(translation)
    }

    /** The same with lengths times [scale]; itself where that is 1. */
    internal fun scaled(scale: Double) = if (scale == 1.0) this else Pose(q, DoubleArray(3) { t[it] * scale })

    internal val isFinite get() = (q + t).all { abs(it) <= Double.MAX_VALUE }

    override fun toString(): String = (q + t).joinToString(" ")

    public companion object {
        private const val MAX_DISTANCE = 1e12

        /**
         * From qw, qx, qy, qz, tx, ty, tz as files have them: the quaternion is scaled to unit length.
         *
         * @throws InputException they are not seven finite numbers, no rotation, or beyond every place.
         */
        @JvmStatic
        public fun of(values: DoubleArray): Pose {
            val right = values.size == 7 && values.all { abs(it) <= Double.MAX_VALUE } &&
                (0 until 4).maxOf { abs(values[it]) } in 1e-6..1e6 && (4 until 7).all { abs(values[it]) < MAX_DISTANCE }
            if (!right) throw InputException("${values.joinToString()} is no pose", "give a quaternion and a translation")
            return Pose(unit(values.copyOf(4)), values.copyOfRange(4, 7))
        }

        /** From a rotation matrix, nine numbers row by row, and a translation of cam_from_world. */
        @JvmStatic
        public fun fromMatrix(rotation: DoubleArray, translation: DoubleArray): Pose {
            val r = rotation
            val trace = r[0] + r[4] + r[8]
            // Shepperd's method: divide by the largest of the four components.
            val squares = DoubleArray(4) { if (it == 0) trace + 1 else 2 * r[4 * (it - 1)] - trace + 1 }
            var largest = 0
            for (k in 1 until 4) if (squares[k] > squares[largest]) largest = k
            val s = 2 * sqrt(squares[largest])
            val q = DoubleArray(4)
            if (largest == 0) {
                q[0] = s / 4
                q[1] = (r[7] - r[5]) / s
                q[2] = (r[2] - r[6]) / s
                q[3] = (r[3] - r[1]) / s
            } else {
                val i = largest - 1
                val j = (i + 1) % 3
                val k = (i + 2) % 3
                q[0] = (r[3 * k + j] - r[3 * j + k]) / s
                q[1 + i] = s / 4
                q[1 + j] = (r[3 * j + i] + r[3 * i + j]) / s
                q[1 + k] = (r[3 * k + i] + r[3 * i + k]) / s
            }
            if (q[0] < 0) for (k in q.indices) q[k] = -q[k]
            return Pose(unit(q), translation)
        }

        internal fun unit(q: DoubleArray): DoubleArray {
            val length = sqrt(q[0] * q[0] + q[1] * q[1] + q[2] * q[2] + q[3] * q[3])
            return DoubleArray(4) { q[it] / length }
        }

        /** The rotation matrix of a quaternion of any length, into [out]. */
        internal fun rotation(q: DoubleArray, out: DoubleArray) {
            val length = sqrt(q[0] * q[0] + q[1] * q[1] + q[2] * q[2] + q[3] * q[3])
            val w = q[0] / length
            val x = q[1] / length
            val y = q[2] / length
            val z = q[3] / length
            out[0] = 1 - 2 * (y * y + z * z)
            out[1] = 2 * (x * y - z * w)
            out[2] = 2 * (x * z + y * w)
            out[3] = 2 * (x * y + z * w)
            out[4] = 1 - 2 * (x * x + z * z)
            out[5] = 2 * (y * z - x * w)
            out[6] = 2 * (x * z - y * w)
            out[7] = 2 * (y * z + x * w)
            out[8] = 1 - 2 * (x * x + y * y)
        }

        /** `r x + t` of [count] points, into [out]. */
        internal fun transform(r: DoubleArray, t: DoubleArray, xyz: DoubleArray, count: Int, out: DoubleArray) {
            for (at in 0 until 3 * count step 3) {
                val x = xyz[at]
                val y = xyz[at + 1]
                val z = xyz[at + 2]
                out[at] = x * r[0] + y * r[1] + z * r[2] + t[0]
                out[at + 1] = x * r[3] + y * r[4] + z * r[5] + t[1]
                out[at + 2] = x * r[6] + y * r[7] + z * r[8] + t[2]
            }
        }
    }
}
