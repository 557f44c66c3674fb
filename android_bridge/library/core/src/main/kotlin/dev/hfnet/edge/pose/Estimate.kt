package dev.hfnet.edge.pose

import dev.hfnet.edge.Camera
import dev.hfnet.edge.Match2D3D
import dev.hfnet.edge.Memory
import dev.hfnet.edge.Pose
import kotlin.math.abs

/** Finds a first pose in matches that are partly wrong: PnP in RANSAC. It gives the same pose for the same matches. */
public interface Solver {
    /**
     * @param xy pixels, and @param xyz points, of which the first [count] count. @param camera of a plain model: pinhole,
     *   or with k1, k2, p1, p2. @param maxError inlier threshold, pixels. @param iterations of RANSAC at most.
     * @return cam_from_world; null where there is none.
     */
    public fun solve(
        xy: DoubleArray, xyz: DoubleArray, count: Int, camera: Camera, maxError: Double, iterations: Int,
    ): Pose?
}

/** A pose from matches: first pose, refinement. */
internal object Estimate {
    private const val MIN_SAMPLE = 4
    private const val WIDEST = 5.0

    /** PnP in RANSAC, refined on the inliers; null with fewer than 4 matches, or where no model was found. */
    fun pose(
        matches: Match2D3D, camera: Camera, maxError: Double, solver: Solver, iterations: Int, rough: Boolean = false,
        memory: Memory = Memory(),
    ): RefinedPose? {
        val first = first(matches, camera, maxError, solver, iterations, memory) ?: return null
        val found = Refinement.refineAgain(first, matches, camera, maxError, true, memory)
        return if (rough) found else Refinement.refineAgain(found.pose, matches, camera, maxError, false, memory)
    }

    /** The solver's pose as it is. */
    fun first(
        matches: Match2D3D, camera: Camera, maxError: Double, solver: Solver, iterations: Int, memory: Memory = Memory(),
    ): Pose? {
        val scale = Refinement.scaleOf(matches, memory)
        val plain = if (camera.isPlain) camera else pinhole(camera)
        val seen = if (camera.isPlain) matches else straightened(matches, camera, plain, memory)
        if (seen.size < MIN_SAMPLE) return null
        val pose = solver.solve(seen.xy, seen.scaled(scale, memory).xyz, seen.size, plain, maxError, iterations)
        return pose?.takeIf { it.isFinite }?.scaled(1 / scale)
    }

    private fun pinhole(of: Camera) =
        Camera("SIMPLE_PINHOLE", of.width, of.height, doubleArrayOf(of.shortFocal, of.centerX, of.centerY))

    /** As a pinhole would see them; what lies farther from the axis than one shows well is left out. */
    private fun straightened(matches: Match2D3D, camera: Camera, pinhole: Camera, memory: Memory): Match2D3D {
        val n = matches.size
        val rays = memory.doubles("straightened: rays", 3 * n)
        val shown = memory.booleans("straightened: shown", n)
        camera.rays(matches.xy, n) { i, ray ->
            val reach = WIDEST * ray[2]
            shown[i] = abs(ray[0]) < reach && abs(ray[1]) < reach
            ray.copyInto(rays, 3 * i)
        }
        val xy = memory.doubles("straightened: xy", 2 * n)
        pinhole.project(rays, n, xy)
        return matches.with(xy = xy).take(shown, memory.part("straightened"))
    }
}
