"""Fake devices and load: they look at a server from outside, through its sockets only."""
