package dev.hfnet.edge.android

import dev.hfnet.edge.ModelException
import dev.hfnet.edge.networks.Interpreter
import dev.hfnet.edge.networks.Runtime
import java.nio.ByteBuffer
import java.nio.ByteOrder
import org.tensorflow.lite.Delegate
import org.tensorflow.lite.Interpreter.Options

/**
 * Runs networks on Android: LiteRT by the classes `org.tensorflow.lite`, with XNNPACK, and with a delegate of the app's
 * before it if there is one.
 *
 * These classes do not tell which nodes a delegate has taken, nor whether it has taken any: what it leaves goes to
 * XNNPACK, and what that leaves to the builtin kernels, silently. So [Interpreter.kernels] says what was asked for;
 * only a parity run against the desktop says that the bits are right, and only a profile what ran where.
 *
 * @param delegates makes what runs the graph before XNNPACK; null: nothing does. Results are other bits then.
 */
public class LiteRtRuntime @JvmOverloads constructor(private val delegates: Delegates? = null) : Runtime {
    /** Makes delegates: `LiteRtRuntime { GpuDelegate() }`. */
    public fun interface Delegates {
        /** A new one, for one interpreter, which closes it. */
        public fun create(): Delegate
    }

    override fun open(model: ByteBuffer, batch: Int, threads: Int): Interpreter {
        require(model.isDirect) { "the model is not in a direct buffer" }
        val content = model.duplicate()
        content.position(0)
        val delegate = delegates?.create()
        val options = Options().setNumThreads(threads).setUseXNNPACK(true)
        if (delegate != null) options.addDelegate(delegate)
        return try {
            LiteRtInterpreter(content.slice().order(ByteOrder.nativeOrder()), batch, options, delegate)
        } catch (e: Throwable) {
            delegate?.close()
            throw when (e) {
                is LinkageError -> ModelException(
                    "LiteRT's native library cannot be loaded: ${e.message}",
                    "keep libtensorflowlite_jni.so of the device's ABI in the app",
                    e,
                )
                is IllegalArgumentException, is IllegalStateException -> ModelException(
                    "LiteRT refuses it: ${e.message}",
                    if (delegate == null) "export it again with `hfnet-export`" else "try it without the delegate",
                    e,
                )
                else -> e
            }
        }
    }
}
