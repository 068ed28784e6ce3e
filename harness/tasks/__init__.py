"""What a task is: samples, labels, and their encoding to the tensors a served model takes."""
