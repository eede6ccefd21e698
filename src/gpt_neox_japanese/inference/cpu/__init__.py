"""The network on a processor, in compiled code: start with `network`."""
