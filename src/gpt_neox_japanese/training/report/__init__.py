"""What a run tells: log, samples, curve, page."""
