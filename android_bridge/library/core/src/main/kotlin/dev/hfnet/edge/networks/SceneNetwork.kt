package dev.hfnet.edge.networks

import dev.hfnet.edge.map.SceneTree

/**
 * A scene network: descriptors of keypoints to labels of the landmarks of one map. It runs in blocks; what it says of a
 * keypoint does not depend on the others.
 */
public class SceneNetwork internal constructor(file: ModelFile, runtime: Runtime, threads: Int) :
    Network(file, runtime, threads, BATCH) {
    /** Whether it is told with each keypoint a reference image that was retrieved. */
    public val takesImage: Boolean = description.inputWidth > description.localDim

    /** Values of a keypoint: levels + 1. */
    public val width: Int = widths.getValue(Role.SCENE)

    /**
     * What the network says of keypoints that look like this: (N, levels + 1), whole numbers, the label of each level,
     * last a score, which is above 0 where the keypoint is thought to be of this landmark.
     *
     * @param descriptors (N, D). @param image the number of a reference image, for a network that takes one.
     */
    @JvmOverloads
    public fun predict(descriptors: ByteArray, image: Int = 0): FloatArray {
        val dim = description.localDim
        require(descriptors.size % dim == 0) { "$name takes $dim-D descriptors, not ${descriptors.size} values in all" }
        return inBlocks(SceneTree.rows(descriptors, dim, if (takesImage) image else null), Role.SCENE, width)
    }

    internal companion object {
        const val NUMBER = 2 // grey levels that an image's number takes
        private const val BATCH = 512
    }
}
