# The load generators and their page: the base install, without torch and without build tools.
ARG PYTHON_IMAGE=docker.io/library/python:3.11.11-slim-bookworm

FROM ${PYTHON_IMAGE}
WORKDIR /src
ENV PATH=/opt/harness/bin:$PATH VIRTUAL_ENV=/opt/harness UV_NO_CACHE=1 UV_COMPILE_BYTECODE=1 \
    PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_ROOT_USER_ACTION=ignore
COPY pyproject.toml docker/requirements.py ./
# A sixth of what the packages weigh are their own tests.
RUN pip install --quiet uv==0.13.9 && \
    uv venv --quiet /opt/harness && python requirements.py > requirements.txt && \
    uv pip install --quiet -r requirements.txt && \
    find /opt/harness -type d -name tests -prune -exec rm -r {} + && \
    pip uninstall --quiet --yes uv
COPY README.md LICENSE hatch_build.py ./
COPY studies studies
COPY harness_locust harness_locust
COPY locustfiles locustfiles
COPY harness harness
RUN pip --python /opt/harness/bin/python install --quiet --no-deps .
# Where the locustfile lies in an installed package, under a name that a command can be given.
RUN ln -s "$(python -c 'from harness.system.storage import bundled; print(bundled("locustfiles"))')" /locustfiles
COPY docker/locust-master.sh /usr/local/bin/locust-master
COPY docker/with-join-token.sh /usr/local/bin/with-join-token
# A new volume takes its mode from here: whoever comes first draws the token.
RUN mkdir -m 1777 /join
ENV PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1 HOME=/tmp
WORKDIR /
USER 10001:10001
EXPOSE 8089 5557
CMD ["locust", "-f", "/locustfiles/locustfile.py"]
