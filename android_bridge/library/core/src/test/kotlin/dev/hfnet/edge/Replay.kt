package dev.hfnet.edge

import com.google.gson.GsonBuilder
import com.google.gson.JsonElement
import com.google.gson.JsonObject
import dev.hfnet.edge.map.LocalizationMap
import dev.hfnet.edge.methods.Query
import dev.hfnet.edge.pose.OpenCvSolver
import dev.hfnet.edge.pose.positionStd
import dev.hfnet.edge.pose.rotationStd
import dev.hfnet.edge.prior.Gps
import dev.hfnet.edge.prior.Prior
import dev.hfnet.edge.rig.Drift
import dev.hfnet.edge.rig.RigLocalizer
import dev.hfnet.edge.rig.View
import dev.hfnet.edge.session.Odometry
import dev.hfnet.edge.session.Session
import dev.hfnet.edge.shell.Clock

/** Cases of what is known beforehand, tracking, rigs and sessions, and what is found, by the names of the golden vectors. */
object Replay {
    fun track(given: JsonObject): Map<String, Any?> {
        val found = pipeline(given).track(
            query(given, given["pixel"].asDouble), camera(given), pose(given), given["depth"].asDouble,
            given["radius"].asDouble, Clock(),
        )
        return counted(found)
    }

    fun prior(given: JsonObject): Map<String, Any?> {
        fun numbers(name: String) = given[name]?.let { numbers(it) }
        val gps = numbers("gps")?.let { (latitude, longitude, accuracy) -> Gps(latitude, longitude, accuracy) }
        val images = given["images"]?.asJsonArray?.map { it.asString } ?: emptyList()
        val prior = Prior(numbers("position"), given["radius"]?.asDouble, gps, numbers("gravity"), images)
        val known = prior.inMap(map(given))
        return mapOf(
            "among" to known.among?.map { if (it) 1 else 0 },
            "rotation" to prior.rotation,
            "contradicted" to given["poses"].asJsonArray.map { it.asJsonObject }.map {
                val std = it["position_std"].takeUnless { std -> std.isJsonNull }?.asDouble
                known.contradiction(pose(it), std ?: Double.POSITIVE_INFINITY) != null
            },
        )
    }

    fun rig(given: JsonObject): Map<String, Any?> {
        val rigs = RigLocalizer(pipeline(given))
        val memory = Memory() // of all views
        val views = given["views"].asJsonArray.map { it.asJsonObject }.map {
            val (position, rotation) = numbers(it["drift"])
            val query = query(it, it["pixel"].asDouble, memory)
            val at = pose(it["cam_from_rig"].asJsonObject)
            val view: View = rigs.view(query, camera(it), at, Clock())
            view.at(at, Drift(position, rotation))
        }
        val found = rigs.localize(views)
        val covariance = found.candidate?.covariance?.toList()?.chunked(6)
        return counted(found) + mapOf("covariance" to covariance)
    }

    fun session(given: JsonObject): Map<String, Any?> {
        val (distance, rotation, metres) = numbers(given["odometry"])
        val session = Session(pipeline(given), given["window"].asInt, Odometry(distance, rotation, metres))
        val memory = Memory() // of all frames, as a session has it
        val frames = given["frames"].asJsonArray.map { it.asJsonObject }.map { frame ->
            val told = frame["session_from_cam"].takeUnless { it.isJsonNull }?.let { pose(it.asJsonObject) }
            val found = session.localize(query(frame, given["pixel"].asDouble, memory), camera(given), told)
            known(found.status, found.pose, found.probability, found.wrong, found.covariance) + mapOf(
                "map_from_session" to found.mapFromSession?.let { plain(it) },
                "way" to found.way.takeIf { it <= Double.MAX_VALUE },
                "tracked" to found.tracked,
                "notes" to found.notes.size,
                "frame" to found.frame.status.name,
            )
        }
        return mapOf("frames" to frames)
    }

    private fun counted(found: LocalizationResult): Map<String, Any?> {
        val told = known(found.status, found.pose, found.probability, found.wrong, found.candidate?.covariance)
        return told + mapOf("inliers" to found.inliers, "evidence" to found.candidate?.evidence?.byName())
    }

    private fun known(
        status: Status, pose: Pose?, probability: Double, wrong: Double, covariance: DoubleArray?,
    ): Map<String, Any?> {
        val told = mapOf("status" to status.name, "probability" to probability, "wrong" to wrong)
        if (pose == null) return told
        val spread = mapOf("position_std" to positionStd(covariance), "rotation_std" to rotationStd(covariance))
        return told + spread + plain(pose)
    }

    private fun plain(pose: Pose) =
        mapOf("quaternion" to pose.quaternion.toList(), "translation" to pose.translation.toList())

    private fun numbers(of: JsonElement): DoubleArray = of.asJsonArray.map { it.asDouble }.toDoubleArray()

    private fun pose(of: JsonObject) = Pose(numbers(of["quaternion"]), numbers(of["translation"]))

    internal fun camera(given: JsonObject) = Camera.parse(given["camera"].asString)

    private fun map(given: JsonObject) = LocalizationMap.open(Golden.file(given["map"].asString))

    internal fun pipeline(given: JsonObject) = Pipeline(map(given), LocalizationConfig(), OpenCvSolver, null)

    internal fun query(given: JsonObject, pixel: Double, memory: Memory = Memory()): Query {
        val keypoints = Golden.doubles(given["keypoints"])
        val global = given["global_descriptor"]?.let { Golden.bytes(it) } ?: ByteArray(1)
        val descriptors = Golden.bytes(given["descriptors"])
        return Query(Features(keypoints, FloatArray(keypoints.size / 2), descriptors, global, pixel), pixel, memory)
    }

    /** Prints what is found in each session of the folder, a line of JSON each: for `benchmarks/jvm_sessions.py`. */
    @JvmStatic
    fun main(args: Array<String>) {
        check(OpenCV.loaded.isNotEmpty() && args.isEmpty())
        val json = GsonBuilder().serializeNulls().create()
        for (case in Golden.cases("session")) println(json.toJson(session(case.getAsJsonObject("given"))))
    }
}
