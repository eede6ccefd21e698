"""What makes decoding fast inside transformers' own loop: linear layers, attention, KV cache."""
