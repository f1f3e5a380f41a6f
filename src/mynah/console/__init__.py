"""Where operators look at and steer the server."""
