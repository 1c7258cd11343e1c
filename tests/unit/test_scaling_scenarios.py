"""What the plan does in the life of a service, on simulated time, one sentence a step."""

import random
from dataclasses import replace

import pytest

from tests.scaling_world import GOAL, Pod, World

# One pod of the simulated service scores 10,000 tokens a second.
ONE_POD = 10_000.0


def test_an_idle_service_runs_the_minimum() -> None:
    world = World().run(360, tokens=0)
    assert world.required == GOAL.min_replicas
    assert (
        world.decision.reason == "1 replica is kept, as scaling.minReplicas asks: nothing arrives that has to be scored"
    )
    assert world.decision.limits == ("scaling.minReplicas",)


def test_a_minimum_above_the_need_is_said_to_be_what_keeps_the_replicas() -> None:
    world = World(pods=3, goal=replace(GOAL, min_replicas=3)).run(360, tokens=0.3 * ONE_POD)
    assert world.required == 3
    assert world.decision.reason.startswith("3 replicas are kept, as scaling.minReplicas asks: 3000 tokens/s arrive")


def test_work_is_spread_so_that_pods_are_seventy_percent_busy() -> None:
    world = World(pods=4).run(60, tokens=4 * 0.6 * ONE_POD)
    assert world.required == 4
    assert world.decision.terms["work"] == pytest.approx(4 * 0.6 / 0.7, rel=0.01)


def test_a_step_is_answered_at_once_and_taken_back_after_the_window() -> None:
    world = World().run(60, tokens=0.3 * ONE_POD)
    assert world.required == 1
    world.run(5, tokens=3 * ONE_POD)
    assert world.required >= 2, "the first scrape of the step asks for more"
    world.run(15, tokens=3 * ONE_POD)
    assert world.required >= 5, "3 pods of work at 70 % need 5"
    world.run(120, tokens=3 * ONE_POD)
    assert world.estimate.p95 < GOAL.slo_p95
    world.run(240, tokens=0.3 * ONE_POD)
    assert world.required == 5, "the window is not over"
    world.run(90, tokens=0.3 * ONE_POD)
    assert world.required == 1


def test_clients_that_wait_for_their_answer_cannot_hide_an_overload() -> None:
    """A closed loop offers only what is scored: 50 users at 300 ms need 50 x 600 tokens / 300 ms = 10 pods."""
    world = World(goal=GOAL).closed_loop(20, users=50)
    assert world.required >= 2
    world.closed_loop(160, users=50)
    assert world.required >= 8
    assert world.estimate.p95 <= 1.3 * GOAL.slo_p95


def test_growth_waits_for_the_pods_that_start() -> None:
    """Pods take 40 s to start: until they do, the overload that lasts asks for no more than it did."""
    world = World(lag=40)
    world.run(10, tokens=1.5 * ONE_POD)
    first = world.required
    world.run(30, tokens=1.5 * ONE_POD)
    assert world.required <= max(first, 4)


def test_cache_hits_are_no_work() -> None:
    world = World(pods=5)
    world.run(60, tokens=3 * ONE_POD)
    assert world.required == 5
    world.hit_rate = 0.8
    world.run(400, tokens=3 * ONE_POD)
    assert world.required == 1
    assert world.estimate.hit_rate == pytest.approx(0.8, abs=0.01)


def test_a_cache_flush_multiplies_the_work() -> None:
    world = World(pods=2)
    world.hit_rate = 0.8
    world.run(60, tokens=4 * ONE_POD)
    assert world.required == 2
    world.hit_rate = 0.0
    world.run(10, tokens=4 * ONE_POD)
    assert world.required >= 4


def test_a_restarted_operator_keeps_what_it_finds_for_one_window() -> None:
    world = World(pods=6).run(60, tokens=3 * ONE_POD)
    world.restart_operator()
    world.run(240, tokens=0)
    assert min(world.history[-48:]) == 6
    world.run(90, tokens=0)
    assert world.required == 1


def test_silence_holds() -> None:
    world = World(pods=4).run(60, tokens=2.4 * ONE_POD)
    before = world.required
    for pod in world.pods.values():
        pod.answering = False
    world.run(1200, tokens=0)
    assert world.required == before
    assert "0 of 4 pods tell their load" in world.decision.reason
    for pod in world.pods.values():
        pod.answering = True
    world.run(240, tokens=0)
    assert world.required == before, "silence is no evidence: the window begins when the pods speak again"
    world.run(120, tokens=0)
    assert world.required == 1


