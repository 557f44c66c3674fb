package dev.hfnet.edge.networks

import dev.hfnet.edge.ModelException
import dev.hfnet.edge.image.Output
import java.nio.ByteBuffer

/**
 * Gives outputs that are known beforehand, by name in the signature, for what comes after a network: whatever the input
 * is, or as [answer] makes them of it.
 */
class RecordedRuntime(
    private val inputShape: IntArray,
    private val outputShapes: Map<String, IntArray>,
    private val answer: (FloatArray) -> Map<String, Output>,
) : Runtime {
    /** Interpreters that were opened, and those that were closed. */
    var opened = 0
    var closed = 0

    override fun open(model: ByteBuffer, batch: Int, threads: Int): Interpreter {
        synchronized(this) { opened++ }
        val runtime = this
        return object : Interpreter {
            override val inputShape = runtime.inputShape
            override val outputShapes = runtime.outputShapes
            override val kernels = "recorded"

            override fun run(input: FloatArray) = answer(input)

            override fun close() = synchronized(runtime) { closed += 1 }
        }
    }

    companion object {
        /** Of outputs that are always the same, (1, h, w, C) or, of one cell, (1, C). */
        fun of(height: Int, width: Int, outputs: Map<String, Output>) = RecordedRuntime(
            intArrayOf(1, height, width, 1),
            outputs.mapValues { (_, o) ->
                if (o.height * o.width == 1) intArrayOf(1, o.channels) else intArrayOf(1, o.height, o.width, o.channels)
            },
        ) { outputs }
    }
}

/** A description that is right, of a network of these outputs, each named as its role. */
fun described(
    roles: Collection<String>,
    height: Int,
    width: Int,
    localDim: Int,
    globalDim: Int,
    weightsHash: String = "0123456789abcdef0123456789abcdef",
    range: Pair<Float, Float> = Pair(-1f, 1f),
) = Description(
    "made-up", weightsHash, "int8", height, width, range.first, range.second, localDim, globalDim, 4,
    roles.associateWith { it }, listOf("a test"), Description.BLOBS,
)

/** A network over a runtime that needs no file. */
fun network(name: String, description: Description, runtime: Runtime): Network {
    val file = ModelFile(name, ByteBuffer.allocateDirect(0), description)
    return when (description.kind) {
        Kind.IMAGE -> HFNet(file, runtime, 1)
        Kind.PATCHES -> PatchNetwork(file, runtime, 1)
        Kind.SCENE -> SceneNetwork(file, runtime, 1)
        Kind.RETRIEVAL -> RetrievalNetwork(file, runtime, 1)
    }
}

/** The interpreter's run throws. */
class FailingRuntime(private val shapes: Map<String, IntArray>, private val input: IntArray) : Runtime {
    var closed = 0

    override fun open(model: ByteBuffer, batch: Int, threads: Int): Interpreter = object : Interpreter {
        override val inputShape = input
        override val outputShapes = shapes
        override val kernels = "recorded"

        override fun run(input: FloatArray): Map<String, Output> = throw ModelException("no", "try again")

        override fun close() {
            closed++
        }
    }
}
