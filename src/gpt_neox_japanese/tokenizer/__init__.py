"""Text to ids and back.

A string becomes symbols (`normalization`), symbols become ids (`reference`), ids become text again
(`decoding`). `Codec` is the three together; `hf` is the face that transformers sees.
"""
