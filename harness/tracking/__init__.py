"""A finished run, sent to the experiment trackers that teams use: Weights & Biases, MLflow."""
