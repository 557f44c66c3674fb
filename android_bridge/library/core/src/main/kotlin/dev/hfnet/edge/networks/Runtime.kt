package dev.hfnet.edge.networks

import dev.hfnet.edge.ModelException
import dev.hfnet.edge.image.Output
import java.io.Closeable
import java.nio.ByteBuffer

/** What runs networks: TensorFlow Lite, in whatever form a platform has it. Threads may share it. */
public interface Runtime {
    /**
     * Opens a network, ready to run.
     *
     * @param model a .tflite file of one signature and one input, in a direct buffer that nobody writes to. Several
     *   interpreters may lie over it.
     * @param batch of the input. @param threads that a run may use; the outputs do not depend on it.
     * @throws ModelException it cannot be run.
     */
    @Throws(ModelException::class)
    public fun open(model: ByteBuffer, batch: Int, threads: Int): Interpreter
}

/** An opened network, which one thread at a time may use. */
public interface Interpreter : Closeable {
    /** (batch, H, W, 1). */
    public val inputShape: IntArray

    /** With the batch, by name in the signature. */
    public val outputShapes: Map<String, IntArray>

    /** What ran the convolutions: "XNNPACK" or "builtin", whose int8 differ by a few steps. */
    public val kernels: String

    /**
     * Runs the network.
     *
     * @param input all values of [inputShape].
     * @return outputs by name, float32, or int8 of one scale. They are the interpreter's, and hold until its next run.
     * @throws ModelException the run fails; the interpreter is not used again then.
     */
    @Throws(ModelException::class)
    public fun run(input: FloatArray): Map<String, Output>

    override fun close()
}
