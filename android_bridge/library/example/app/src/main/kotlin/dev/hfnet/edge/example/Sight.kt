package dev.hfnet.edge.example

import dev.hfnet.edge.Camera
import dev.hfnet.edge.LocalizationResult
import dev.hfnet.edge.map.LocalizationMap

/**
 * What is to be drawn over a frame.
 *
 * @property points x, y of landmarks, pixels of the upright frame.
 * @property width columns of that frame.
 * @property height its rows.
 */
class Sight private constructor(val text: String, val points: FloatArray, val width: Int, val height: Int) {
    companion object {
        private const val MOST = 2000 // landmarks that are drawn
        private const val LIKELY = 3 // reference images whose landmarks are

        /** Of a frame as it is stored, upright when it is turned by [rotation] degrees clockwise. */
        fun of(map: LocalizationMap, result: LocalizationResult, camera: Camera, rotation: Int): Sight {
            val sideways = rotation % 180 != 0
            val width = if (sideways) camera.height else camera.width
            val height = if (sideways) camera.width else camera.height
            val pose = result.pose ?: return Sight(result.status.name, FloatArray(0), width, height)
            val seen = result.priorFrames.take(LIKELY).flatMap { map.observed(it).asList() }.distinct()
            val step = seen.size / MOST + 1
            val meta = map.meta
            val origin = doubleArrayOf(meta.originX, meta.originY, meta.originZ)
            val world = DoubleArray(3 * ((seen.size + step - 1) / step))
            for (i in 0 until world.size / 3) {
                val position = map.position(seen[i * step])
                for (axis in 0 until 3) world[3 * i + axis] = position[axis] + origin[axis]
            }
            val pixels = camera.project(pose.transform(world))
            val points = ArrayList<Float>()
            for (i in 0 until pixels.size / 2) {
                val (x, y) = upright(pixels[2 * i], pixels[2 * i + 1], camera, rotation)
                if (x in 0.0..width.toDouble() && y in 0.0..height.toDouble()) {
                    points.add(x.toFloat())
                    points.add(y.toFloat())
                }
            }
            val (x, y, z) = pose.center
            val probability = (100 * result.probability).toInt()
            val text = "%.2f %.2f %.2f   %d %%   %.0f ms".format(x, y, z, probability, result.milliseconds.values.sum())
            return Sight(text, points.toFloatArray(), width, height)
        }

        private fun upright(x: Double, y: Double, camera: Camera, rotation: Int) = when (rotation) {
            0 -> Pair(x, y)
            90 -> Pair(camera.height - y, x)
            180 -> Pair(camera.width - x, camera.height - y)
            else -> Pair(y, camera.width - x)
        }
    }
}
