"""The roles that a task family plays, an abstract class for each; `TaskFamily` is all of them."""
