"""From a text to its ids. Start with `text_encoder`, which finds added and special tokens first.

What lies between them `vocabulary_encoder` encodes, long texts in parts on several threads
(`batching`): in plain Python (`normalization`, `cleaning`, `python_encoder`), or compiled
(`kernels`, beside this folder).
"""
