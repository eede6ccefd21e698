"""The tokenizer behind transformers' interface. Start with `tokenizer`.

`inputs` sorts out what callers pass, `rows` arranges ids in batches, `alignment` answers questions
about them, `token_names` holds names and added tokens; `streamers` print while `generate` writes.
"""