def test_one_silent_pod_holds_but_does_not_hide_growth() -> None:
    world = World(pods=4).run(60, tokens=2.4 * ONE_POD)
    world.pods["pod-0"].answering = False
    world.run(600, tokens=0)
    assert world.required == 4
    world.run(20, tokens=6 * ONE_POD)
    assert world.required > 4


def test_a_restarting_pod_is_no_drop_in_demand() -> None:
    world = World(pods=4).run(60, tokens=2.4 * ONE_POD)
    for _ in range(20):
        world.pods["pod-1"].restart(world.now)
        world.run(30, tokens=2.4 * ONE_POD)
    assert set(world.history[3:]) == {4}


def test_capacity_is_remembered_over_an_idle_night() -> None:
    world = World(pods=2).run(60, tokens=1.3 * ONE_POD)
    world.run(8 * 3600, tokens=0)
    assert world.estimate.capacity == pytest.approx(ONE_POD, rel=0.01)
    world.run(20, tokens=3 * ONE_POD)
    assert world.required >= 4


def test_throttled_pods_do_not_make_the_replicas_swing() -> None:
    """Half a core: below half load a pod is not throttled and looks twice as fast as it can sustain."""

    class Throttled(Pod):
        def work(self, seconds: float, tokens: float, hit_rate: float) -> None:
            idle = tokens < 0.5 * ONE_POD * seconds and not self.queued
            self.speed = ONE_POD if idle else 0.5 * ONE_POD
            super().work(seconds, tokens, hit_rate)

    world = World()
    world.pods = {"pod-0": Throttled(ONE_POD, 0.0)}
    world.make = lambda: Throttled(ONE_POD, world.now)
    world.run(3600, tokens=0.55 * ONE_POD)
    changes = [late for early, late in zip(world.history[12:], world.history[13:], strict=False) if late != early]
    assert len(changes) <= 1
    assert world.required == 2


def test_bounds_of_the_spec_win_at_once() -> None:
    world = World(pods=4).run(60, tokens=2.4 * ONE_POD)
    world.bound(max_replicas=3)
    world.run(5, tokens=2.4 * ONE_POD)
    assert world.required == 3
    assert world.decision.limits == ("scaling.maxReplicas",)
    world.bound(min_replicas=7, max_replicas=9)
    world.run(5, tokens=2.4 * ONE_POD)
    assert world.required == 7


def test_noise_around_a_constant_load_leaves_the_replicas_alone() -> None:
    rng = random.Random(7)
    world = World(pods=4)
    for _ in range(720):
        world.run(5, tokens=rng.gauss(2.4, 0.25) * ONE_POD)
    changes = sum(early != late for early, late in zip(world.history[60:], world.history[61:], strict=False))
    assert changes <= 2


def test_a_service_without_a_ready_pod_keeps_its_replicas() -> None:
    world = World(pods=3).run(30, tokens=ONE_POD)
    before = world.required
    world.pods.clear()
    world.observe()
    assert world.required == before
    assert world.decision.reason == f"{before} replicas are kept: no pod is ready"


def test_overloaded_pods_that_come_and_go_do_not_hide_the_overload() -> None:
    """Busy pods miss a probe and come back: they are no new pods, and the load is not unknown for it."""
    world = World(pods=5).run(60, tokens=3 * ONE_POD)
    assert world.required == 5
    for step in range(12):
        world.unready = {f"pod-{step % 5}"}
        world.run(5, tokens=6 * ONE_POD)
    assert world.required > 8


def test_a_slow_service_with_idle_pods_is_not_given_more_pods() -> None:
    """Answers are slow (say, Redis is), but the pods are not busy: more of them would not help."""
    world = World(pods=2)
    for _ in range(60):
        world.run(5, tokens=0.3 * ONE_POD)
        for pod in world.pods.values():
            for _ in range(50):
                pod.histogram.observe(5.0)
    assert world.estimate.p95 > GOAL.slo_p95
    assert max(world.history) == 2
