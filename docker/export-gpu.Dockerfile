# `harness export` inside the server's own image: a TensorRT plan runs only on the TensorRT release
# and the kind of GPU that it was built with. The harness needs a newer Python than release 24.10
# has, so uv brings one, and TensorRT's bindings for it, of the image's own release; the libraries
# that they load are the image's.
FROM nvcr.io/nvidia/tritonserver:24.10-py3
# With CUDA: plans are held against their checkpoints on the GPU.
ARG TORCH_INDEX=https://download.pytorch.org/whl/cu126
ARG TENSORRT=10.5.0
WORKDIR /src
ENV UV_PYTHON_INSTALL_DIR=/opt/python PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1
RUN python3 -m pip install --quiet uv==0.13.9 && uv venv --quiet --seed --python 3.11 /opt/harness
ENV PATH=/opt/harness/bin:/usr/src/tensorrt/bin:$PATH
COPY pyproject.toml docker/requirements.py ./
RUN python requirements.py export quality > requirements.txt && \
    pip install --quiet --index-url ${TORCH_INDEX} "$(grep '^torch==' requirements.txt)" && \
    pip install --quiet -r requirements.txt
RUN pip install --quiet --no-deps tensorrt-cu12-bindings==${TENSORRT} && \
    cd "$(python -c 'import sysconfig; print(sysconfig.get_paths()["purelib"])')" && \
    ln -s tensorrt_bindings tensorrt
COPY README.md LICENSE hatch_build.py ./
COPY studies studies
COPY harness_locust harness_locust
COPY locustfiles locustfiles
COPY harness harness
RUN pip install --quiet --no-deps . && mkdir -m 0777 /model_repository /cache
ENV PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1 \
    HOME=/tmp HARNESS_CACHE_DIR=/cache/harness HF_HOME=/cache/huggingface
WORKDIR /work
RUN ln -s /src/studies studies
USER 1000:1000
ENTRYPOINT ["harness"]
