package dev.hfnet.edge.android

import java.nio.Buffer
import java.nio.ByteBuffer
import java.nio.ByteOrder
import java.nio.FloatBuffer
import org.robolectric.annotation.Implementation
import org.robolectric.annotation.Implements
import org.tensorflow.lite.DataType
import org.tensorflow.lite.Interpreter
import org.tensorflow.lite.Tensor

/**
 * LiteRT's interpreter without its native library: an input of (1, 2, 2, 1), of which "mean" is the mean of each image,
 * and "doubled" int8 of scale 0.5 and zero point 3.
 */
@Implements(value = Interpreter::class, isInAndroidSdk = false)
class ShadowInterpreter : ShadowInterpreterImpl() {
    @Implementation
    fun __constructor__(model: ByteBuffer, options: Interpreter.Options) {
        check(model.order() == ByteOrder.nativeOrder())
        require(model.limit() > 0) { "ByteBuffer is not a valid TensorFlow Lite model flatbuffer" }
        opened = options
        last = this
    }

    @Implementation
    fun getSignatureKeys() = arrayOf("serving_default")

    @Implementation
    fun getSignatureInputs(key: String) = arrayOf("image")

    @Implementation
    fun getSignatureOutputs(key: String) = arrayOf("mean", "doubled")

    @Implementation
    fun getInputTensorFromSignature(name: String, key: String): Tensor = Values(DataType.FLOAT32, batch, 2, 2, 1)

    @Implementation
    fun getOutputTensorFromSignature(name: String, key: String): Tensor {
        check(allocated)
        return if (name == "mean") Values(DataType.FLOAT32, batch, 1) else Values(doubled, batch, 2, 2, 1)
    }

    @Implementation
    fun runSignature(inputs: Map<String, Any>, outputs: Map<String, Any>, key: String) {
        val input = inputs.getValue("image") as FloatBuffer
        check(input.isDirect && input.remaining() == 4 * batch && outputs.values.all { (it as Buffer).position() == 0 })
        for (i in 0 until batch) {
            val image = FloatArray(4).also { input.get(it) }
            if (image.any { it.isNaN() }) throw IllegalStateException("Internal error: node number 3 failed to invoke")
            (outputs.getValue("mean") as FloatBuffer).put(image.average().toFloat())
            for (value in image) (outputs.getValue("doubled") as ByteBuffer).put((value * 2 + 3).toInt().toByte())
        }
    }

    private class Values(private val type: DataType, private vararg val sides: Int) : Tensor {
        override fun dataType() = type
        override fun numDimensions() = sides.size
        override fun numElements() = sides.fold(1) { all, side -> all * side }
        override fun numBytes() = numElements() * type.byteSize()
        override fun shape() = sides.copyOf()
        override fun shapeSignature() = shape()
        override fun index() = 0
        override fun name() = ""
        override fun quantizationParams() =
            if (type == DataType.INT8) Tensor.QuantizationParams(0.5f, 3) else Tensor.QuantizationParams(0f, 0)
        override fun asReadOnlyBuffer(): ByteBuffer = throw UnsupportedOperationException()
    }

    companion object {
        lateinit var opened: Interpreter.Options
        lateinit var last: ShadowInterpreter
        var doubled = DataType.INT8
    }
}

/** What the interpreter inherits. */
@Implements(className = "org.tensorflow.lite.InterpreterImpl", isInAndroidSdk = false)
open class ShadowInterpreterImpl {
    protected var batch = 1
    protected var allocated = false

    /** Of this one: those of earlier tests are closed by their finalizers, at any time. */
    var isClosed = false

    @Implementation
    fun resizeInput(index: Int, shape: IntArray) {
        check(index == 0)
        batch = shape[0]
        allocated = false
    }

    @Implementation
    fun allocateTensors() {
        allocated = true
    }

    @Implementation
    fun close() {
        isClosed = true
    }
}
