"""A finished run, told to the experiment trackers that teams keep: Weights & Biases, MLflow."""
