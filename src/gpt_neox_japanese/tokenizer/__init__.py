"""Text to ids and back. Start with `codec`: `Codec` does all of it, without torch or transformers.

A text becomes ids in `encoding`, in plain Python or compiled (`kernels`); `token_ids` and
`decoding` lead back. `hf` is the same behind transformers' interface, and `build` makes
vocabularies.
"""
