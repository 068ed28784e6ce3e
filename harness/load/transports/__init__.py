"""How a request reaches the server: one folder per protocol, one small contract."""
