"""Writing text: start with `generator`, which puts strings around `scheduler.engine`.

A prompt's ids wait for a slot of the KV cache (`scheduler`), run through a network (`cpu` or
`torch`), whose logits become the next id (`sampling`), which becomes text (`detokenizer`,
`stop_strings`) in the owner's hands (`text_stream`).
"""
