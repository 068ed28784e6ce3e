"""Answers that come token by token: Triton's streams over gRPC and HTTP, OpenAI's API."""
