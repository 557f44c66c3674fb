package dev.hfnet.edge

import java.util.Locale
import kotlin.math.abs
import kotlin.math.max
import kotlin.math.min
import kotlin.math.sqrt

/**
 * Intrinsics as COLMAP writes them. The centre of the top left pixel is (0.5, 0.5).
 *
 * @param model a name of COLMAP's. @param params in COLMAP's order; focal lengths and centre in pixels.
 * @throws CameraException the model is unknown, or the values are none that a camera has.
 */
public class Camera(model: String, public val width: Int, public val height: Int, params: DoubleArray) {
    internal val about: CameraModel = CameraModel.entries.find { it.name == model }
        ?: throw CameraException("the camera model $model is not supported", "use one of ${CameraModel.entries.joinToString()}")
    private val p = params.copyOf()

    init {
        val names = about.names
        if (p.size != names.size) {
            throw CameraException("$model takes ${names.size} parameters, not ${p.size}", "give ${names.joinToString(" ")}")
        }
        if (min(width, height) <= 0 || max(width, height) > MAX_SIDE) {
            throw CameraException("the camera's size is ${width}x$height", "give width and height in pixels")
        }
        if (!p.all { abs(it) < MAX_PARAM } || (0 until about.lengths).any { p[it] <= 1e-3 }) {
            throw CameraException("the camera's parameters ${p.joinToString()} are not sensible", "focal lengths are positive")
        }
    }

    public val model: String get() = about.name
    public val params: DoubleArray get() = p.copyOf()

    /** fx in pixels. */
    public val focalX: Double get() = p[0]

    /** fy in pixels. */
    public val focalY: Double get() = p[about.lengths - 1]

    /** cx in pixels. */
    public val centerX: Double get() = p[about.lengths]

    /** cy in pixels. */
    public val centerY: Double get() = p[about.lengths + 1]

    internal val isPlain get() = about.isPlain
    internal val shortFocal get() = min(focalX, focalY)
    private val bending = p.copyOfRange(about.lengths + 2, p.size)

    /** Points in the camera's frame, N of three numbers, to N pixels; NaN behind the camera. */
    public fun project(xyz: DoubleArray): DoubleArray =
        DoubleArray(xyz.size / 3 * 2).also { project(xyz, xyz.size / 3, it) }

    internal fun project(xyz: DoubleArray, count: Int, out: DoubleArray) {
        val point = DoubleArray(2)
        for (i in 0 until count) {
            project(xyz[3 * i], xyz[3 * i + 1], xyz[3 * i + 2], point)
            out[2 * i] = point[0]
            out[2 * i + 1] = point[1]
        }
    }

    private fun project(x: Double, y: Double, z: Double, out: DoubleArray) {
        about.chart(x, y, z, out)
        about.bent(out[0], out[1], bending, out)
        out[0] = focalX * out[0] + centerX
        out[1] = focalY * out[1] + centerY
    }

    /**
     * Pixels, N of two numbers, to N directions in the camera's frame, z positive; NaN where the camera sees nothing.
     * The inverse of [project].
     */
    public fun rays(xy: DoubleArray): DoubleArray =
        DoubleArray(xy.size / 2 * 3).also { out -> rays(xy, xy.size / 2) { i, ray -> ray.copyInto(out, 3 * i) } }

    /** Gives the direction of each of the first [count] pixels to [use], three numbers that hold during the call. */
    internal inline fun rays(xy: DoubleArray, count: Int, use: (Int, DoubleArray) -> Unit) {
        val ray = DoubleArray(3)
        val work = DoubleArray(2)
        for (i in 0 until count) {
            ray(xy[2 * i], xy[2 * i + 1], ray, work)
            use(i, ray)
        }
    }

    private fun ray(x: Double, y: Double, out: DoubleArray, work: DoubleArray) {
        about.straightened((x - centerX) / focalX, (y - centerY) / focalY, bending, work)
        about.ray(work[0], work[1], out, 0)
    }

