"""Networks of one layer that look like Smart Turn v3 from outside. The few fields of ONNX they need are written out."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

Weights = NDArray[np.float32]

BIAS = np.array([-0.25], np.float32)


def weights(seed: int = 7) -> Weights:
    """One weight per feature, of a size that keeps the result between the extremes."""
    return (np.random.default_rng(seed).normal(0, 1 / 300, (80 * 800, 1))).astype(np.float32)


def write(
    path: Path,
    *,
    input_name: str = "input_features",
    shape: tuple[int | str, ...] = ("batch_size", 80, 800),
    last: str = "Sigmoid",
    factor: float = 1.0,
    outputs: int = 1,
) -> Path:
    """Write a network that gives ``last(features · weights() · factor + BIAS)``; ``outputs`` times the same."""
    count = (
        math.prod(size for size in shape[1:] if isinstance(size, int)) if shape[-1] != "frames" else 80 * 800
    )
    taken = np.resize(weights() * np.float32(factor), (count, 1))
    graph = [
        _message(1, _node("Flatten", [input_name], "flat", axis=1)),
        _message(1, _node("Gemm", ["flat", "weights", "bias"], "sum")),
        *(_message(1, _node(last, ["sum"], _output(index))) for index in range(outputs)),
        _text(2, "tiny"),
        _message(5, _tensor("weights", taken)),
        _message(5, _tensor("bias", BIAS)),
        _message(11, _value(input_name, shape)),
        *(_message(12, _value(_output(index), ("batch_size", 1))) for index in range(outputs)),
    ]
    opset = _message(8, _text(1, ""), _number(2, 13))
    path.write_bytes(_number(1, 8) + _message(7, *graph) + opset)
    return path


def _output(index: int) -> str:
    return "logits" if index == 0 else f"more_{index}"


def _node(operator: str, inputs: list[str], output: str, **attributes: int) -> bytes:
    shown = b"".join(
        _message(5, _text(1, name), _number(3, value), _number(20, 2)) for name, value in attributes.items()
    )
    return b"".join(_text(1, name) for name in inputs) + _text(2, output) + _text(4, operator) + shown


def _tensor(name: str, values: Weights) -> bytes:
    sizes = b"".join(_number(1, size) for size in values.shape)
    return sizes + _number(2, 1) + _text(8, name) + _message(9, values.tobytes())


def _value(name: str, shape: tuple[int | str, ...]) -> bytes:
    sizes = [_message(1, _text(2, size) if isinstance(size, str) else _number(1, size)) for size in shape]
    return _text(1, name) + _message(2, _message(1, _number(1, 1), _message(2, *sizes)))


# ---------------------------------------------------------------- protocol buffers


def _varint(value: int) -> bytes:
    result = bytearray()
    while value > 0x7F:
        result.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes(result) + bytes([value])


def _number(field: int, value: int) -> bytes:
    return _varint(field << 3) + _varint(value)


def _message(field: int, *parts: bytes) -> bytes:
    body = b"".join(parts)
    return _varint(field << 3 | 2) + _varint(len(body)) + body


def _text(field: int, value: str) -> bytes:
    return _message(field, value.encode())
