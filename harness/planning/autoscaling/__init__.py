"""How many replicas there are when: rules, Kubernetes' mechanics, and both over a trace."""
