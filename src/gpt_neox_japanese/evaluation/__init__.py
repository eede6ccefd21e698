"""How well a model predicts Japanese text."""
