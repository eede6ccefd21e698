"""Weights in int8 and int4: conversion of checkpoints, and the products with them.

`convert` makes a checkpoint, `formats` says how its tensors are stored, `matmul` multiplies by
them with the kernels of `kernels`, `hf_modules` lets `from_pretrained` load them.
"""
