"""Weights in fewer bits, and the products with them.

`kernel_multiply` computes, `reference` says the same in NumPy.
"""
