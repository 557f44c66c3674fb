package dev.hfnet.edge.networks

import dev.hfnet.edge.Memory
import dev.hfnet.edge.image.Keypoints
import dev.hfnet.edge.image.Output

/** What an HF-Net returns for one image; h = H / 8, w = W / 8. */
public class RawOutputs(internal val outputs: Map<String, Output>) {
    /** (h, w, D), not normalised. */
    public val localDescriptors: Output = outputs.getValue(Role.LOCAL)

    /** (1, 1, G), normalised or not. */
    public val globalDescriptor: Output = outputs.getValue(Role.GLOBAL)

    /** (h, w, 65), or null where the network returns [keypointScores]. */
    public val keypointLogits: Output? = outputs[Role.KEYPOINT_LOGITS]

    /** (H, W) from 0 to 1, before or after non-maximum suppression, or null. */
    public val keypointScores: Output? = outputs[Role.KEYPOINT_SCORES]

    /** (h, w, C), not normalised, or null. */
    public val hypercolumns: Output? = outputs[Role.HYPERCOLUMNS]

    /** The parts of the local descriptors, the coarsest first. */
    public val descriptorMaps: List<Output> = Role.LOCAL_STRIDES.keys.mapNotNull { outputs[it] }

    /** (H, W) keypoint scores, whichever of the two the network returns. */
    public fun scores(): FloatArray = keypointLogits?.let { Keypoints.scores(it) } ?: keypointScores!!.toFloats()

    internal fun scores(memory: Memory): FloatArray =
        keypointLogits?.let { Keypoints.scores(it, memory) } ?: keypointScores!!.values(memory, "scores")
}

/** HF-Net: one image to keypoint scores and descriptors. */
public class HFNet internal constructor(file: ModelFile, runtime: Runtime, threads: Int) :
    Network(file, runtime, threads, 1) {
    /** Runs the network on (H, W) grey levels of its input size; see [run]. */
    public fun <R> look(pixels: ByteArray, use: (RawOutputs) -> R): R = run(pixels) { use(RawOutputs(it)) }
}
