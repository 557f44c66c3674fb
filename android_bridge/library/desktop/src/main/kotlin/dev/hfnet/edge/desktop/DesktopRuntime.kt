package dev.hfnet.edge.desktop

import dev.hfnet.edge.ModelException
import dev.hfnet.edge.networks.Interpreter
import dev.hfnet.edge.networks.Runtime
import java.nio.ByteBuffer
import org.bytedeco.javacpp.Loader
import org.bytedeco.tensorflowlite.global.tensorflowlite

/**
 * Runs networks on a desktop or a server: TensorFlow Lite with XNNPACK, a native library that comes from Maven with
 * this one, for Linux, macOS and Windows, and is unpacked to `~/.javacpp` when it is first used.
 *
 * Throws [ModelException]: there is no native library for this machine on the class path.
 */
public class DesktopRuntime : Runtime {
    init {
        try {
            Loader.load(tensorflowlite::class.java)
        } catch (e: LinkageError) {
            val machine = Loader.getPlatform()
            throw ModelException(
                "TensorFlow Lite's native library for $machine cannot be loaded: ${e.message}",
                "add org.bytedeco:tensorflow-lite and org.bytedeco:javacpp with the classifier $machine",
                e,
            )
        }
    }

    override fun open(model: ByteBuffer, batch: Int, threads: Int): Interpreter {
        require(model.isDirect) { "the model is not in a direct buffer" }
        return TfLiteInterpreter(model, batch, threads)
    }
}
