package dev.hfnet.edge

import kotlin.math.abs
import kotlin.math.cos
import kotlin.math.sin
import kotlin.math.sqrt

/**
 * How somebody else writes poses. Here a pose is `cam_from_world`, x right, y down, z forward, and the world is
 * right-handed; others keep `world_from_cam`, name the camera's axes differently, and some worlds are left-handed.
 *
 * @property camera from the camera's axes here to theirs, (3, 3) row by row.
 * @property world from a right-handed world to theirs, the same. @property unit theirs in a metre.
 */
public enum class Convention(
    internal val camera: DoubleArray,
    internal val world: DoubleArray,
    internal val unit: Double = 1.0,
) {
    /** x right, y down, z forward; the world as it is. */
    OPENCV(diagonal(1.0, 1.0, 1.0), diagonal(1.0, 1.0, 1.0)),

    /** x right, y up, z backward; the world as it is. */
    OPENGL(diagonal(1.0, -1.0, -1.0), diagonal(1.0, 1.0, 1.0)),

    /** As [OPENGL]; their worlds have y up. */
    ARKIT(OPENGL.camera, OPENGL.world),

    /** As [OPENGL]; their worlds have y up. */
    ARCORE(OPENGL.camera, OPENGL.world),

    /** x right, y up, z forward; a world with y up, z mirrored: left-handed. */
    UNITY(diagonal(1.0, -1.0, 1.0), diagonal(1.0, 1.0, -1.0)),

    /** x forward, y right, z up; a world with z up, y mirrored: left-handed; centimetres. */
    UNREAL(doubleArrayOf(0.0, 0.0, 1.0, 1.0, 0.0, 0.0, 0.0, -1.0, 0.0), diagonal(1.0, -1.0, 1.0), 100.0),

    /** As [OPENCV]. */
    ROS_OPTICAL(OPENCV.camera, OPENCV.world),

    /** x forward, y left, z up; the world as it is, theirs have z up. */
    ROS_BODY(doubleArrayOf(0.0, 0.0, 1.0, -1.0, 0.0, 0.0, 0.0, -1.0, 0.0), diagonal(1.0, 1.0, 1.0)),
}

/** Poses there and back. A world that is to be left-handed must stand right before: see [Z_UP_TO_Y_UP]. */
public object Conventions {
    /** Turns a world: x stays, z becomes y. */
    @JvmField
    public val Z_UP_TO_Y_UP: Pose = Pose(doubleArrayOf(sqrt(0.5), -sqrt(0.5), 0.0, 0.0), DoubleArray(3))

    /** `world_from_cam` as others have it: (4, 4) row by row, the position in the last column. */
    @JvmStatic
    public fun toMatrix(camFromWorld: Pose, to: Convention): DoubleArray {
        val back = camFromWorld.inverse
        val rotation = product(product(to.world, back.rotation), transposed(to.camera))
        val position = times(to.world, back.translation)
        val out = DoubleArray(16)
        for (i in 0 until 3) {
            for (j in 0 until 3) out[4 * i + j] = rotation[3 * i + j]
            out[4 * i + 3] = to.unit * position[i]
        }
        out[15] = 1.0
        return out
    }

    /**
     * `cam_from_world` of the [matrix] that others keep, (4, 4) row by row: ARKit's `ARCamera.transform`, Unity's
     * `localToWorldMatrix`, ARCore's `Pose.toMatrix` by [ofColumns].
     *
     * @throws InputException the matrix is not finite, or no rotation.
     */
    @JvmStatic
    public fun fromMatrix(matrix: DoubleArray, of: Convention): Pose {
        if (matrix.size != 16 || !matrix.all { abs(it) <= Double.MAX_VALUE }) {
            throw InputException("the pose is no finite (4, 4) matrix", "give rotation and position")
        }
        val theirs = DoubleArray(9) { matrix[4 * (it / 3) + it % 3] }
        val rotation = product(product(transposed(of.world), theirs), of.camera)
        if (!isRotation(rotation)) {
            throw InputException("the pose's matrix is no rotation", "give it without scale, by rows, as $of has it")
        }
        val position = times(transposed(of.world), DoubleArray(3) { matrix[4 * it + 3] })
        return Pose.fromMatrix(rotation, DoubleArray(3) { position[it] / of.unit }).inverse
    }

    /**
     * The pose of the camera whose image is this one's, turned clockwise by 0, 90, 180 or 270 degrees: what a display
     * shows of a sensor that is mounted sideways.
     *
     * @throws InputException the angle is another.
     */
    @JvmStatic
    public fun turned(camFromWorld: Pose, rotation: Int): Pose {
        if (rotation !in 0..270 || rotation % 90 != 0) {
            throw InputException("rotation is $rotation", "give 0, 90, 180 or 270 degrees clockwise")
        }
        val half = Math.toRadians(rotation.toDouble()) / 2
        return Pose(doubleArrayOf(cos(half), 0.0, 0.0, sin(half)), DoubleArray(3)) * camFromWorld
    }

    /** A matrix of 16 numbers by columns, as OpenGL and ARCore have it, row by row. Throws [InputException]. */
    @JvmStatic
    public fun ofColumns(columns: FloatArray): DoubleArray {
        if (columns.size != 16) throw InputException("${columns.size} numbers are no (4, 4) matrix", "give 16")
        return DoubleArray(16) { columns[4 * (it % 4) + it / 4].toDouble() }
    }

    /** A (4, 4) matrix row by row, by columns. Throws [InputException]. */
    @JvmStatic
    public fun toColumns(matrix: DoubleArray): FloatArray {
        if (matrix.size != 16) throw InputException("${matrix.size} numbers are no (4, 4) matrix", "give 16")
        return FloatArray(16) { matrix[4 * (it % 4) + it / 4].toFloat() }
    }

    private fun isRotation(r: DoubleArray): Boolean {
        val square = product(r, transposed(r))
        val right = (0 until 9).all { abs(square[it] - if (it % 4 == 0) 1 else 0) <= TOLERANCE }
        val determinant = r[0] * (r[4] * r[8] - r[5] * r[7]) - r[1] * (r[3] * r[8] - r[5] * r[6]) +
            r[2] * (r[3] * r[7] - r[4] * r[6])
        return right && determinant > 0
    }

    private const val TOLERANCE = 1e-3
}

private fun diagonal(a: Double, b: Double, c: Double) = doubleArrayOf(a, 0.0, 0.0, 0.0, b, 0.0, 0.0, 0.0, c)

private fun transposed(m: DoubleArray) = DoubleArray(9) { m[3 * (it % 3) + it / 3] }

private fun product(a: DoubleArray, b: DoubleArray) = DoubleArray(9) { at ->
    val i = at / 3
    val j = at % 3
    a[3 * i] * b[j] + a[3 * i + 1] * b[3 + j] + a[3 * i + 2] * b[6 + j]
}

private fun times(m: DoubleArray, v: DoubleArray) =
    DoubleArray(3) { m[3 * it] * v[0] + m[3 * it + 1] * v[1] + m[3 * it + 2] * v[2] }
