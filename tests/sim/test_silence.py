from mynah.sim.counters import Counters
from mynah.sim.silence import SilenceWatch


def test_silence() -> None:
    counters = Counters()
    silence = SilenceWatch(counters)
    silence.opened(1000.0)
    silence.heard(1110.0)
    assert (counters, silence.was_dead) == (Counters(), False)
    silence.heard(1221.0)
    assert (counters, silence.was_dead) == (Counters(long_silence=1), False)
    assert not silence.dead(1341.0)
    assert silence.dead(1341.5)
    assert counters == Counters(long_silence=1, dead_channel=1)
    silence.heard(1342.0)
    assert silence.was_dead
    silence.heard(1343.0)
    assert not silence.was_dead
    assert counters == Counters(long_silence=2, dead_channel=1)
