"""Invented load tests, as plausible as can be."""

from __future__ import annotations

import math
import random
from typing import Any

import msgspec

from mynah.sim.load.record import (
    Bottleneck,
    Check,
    Distribution,
    Frames,
    Knee,
    LoadReport,
    Machine,
    Outcomes,
    Sample,
    Stage,
    Step,
    Usage,
    Warned,
)
from mynah.sim.load.scenario import BUILT_IN, Behaviour, Scenario

MACHINE = Machine(
    cpu="AMD EPYC 7763 64-Core Processor",
    cores=2,
    memory=8_340_000_000,
    system="Linux 6.8.0, Debian 13",
    python="3.11.9",
    checks=[
        Check(name="open files", ok=True, found="524288", wanted="at least 21000"),
        Check(
            name="local ports",
            ok=False,
            found="28232 for one source address",
            wanted="20500",
            remedy="sysctl -w net.ipv4.ip_local_port_range='1024 65535'",
        ),
        Check(name="memory", ok=False, found="0.9 GB", wanted="1.4 GB", remedy="free some", fatal=True),
    ],
)


def distribution(p50: float, count: int, tail: float = 1.6) -> Distribution:
    return Distribution(
        count=count, mean=p50 * 1.1, p50=p50, p95=p50 * tail, p99=p50 * tail * 1.3, max=p50 * tail * 2
    )


def usage(cpu: float, resident: float, descriptors: int, processes: int = 1, threads: int = 14) -> Usage:
    return Usage(
        processes=processes,
        cpu=cpu,
        main=0.9 * cpu / processes,
        resident=int(resident),
        descriptors=descriptors,
        threads=threads,
    )


def step(number: int, devices: int, talkers: int, began: float, slow: float = 1.0) -> Step:
    good = slow < 3
    turns = talkers * 5
    received = turns * 60
    times = {
        Stage.CONNECT: distribution(4.0 * slow, devices),
        Stage.HELLO: distribution(2.5 * slow, devices),
    }
    if talkers:
        times |= {
            Stage.TRANSCRIPT: distribution(210 * slow**0.5, turns),
            Stage.FIRST_AUDIO: distribution(290 * slow, turns),
            Stage.ANSWER: distribution(3300 * slow**0.2, turns),
            Stage.TURN: distribution(5200 * slow**0.2, turns),
        }
    return Step(
        number=number,
        devices=devices,
        talkers=talkers,
        began_s=began,
        ramped_s=began + devices / 300,
        ended_s=began + devices / 300 + 20,
        connected=devices if good else devices - 31,
        connections=Outcomes(attempted=devices, succeeded=devices if good else devices - 31),
        turns=Outcomes(attempted=turns, succeeded=turns if good else int(turns * 0.93)),
        lost=0 if good else 12,
        busy=0 if good else 140,
        connects_per_s=298.4,
        times=times,
        frames=Frames(
            sent=turns * 40,
            received=received,
            late=int(received * 0.0004 * slow**3),
            dry=int(received * 0.0001 * slow**3),
            worst_gap_ms=18.2 * slow,
        ),
        jitter=distribution(0.8 * slow, received),
        errors={} if good else {"no answer": int(turns * 0.05), "connection refused": 31, "no hello": 4},
        faults={} if good else {"stray_audio": 9},
        server=usage(0.02 + talkers * 0.0022, 92e6 + devices * 21_000 + talkers * 90_000, devices + 40),
        generator=usage(
            0.01 + talkers * 0.001, 60e6 + devices * 11_000, devices + 60, processes=2, threads=4
        ),
        lag=distribution(0.4 * slow, 1000),
        passed=good,
        reasons=[]
        if good
        else ["success 92.9 %, wanted 99 %", "first audio p95 1,624 ms, wanted at most 928 ms"],
    )


def plain(scenario: Scenario) -> dict[str, Any]:
    """As a report file has it."""
    found: dict[str, Any] = msgspec.json.decode(msgspec.json.encode(scenario))
    return found


