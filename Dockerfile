# For users with an NVIDIA GPU: docker build -t dream3d . && docker run --gpus all -p 7860:7860 dream3d
# Built from the developer image because the optional GPU packages compile their kernels.
FROM nvidia/cuda:12.8.1-devel-ubuntu24.04

ENV DEBIAN_FRONTEND=noninteractive \
    PIP_NO_CACHE_DIR=1 \
    TORCH_CUDA_ARCH_LIST="7.5;8.0;8.6;8.9;9.0" \
    PATH=/opt/venv/bin:$PATH

RUN apt-get update \
    && apt-get install -y --no-install-recommends python3 python3-venv python3-dev git build-essential ninja-build \
    && rm -rf /var/lib/apt/lists/* \
    && python3 -m venv /opt/venv

WORKDIR /opt/dream3d
COPY pyproject.toml README.md LICENSE ./
COPY dream3d dream3d
COPY renderers renderers
COPY guidance guidance
COPY systems systems
COPY configs configs
COPY app.py ./

RUN pip install --upgrade pip \
    && pip install "torch>=2.6" \
    && pip install ".[all]" \
    # The accelerators are optional: a failed build leaves a working product, and `dream3d doctor` says what is missing.
    && (pip install --no-build-isolation "gsplat>=1.5" || true) \
    && (pip install --no-build-isolation nerfacc || true)

VOLUME /opt/dream3d/outputs
EXPOSE 7860
CMD ["dream3d", "doctor"]
