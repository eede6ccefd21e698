"""The tokenizer behind transformers' interface: start with `tokenizer`."""
