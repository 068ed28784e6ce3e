"""Serving: the embedded Triton, its environment and backend, the model repository, the endpoint."""
