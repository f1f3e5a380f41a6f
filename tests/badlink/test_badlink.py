"""A little of ``make badlink``: nothing is lost or repeated over a link that stalls and breaks."""

from __future__ import annotations

from pathlib import Path

from tests.badlink.campaign import SEED_ONLY, Campaign
from tests.badlink.proxy import Link


def test_every_turn_is_answered_or_reported_and_every_byte_arrives_once(tmp_path: Path) -> None:
    link = Link(rtt_ms=200, jitter_ms=60, stall=0.02, cut_bytes=400_000, refuse=0.02)
    outcome = Campaign(15, 45, link, seed=3).run(tmp_path, ("TTS.FakeTTS.seconds=0.6",))
    assert outcome.proxy["cut_in_transfer"] > 0, "the link was bad"
    assert sum(kind.turns for kind in outcome.kinds.values()) == 45
    for name, kind in outcome.kinds.items():
        assert kind.silent == 0, name
        assert kind.answered + sum(kind.reported.values()) == kind.turns, name
        if name != SEED_ONLY:
            assert kind.answered == kind.turns, (name, kind.reported)
            assert kind.exact_up == kind.exact_down == kind.turns, name
    assert outcome.faults["audio_after_interrupt"] == outcome.faults["unknown_lines"] == 0
