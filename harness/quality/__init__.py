"""What is left of a model's quality when it answers through the endpoint."""
