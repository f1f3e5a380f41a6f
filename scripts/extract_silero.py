"""Take the weights of Silero VAD's 16 kHz network out of the published wheel.

    python scripts/extract_silero.py [WHEEL]

Writes ``src/mynah/providers/vad/data/silero_vad_16k.npz`` with the licence beside it, and for the cross-check the
original network to ``tests/data/silero_vad.onnx``. Without WHEEL, pip downloads it (the wheel alone: its
dependencies are torch and torchaudio).

The wheel carries several files; only ``silero_vad.onnx`` is the network of the reference implementation. The
``.safetensors`` and the ``half`` variant hold other weights. It contains an 8 kHz and a 16 kHz network as the two
branches of an ``If``; ours is the ``then`` branch. ONNX is protobuf, and what is needed of it is little, so it is
read directly rather than through the onnx package.
"""

from __future__ import annotations

import hashlib
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

PACKAGE = "silero-vad==6.2.3"
SHA256 = "1a153a22f4509e292a94e67d6f9b85e8deb25b4988682b7e174c65279d8788e3"
PREFIX = "If_0_then_branch__Inline_0__"

ROOT = Path(__file__).resolve().parent.parent
WEIGHTS = ROOT / "src/mynah/providers/vad/data/silero_vad_16k.npz"
FIXTURE = ROOT / "tests/data/silero_vad.onnx"

# Field numbers of onnx.proto.
MODEL_GRAPH, GRAPH_NODE = 7, 1
NODE_OUTPUT, NODE_OP, NODE_ATTRIBUTE = 2, 4, 5
ATTRIBUTE_TENSOR, ATTRIBUTE_GRAPH = 5, 6
TENSOR_DIMS, TENSOR_TYPE, TENSOR_RAW = 1, 2, 9
TYPE_FLOAT = 1

NAMES = {
    "stft.forward_basis_buffer": "stft",
    "encoder.0.reparam_conv.weight": "conv0_weight",
    "encoder.0.reparam_conv.bias": "conv0_bias",
    "encoder.1.reparam_conv.weight": "conv1_weight",
    "encoder.1.reparam_conv.bias": "conv1_bias",
    "encoder.2.reparam_conv.weight": "conv2_weight",
    "encoder.2.reparam_conv.bias": "conv2_bias",
    "encoder.3.reparam_conv.weight": "conv3_weight",
    "encoder.3.reparam_conv.bias": "conv3_bias",
    "decoder.rnn.weight_ih": "lstm_weight_ih",
    "decoder.rnn.weight_hh": "lstm_weight_hh",
    "decoder.rnn.bias_ih": "lstm_bias_ih",
    "decoder.rnn.bias_hh": "lstm_bias_hh",
    "decoder.decoder.2.weight": "out_weight",
    "decoder.decoder.2.bias": "out_bias",
}
"""Names in the network → names in our file."""


def varint(data: memoryview, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        shift += 7
        if not byte & 0x80:
            return value, at


def fields(data: memoryview) -> Iterator[tuple[int, int | memoryview]]:
    """The fields of one protobuf message: (number, integer or bytes)."""
    at = 0
    while at < len(data):
        key, at = varint(data, at)
        number, wire_type = key >> 3, key & 7
        if wire_type == 0:
            value, at = varint(data, at)
            yield number, value
        elif wire_type == 2:
            size, at = varint(data, at)
            yield number, data[at : at + size]
            at += size
        else:
            size = {1: 8, 5: 4}[wire_type]
            yield number, data[at : at + size]
            at += size


def tensor(data: memoryview) -> NDArray[np.float32] | None:
    """A float tensor, None for any other type."""
    dims: list[int] = []
    raw, kind = memoryview(b""), 0
    for number, value in fields(data):
        if number == TENSOR_DIMS:
            if isinstance(value, int):
                dims.append(value)
            else:  # packed
                at = 0
                while at < len(value):
                    dim, at = varint(value, at)
                    dims.append(dim)
        elif number == TENSOR_TYPE and isinstance(value, int):
            kind = value
        elif number == TENSOR_RAW and not isinstance(value, int):
            raw = value
    return np.frombuffer(raw, "<f4").reshape(dims) if kind == TYPE_FLOAT else None


def constants(graph: memoryview) -> Iterator[tuple[str, NDArray[np.float32]]]:
    """All float constants of a graph and its branches, by the name of their output."""
    for number, node in fields(graph):
        if number != GRAPH_NODE or isinstance(node, int):
            continue
        outputs: list[str] = []
        values: list[NDArray[np.float32]] = []
        for field, value in fields(node):
            if isinstance(value, int):
                continue
            if field == NODE_OUTPUT:
                outputs.append(bytes(value).decode())
            elif field == NODE_ATTRIBUTE:
                for inner, content in fields(value):
                    if isinstance(content, int):
                        continue
                    if inner == ATTRIBUTE_GRAPH:
                        yield from constants(content)
                    elif inner == ATTRIBUTE_TENSOR and (found := tensor(content)) is not None:
                        values.append(found)
        if outputs and values:
            yield outputs[0], values[0]


def weights(onnx: bytes) -> dict[str, NDArray[np.float32]]:
    graph = next(value for number, value in fields(memoryview(onnx)) if number == MODEL_GRAPH)
    assert not isinstance(graph, int)
    found = {}
    for name, value in constants(graph):
        short = name.removeprefix(PREFIX)
        if name.startswith(PREFIX) and short in NAMES:
            found[NAMES[short]] = value
    missing = set(NAMES.values()) - set(found)
    if missing:
        raise SystemExit(f"the network has no {', '.join(sorted(missing))}")
    return found


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        if len(sys.argv) > 1:
            wheel = Path(sys.argv[1])
        else:
            subprocess.run(
                [sys.executable, "-m", "pip", "download", "--no-deps", "--dest", folder, PACKAGE], check=True
            )
            wheel = next(Path(folder).glob("*.whl"))
        with zipfile.ZipFile(wheel) as archive:
            onnx = archive.read("silero_vad/data/silero_vad.onnx")
            licence = next(name for name in archive.namelist() if name.endswith("licenses/LICENSE"))
            licence_text = archive.read(licence)
    digest = hashlib.sha256(onnx).hexdigest()
    if digest != SHA256:
        raise SystemExit(f"{wheel.name} holds another network: sha256 {digest}")
    for target in (WEIGHTS, FIXTURE):
        target.parent.mkdir(parents=True, exist_ok=True)
        target.with_name("silero_vad.LICENSE").write_bytes(licence_text)
    np.savez_compressed(WEIGHTS, **weights(onnx))
    FIXTURE.write_bytes(onnx)
    print(f"{WEIGHTS.relative_to(ROOT)}: {WEIGHTS.stat().st_size} bytes")


if __name__ == "__main__":
    main()