    /** The derivatives of a pixel by the point in the camera's frame, (2, 3) row by row, into [out]; [work]: a pair. */
    internal fun jacobian(x3: Double, y3: Double, z3: Double, out: DoubleArray, work: DoubleArray) {
        if (!isPlain) return numericalJacobian(x3, y3, z3, out, work)
        val inverse = 1 / z3
        val x = x3 * inverse
        val y = y3 * inverse
        val tangential = about == CameraModel.OPENCV
        val k1 = if (bending.isEmpty()) 0.0 else bending[0]
        val k2 = if (bending.size < 2) 0.0 else bending[1]
        val p1 = if (tangential) bending[2] else 0.0
        val p2 = if (tangential) bending[3] else 0.0
        val r2 = x * x + y * y
        val radial = 1 + r2 * (k1 + r2 * k2)
        val slope = 2 * k1 + 4 * r2 * k2 // of radial by r2 / 2
        val across = x * y * slope + 2 * p1 * x + 2 * p2 * y
        val xx = focalX * (radial + x * x * slope + 2 * p1 * y + 6 * p2 * x)
        val yy = focalY * (radial + y * y * slope + 6 * p1 * y + 2 * p2 * x)
        val xy = focalX * across
        val yx = focalY * across
        out[0] = xx * inverse
        out[1] = xy * inverse
        out[2] = -(xx * x + xy * y) * inverse
        out[3] = yx * inverse
        out[4] = yy * inverse
        out[5] = -(yx * x + yy * y) * inverse
    }

    /** By differences, over a millionth of the point's distance. */
    private fun numericalJacobian(x: Double, y: Double, z: Double, out: DoubleArray, work: DoubleArray) {
        val step = STEP * sqrt(x * x + y * y + z * z)
        for (axis in 0 until 3) {
            val dx = if (axis == 0) step else 0.0
            val dy = if (axis == 1) step else 0.0
            val dz = if (axis == 2) step else 0.0
            project(x + dx, y + dy, z + dz, work)
            val u = work[0]
            val v = work[1]
            project(x - dx, y - dy, z - dz, work)
            out[axis] = (u - work[0]) / (2 * step)
            out[3 + axis] = (v - work[1]) / (2 * step)
        }
    }

    /** The camera with its focal lengths times [factor]. */
    internal fun withFocal(factor: Double): Camera =
        Camera(model, width, height, DoubleArray(p.size) { if (it < about.lengths) p[it] * factor else p[it] })

    /** k1, k2, p1, p2 of a plain model, as OpenCV orders them. */
    internal val distortion: DoubleArray get() = bending.copyOf(4)

    override fun toString(): String =
        "$model $width $height " + p.joinToString(" ") { String.format(Locale.ROOT, "%.6f", it) }

    override fun equals(other: Any?): Boolean =
        other is Camera && other.about == about && other.width == width && other.height == height && other.p.contentEquals(p)

    override fun hashCode(): Int = 31 * (31 * width + height) + p.contentHashCode()

    public companion object {
        private const val MAX_SIDE = 1 shl 20
        private const val MAX_PARAM = 1e9
        private const val STEP = 1e-6

        /** Reads "PINHOLE 1024 683 919.8 921.8 507.0 335.9". Throws [CameraException]. */
        @JvmStatic
        public fun parse(text: String): Camera {
            val fields = text.trim().split(Regex("\\s+"))
            try {
                if (fields.size < 4) throw NumberFormatException("it has ${fields.size} words")
                val params = DoubleArray(fields.size - 3) { fields[it + 3].toDouble() }
                return Camera(fields[0], fields[1].toInt(), fields[2].toInt(), params)
            } catch (e: NumberFormatException) {
                throw CameraException("\"$text\" is not a camera: ${e.message}", "write \"PINHOLE width height fx fy cx cy\"")
            }
        }
    }
}
