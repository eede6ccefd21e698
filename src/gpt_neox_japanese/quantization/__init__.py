"""Weights in int8 and int4: conversion of checkpoints, and the products with them.

`convert` makes a checkpoint; `quantize` rounds a matrix, `error_feedback` by what it does with a
text. `formats` says how it is stored, `matmul` multiplies by it with the kernels of `kernels`,
`hf_modules` lets `from_pretrained` load it.
"""
