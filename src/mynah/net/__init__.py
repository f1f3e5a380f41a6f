"""Transports: one file adapts one of them to the session engine, and the device-facing HTTP service.."""
