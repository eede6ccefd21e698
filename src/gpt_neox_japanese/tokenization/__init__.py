"""Corpus to ids at scale.

Start with `encode_corpus`, which `neox-ja prepare` uses as well; `arrays` writes the result of
`neox-ja tokenize --output`, `resumable_output` keeps it while it grows.
"""
