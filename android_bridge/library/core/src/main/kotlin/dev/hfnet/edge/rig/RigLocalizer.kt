package dev.hfnet.edge.rig

import dev.hfnet.edge.Best
import dev.hfnet.edge.Camera
import dev.hfnet.edge.Candidate
import dev.hfnet.edge.LocalizationResult
import dev.hfnet.edge.Match2D3D
import dev.hfnet.edge.MismatchException
import dev.hfnet.edge.Pipeline
import dev.hfnet.edge.Pose
import dev.hfnet.edge.Status
import dev.hfnet.edge.methods.Query
import dev.hfnet.edge.pose.Estimate
import dev.hfnet.edge.pose.RefinedPose
import dev.hfnet.edge.pose.Support
import dev.hfnet.edge.pose.median
import dev.hfnet.edge.pose.positionStd
import dev.hfnet.edge.pose.rotationStd
import dev.hfnet.edge.prior.Known
import dev.hfnet.edge.shell.Clock
import dev.hfnet.edge.trust.Evidence
import dev.hfnet.edge.trust.InTolerance
import dev.hfnet.edge.trust.Judge
import dev.hfnet.edge.trust.SecondLook
import kotlin.math.max
import kotlin.math.min
import kotlin.math.sqrt

/** What a camera of a rig saw, looked at. */
internal class RigQuery(val query: Query, val camera: Camera, val camFromRig: Pose)

/**
 * Several views as one query: cameras of a rig, or frames of a session that odometry ties together.
 *
 * Each view's matches vote for where the rig is; the pose that most agree on is refined in all of them, every view
 * looks again where landmarks should be, and one verdict is passed on what all of them saw. Threads may share it.
 */
internal class RigLocalizer(private val pipeline: Pipeline) {
    private val map = pipeline.map
    private val config = pipeline.config

    /** The pose of cameras that are fixed to each other, seen at one moment: rig_from_world. */
    fun localize(frames: List<RigQuery>, known: Known?, clock: Clock): LocalizationResult {
        fun among(allowed: BooleanArray?) = localize(frames.map {
            view(Query(it.query.features, it.query.pixel, it.query.memory, allowed), it.camera, it.camFromRig, clock)
        })
        val result = among(known?.among)
        val fits = known == null || result.pose != null &&
            known.contradiction(result.pose, result.candidate!!.positionStd) == null
        if (fits) return result.with(milliseconds = clock.milliseconds)
        val free = among(null)
        val notes = if (free.pose == null) free.notes else listOf(Pipeline.dropped(known!!, free))
        return free.with(notes = notes, milliseconds = clock.milliseconds)
    }

    /**
     * A query as one of several views, with what the method finds in its first places.
     *
     * @throws MismatchException the method has no features to look among.
     */
    fun view(query: Query, camera: Camera, camFromRig: Pose, clock: Clock): View {
        val features = query.features
            ?: throw MismatchException("${config.method.label} has no features", "take several views by another method")
        val places = pipeline.search.candidates(query, clock).matches.take(Best.PLACES).toList().map { it.own() }
            .filter { it.landmarks != null && it.keypoints != null }
        val maxError = config.maxError * query.pixel
        val iterations = min(config.iterations, ITERATIONS)
        val own = places.mapNotNull { Estimate.first(it, camera, maxError, pipeline.solver, iterations) }
        return View(features, camera, camFromRig, places, maxError, own)
    }

    /** The pose of a rig (rig_from_world), judged by what all its views see. */
    fun localize(views: List<View>): LocalizationResult {
        val ranked = hypotheses(views).sortedByDescending { it.support }
        val best = ranked.firstOrNull()
        if (best == null || best.support < LEAST) {
            val found = views.any { view -> view.most > 0 }
            return LocalizationResult(if (found) Status.TOO_FEW_MATCHES else Status.NO_CANDIDATES)
        }
        val depth = best.depth(views)
        val rivals = ranked.drop(1).filter { Support.apart(it.rigFromMap, best.rigFromMap, depth) }
        val (first, _) = RigRefinement.refine(best.rigFromMap, views, best.matches, depth)
        val looks = views.zip(bestInliers(views, first)) { view, matches -> look(view, first, matches, depth) }
        val (pose, noise) = RigRefinement.refine(first, views, looks.map { it.matches }, depth)
        val alone = views.zip(looks) { view, look -> refined(view, look, pose, noise) }
        val inliers = looks.zip(alone) { look, one -> look.matches.take(one.inliers) }
        val covariance = RigRefinement.covariance(pose, views, inliers, noise, depth)
        val rival = (rivals.maxOfOrNull { it.support } ?: 0).toDouble() / best.support
        val each = views.indices.map {
            evidence(views[it], looks[it], alone[it].with(covariance = covariance), best.matches[it], rival, depth)
        }
        val tolerance = config.tolerance
        val within = InTolerance.of(positionStd(covariance), rotationStd(covariance), 0.0, tolerance, depth)
        val held = views.indices.any {
            val seen = alone[it].pose.transform(inliers[it].xyz)
            Support.holds(seen, views[it].maxError / views[it].camera.shortFocal)
        }
        fun verdict(evidence: Evidence, maxWrong: Double) =
            Judge.bundled.decide(evidence.byName(), within, held, maxWrong, pipeline.calibration)

        var evidence = pooled(views, looks, each, best)
        val together = verdict(evidence, config.maxWrong)
        var status =
            if (together.accepted) Status.LOCALIZED else if (together.ambiguous) Status.AMBIGUOUS else Status.REJECTED
        var probability = together.probability
        var wrong = together.wrong
        if (!together.accepted) {
            // One view that is sure enough of where all put it; there are as many chances as views.
            val sure = each.minByOrNull { verdict(it, config.maxWrong).wrong }!!
            val itself = verdict(sure, config.maxWrong / views.size)
            if (itself.accepted) {
                evidence = sure
                status = Status.LOCALIZED
                probability = itself.probability
                wrong = min(1.0, itself.wrong * views.size)
            }
        }
        val errors = alone.flatMap { one -> one.errors.filterIndexed { i, _ -> one.inliers[i] } }.toDoubleArray()
        val candidate = Candidate(
            covariance, median(errors), errors.size, best.support, evidence.ratio, depth, 0.0, DoubleArray(3), evidence,
            null, views[0].camera, doubleArrayOf(tolerance.positionAt(depth), tolerance.rotation), BooleanArray(0),
        )
        val found = if (status == Status.LOCALIZED) map.fromWorld(pose) else null
        return LocalizationResult(status, found, probability, wrong, candidate)
    }

