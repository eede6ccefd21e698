"""From a corpus to a vocabulary. Start with `builder`, which calls all others.

`counting` reads the corpus, `piece_selection` chooses, `variants` and `emoji` add forms of one
meaning; `statistics` tells what a vocabulary covers and how it does on texts.
"""
