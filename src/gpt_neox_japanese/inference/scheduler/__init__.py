"""Many requests on one network: start with `engine`, then `scheduler`."""

MAX_WAITING = 1000
"""Requests that may wait for a slot, unless an engine is told otherwise."""
