"""The embedded default: teachers and students trained on the spot from text every machine has."""
