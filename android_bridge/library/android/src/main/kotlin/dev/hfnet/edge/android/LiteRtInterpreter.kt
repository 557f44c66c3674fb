package dev.hfnet.edge.android

import dev.hfnet.edge.ModelException
import dev.hfnet.edge.image.Output
import dev.hfnet.edge.networks.Interpreter
import java.nio.Buffer
import java.nio.ByteBuffer
import java.nio.ByteOrder
import java.nio.FloatBuffer
import org.tensorflow.lite.DataType
import org.tensorflow.lite.Delegate
import org.tensorflow.lite.Interpreter as Native
import org.tensorflow.lite.Tensor

/** One interpreter of LiteRT, of the model's only signature, with arrays that its outputs are copied into. */
internal class LiteRtInterpreter(
    model: ByteBuffer,
    batch: Int,
    options: Native.Options,
    private val delegate: Delegate?,
) : Interpreter {
    private val native = Native(model, options)
    private val signature: String
    private val input: FloatBuffer
    private val given: Map<String, Buffer>
    private val taken = LinkedHashMap<String, Buffer>()
    private val outputs = LinkedHashMap<String, Output>()
    override val inputShape: IntArray
    override val outputShapes = LinkedHashMap<String, IntArray>()
    override val kernels: String = listOfNotNull(delegate?.javaClass?.simpleName, "XNNPACK").joinToString(", ")

    init {
        try {
            val keys = native.signatureKeys
            signature = keys.singleOrNull() ?: throw fail("it has ${keys.size} signatures, not one")
            val inputs = native.getSignatureInputs(signature)
            val name = inputs.singleOrNull() ?: throw fail("it has ${inputs.size} inputs, not one")
            val shape = native.getInputTensorFromSignature(name, signature).shape()
            if (shape.isEmpty()) throw fail("its input has no batch")
            if (shape[0] != batch) native.resizeInput(0, shape.also { it[0] = batch })
            native.allocateTensors()
            val tensor = native.getInputTensorFromSignature(name, signature)
            if (tensor.dataType() != DataType.FLOAT32) throw fail("its input is not float32")
            inputShape = tensor.shape()
            input = ByteBuffer.allocateDirect(tensor.numBytes()).order(ByteOrder.nativeOrder()).asFloatBuffer()
            given = mapOf(name to input)
            for (output in native.getSignatureOutputs(signature)) {
                add(output, native.getOutputTensorFromSignature(output, signature))
            }
        } catch (e: Throwable) {
            native.close()
            throw e
        }
    }

    override fun run(input: FloatArray): Map<String, Output> {
        this.input.clear()
        this.input.put(input)
        this.input.rewind()
        for (buffer in taken.values) buffer.clear()
        try {
            native.runSignature(given, taken as Map<String, Any>, signature)
        } catch (e: IllegalArgumentException) {
            throw ModelException("LiteRT refuses the run: ${e.message}", "export it again with `hfnet-export`", e)
        } catch (e: IllegalStateException) {
            throw ModelException("LiteRT's run failed: ${e.message}", "open the network again", e)
        }
        return outputs
    }

    override fun close() {
        native.close()
        delegate?.close()
    }

    private fun add(name: String, tensor: Tensor) {
        val shape = tensor.shape()
        outputShapes[name] = shape
        val quantization = tensor.quantizationParams()
        when {
            tensor.dataType() == DataType.FLOAT32 -> {
                val values = FloatArray(tensor.numElements())
                taken[name] = FloatBuffer.wrap(values)
                outputs[name] = Output.of(values, shape)
            }
            tensor.dataType() == DataType.INT8 && quantization.scale > 0 -> {
                val values = ByteArray(tensor.numElements())
                taken[name] = ByteBuffer.wrap(values)
                outputs[name] = Output.of(values, shape, quantization.scale, quantization.zeroPoint)
            }
            else -> throw fail("$name is neither float32 nor int8 of one scale")
        }
    }

    private fun fail(what: String) = ModelException(what, "export it again with `hfnet-export`")
}
