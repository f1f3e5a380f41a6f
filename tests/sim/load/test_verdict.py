from __future__ import annotations

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mynah.sim.load import dial, machine, talker, verdict
from mynah.sim.load.record import (
    Bottleneck,
    Check,
    Distribution,
    Frames,
    Machine,
    Outcomes,
    Sample,
    Stage,
    Step,
    Usage,
)
from mynah.sim.load.scenario import Thresholds
from mynah.sim.load.verdict import find_bottleneck, find_knee, judge

GIB = 2**30
TWO_CORES = Machine(cores=2, memory=8 * GIB)


def times(p95: float, count: int = 100) -> Distribution:
    return Distribution(count=count, mean=p95 / 2, p50=p95 / 2, p95=p95, p99=p95, max=p95)


def step(number: int = 1, devices: int = 100, **changes: object) -> Step:
    """A step in which all went well: ten seconds of ramp, ten of hold."""
    stages = {Stage.CONNECT: times(5), Stage.HELLO: times(2), Stage.FIRST_AUDIO: times(200)}
    good = Step(
        number=number,
        devices=devices,
        talkers=devices,
        began_s=20.0 * number,
        ramped_s=20.0 * number + 10,
        ended_s=20.0 * number + 20,
        connected=devices,
        connections=Outcomes(attempted=devices, succeeded=devices),
        turns=Outcomes(attempted=4 * devices, succeeded=4 * devices),
        connects_per_s=200.0,
        times=stages,
        frames=Frames(sent=5000, received=5000),
        server=Usage(processes=1, cpu=0.3, resident=100 << 20, descriptors=devices + 20),
        generator=Usage(processes=1, cpu=0.2, resident=80 << 20),
        lag=times(1),
    )
    return msgspec.structs.replace(good, **changes)


def judged(one: Step, first: Step | None = None) -> Step:
    return judge(one, [first] if first is not None else [], Thresholds())


# ---------------------------------------------------------------- judging


def test_a_good_step_passes() -> None:
    assert judged(step()).passed
    assert judged(step()).reasons == []


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"connections": Outcomes(attempted=100, succeeded=98), "errors": {"no hello": 2}}, "98 % of 100 succeeded"),
        ({"turns": Outcomes(attempted=10, succeeded=9)}, "turns: 90 %"),
        ({"turns": Outcomes()}, "none came to its end"),
        ({"connections": Outcomes(), "connected": 0, "turns": Outcomes(), "times": {}}, "nothing was measured"),
        ({"lost": 2}, "2 of 100 were lost"),
        ({"busy": 5}, "5 times a device was told to come back later"),
        ({"times": {Stage.CONNECT: times(1500)}}, "connecting: p95 1500 ms, wanted 1000 ms"),
        ({"times": {Stage.HELLO: times(1001)}}, "hello: p95 1001 ms"),
        ({"frames": Frames(received=1000, late=11)}, "1.1 % late"),
        ({"frames": Frames(received=1000, dry=20, worst_gap_ms=300)}, "the longest was 300 ms"),
        ({"frames": Frames(received=1000, overflow=1)}, "1 lost in full devices"),
    ],
)  # fmt: skip
def test_each_threshold_is_kept_by_itself(changes: dict[str, object], reason: str) -> None:
    found = judged(step(**changes))
    assert not found.passed
    assert len(found.reasons) == 1
    assert reason in found.reasons[0]


def test_turns_that_hang_at_the_end_of_a_short_step_fail_it_even_if_it_is_the_first() -> None:
    unanswered = Outcomes(attempted=104, succeeded=100)
    one = judged(step(turns=unanswered, unanswered=4, pending=9, errors={talker.UNANSWERED: 4}))
    assert one.reasons == ["turns: 96.15 % of 104 succeeded, wanted 99 % (no answer by the end of the step)"]
    assert judged(step(turns=Outcomes(attempted=100, succeeded=100), pending=9)).passed, "who waits as usual"
    knee = find_knee([one], Thresholds())
    assert knee is not None and knee.devices == 0
    assert find_bottleneck([one], [], TWO_CORES)[0] is Bottleneck.SERVICES


