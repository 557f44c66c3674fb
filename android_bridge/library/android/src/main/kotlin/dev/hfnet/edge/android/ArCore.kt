package dev.hfnet.edge.android

import dev.hfnet.edge.Camera
import dev.hfnet.edge.InputException
import dev.hfnet.edge.Pose

/**
 * ARCore's numbers there and back; its classes are not needed. ARCore keeps `world_from_cam`, and the camera's y points
 * up and its z backward.
 */
public object ArCore {
    private val FLIPPED = Pose(doubleArrayOf(0.0, 1.0, 0.0, 0.0), DoubleArray(3)) // y and z change their signs

    /**
     * The camera of a CPU image, `Frame.acquireCameraImage()`.
     *
     * @param focalLength two numbers, as `Camera.getImageIntrinsics()` has them.
     * @param principalPoint two numbers.
     * @param imageDimensions columns and rows.
     * @throws InputException they are not two each, or are no camera's.
     */
    @JvmStatic
    public fun camera(focalLength: FloatArray, principalPoint: FloatArray, imageDimensions: IntArray): Camera {
        if (focalLength.size != 2 || principalPoint.size != 2 || imageDimensions.size != 2) {
            throw InputException(
                "intrinsics of ${focalLength.size}, ${principalPoint.size} and ${imageDimensions.size} numbers",
                "give two each, as Camera.getImageIntrinsics() has them",
            )
        }
        val params = DoubleArray(4) { (if (it < 2) focalLength[it] else principalPoint[it - 2]).toDouble() }
        return Camera("PINHOLE", imageDimensions[0], imageDimensions[1], params)
    }

    /**
     * `cam_from_world` of `Camera.getPose()`, whose world is ARCore's session.
     *
     * @param translation x, y, z of `Pose.getTranslation()`.
     * @param rotationQuaternion x, y, z, w of `Pose.getRotationQuaternion()`.
     * @throws InputException they are not finite, or no rotation.
     */
    @JvmStatic
    public fun pose(translation: FloatArray, rotationQuaternion: FloatArray): Pose {
        if (translation.size != 3 || rotationQuaternion.size != 4) {
            throw InputException(
                "a pose of ${translation.size} and ${rotationQuaternion.size} numbers",
                "give three of the translation and four of the quaternion",
            )
        }
        val (x, y, z, w) = rotationQuaternion
        val values = floatArrayOf(w, x, y, z) + translation
        val worldFromCamera = Pose.of(DoubleArray(7) { values[it].toDouble() })
        return (worldFromCamera * FLIPPED).inverse
    }

    /** x, y, z of ARCore's pose of a camera: where it is in the world of [camFromWorld]. */
    @JvmStatic
    public fun translation(camFromWorld: Pose): FloatArray = camFromWorld.center.toFloats()

    /** x, y, z, w of ARCore's pose of a camera. */
    @JvmStatic
    public fun rotationQuaternion(camFromWorld: Pose): FloatArray {
        val (w, x, y, z) = (camFromWorld.inverse * FLIPPED).quaternion
        return doubleArrayOf(x, y, z, w).toFloats()
    }

    private fun DoubleArray.toFloats() = FloatArray(size) { this[it].toFloat() }
}
