"""Models for other engines, and back. Nothing in the package but the command line imports it.

`gguf_writer` makes a file for llama.cpp and what is built on it, `gguf_reader` a model directory of
such a file; `gguf_tokenizer` is how llama.cpp gets the same ids, `gguf_network` the same scores.
`neox_checkpoints` does both for EleutherAI/gpt-neox; `neox_parts` and `neox_config` are its files.
`vllm` and `sglang` are plug-ins of these engines, found by entry points; `head_weights` is what
both need to know of checkpoints, `grammars` what they need for structured output.
`datatrove` is a step for its pipelines, which users import. `hub` publishes a model on the
Hugging Face Hub.
"""
