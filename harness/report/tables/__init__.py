"""The report's tables, and the model that all of them are instances of."""
