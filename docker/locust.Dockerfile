# The load generators and their page: the base install, without torch and without build tools.
ARG PYTHON_IMAGE=docker.io/library/python:3.11.11-slim-bookworm

FROM ${PYTHON_IMAGE} AS build
WORKDIR /src
RUN python -m venv /opt/harness
ENV PATH=/opt/harness/bin:$PATH PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1
COPY pyproject.toml docker/requirements.py ./
RUN python requirements.py > requirements.txt && pip install --quiet -r requirements.txt
COPY README.md LICENSE ./
COPY studies studies
COPY locustfiles locustfiles
COPY harness harness
RUN pip install --quiet --no-deps .

FROM ${PYTHON_IMAGE}
COPY --from=build /opt/harness /opt/harness
# Where the locustfile lies in an installed package, under a name that a command can be given.
RUN ln -s "$(/opt/harness/bin/python -c 'from harness.resources import bundled; print(bundled("locustfiles"))')" /locustfiles
COPY docker/locust-master.sh /usr/local/bin/locust-master
ENV PATH=/opt/harness/bin:$PATH PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1 HOME=/tmp
USER 10001:10001
EXPOSE 8089 5557
CMD ["locust", "-f", "/locustfiles/locustfile.py"]
