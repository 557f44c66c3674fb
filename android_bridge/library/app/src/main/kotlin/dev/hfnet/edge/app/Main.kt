package dev.hfnet.edge.app

import dev.hfnet.edge.Camera
import dev.hfnet.edge.HFNetEdgeException
import dev.hfnet.edge.LocalizationConfig
import dev.hfnet.edge.Localizer
import dev.hfnet.edge.desktop.DesktopOpenCv
import dev.hfnet.edge.desktop.DesktopRuntime
import dev.hfnet.edge.desktop.ImageFiles
import dev.hfnet.edge.map.LocalizationMap
import dev.hfnet.edge.methods.Method
import dev.hfnet.edge.networks.Networks
import dev.hfnet.edge.shell.Json
import dev.hfnet.edge.trust.Tolerance
import java.io.File
import java.util.concurrent.Callable
import kotlin.system.exitProcess
import picocli.CommandLine
import picocli.CommandLine.Command
import picocli.CommandLine.Option
import picocli.CommandLine.Parameters

/** The command line of `hfnet-edge.jar`. */
@Command(
    name = "hfnet-edge.jar", mixinStandardHelpOptions = true, version = ["hfnet-edge 0.1.0"],
    description = ["Finds cameras' poses in a map, on the JVM."],
    subcommands = [LocalizeCommand::class, JobCommand::class],
)
private class Main : Runnable {
    override fun run() = CommandLine.usage(this, System.out)
}

@Command(
    name = "localize", mixinStandardHelpOptions = true,
    description = ["Prints a line of JSON for each photo, as `hfnet-localize --report` does."],
    footer = [
        "", "Example:", "",
        "  java -jar hfnet-edge.jar localize --map scene.hfmap --model hfnet_int8.tflite --image photo.jpg \\",
        "      --camera \"PINHOLE 1024 683 919.8 921.8 507.0 335.9\"",
    ],
)
private class LocalizeCommand : Callable<Int> {
    @Option(names = ["--map"], required = true, paramLabel = "M.hfmap")
    lateinit var map: File

    @Option(names = ["--model"], required = true, paramLabel = "M.tflite", description = ["Again for each further network."])
    lateinit var models: List<File>

    @Option(names = ["--image"], required = true, paramLabel = "FILE", description = ["Again for each further photo."])
    lateinit var images: List<File>

    @Option(names = ["--camera"], required = true, paramLabel = "\"MODEL W H ...\"", description = ["As COLMAP writes it."])
    lateinit var camera: String

    @Option(names = ["--method"], paramLabel = "NAME", defaultValue = "hierarchical")
    lateinit var method: String

    @Option(names = ["--tolerance"], paramLabel = "\"D,R\"", defaultValue = "0.25,2")
    lateinit var tolerance: String

    @Option(names = ["--max-wrong"], paramLabel = "SHARE", defaultValue = "0.001")
    var maxWrong = 0.0

    @Option(names = ["--refine-focal"], description = ["Find the focal length with the pose."])
    var refineFocal = false

    @Option(names = ["--threads"], paramLabel = "N", defaultValue = "2")
    var threads = 0

    override fun call(): Int {
        DesktopOpenCv.load()
        val config = LocalizationConfig(
            Method.named(method), tolerance = Tolerance.parse(tolerance), maxWrong = maxWrong, refineFocal = refineFocal,
        )
        val seen = Camera.parse(camera)
        Networks.open(DesktopRuntime(), models, threads).use { networks ->
            val opened = LocalizationMap.open(map)
            val localizer = Localizer(opened, networks, config)
            val input = networks.image.description
            for (image in images) {
                val result = localizer.localize(ImageFiles.read(image, input.inputHeight, input.inputWidth), seen)
                println(Json.write(Report.of(image.name, result, opened.imageNames, seen)))
            }
        }
        return 0
    }
}

/** What `hfnet-parity --backend jvm` and benchmarks run: see [Job]. */
@Command(name = "job", hidden = true)
private class JobCommand : Callable<Int> {
    @Parameters(paramLabel = "FOLDER")
    lateinit var folder: File

    override fun call(): Int {
        Job(folder).run { done, total -> println("$done/$total") }
        return 0
    }
}

/** Exit code 2 and one line for an error that is ours. */
public fun main(arguments: Array<String>) {
    val line = CommandLine(Main())
    line.setExecutionExceptionHandler { e, _, _ ->
        if (e !is HFNetEdgeException) throw e
        System.err.println("error: ${e.problem}; ${e.remedy}")
        2
    }
    exitProcess(line.execute(*arguments))
}