def mixed(sizes: tuple[int, ...] = (100, 500, 1000, 2000, 5000), samples_per_s: float = 1.0) -> LoadReport:
    """A test of devices of which a tenth talks, and the last step is too much."""
    scenario = msgspec.structs.replace(
        BUILT_IN["stress"], steps=sizes, behaviour=Behaviour.MIXED, max_talkers=400
    )
    steps, began = [], 2.0
    for number, devices in enumerate(sizes, 1):
        last = number == len(sizes) and number > 1
        slow = 3.5 if last else 1 + devices / max(sizes) * 0.4
        steps.append(step(number, devices, min(devices // 10, 400), began, slow))
        began = steps[-1].ended_s
    return LoadReport(
        version="0.1.0",
        started="2027-01-08T14:03:22+01:00",
        command="mynah loadtest http://127.0.0.1:8003/xiaozhi/ota/ --scenario stress --behaviour mixed",
        target="http://127.0.0.1:8003/xiaozhi/ota/",
        scenario=plain(scenario),
        machine=MACHINE,
        steps=steps,
        samples=samples(steps, samples_per_s),
        warnings=[
            Warned(at_s=began - 21.0, text="the machine's CPU was above 90 %"),
            Warned(at_s=began - 14.5, text="the load generator was 38 ms late: its figures are doubtful"),
            Warned(at_s=began - 3, text="less than 10 % of the memory was left"),
        ],
        at_rest=usage(0.003, 92e6, 38),
        afterwards=usage(0.004, 121e6, 39),
        knee=Knee(
            step=len(sizes),
            devices=sizes[-2],
            talkers=min(sizes[-2] // 10, 400),
            sign="p95 of the first audio went from 464 ms to 1,624 ms",
        )
        if len(sizes) > 1
        else None,
        bottleneck=Bottleneck.SERVER_CORE,
        evidence="The server used 0.99 of one core while the machine had 0.6 cores idle: another process would help.",
        passed=len(sizes) == 1,
        reasons=[f"step {len(sizes)} did not pass"] if len(sizes) > 1 else [],
    )


def samples(steps: list[Step], per_s: float) -> list[Sample]:
    rng = random.Random(7)
    found = []
    before = 0
    for one in steps:
        at = one.began_s
        while at < one.ended_s:
            share = min((at - one.began_s) / max(one.ramped_s - one.began_s, 0.1), 1.0)
            connected = int(before + (one.connected - before) * share)
            talking = int(one.talkers * share * (0.75 + 0.1 * math.sin(at)))
            cpu = 0.02 + talking * 0.0025 + 0.1 * (share < 1) + rng.random() * 0.03
            found.append(
                Sample(
                    at_s=at,
                    connected=connected,
                    talking=talking,
                    server=usage(cpu, 92e6 + connected * 21_000 + talking * 90_000, connected + 40),
                    generator=usage(0.5 * cpu, 60e6 + connected * 11_000, connected + 60, 2, 4),
                    lag_ms=0.5 + rng.random() * (1 if rng.random() < 0.95 else 30),
                    machine_cpu=min(1.6 * cpu + 0.1, 2.0),
                    memory_available=int(6e9 - connected * 32_000),
                    received_per_s=talking * 4000 + rng.random() * 9000,
                    sent_per_s=talking * 4000 + rng.random() * 9000,
                )
            )
            at += 1 / per_s
        before = one.connected
    return found


def idle(sizes: tuple[int, ...] = (100, 500)) -> LoadReport:
    """Nobody talks, and the server is on another machine."""
    report = mixed(sizes)
    steps = [
        msgspec.structs.replace(step(one.number, one.devices, 0, one.began_s), server=None)
        for one in report.steps
    ]
    return msgspec.structs.replace(
        report,
        target="wss://voice.example.org/xiaozhi/v1/",
        scenario=plain(BUILT_IN["quick"]),
        machine=msgspec.structs.replace(MACHINE, checks=MACHINE.checks[:1]),
        steps=steps,
        samples=[
            msgspec.structs.replace(one, server=None, talking=0)
            for one in samples([msgspec.structs.replace(one, talkers=0) for one in steps], 1)
        ],
        warnings=[],
        at_rest=None,
        afterwards=None,
        knee=None,
        bottleneck=Bottleneck.NONE,
        evidence="Everything that can be seen from here had room left.",
        passed=True,
        reasons=[],
    )
