"""A study, or one trial, on an external server."""