def test_a_step_that_was_too_short_for_a_turn_is_no_fault_of_the_services() -> None:
    one = judged(step(turns=Outcomes(), pending=3))
    assert [reason.split(";")[0] for reason in one.reasons] == ["turns: none came to its end"]
    bottleneck, evidence = find_bottleneck([one], [], TWO_CORES)
    assert bottleneck is Bottleneck.UNKNOWN
    assert "the step is held too short" in evidence


def test_thousands_of_connections_do_not_hide_turns_that_failed() -> None:
    one = step(connections=Outcomes(attempted=10_000, succeeded=10_000), turns=Outcomes(attempted=10))
    assert one.success > 0.99
    assert not judged(one).passed


def test_the_first_audio_may_grow_only_so_much() -> None:
    first = step()
    slow = step(2, 200, times={Stage.FIRST_AUDIO: times(401)})
    assert judged(slow).passed, "without a first step there is nothing to compare with"
    assert "2 times the 200 ms with 100 talkers" in judged(slow, first).reasons[0]
    assert judged(step(2, 200, times={Stage.FIRST_AUDIO: times(399)}), first).passed
    absolute = Thresholds(first_audio_p95_ms=150.0)
    assert "wanted 150 ms or less" in judge(first, [], absolute).reasons[0]


def test_the_first_audio_is_never_compared_with_that_of_a_turn_or_two() -> None:
    one_turn = step(1, 1, times={Stage.FIRST_AUDIO: times(900, count=1)})
    usual, slow = step(2, 100), step(3, 200, times={Stage.FIRST_AUDIO: times(500)})
    lucky = step(1, 1, times={Stage.FIRST_AUDIO: times(50, count=1)})
    assert judge(usual, [lucky], Thresholds()).passed
    assert "2 times the 200 ms with 100 talkers" in judge(slow, [one_turn, usual], Thresholds()).reasons[0]
    assert find_knee([lucky, usual], Thresholds()) is None
    knee = find_knee([one_turn, usual, slow], Thresholds())
    assert knee is not None
    assert (knee.step, "2.5 times the 200 ms" in knee.sign) == (3, True)


@pytest.mark.parametrize(
    ("changes", "passed"),
    [
        ({"connected": 60}, False),
        ({"connected": 98}, False),
        ({"connected": 99}, True),
        ({"connected": 60, "hung_up": 40}, True),
        ({"connected": 0}, False),
    ],
)
def test_devices_have_to_be_there_at_the_end(changes: dict[str, int], passed: bool) -> None:
    one = step(connections=Outcomes(attempted=60, succeeded=60), **changes)
    found = judged(one)
    assert found.passed is passed
    if not passed:
        assert found.reasons == [
            f"connections: only {one.connected} of 100 devices were connected at the end"
        ]
    assert judge(one, [], Thresholds(), churn=True).passed, "there they come and go"
    assert (find_knee([one], Thresholds()) is None) is passed
    assert find_knee([one], Thresholds(), churn=True) is None


def test_a_step_that_was_stopped_has_not_passed_and_shows_nothing() -> None:
    short = step(2, 200, connected=20, turns=Outcomes())
    found = judge(short, [step()], Thresholds(), stopped=True)
    assert (found.passed, found.reasons) == (False, [verdict.STOPPED])
    assert find_knee([step(), found], Thresholds()) is None
    assert find_bottleneck([step(), found], [], TWO_CORES)[0] is Bottleneck.NONE
    assert find_bottleneck([found], [], TWO_CORES) == (Bottleneck.UNKNOWN, "no step was finished")
    failing = judge(step(**FAILING), [], Thresholds(), stopped=True)
    assert [reason.split(":")[0] for reason in failing.reasons] == [verdict.STOPPED, "turns"]


def test_who_says_aloud_that_it_is_full_refuses_on_purpose() -> None:
    full = judged(step(busy=20, errors={talker.EARLY: 50}))
    assert find_bottleneck([full], samples(0.5, full), TWO_CORES)[0] is Bottleneck.ADMISSION


