"""How a request reaches the server: one file a protocol, one small contract."""
