"""A plug-in of SGLang. Every process of SGLang calls `plugin`; `model` is the class that it builds.

Nothing here is imported without SGLang.
"""
