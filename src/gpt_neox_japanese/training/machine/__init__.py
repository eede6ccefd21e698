"""What a run asks of the machine, and what the machine can do.

`precision` knows its units, `memory_estimate` and `estimate` count what a run takes before it
starts; `malloc` and `cpu_attention` make steps on a processor faster.
"""
