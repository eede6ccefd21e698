"""Corpus to ids at scale, resumable: start with `encode_corpus`."""
