"""Text to ids and back. Start with `codec`: `Codec` does all of it, without torch or transformers.

A text becomes symbols (`normalization`) and these become ids, in plain Python (`python_encoder`) or
compiled (`kernels`); `decoding` leads back. `hf` is the same behind transformers' interface, and
`build` makes vocabularies.
"""
