"""Resumable training states and finished models: start with `manager`."""
