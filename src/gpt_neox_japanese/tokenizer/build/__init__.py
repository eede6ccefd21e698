"""Making a vocabulary from a corpus: start with `builder`."""
