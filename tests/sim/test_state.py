import itertools

from mynah.sim.state import DeviceState, may_move

IDLE, CONNECTING, LISTENING, SPEAKING = DeviceState


def test_exactly_the_moves_of_firmware() -> None:
    legal = {
        (IDLE, CONNECTING),
        (IDLE, LISTENING),
        (IDLE, SPEAKING),
        (CONNECTING, IDLE),
        (CONNECTING, LISTENING),
        (LISTENING, SPEAKING),
        (LISTENING, IDLE),
        (SPEAKING, LISTENING),
        (SPEAKING, IDLE),
    }
    for state, to in itertools.product(DeviceState, DeviceState):
        assert may_move(state, to) == (state is to or (state, to) in legal)
