"""A causal language model as it is served for generation: its decoder with a cache of slots."""
