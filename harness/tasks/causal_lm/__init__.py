"""Causal language models: how probable running text is to them."""