def test_thresholds_that_are_not_asked_for_do_not_count() -> None:
    nothing = Thresholds(
        success=0.0, connect_p95_ms=None, hello_p95_ms=None, first_audio_growth=None,
        late_share=None, dry_share=None, overflow=None,
    )  # fmt: skip
    bad = step(
        2,
        turns=Outcomes(attempted=9),
        times=dict.fromkeys(Stage, times(1e5)),
        frames=Frames(received=9, late=9, dry=9, overflow=9),
    )
    assert judge(bad, [step()], nothing).passed


def test_the_most_frequent_failure_is_named() -> None:
    one = step(
        connections=Outcomes(attempted=100, succeeded=90), errors={"no hello": 7, "connection refused": 3}
    )
    assert "(mostly: no hello, 7 times)" in judged(one).reasons[0]


OUTCOMES = st.integers(0, 1000).flatmap(
    lambda n: st.builds(Outcomes, attempted=st.just(n), succeeded=st.integers(0, n))
)
USAGES = st.builds(
    Usage,
    processes=st.integers(0, 8),
    cpu=st.floats(0, 16),
    resident=st.integers(0, 2**36),
    descriptors=st.integers(0, 10**6),
)
DISTRIBUTIONS = st.builds(times, st.floats(0, 1e5), st.integers(0, 1000))
FRAMES = st.integers(0, 10_000).flatmap(
    lambda n: st.builds(
        Frames,
        received=st.just(n),
        late=st.integers(0, n),
        dry=st.integers(0, n),
        overflow=st.integers(0, 50),
    )
)
STEPS = st.builds(
    step,
    number=st.integers(1, 9),
    devices=st.integers(1, 20_000),
    talkers=st.integers(0, 500),
    connected=st.integers(0, 500),
    connections=OUTCOMES,
    turns=OUTCOMES,
    lost=st.integers(0, 50),
    busy=st.integers(0, 50),
    times=st.dictionaries(st.sampled_from(list(Stage)), DISTRIBUTIONS),
    frames=FRAMES,
    lag=DISTRIBUTIONS,
    errors=st.dictionaries(
        st.sampled_from([*verdict.PORT_ERRORS, *verdict.ANSWER_ERRORS, "x"]), st.integers(1, 9)
    ),
    server=st.none() | USAGES,
    generator=USAGES,
)
RUNS = st.lists(STEPS, max_size=6).map(
    lambda found: [
        msgspec.structs.replace(one, number=number, began_s=20.0 * number, ramped_s=20.0 * number + 10,
                                ended_s=20.0 * number + 20)
        for number, one in enumerate(found, 1)
    ]
)  # fmt: skip
SAMPLES = st.lists(
    st.builds(
        Sample,
        at_s=st.floats(0, 150),
        server=st.none() | USAGES,
        generator=USAGES,
        machine_cpu=st.floats(0, 16),
        memory_available=st.integers(0, 9 * GIB),
    ),
    max_size=8,
)


@settings(max_examples=50)
@given(STEPS, st.none() | STEPS, st.integers(0, 100))
def test_judging_is_consistent_and_worse_never_passes(one: Step, first: Step | None, failures: int) -> None:
    found = judged(one, first)
    assert found.passed == (not found.reasons)
    assert judged(found, first) == found
    assert msgspec.structs.replace(found, passed=one.passed, reasons=one.reasons) == one, (
        "nothing else changes"
    )
    worse = Outcomes(attempted=one.turns.attempted + failures, succeeded=one.turns.succeeded)
    if one.turns.attempted and not found.passed:
        assert not judged(msgspec.structs.replace(one, turns=worse), first).passed


# ---------------------------------------------------------------- the knee


def test_no_knee_where_nothing_gets_worse() -> None:
    assert find_knee([step(n, 100 * n) for n in range(1, 6)], Thresholds()) is None
    assert find_knee([], Thresholds()) is None


