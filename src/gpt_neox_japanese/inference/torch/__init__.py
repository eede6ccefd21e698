"""The network on torch's tensors: GPUs, and the readable twin of the compiled one."""
