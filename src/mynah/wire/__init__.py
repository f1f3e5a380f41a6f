"""The device contract without I/O: bytes in, messages out, and back.

No clock, no async, no logger in this room.
"""
