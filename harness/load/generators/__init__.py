"""The processes that generate load: started, spoken to, their reports joined."""
