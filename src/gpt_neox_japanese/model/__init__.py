"""The GPT-NeoX-Japanese transformer in torch, with the interface of transformers' models.

`modeling` is the model with its language-model head; `transformer`, `layer`, `attention` and
`rotary` read in this order from the outside in. `decode` makes `generate` fast, `loading` is
`from_pretrained`.
"""
