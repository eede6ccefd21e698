"""Writing text.

`sampling` chooses an id, `engine` writes one after the other, `text` puts strings around them.
"""
