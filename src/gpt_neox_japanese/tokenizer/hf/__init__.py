"""The tokenizer behind transformers' interface. Start with `tokenizer`.

`options` refuses those that make no sense, `inputs` sorts out what callers pass, `rows` arranges
ids in batches, `columns` and `alignment` tell of them what is asked; `token_names` holds names and
added tokens, and `rust_backend` what transformers decodes with; `streamers` print while `generate`
writes.
"""
