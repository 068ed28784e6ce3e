# `harness` with all it needs to train the reference models, export a study and score it, on CPUs.
ARG PYTHON_IMAGE=docker.io/library/python:3.11.11-slim-bookworm

FROM ${PYTHON_IMAGE}
# torch's CPU build is gigabytes smaller than the one that carries CUDA.
ARG TORCH_INDEX=https://download.pytorch.org/whl/cpu
WORKDIR /src
ENV PATH=/opt/harness/bin:$PATH VIRTUAL_ENV=/opt/harness UV_NO_CACHE=1 UV_COMPILE_BYTECODE=1 \
    PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_ROOT_USER_ACTION=ignore
COPY pyproject.toml docker/requirements.py ./
RUN pip install --quiet uv==0.13.9 && \
    uv venv --quiet /opt/harness && python requirements.py export quality > requirements.txt && \
    uv pip install --quiet --index-url ${TORCH_INDEX} "$(grep '^torch==' requirements.txt)" && \
    uv pip install --quiet -r requirements.txt && pip uninstall --quiet --yes uv
COPY README.md LICENSE hatch_build.py ./
COPY studies studies
COPY harness_locust harness_locust
COPY locustfiles locustfiles
COPY harness harness
RUN pip --python /opt/harness/bin/python install --quiet --no-deps .
# A new volume takes its mode from here: whichever user the container runs as can write to it.
RUN mkdir -m 0777 /model_repository /cache && mkdir -m 1777 /join
COPY docker/with-join-token.sh /usr/local/bin/with-join-token
ENV PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1 \
    HOME=/tmp HARNESS_CACHE_DIR=/cache/harness HF_HOME=/cache/huggingface
WORKDIR /work
COPY studies studies
USER 1000:1000
ENTRYPOINT ["harness"]