@pytest.mark.parametrize(
    ("changes", "sign"),
    [
        ({"times": {Stage.FIRST_AUDIO: times(500)}}, "2.5 times the 200 ms of before"),
        ({"times": {Stage.CONNECT: times(300)}}, "connecting: p95 300 ms instead of 5 ms"),
        ({"times": {Stage.HELLO: times(300)}}, "hello: p95 300 ms"),
        ({"turns": Outcomes(attempted=100, succeeded=90)}, "turns: 90 %"),
        ({"turns": Outcomes()}, "turns: none came to its end"),
        ({"frames": Frames(received=5000, late=100)}, "late packets: 2 % instead of 0 %"),
        ({"busy": 50}, "come back later"),
        ({"lost": 50}, "were lost"),
    ],
)
def test_the_knee_is_before_the_first_step_that_shows_it(changes: dict[str, object], sign: str) -> None:
    run = [step(1, 100), step(2, 200), step(3, 400, **changes), step(4, 800, **changes)]
    knee = find_knee(run, Thresholds())
    assert knee is not None
    assert (knee.step, knee.devices, knee.talkers) == (3, 200, 200)
    assert sign in knee.sign


@pytest.mark.parametrize(
    "changes",
    [
        {"times": {Stage.FIRST_AUDIO: times(5000, count=4)}},
        {"times": {Stage.CONNECT: times(199)}},
        {"frames": Frames(received=199, late=199)},
    ],
)
def test_few_measurements_and_small_figures_are_no_sign(changes: dict[str, object]) -> None:
    assert find_knee([step(1), step(2, **changes)], Thresholds()) is None


def test_a_first_step_that_is_bad_itself_leaves_nothing_before_the_knee() -> None:
    knee = find_knee([step(turns=Outcomes(attempted=10))], Thresholds())
    assert knee is not None
    assert (knee.step, knee.devices, knee.talkers) == (1, 0, 0)


def test_idle_steps_are_not_compared_with_steps_that_talk() -> None:
    idle = step(1, talkers=0, turns=Outcomes(), times={Stage.CONNECT: times(5)}, frames=Frames())
    assert find_knee([idle, step(2), step(3)], Thresholds()) is None


@settings(max_examples=50)
@given(RUNS)
def test_the_knee_lies_within_the_run(run: list[Step]) -> None:
    knee = find_knee(run, Thresholds())
    if knee is None:
        assert not run or find_knee(run[:1], Thresholds()) is None
        return
    beyond = next(one for one in run if one.number == knee.step)
    before = [one for one in run if one.number < knee.step]
    assert knee.sign
    assert knee.devices == (before[-1].devices if before else 0)
    assert find_knee(before, Thresholds()) is None, "it is the first"
    assert find_knee([*before, beyond], Thresholds()) == knee, "what comes after does not matter"


# ---------------------------------------------------------------- the bottleneck


def samples(cpu: float, one: Step, available: int = 4 * GIB) -> list[Sample]:
    return [
        Sample(
            at_s=one.began_s + second,
            machine_cpu=cpu,
            memory_available=available,
            server=one.server,
            generator=one.generator,
        )
        for second in range(1, 21)
    ]


SLOW = {"times": {Stage.CONNECT: times(5), Stage.FIRST_AUDIO: times(2000)}}
FAILING = {"turns": Outcomes(attempted=400, succeeded=300), "errors": {"no answer": 100}}


def server(cpu: float, descriptors: int = 400) -> Usage:
    return Usage(processes=1, cpu=cpu, resident=GIB, descriptors=descriptors)


def load(cpu: float, processes: int = 1) -> Usage:
    return Usage(processes=processes, cpu=cpu, resident=GIB)


