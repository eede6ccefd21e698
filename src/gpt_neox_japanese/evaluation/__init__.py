"""How well a model predicts Japanese text: start with `bits_per_character`.

`cloze` asks for the true continuation; `variant_folding` says what a tokenizer does not tell apart.
"""
