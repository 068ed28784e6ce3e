"""The embedded Triton: a real server from a wheel, with its own Python environment."""