@pytest.mark.parametrize(
    ("changes", "machine_cpu", "where", "wanted", "told"),
    [
        ({}, 0.5, TWO_CORES, Bottleneck.NONE, "1.5 of 2 were idle"),
        ({"server": None}, 0.3, TWO_CORES, Bottleneck.NONE, "all steps passed, up to 400 devices"),
        ({**SLOW, "server": server(0.99)}, 1.4, TWO_CORES, Bottleneck.SERVER_CORE, "0.6 of the machine's 2 cores"),
        ({"server": server(0.99)}, 1.4, TWO_CORES, Bottleneck.SERVER_CORE, "another process or machine"),
        ({**SLOW, "server": server(1.9), "generator": load(0.05)}, 1.97, TWO_CORES, Bottleneck.SERVER_CPU, "1.90"),
        ({**SLOW, "server": server(1.2), "generator": load(0.7)}, 1.95, TWO_CORES, Bottleneck.MACHINE_CPU, "0.70"),
        ({**SLOW, "server": server(0.5), "generator": load(0.4)}, 1.9, TWO_CORES, Bottleneck.MACHINE_CPU,
         "other programs 1.00"),
        ({**SLOW, "generator": load(0.97)}, 1.3, TWO_CORES, Bottleneck.GENERATOR, "more processes"),
        ({**SLOW, "lag": times(80)}, 0.5, TWO_CORES, Bottleneck.GENERATOR, "late by 80 ms"),
        ({**SLOW, "server": None}, 1.95, TWO_CORES, Bottleneck.GENERATOR, "not in sight"),
        ({**SLOW, "server": None}, 0.5, TWO_CORES, Bottleneck.UNKNOWN, "cannot be seen"),
        (SLOW, 0.5, TWO_CORES, Bottleneck.SERVICES, "it was waiting"),
        (FAILING, 0.5, TWO_CORES, Bottleneck.SERVICES, "slow or missing"),
        ({"connections": Outcomes(attempted=400, succeeded=300), "errors": {"no local port left": 100}}, 0.5,
         TWO_CORES, Bottleneck.PORTS, "no limit of the server"),
        ({"connections": Outcomes(attempted=400, succeeded=300), "errors": {"no file descriptor left": 100}}, 0.5,
         TWO_CORES, Bottleneck.DESCRIPTORS, "in the load test itself"),
        ({"connections": Outcomes(attempted=400, succeeded=300), "server": server(0.3, 1024),
          "errors": {"connect timed out": 100}}, 0.5,
         Machine(cores=2, checks=[Check(name=verdict.SERVER_FILES, ok=False, found="1024", wanted="2000")]),
         Bottleneck.DESCRIPTORS, "had 1024 files and sockets open"),
        ({"busy": 100, "connected": 300}, 0.5, TWO_CORES, Bottleneck.ADMISSION, "on purpose"),
        ({"connections": Outcomes(attempted=400, succeeded=300), "errors": {"connection refused": 100}}, 0.5,
         TWO_CORES, Bottleneck.UNKNOWN, "see the server's log"),
        ({"connections": Outcomes(attempted=400, succeeded=300)}, 0.5,
         Machine(cores=1), Bottleneck.UNKNOWN, "0.5 of 1 were idle"),
    ],
)  # fmt: skip
def test_the_bottleneck_is_read_from_the_evidence(
    changes: dict[str, object], machine_cpu: float, where: Machine, wanted: Bottleneck, told: str
) -> None:
    first = step(1)
    last = judged(step(2, 400, **changes), first)
    bottleneck, evidence = find_bottleneck([first, last], samples(machine_cpu, last), where)
    assert (bottleneck, told in evidence) == (wanted, True), evidence


