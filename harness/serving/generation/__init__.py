"""A language model served for generation: the engine, and the model that Triton runs around it."""
