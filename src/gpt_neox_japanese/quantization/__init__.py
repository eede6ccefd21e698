"""Weights in fewer bits, and the products with them.

`kernels.multiply` computes, `reference` says the same in NumPy.
"""
