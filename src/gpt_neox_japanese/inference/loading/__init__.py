"""From a model directory to an engine: start with `load`."""
