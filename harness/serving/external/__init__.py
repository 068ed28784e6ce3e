"""The client of an external server: one that somebody else runs, over gRPC or HTTP."""