    /** A pose of the rig, relative to the map's origin, and what agrees on it: the inliers of each view. */
    private class Hypothesis(val rigFromMap: Pose, val matches: List<Match2D3D>) {
        val support = matches.sumOf { it.size }

        /** Median of the inliers' depths, map units. */
        fun depth(views: List<View>): Double {
            val seen = views.zip(matches) { view, own -> (view.camFromRig * rigFromMap).transform(own.xyz) }
            return median(seen.flatMap { xyz -> (2 until xyz.size step 3).map { xyz[it] } }.toDoubleArray())
        }
    }

    /** Poses that single views vote for, each with all that agrees on it. */
    private fun hypotheses(views: List<View>): List<Hypothesis> = views.flatMap { view ->
        view.own.map { pose ->
            val rig = view.camFromRig.inverse * pose
            Hypothesis(rig, bestInliers(views, rig))
        }
    }

    /** Of each view the inliers in that place of which most agree. */
    private fun bestInliers(views: List<View>, pose: Pose): List<Match2D3D> = views.map { view ->
        val cam = view.camFromRig * pose
        fun most(maxError: Double) = view.places.filter { it.size > 0 }
            .map { it.take(Support.inliers(cam, it, view.camera, maxError)) }.maxByOrNull { it.size }

        val best = most(view.maxError) ?: Match2D3D.NONE
        val wider = if (best.size == 0) 0.0 else view.maxError + view.noise(SecondLook.depthOf(cam, best))
        if (wider > 1.1 * view.maxError) most(wider)!! else best
    }

    private fun look(view: View, pose: Pose, matches: Match2D3D, depth: Double): SecondLook {
        val cam = view.camFromRig * pose
        val errors = Support.reprojectionErrors(cam, matches, view.camera)
        val first = RefinedPose(cam, BooleanArray(matches.size) { true }, errors, 0.0)
        return SecondLook.of(map, view.features, view.camera, matches, first, view.maxError, depth)
    }

    private fun refined(view: View, look: SecondLook, pose: Pose, noise: Double): RefinedPose {
        val cam = view.camFromRig * pose
        val errors = Support.reprojectionErrors(cam, look.matches, view.camera)
        val inliers = BooleanArray(errors.size) { errors[it] < view.maxError }
        return RefinedPose(cam, inliers, errors, noise * view.maxError)
    }

    /** What a view says of the pose. */
    private fun evidence(
        view: View, look: SecondLook, refined: RefinedPose, first: Match2D3D, rival: Double, depth: Double,
    ): Evidence {
        val guided = look.guided.matches
        val residuals = view.camera.project(refined.pose.transform(guided.xyz))
        for (i in residuals.indices) residuals[i] -= guided.xy[i]
        val ratio = first.size.toDouble() / max(1, view.most)
        return Evidence.of(
            ratio, look, residuals, refined, null, rival, view.features.keypoints, view.features.size, view.camera,
            view.maxError, depth,
        )
    }

    /**
     * One piece of evidence of all views: shares over all of them; counts over the root of the number of views, for
     * neighbouring views see the same things.
     */
    private fun pooled(views: List<View>, looks: List<SecondLook>, each: List<Evidence>, best: Hypothesis): Evidence {
        val expected = views.zip(looks) { view, look ->
            max(1, min(look.guided.expected.size / 2, view.features.size)).toDouble()
        }
        val near = each.map { it.near }
        val root = sqrt(max(1, expected.count { it > 1 }).toDouble())
        fun mean(weights: List<Double>, value: (Evidence) -> Double) =
            each.indices.sumOf { value(each[it]) * weights[it] } / max(1e-9, weights.sum())

        val nearer = near.map { it + 1e-6 }
        return Evidence(
            near = near.sum() / root,
            hit = near.sum() / expected.sum(),
            sharp = mean(expected) { it.sharp },
            ratio = best.support.toDouble() / max(1, views.sumOf { it.most }),
            likeness = mean(nearer) { it.likeness },
            cells = Math.rint(each.sumOf { it.cells } / root).toInt(),
            found = mean(expected) { it.found },
            uneven = mean(expected) { it.uneven },
            coherence = mean(nearer) { it.coherence },
            position = each[0].position,
            rotation = each[0].rotation,
            noise = each[0].noise,
            remote = median(each.map { it.remote }.toDoubleArray()),
            rival = each[0].rival,
            focal = 0.0,
        )
    }

    private companion object {
        const val LEAST = 6
        const val ITERATIONS = 2000
    }
}