def test_memory_comes_before_what_it_slows_down() -> None:
    last = judged(step(1, **SLOW, server=server(0.99)))
    bottleneck, evidence = find_bottleneck([last], samples(1.2, last, available=GIB // 4), TWO_CORES)
    assert bottleneck is Bottleneck.MEMORY
    assert "256 of 8192 MiB" in evidence


def test_the_ramp_explains_a_step_whose_hold_shows_nothing() -> None:
    last = judged(step(1, times={Stage.CONNECT: times(3000)}))
    assert not last.passed
    ramp = [
        Sample(
            at_s=21 + second, machine_cpu=1.3, memory_available=GIB, server=server(1.0), generator=load(0.3)
        )
        for second in range(9)
    ]
    bottleneck, evidence = find_bottleneck([last], ramp, TWO_CORES)
    assert bottleneck is Bottleneck.SERVER_CORE
    assert evidence.startswith("while the devices connected")


@pytest.mark.parametrize(
    ("seen", "crowded", "wanted"),
    [
        (server(0.5), 4, Bottleneck.MACHINE_CPU),
        (server(0.5), 2, Bottleneck.SERVICES),
        (None, 4, Bottleneck.GENERATOR),
        (None, 2, Bottleneck.UNKNOWN),
    ],
)
def test_moments_without_a_free_core_explain_what_the_average_hides(
    seen: Usage | None, crowded: int, wanted: Bottleneck
) -> None:
    last = judged(step(1, **SLOW, server=seen), step(0))
    hold = [
        Sample(at_s=31.0 + number, machine_cpu=2.0 if number < crowded else 1.2, memory_available=4 * GIB)
        for number in range(9)
    ]
    bottleneck, evidence = find_bottleneck([last], hold, TWO_CORES)
    assert bottleneck is wanted
    assert ("in 4 of 9 samples" in evidence) == (crowded == 4)


def test_the_first_step_that_failed_is_the_one_that_is_explained() -> None:
    full = judged(step(1, **SLOW, server=server(0.98)), step(0))
    after = judged(step(2, **SLOW, server=server(0.1)), step(0))
    found = find_bottleneck([step(0), full, after], [*samples(1.2, full), *samples(0.3, after)], TWO_CORES)
    assert found[0] is Bottleneck.SERVER_CORE


@settings(max_examples=50)
@given(RUNS, SAMPLES, st.integers(0, 16))
def test_nothing_is_claimed_of_a_server_that_is_not_seen(
    run: list[Step], seen: list[Sample], cores: int
) -> None:
    blind = [judged(msgspec.structs.replace(one, server=None)) for one in run]
    unseen = [msgspec.structs.replace(sample, server=None) for sample in seen]
    bottleneck, evidence = find_bottleneck(blind, unseen, Machine(cores=cores, memory=8 * GIB))
    assert evidence
    assert bottleneck not in {
        Bottleneck.SERVER_CPU, Bottleneck.SERVER_CORE, Bottleneck.MACHINE_CPU, Bottleneck.SERVICES,
    }  # fmt: skip


@settings(max_examples=50)
@given(RUNS, SAMPLES, st.integers(0, 16))
def test_none_means_that_all_passed(run: list[Step], seen: list[Sample], cores: int) -> None:
    known = [judged(one) for one in run]
    bottleneck, evidence = find_bottleneck(known, seen, Machine(cores=cores, memory=8 * GIB))
    assert evidence
    if bottleneck is Bottleneck.NONE:
        assert all(one.passed for one in known)


# ---------------------------------------------------------------- names of others


def test_failures_are_called_what_devices_call_them() -> None:
    # A failure that is renamed there would silently lose its meaning here.
    assert set(vars(dial)["_REASONS"].values()) >= verdict.PORT_ERRORS | verdict.DESCRIPTOR_ERRORS
    assert verdict.ANSWER_ERRORS | verdict.EARLY_ERRORS == talker.TURN_ERRORS
    assert {talker.EARLY} == verdict.EARLY_ERRORS
    facts = machine.Facts(devices=1, connections=1, server_descriptors=1024)
    assert verdict.SERVER_FILES in {check.name for check in machine.examine(facts)}


@pytest.mark.parametrize(
    ("cpu", "main", "core", "evidence"),
    [
        (0.99, 0.97, True, "as much as one thread can"),
        (1.35, 0.97, True, "its main thread 0.97"),  # and threads that code or compress
        (0.99, 0.4, False, ""),  # shared by many threads: none is full
        (0.99, 0.0, True, "is not known"),
        (1.35, 0.0, False, ""),
    ],
)
def test_one_core_is_what_a_main_thread_uses(cpu: float, main: float, core: bool, evidence: str) -> None:
    used = Usage(processes=1, cpu=cpu, main=main, resident=100 << 20)
    last = judged(step(2, 400, server=used, times={Stage.FIRST_AUDIO: times(900)}), step())
    held = [
        Sample(at_s=last.ramped_s + at, server=used, machine_cpu=cpu + 0.25, memory_available=4 * GIB)
        for at in range(1, 9)
    ]
    bottleneck, said = find_bottleneck([step(), last], held, TWO_CORES)
    assert (bottleneck is Bottleneck.SERVER_CORE) == core
    assert evidence in said
    assert core or "one thread" not in said


def test_one_core_full_while_devices_connected() -> None:
    last = judged(step(2, 400, connections=Outcomes(attempted=400, succeeded=300), errors={"no hello": 100}))
    used = Usage(processes=1, cpu=1.3, main=0.98)
    ramp = [
        Sample(at_s=last.began_s + at, server=used, machine_cpu=1.4, memory_available=4 * GIB)
        for at in range(1, 9)
    ]
    assert find_bottleneck([last], ramp, TWO_CORES)[0] is Bottleneck.SERVER_CORE
