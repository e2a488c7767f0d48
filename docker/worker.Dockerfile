# The worker of a cluster, which is a Ray head at the same time, and the loop that drives it.
#   docker build -f docker/worker.Dockerfile -t ghcr.io/gridsweep/worker:0.2.0 .

# `base` and not `runtime`: torch brings the CUDA libraries it was built with, and two sets would be gigabytes more.
# The digest is that of the tag's list of platforms, as several public projects pin it; no registry was asked yet.
# docker/check-base.sh asks, before every build of the workflow, and shows what to pin where the tag has moved.
FROM nvidia/cuda:13.0.2-base-ubuntu24.04@sha256:2ab6381d970b211fb93853796dc6707eb8a72575a375c422b17cf4d8b2641701 AS base

FROM base AS build
# hadolint ignore=DL3008
RUN apt-get update \
 && apt-get install --yes --no-install-recommends python3 python3-venv \
 && rm -rf /var/lib/apt/lists/*
WORKDIR /src
COPY locks/worker.txt ./
# By the lock alone, each file by its digest, and wheels only: nothing is compiled, so no compiler is needed.
RUN python3 -m venv /opt/venv \
 && /opt/venv/bin/pip install --no-cache-dir --only-binary=:all: --no-deps --require-hashes \
    --requirement worker.txt
COPY pyproject.toml README.md LICENSE ./
COPY src ./src
# pip leaves; what is installed is checked first.
RUN /opt/venv/bin/pip install --no-cache-dir --no-deps . \
 && /opt/venv/bin/pip check \
 && /opt/venv/bin/pip uninstall --yes pip

FROM base
# Ubuntu removes a package's old versions from its archive, so versions pinned here would soon build no more.
# wget and bash: KubeRay's health probes of a Ray head run them.
# hadolint ignore=DL3008
RUN apt-get update \
 && apt-get install --yes --no-install-recommends bash ca-certificates python3 wget \
 && rm -rf /var/lib/apt/lists/* \
 && echo 'PATH=/opt/venv/bin:/usr/local/bin:/usr/bin:/bin' > /etc/profile.d/venv.sh
COPY --from=build /opt/venv /opt/venv
ENV PATH=/opt/venv/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    RAY_USAGE_STATS_ENABLED=0
# Ubuntu's image has this user already.
USER 1000:1000
WORKDIR /tmp
CMD ["gridsweep", "--help"]
