# A tritonserver without backends of its own serves the harness's repository with the harness's
# python-based one. Only where NVIDIA's image cannot be had: compose.lab.yaml uses it.
FROM nvcr.io/nvidia/tritonserver:24.10-py3
COPY harness/serving/embedded/requirements.txt .
RUN grep -v nvidia-pytriton requirements.txt > backend.txt && pip install --quiet --no-deps -r backend.txt
COPY harness/serving/backends/onnxruntime /opt/tritonserver/backends/onnxruntime
# What the backend's stub is linked with.
RUN apt-get update -qq && apt-get install -y -qq --no-install-recommends libpython3.11 >/dev/null
# The Python backend sets its stub's run bit at each start, which only the file's owner may.
RUN chown 1000:1000 /opt/tritonserver/backends/python/triton_python_backend_stub
