"""What makes decoding fast inside transformers' own loop: linear layers, attention, KV cache.

Start with `linear`; it asks `cpu_kernels` where rows are few. `kv_cache` is preallocated.
"""
