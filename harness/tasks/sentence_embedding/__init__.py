"""Sentence embeddings: a vector for each text, compared by pairs with scores and by retrieval."""
