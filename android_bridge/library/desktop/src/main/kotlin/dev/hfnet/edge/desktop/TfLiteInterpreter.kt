package dev.hfnet.edge.desktop

import dev.hfnet.edge.ModelException
import dev.hfnet.edge.image.Output
import dev.hfnet.edge.networks.Interpreter
import java.nio.ByteBuffer
import org.bytedeco.javacpp.BytePointer
import org.bytedeco.javacpp.FloatPointer
import org.bytedeco.javacpp.Pointer
import org.bytedeco.tensorflowlite.BuiltinOpResolverWithXNNPACK
import org.bytedeco.tensorflowlite.FlatBufferModel
import org.bytedeco.tensorflowlite.InterpreterBuilder
import org.bytedeco.tensorflowlite.SignatureRunner
import org.bytedeco.tensorflowlite.TfLiteAffineQuantization
import org.bytedeco.tensorflowlite.TfLiteTensor
import org.bytedeco.tensorflowlite.global.tensorflowlite.kTfLiteAffineQuantization
import org.bytedeco.tensorflowlite.global.tensorflowlite.kTfLiteArenaRw
import org.bytedeco.tensorflowlite.global.tensorflowlite.kTfLiteBuiltinDelegate
import org.bytedeco.tensorflowlite.global.tensorflowlite.kTfLiteFloat32
import org.bytedeco.tensorflowlite.global.tensorflowlite.kTfLiteInt8
import org.bytedeco.tensorflowlite.Interpreter as Native

/** One interpreter of TensorFlow Lite, of the model's only signature, with arrays that its outputs are copied into. */
internal class TfLiteInterpreter(model: ByteBuffer, batch: Int, threads: Int) : Interpreter {
    private val owned = ArrayList<Pointer>()
    private val native: Native
    private val runner: SignatureRunner
    private val input: FloatPointer
    private val copies = ArrayList<() -> Unit>() // of each output, to its array
    private val outputs = LinkedHashMap<String, Output>()
    override val inputShape: IntArray
    override val outputShapes = LinkedHashMap<String, IntArray>()
    override val kernels: String

    init {
        try {
            val content = own(BytePointer(model.duplicate().also { it.position(0) }))
            val parsed = own(FlatBufferModel.BuildFromBuffer(content, model.limit().toLong()) ?: throw fail("no model"))
            val builder = own(InterpreterBuilder(parsed, own(BuiltinOpResolverWithXNNPACK())))
            native = own(Native(null as Pointer?))
            require(builder.SetNumThreads(threads), "threads")
            require(builder.apply(native), "its graph")
            val keys = native.signature_keys()
            if (keys.size() != 1L) throw fail("it has ${keys.size()} signatures, not one")
            runner = native.GetSignatureRunner(keys.get(0)) ?: throw fail("its signature")
            if (runner.input_size() != 1L) throw fail("it has ${runner.input_size()} inputs, not one")
            val name = runner.input_names().getString(0)
            val given = shape(runner.input_tensor(name))
            if (given.isEmpty()) throw fail("its input has no batch")
            if (given[0] != batch) {
                require(runner.ResizeInputTensor(name, given.also { it[0] = batch }), "a batch of $batch")
            }
            require(runner.AllocateTensors(), "its memory")
            val tensor = runner.input_tensor(name)
            if (tensor.type() != kTfLiteFloat32) throw fail("its input is not float32")
            inputShape = shape(tensor)
            input = tensor.data().f()
            val names = runner.output_names()
            for (i in 0 until runner.output_size()) add(names.getString(i))
            kernels = if (delegated()) "XNNPACK" else "builtin"
        } catch (e: Throwable) {
            close()
            throw e
        }
    }

    override fun run(input: FloatArray): Map<String, Output> {
        this.input.put(input, 0, input.size)
        require(runner.Invoke(), "the run")
        for (copy in copies) copy()
        return outputs
    }

    /** Frees the native memory, the interpreter before what it lies over. */
    override fun close() {
        while (owned.isNotEmpty()) owned.removeAt(owned.size - 1).close()
    }

    private fun add(name: String) {
        val tensor = runner.output_tensor(name)
        if (tensor.allocation_type() != kTfLiteArenaRw) throw fail("the shape of its output $name is not fixed")
        val shape = shape(tensor)
        val size = shape.fold(1) { all, side -> all * side }
        outputShapes[name] = shape
        if (tensor.type() == kTfLiteFloat32) {
            val values = FloatArray(size)
            val from = tensor.data().f()
            copies.add { from.get(values, 0, size) }
            outputs[name] = Output.of(values, shape)
        } else {
            val (scale, zeroPoint) = quantization(tensor)
                ?: throw fail("its output $name is neither float32 nor int8 of one scale")
            val values = ByteArray(size)
            val from = tensor.data().int8()
            copies.add { from.get(values, 0, size) }
            outputs[name] = Output.of(values, shape, scale, zeroPoint)
        }
    }

    private fun quantization(tensor: TfLiteTensor): Pair<Float, Int>? {
        val found = tensor.quantization()
        if (tensor.type() != kTfLiteInt8 || found.type() != kTfLiteAffineQuantization) return null
        val affine = TfLiteAffineQuantization(found.params())
        val scales = affine.scale() ?: return null
        val zeroPoints = affine.zero_point() ?: return null
        if (scales.size() != 1 || zeroPoints.size() != 1) return null
        val scale = scales.data(0)
        return if (scale > 0 && scale <= Float.MAX_VALUE) Pair(scale, zeroPoints.data(0)) else null
    }

    /** Whether XNNPACK, the only delegate, runs part of the graph. */
    private fun delegated(): Boolean {
        val plan = native.execution_plan()
        return (0 until plan.limit()).any { i ->
            native.node_and_registration(plan.get(i)).second().builtin_code() == kTfLiteBuiltinDelegate
        }
    }

    private fun shape(tensor: TfLiteTensor): IntArray = IntArray(tensor.dims().size()) { tensor.dims().data(it) }

    private fun require(status: Int, what: String) {
        if (status != OK) throw fail("TensorFlow Lite refuses $what (status $status)")
    }

    private fun fail(what: String) = ModelException(what, "export it again with `hfnet-export`")

    private fun <P : Pointer> own(pointer: P): P = pointer.also { owned.add(it) }

    private companion object {
        const val OK = 0 // kTfLiteOk
    }
}
