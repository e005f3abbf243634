# dream3d for an NVIDIA GPU. Its driver must know CUDA 13 (580 or newer).
#
#   docker build -t dream3d .
#   docker run --gpus all -p 7860:7860 -v dream3d:/data dream3d
#
# opens the page on http://localhost:7860, for the name and password that it prints. Any other command stands behind the
# image's name: docker run --gpus all -v dream3d:/data dream3d generate "a red penguin"
# Assets, jobs, downloaded models and compiled kernels are kept in /data.

# The developer image, because gsplat compiles its kernels when it first draws. Its CUDA is torch's: 13.
ARG BASE=nvidia/cuda:13.0.1-devel-ubuntu24.04
FROM ${BASE}

# As in the Makefile. What is installed after it must not bring another one.
ARG TORCH=torch==2.13.0

ENV PIP_NO_CACHE_DIR=1 \
    PATH=/opt/venv/bin:$PATH \
    XDG_CACHE_HOME=/data/cache \
    NUMBA_CACHE_DIR=/data/cache/numba

RUN apt-get update \
    && DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends \
        build-essential ninja-build python3 python3-dev python3-venv tini \
    && rm -rf /var/lib/apt/lists/* \
    && python3 -m venv /opt/venv \
    && pip install --upgrade pip

# Before the sources, so that a change in them does not install it anew.
RUN pip install "${TORCH}"

# What .dockerignore lets through: what the wheel is made of.
COPY . /opt/dream3d
RUN cd /opt/dream3d \
    && pip install ".[all,cuda]" "${TORCH}" \
    && rm -rf /opt/dream3d

# Whoever the container runs as (`--user`) may write there.
RUN mkdir /data && chmod 1777 /data
WORKDIR /data
VOLUME /data

EXPOSE 7860
# tini takes leave of what a run leaves behind; otherwise every job of the page would keep a dead process.
ENTRYPOINT ["tini", "--", "dream3d"]
CMD ["ui", "--listen", "0.0.0.0"]
