# headrace with everything in it: Java, Flink, Kafka's and the connectors' jars, compiled kernels. Nothing is fetched when a container starts
# but the demo's data (MovieLens, whose terms forbid to ship it).
#   docker build -t headrace .            docker run --rm -it -p 127.0.0.1:9080:9080 headrace
# Mirrors: --build-arg PIP_INDEX_URL=... --build-arg HEADRACE_MAVEN_MIRROR=...
FROM python:3.12-slim-bookworm AS build
ARG PIP_INDEX_URL=""
ARG HEADRACE_MAVEN_MIRROR=""
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1
WORKDIR /src
COPY pyproject.toml constraints.txt README.md LICENSE ./
COPY headrace headrace
COPY schemas schemas
COPY rpc rpc
COPY features features
COPY ps ps
COPY ann ann
COPY models models
COPY streaming streaming
COPY engine engine
COPY jobs jobs
COPY simulator simulator
RUN python -m venv /opt/headrace \
 && if [ -n "$PIP_INDEX_URL" ]; then export PIP_INDEX_URL; else unset PIP_INDEX_URL; fi \
 && PIP_CONSTRAINT=constraints.txt PIP_BUILD_CONSTRAINT=constraints.txt /opt/headrace/bin/pip install ".[local]" -c constraints.txt
# The kernels' cache is keyed by the path and time of their sources, which the next stage keeps.
ENV XDG_CACHE_HOME=/opt/cache NUMBA_CACHE_DIR=/opt/cache/numba HEADRACE_MAVEN_MIRROR=$HEADRACE_MAVEN_MIRROR
WORKDIR /tmp
RUN /opt/headrace/bin/headrace jars fetch && /opt/headrace/bin/python -m headrace.warmed

FROM python:3.12-slim-bookworm
RUN apt-get update && apt-get install -y --no-install-recommends procps=2:4.* socat=1.7.* tini=0.19.* && rm -rf /var/lib/apt/lists/* \
 && useradd --create-home --uid 10001 headrace && install -d -o headrace -g headrace /data
COPY --from=build /opt/headrace /opt/headrace
COPY --from=build --chown=headrace:headrace /opt/cache /opt/cache
ENV PATH=/opt/headrace/bin:$PATH XDG_CACHE_HOME=/opt/cache NUMBA_CACHE_DIR=/opt/cache/numba PYTHONUNBUFFERED=1 \
    HEADRACE_STACK__DATA_DIR=/data
USER 10001
WORKDIR /data
VOLUME /data
EXPOSE 9080 9088 9092 9081
COPY --chown=headrace docker/forward /opt/forward
ENTRYPOINT ["tini", "--"]
# Everything in one container. Services listen on its loopback, and /opt/forward lets the published ports reach them.
CMD ["/opt/forward", "headrace", "demo"]
HEALTHCHECK --interval=10s --timeout=10s --start-period=180s CMD ["headrace", "connect", "check", "--only", "engine"]
