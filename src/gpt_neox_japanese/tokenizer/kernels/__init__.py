"""The compiled encoder. Start with `encode`, whose functions the rest of the package calls.

`symbols` reads characters and emoji, `segment` goes from symbols to ids; `tables` lays a vocabulary
out for both, in the trie that `trie` packs.
"""
