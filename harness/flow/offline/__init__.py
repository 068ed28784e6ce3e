"""A job with a deadline: its questions answered from a stored run, or measured first."""
