"""How much traffic a replica carries: fitted to a run's trials, then simulated at other rates."""
