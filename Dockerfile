# syntax=docker/dockerfile:1
FROM python:3.13-slim AS build
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1
RUN apt-get update && apt-get install -y --no-install-recommends gcc libc6-dev && rm -rf /var/lib/apt/lists/*
RUN python -m venv /opt/ingestor
WORKDIR /src
# The dependencies change less often than the code: their layer is kept.
COPY requirements.lock ./
RUN /opt/ingestor/bin/pip install --require-hashes -r requirements.lock
COPY . ./
RUN INGESTOR_NATIVE=required /opt/ingestor/bin/pip install --no-deps --no-build-isolation . \
    && /opt/ingestor/bin/python -m compileall -q /opt/ingestor/lib

FROM python:3.13-slim
RUN useradd --system --uid 10001 --no-create-home --shell /usr/sbin/nologin ingestor \
    && install -d -o ingestor -g ingestor /var/lib/ingestor
COPY --from=build /opt/ingestor /opt/ingestor
COPY config /etc/ingestor
# Nothing is written outside the volume, so the root file system may be read-only.
ENV PATH=/opt/ingestor/bin:$PATH PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1
# Probes come from outside the container; which ports are published is the host's decision.
ENV INGESTOR__HTTP__HOST=0.0.0.0 INGESTOR__HTTP__ALLOW_REMOTE=true
ENV INGESTOR__CATALOGUE__CACHE_DIR=/var/lib/ingestor/cache
EXPOSE 9464
USER 10001:10001
WORKDIR /var/lib/ingestor
VOLUME /var/lib/ingestor
STOPSIGNAL SIGTERM
ENTRYPOINT ["ingestor"]
CMD ["--help"]
