"""Load tests: many simulated devices against any xiaozhi server, what they saw, and what that says about it."""
