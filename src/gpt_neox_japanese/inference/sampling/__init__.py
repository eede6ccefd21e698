"""Logits to the next id, on NumPy rows: start with `sampler`."""
