"""A plug-in of vLLM. Every process of vLLM calls `plugin`; `model` is the class that it builds.

Nothing here is imported without vLLM.
"""
