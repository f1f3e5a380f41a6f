"""Devices that fetch their answers over a bad mobile link: a proxy that makes one, and what must work over it."""
