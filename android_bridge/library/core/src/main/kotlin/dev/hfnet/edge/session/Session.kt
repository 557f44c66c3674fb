package dev.hfnet.edge.session

import dev.hfnet.edge.Camera
import dev.hfnet.edge.InputException
import dev.hfnet.edge.Frame
import dev.hfnet.edge.LocalizationResult
import dev.hfnet.edge.Localizer
import dev.hfnet.edge.Memory
import dev.hfnet.edge.Pipeline
import dev.hfnet.edge.Pose
import dev.hfnet.edge.Status
import dev.hfnet.edge.methods.Query
import dev.hfnet.edge.pose.distance
import dev.hfnet.edge.pose.positionStd
import dev.hfnet.edge.pose.rotationStd
import dev.hfnet.edge.rig.RigLocalizer
import dev.hfnet.edge.rig.RigRefinement
import dev.hfnet.edge.rig.View
import dev.hfnet.edge.rows
import dev.hfnet.edge.shell.Clock
import dev.hfnet.edge.trust.Judge
import java.util.Locale
import kotlin.math.PI
import kotlin.math.abs
import kotlin.math.acos
import kotlin.math.exp
import kotlin.math.hypot
import kotlin.math.max
import kotlin.math.min
import kotlin.math.sqrt

/**
 * Frames of one camera with the device's own motion, and where all of it is in the map. For one thread.
 *
 * The device knows how it moved, precisely and with a drift; the map knows where that is. What a session seeks is the
 * one thing between them, `mapFromSession`, which hardly changes. Until it is found each frame is searched for in the
 * whole map, also together with the frames before it; then landmarks are sought only near where the last pose puts
 * them, and where a frame shows nothing the odometry carries the pose on. A frame that contradicts the session does not
 * move it, until three in a row agree on another place.
 *
 * @throws InputException [window] is not 1 to 100. @throws dev.hfnet.edge.MismatchException it is a place in tiles.
 */
