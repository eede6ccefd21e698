"""The compiled encoder: start with `encode`."""
