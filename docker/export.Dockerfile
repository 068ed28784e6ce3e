# `harness` with all it needs to train the reference models, export a study and score it, on CPUs.
ARG PYTHON_IMAGE=docker.io/library/python:3.11.11-slim-bookworm

FROM ${PYTHON_IMAGE} AS build
# torch's CPU build is gigabytes smaller than the one that carries CUDA.
ARG TORCH_INDEX=https://download.pytorch.org/whl/cpu
WORKDIR /src
RUN python -m venv /opt/harness
ENV PATH=/opt/harness/bin:$PATH PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1
COPY pyproject.toml docker/requirements.py ./
RUN python requirements.py export quality > requirements.txt && \
    pip install --quiet --index-url ${TORCH_INDEX} "$(grep '^torch==' requirements.txt)" && \
    pip install --quiet -r requirements.txt
COPY README.md LICENSE ./
COPY studies studies
COPY locustfiles locustfiles
COPY harness harness
RUN pip install --quiet --no-deps .

FROM ${PYTHON_IMAGE}
COPY --from=build /opt/harness /opt/harness
# A new volume takes its mode from here: whichever user the container runs as can write to it.
RUN mkdir -m 0777 /model_repository /cache
ENV PATH=/opt/harness/bin:$PATH PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1 \
    HOME=/tmp HARNESS_CACHE_DIR=/cache/harness HF_HOME=/cache/huggingface
WORKDIR /work
COPY studies studies
USER 1000:1000
ENTRYPOINT ["harness"]
