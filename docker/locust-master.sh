#!/bin/sh
# The master with its page. Its form offers the server that is there: the GPU's under profile gpu.
set -eu
server=triton repository=/model_repository
if getent hosts triton-gpu >/dev/null; then
  server=triton-gpu repository=/model_repository_gpu
fi
exec locust -f /locustfiles/locustfile.py --master \
  --host "${TRITON_URL:-grpc://$server:8001}" --repository "$repository" "$@"
