"""Extractive question answering: a span of a context as the answer."""
