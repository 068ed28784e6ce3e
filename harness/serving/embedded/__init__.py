"""The embedded Triton: a real server from a wheel, with a Python environment of its own."""
