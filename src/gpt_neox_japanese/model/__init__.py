"""The GPT-NeoX-Japanese transformer: configuration, layers, language-model head."""
