"""Planning: the objective, the search over configurations, and the decision."""
