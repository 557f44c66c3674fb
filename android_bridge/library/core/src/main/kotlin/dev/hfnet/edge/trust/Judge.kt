package dev.hfnet.edge.trust

import dev.hfnet.edge.map.Calibration
import dev.hfnet.edge.shell.Json
import java.math.BigDecimal
import java.math.RoundingMode
import kotlin.math.abs
import kotlin.math.ceil
import kotlin.math.exp
import kotlin.math.ln
import kotlin.math.min

/** What is thought of a pose. */
public class Verdict internal constructor(
    /** That it is within the tolerance. */
    public val probability: Double,
    /** That it is wrong altogether. */
    public val wrong: Double,
    /** It may be given. */
    public val accepted: Boolean,
    /** It may not, because of a rival or because it is free to move alone. */
    public val ambiguous: Boolean,
)

/**
 * From evidence to a probability: additive tables in whole numbers, the ones of the Python runtime. Evidence goes by its
 * names there, `Evidence` and `InTolerance`.
 */
public class Judge internal constructor(json: String) {
    private val right: Sum
    private val precise: Sum

    init {
        val data = Json.read(json) as Map<*, *>
        right = Sum(data["right"] as Map<*, *>)
        precise = Sum(data["precise"] as Map<*, *>)
    }

    /** Points, thousandths of a logit, of a pose not being wrong: within 5 % of the scene's depth and 10 degrees. */
    public fun rightPoints(evidence: Map<String, Double>, calibration: Calibration): Int =
        calibration.right(right.of(evidence))

    /** Points of a right pose being within the tolerance. */
    public fun precisePoints(
        evidence: Map<String, Double>,
        inTolerance: Map<String, Double>,
        calibration: Calibration,
    ): Int = calibration.precise(precise.of(evidence, inTolerance))

    /**
     * Judges a pose.
     *
     * @param held whether its inliers hold it. @param maxWrong how probable it may be that an accepted pose is wrong.
     */
    public fun decide(
        evidence: Map<String, Double>,
        inTolerance: Map<String, Double>,
        held: Boolean,
        maxWrong: Double,
        calibration: Calibration,
    ): Verdict {
        val enough = pointsOf(1 - maxWrong)
        var points = rightPoints(evidence, calibration)
        if (evidence.getValue("rival") >= EQUAL) points = min(points, pointsOf(0.5))
        val accepted = held && points >= enough
        val alone = calibration.right(right.of(evidence, ALONE))
        val both = probability(points) * probability(precisePoints(evidence, inTolerance, calibration))
        return Verdict(
            if (held) millionths(both) else 0.0,
            if (held) probability(-points) else 1.0,
            accepted,
            !accepted && alone >= enough,
        )
    }

    private class Sum(data: Map<*, *>) {
        private val bias = (data["bias"] as Double).toInt()
        private val tables = (data["tables"] as List<*>).map { Table(it as Map<*, *>) }

        /** Of values by name, where [first] has none. */
        fun of(values: Map<String, Double>, first: Map<String, Double> = emptyMap()): Int {
            var sum = bias
            for (table in tables) sum += table.of(first[table.name] ?: values.getValue(table.name))
            return sum
        }
    }

    /** An edge belongs to the interval above it. */
    private class Table(data: Map<*, *>) {
        val name = data["name"] as String
        private val edges = (data["edges"] as List<*>).map { it as Double }.toDoubleArray()
        private val points = (data["points"] as List<*>).map { (it as Double).toInt() }

        fun of(value: Double): Int = points[edges.count { it <= value }]
    }

    public companion object {
        private const val EQUAL = 0.9
        private const val LOGIT = 1000.0
        private const val NEAR_HALF = 1e-6

        // Would it be accepted, were there no rival, and did its inliers hold it fast?
        private val ALONE = mapOf(
            "rival" to 0.0, "position" to 0.0, "rotation" to 0.0, "cells" to 1024.0, "found" to 1.0, "uneven" to 0.0,
        )

        /** The bundled tables. */
        @JvmStatic
        public val bundled: Judge by lazy {
            val stream = checkNotNull(Judge::class.java.getResourceAsStream("/hfnet_edge/tables.json")) { "no tables" }
            Judge(stream.use { it.readBytes().toString(Charsets.UTF_8) })
        }

        internal fun probability(points: Int): Double = millionths(1 / (1 + exp(-points / LOGIT)))

        private fun pointsOf(probability: Double): Int = ceil(LOGIT * ln(probability / (1 - probability))).toInt()

        /** To six digits as Python rounds: by the number's exact value, a half to the even one. */
        internal fun millionths(value: Double): Double {
            val scaled = value * 1e6
            val nearest = Math.rint(scaled)
            if (abs(abs(scaled - nearest) - 0.5) > NEAR_HALF) return nearest / 1e6 // no other is as near
            return BigDecimal(value).setScale(6, RoundingMode.HALF_EVEN).toDouble()
        }
    }
}
