"""The student answers; below a threshold of its confidence the teacher does."""
