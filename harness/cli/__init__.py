"""The command line: one file per command."""

import os

# What gRPC logs of a failed connection is in the error that it raises, and in ours. It looks once,
# when it is imported.
os.environ.setdefault("GRPC_VERBOSITY", "NONE")
