package dev.hfnet.edge.networks

import dev.hfnet.edge.image.PatchDescriptors

/**
 * A patch network: upright patches to descriptors that are real-valued and, by their signs, binary. It runs in blocks,
 * the last one filled up; what a patch's descriptor is does not depend on the others.
 */
public class PatchNetwork internal constructor(file: ModelFile, runtime: Runtime, threads: Int) :
    Network(file, runtime, threads, BATCH) {
    /**
     * Descriptors (N, D) of unit length times 127, rounded; what is negative stays so: -0.3 becomes -1.
     *
     * @param patches (N, 32, 32) grey levels.
     */
    public fun describe(patches: ByteArray): ByteArray = PatchDescriptors.quantize(raw(patches), description.localDim)

    /** What the network returns for (N, 32, 32) grey levels: (N, D). */
    public fun raw(patches: ByteArray): FloatArray = inBlocks(patches, Role.PATCH, description.localDim)

    public companion object {
        /** Pixels of a patch, each way. */
        public const val SIDE: Int = 32
        private const val BATCH = 128
    }
}

/** The values (N, [width]) of one output of a network that takes N rows of its input size, in blocks of its batch. */
internal fun Network.inBlocks(rows: ByteArray, role: String, width: Int): FloatArray {
    val size = description.inputHeight * description.inputWidth
    require(rows.size % size == 0) { "$name takes rows of $size grey levels, not ${rows.size} in all" }
    val n = rows.size / size
    val out = FloatArray(n * width)
    val block = ByteArray(batch * size)
    for (start in 0 until n step batch) {
        val count = minOf(batch, n - start)
        rows.copyInto(block, 0, start * size, (start + count) * size)
        run(block) { outputs ->
            val output = outputs.getValue(role)
            for (i in 0 until count * width) out[start * width + i] = output[i]
        }
    }
    return out
}
