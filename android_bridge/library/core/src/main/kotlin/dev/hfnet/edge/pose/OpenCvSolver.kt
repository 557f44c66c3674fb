package dev.hfnet.edge.pose

import dev.hfnet.edge.Camera
import dev.hfnet.edge.Pose
import kotlin.math.max
import org.opencv.calib3d.Calib3d
import org.opencv.calib3d.UsacParams
import org.opencv.core.CvType
import org.opencv.core.Mat
import org.opencv.core.MatOfDouble
import org.opencv.core.MatOfPoint2f
import org.opencv.core.MatOfPoint3f

/** OpenCV's USAC, seeded: the solver `usac` of the Python runtime. Its library must have been loaded. */
public object OpenCvSolver : Solver {
    private const val CONFIDENCE = 0.9999
    private const val MIN_SAMPLE = 4

    override fun solve(
        xy: DoubleArray, xyz: DoubleArray, count: Int, camera: Camera, maxError: Double, iterations: Int,
    ): Pose? {
        var seen = 0
        camera.rays(xy, count) { _, ray -> if (!ray[0].isNaN()) seen++ }
        if (seen < MIN_SAMPLE) return null
        val points = MatOfPoint3f()
        val places = MatOfPoint2f()
        points.alloc(seen)
        places.alloc(seen)
        val point = FloatArray(3)
        val place = FloatArray(2)
        seen = 0
        camera.rays(xy, count) { i, ray ->
            if (!ray[0].isNaN()) {
                for (axis in 0 until 3) point[axis] = xyz[3 * i + axis].toFloat()
                for (axis in 0 until 2) place[axis] = ray[axis].toFloat()
                points.put(seen, 0, point)
                places.put(seen++, 0, place)
            }
        }
        val identity = Mat.eye(3, 3, CvType.CV_64F)
        val undistorted = MatOfDouble()
        val turn = Mat()
        val shift = Mat()
        val inliers = Mat()
        val rotation = Mat()
        try {
            val found = Calib3d.solvePnPRansac(
                points, places, identity, undistorted, turn, shift, inliers, parameters(maxError, camera, iterations),
            )
            if (!found || inliers.rows() < MIN_SAMPLE) return null
            Calib3d.Rodrigues(turn, rotation)
            val r = DoubleArray(9)
            val t = DoubleArray(3)
            rotation.get(0, 0, r)
            shift.get(0, 0, t)
            return Pose.fromMatrix(r, t)
        } finally {
            for (mat in listOf(points, places, identity, undistorted, turn, shift, inliers, rotation)) mat.release()
        }
    }

    private fun parameters(maxError: Double, camera: Camera, most: Int) = UsacParams().apply {
        set_threshold(maxError / max(camera.focalX, camera.focalY)) // on normalised coordinates
        set_confidence(CONFIDENCE)
        set_maxIterations(most)
        set_sampler(Calib3d.SAMPLING_UNIFORM)
        set_score(Calib3d.SCORE_METHOD_MSAC) // MAGSAC loses the pose at 80 % outliers in OpenCV 5.0
        set_loMethod(Calib3d.LOCAL_OPTIM_INNER_LO)
        set_loIterations(10)
        set_loSampleSize(50)
        set_randomGeneratorState(0)
    }
}