public class Session internal constructor(
    private val pipeline: Pipeline,
    private val window: Int,
    private val odometry: Odometry,
    private val localizer: Localizer?,
) {
    /** Of a [localizer], which sessions may share. @param window frames that are taken together. */
    @JvmOverloads
    public constructor(localizer: Localizer, window: Int = 10, odometry: Odometry = Odometry()) :
        this(localizer.oneMap("a session"), window, odometry, localizer)

    internal constructor(pipeline: Pipeline, window: Int = 10, odometry: Odometry = Odometry()) :
        this(pipeline, window, odometry, null)

    private val memory = Memory()
    private val rigs = RigLocalizer(pipeline)
    private val map = pipeline.map
    private val config = pipeline.config
    private var state = State()

    init {
        if (window !in 1..MOST) throw InputException("window is $window", "give 1 to $MOST frames")
    }

    /**
     * What is known after one more frame. Where it throws, the session is as it was before.
     *
     * @param sessionFromCam the device's own pose, to the frame in which its odometry counts, lengths in map units.
     *   Null: there is no odometry; landmarks are sought near where the last pose puts them, and nothing is carried on.
     * @param time seconds, increasing; null: it is not told.
     * @throws InputException the pose is none, or the time goes back. Others as of [Localizer.localize].
     */
    @JvmOverloads
    public fun localize(
        frame: Frame, camera: Camera, sessionFromCam: Pose? = null, time: Double? = null,
    ): SessionPose {
        val clock = Clock()
        return localize(camera, sessionFromCam, clock, time) { localizer!!.lookAt(frame, camera, memory, clock) }
    }

    /** As the other one; [look] at the frame is taken once all else makes sense. */
    internal fun localize(
        camera: Camera, sessionFromCam: Pose?, clock: Clock, time: Double?, look: () -> Query,
    ): SessionPose {
        val checked = sessionFromCam?.let { Pose.of(it.quaternion + it.translation) }
        val after = state.time
        if (time != null && !(time > after && time <= Double.MAX_VALUE)) {
            throw InputException("time is $time, after $after", "give seconds that increase, or none")
        }
        val query = look()
        val before = state
        try {
            return followed(query, camera, checked?.inverse, clock, time ?: after)
        } catch (e: Throwable) {
            state = before
            throw e
        }
    }

    /** The same of a frame that was looked at. */
    internal fun localize(
        query: Query, camera: Camera, sessionFromCam: Pose?, clock: Clock = Clock(), time: Double? = null,
    ): SessionPose = localize(camera, sessionFromCam, clock, time) { query }

    /** Forgets everything: the next frame is the first. */
    public fun reset() {
        state = State()
    }

    private fun followed(
        query: Query, camera: Camera, camFromSession: Pose?, clock: Clock, time: Double,
    ): SessionPose {
        state = state.copy(time = time)
        val notes = move(camFromSession)
        val here = camFromSession ?: HERE
        val fix = state.fix
        var tracked = false
        var result: LocalizationResult? = null
        if (fix != null) {
            var expected = fix.camFromMap
            var radius = WIDEST
            if (camFromSession != null) {
                val (pose, covariance) = fix.at(here, odometry.drift(state.way - fix.way))
                expected = pose
                radius = radiusOf(covariance, camera, fix.depth) / query.pixel
            }
            radius = radius.coerceIn(NARROWEST, WIDEST) * query.pixel
            val near = pipeline.track(query, camera, expected, fix.depth, radius, clock)
            tracked = near.status == Status.LOCALIZED
            val missed = if (tracked) 0 else state.missed + 1
            state = state.copy(missed = missed)
            val carried = camFromSession != null && state.others.isEmpty() && missed % RETRY != 1
            if (tracked || carried) result = near
        }
        result = (result ?: pipeline.localize(query, camera, null, clock)).with(milliseconds = clock.milliseconds)
        val seen = Seen(query, camera, here, state.way, result)
        val found = fixOf(seen, result)
        if (camFromSession == null) {
            state = state.copy(fix = found)
            return answer(seen, tracked, notes)
        }
        if (found != null) return answer(seen, tracked, notes + follow(found, seen))
        remember(withView(seen))
        if (state.fix == null && state.window.size > 1) state = state.copy(fix = together())
        return answer(seen, tracked, notes)
    }

    /** Counts the way; where the odometry jumped, what was known before is of another session. */
    private fun move(camFromSession: Pose?): List<String> {
        val before = state.last
        state = state.copy(last = camFromSession)
        if (camFromSession == null || before == null) {
            if (camFromSession != null) state = state.copy(fix = null) // it was found without odometry
            return emptyList()
        }
        val way = distance((camFromSession * before.inverse).center, DoubleArray(3))
        if (way * odometry.metres > FASTEST) {
            state = State(last = camFromSession, time = state.time)
            return listOf(String.format(Locale.ROOT, "the odometry jumped by %.0f: the session begins anew", way))
        }
        state = state.copy(way = state.way + way)
        return emptyList()
    }

    private fun fixOf(seen: Seen, result: LocalizationResult): Fix? {
        val pose = result.pose ?: return null
        val candidate = result.candidate!!
        val covariance = candidate.covariance ?: return null
        val at = pose * Pose(HERE.quaternion, map.origin)
        return Fix(at, seen.camFromSession, covariance, result.probability, result.wrong, seen.way, candidate.depth)
    }

    /** With what the method finds in each candidate place: frames that say little alone may do so together. */
    private fun withView(seen: Seen): Seen {
        if (state.fix != null || (seen.query.features?.size ?: 0) == 0) return seen
        return seen.with(rigs.view(seen.query, seen.camera, seen.camFromSession, Clock()))
    }

    private fun remember(seen: Seen) {
        state = state.copy(window = (state.window + seen).takeLast(window))
    }

    /** Takes a fix in, or keeps it in mind where it contradicts the session. */
    private fun follow(found: Fix, seen: Seen): List<String> {
        val fix = state.fix
        if (fix == null || agree(fix, found)) {
            remember(seen)
            state = state.copy(others = emptyList(), fix = smoothed(found))
            return emptyList()
        }
        val last = state.others.lastOrNull() ?: found
        val others = if (agree(last, found)) state.others + found else listOf(found)
        if (others.size < CONFIRMED) {
            state = state.copy(others = others)
            return listOf("this frame contradicts the session, which does not follow it yet")
        }
        state = state.copy(others = emptyList(), window = listOf(seen), fix = found)
        return listOf("$CONFIRMED frames contradict the session: it begins anew where they are")
    }

    /** Whether a fix is where an earlier one and the odometry expect it. */
    private fun agree(before: Fix, found: Fix): Boolean {
        val (pose, covariance) = before.at(found.camFromSession, odometry.drift(found.way - before.way))
        val both = DoubleArray(36) { covariance[it] + found.covariance[it] }
        var trace = 0.0
        for (i in 0 until 9) trace += pose.r[i] * found.camFromMap.r[i]
        val turned = Math.toDegrees(acos(((trace - 1) / 2).coerceIn(-1.0, 1.0)))
        val away = distance(pose.center, found.camFromMap.center)
        return away <= CERTAIN * positionStd(both) + SLACK_DEPTH * found.depth &&
            turned <= CERTAIN * rotationStd(both) + SLACK_DEGREES
    }

    /** A fix in which all localized frames of the window have a say, less the longer the way since. */
    private fun smoothed(found: Fix): Fix {
        val kept = state.window.filter { it.result.pose != null && it.result.matches != null }
        if (kept.size < 2) return found
        val origin = map.origin
        val views = kept.map {
            val alone = View(it.query.features!!, it.camera, HERE, emptyList(), config.maxError * it.query.pixel)
            seenFrom(found.camFromSession, found.way, it, alone)
        }
        val matches = kept.map {
            val rows = it.result.candidate!!.inlierMask.rows()
            val step = max(1, rows.size / SMOOTHED)
            val some = it.result.matches!!.take(IntArray((rows.size + step - 1) / step) { k -> rows[k * step] })
            some.with(xyz = DoubleArray(some.xyz.size) { k -> some.xyz[k] - origin[k % 3] })
        }
        val (pose, _) = RigRefinement.refine(found.camFromMap, views, matches, found.depth)
        val moved = found.moved(pose)
        return if (agree(found, moved)) moved else found
    }

    /** A fix by all frames of the window, none of which is localized alone. */
    private fun together(): Fix? {
        val newest = state.window.last()
        val views = state.window.mapNotNull { seen ->
            seen.view?.let { seenFrom(newest.camFromSession, newest.way, seen, it) }
        }
        return if (views.size < 2) null else fixOf(newest, rigs.localize(views))
    }

    /** A frame's view as a camera of the rig whose frame is the camera of a later frame. */
    private fun seenFrom(camFromSession: Pose, way: Double, seen: Seen, view: View): View =
        view.at(seen.camFromSession * camFromSession.inverse, odometry.drift(way - seen.way))

    private fun answer(seen: Seen, tracked: Boolean, notes: List<String>): SessionPose {
        val fix = state.fix ?: return unknown(seen, notes)
        val way = state.way - fix.way
        val (pose, covariance) = fix.at(seen.camFromSession, odometry.drift(way))
        val position = positionStd(covariance)
        val rotation = rotationStd(covariance)
        if (position > LOST_DEPTH * fix.depth || rotation > LOST_DEGREES) {
            state = state.copy(fix = null)
            val why = String.format(Locale.ROOT, "the last fix is %.3g ago, too far to be sure", way)
            return unknown(seen, notes + why)
        }
        val tolerance = config.tolerance
        val within = within(position, tolerance.positionAt(fix.depth)) * within(rotation, tolerance.rotation)
        val probability = Judge.millionths(min(fix.probability, within))
        return SessionPose(
            Status.LOCALIZED, map.fromWorld(pose), map.fromWorld(fix.sessionFromMap).inverse, covariance, probability,
            fix.wrong, way, tracked, seen.result, notes,
        )
    }

    private fun unknown(seen: Seen, notes: List<String>): SessionPose {
        val status = seen.result.status
        return SessionPose(
            if (status == Status.LOCALIZED) Status.REJECTED else status, null, null, null, 0.0, 1.0,
            Double.POSITIVE_INFINITY, false, seen.result, notes,
        )
    }

    /** All that is known between two frames. */
    private data class State(
        val window: List<Seen> = emptyList(),
        val fix: Fix? = null,
        /** In a row, that contradict it and agree with each other. */
        val others: List<Fix> = emptyList(),
        /** Frames since the last tracked one. */
        val missed: Int = 0,
        /** The last frame's cam_from_session. */
        val last: Pose? = null,
        val way: Double = 0.0,
        val time: Double = Double.NEGATIVE_INFINITY,
    )

    /** A frame of the window: where it was, the odometer, and what it alone says. */
    private class Seen(
        val query: Query, val camera: Camera, val camFromSession: Pose, val way: Double, val result: LocalizationResult,
        val view: View? = null,
    ) {
        fun with(view: View) = Seen(query, camera, camFromSession, way, result, view)
    }

    internal companion object {
        private const val MOST = 100
        private const val CONFIRMED = 3 // fixes in a row that contradict the session, until it follows them
        private const val SMOOTHED = 150 // inliers of a frame that have a say in the next ones' poses, about
        private const val RETRY = 5 // frames that are not tracked, of which one is searched for in the whole map
        private const val CERTAIN = 3.0 // standard deviations between two poses that are one
        private const val SLACK_DEPTH = 0.02 // besides: of the scene's depth
        private const val SLACK_DEGREES = 1.0
        private const val NARROWEST = 24.0 // pixels of the network's input, about where a landmark should be
        private const val WIDEST = 64.0
        private const val LOST_DEPTH = 0.1 // standard deviations of a pose that is not given any more
        private const val LOST_DEGREES = 5.0
        private const val FASTEST = 100.0 // metres between two frames: farther is a jump of the odometry
        private val HERE = Pose(doubleArrayOf(1.0, 0.0, 0.0, 0.0), DoubleArray(3))

        /** Pixels of the image about where a landmark should be, in which it is. */
        private fun radiusOf(covariance: DoubleArray, camera: Camera, depth: Double): Double {
            val angle = hypot(Math.toRadians(rotationStd(covariance)), positionStd(covariance) / depth)
            return CERTAIN * max(camera.focalX, camera.focalY) * angle
        }

        /**
         * The probability that three normal errors, of which [spread] is the root of the expected square, are within:
         * the incomplete gamma function of 3/2, by its series.
         */
        internal fun within(spread: Double, tolerance: Double): Double {
            if (spread <= 0) return 1.0
            val half = 1.5 * (tolerance / spread) * (tolerance / spread)
            if (half > SURE) return 1.0
            var term = 1.0
            var sum = 1.0
            var n = 2.5
            while (abs(term) > 1e-17 * sum) {
                term *= half / n
                sum += term
                n += 1
            }
            return half * sqrt(half) * exp(-half) / (0.75 * sqrt(PI)) * sum
        }

        private const val SURE = 50.0
    }
}
