# ltrobust in a container, for CPUs (the default) or CUDA devices:
#
#   docker build -t ltrobust .
#   docker build -t ltrobust:cuda --build-arg TORCH_INDEX=https://download.pytorch.org/whl/cu128 .
#   docker run --rm -v "$PWD:/work" ltrobust bench --methods core --dataset digits-lt
#   docker run --rm --gpus all -v "$PWD:/work" ltrobust:cuda bench --dataset cifar10-lt --data-dir data
#
# PyTorch's CUDA wheels bring the libraries they need; the host gives the driver and
# nvidia-container-toolkit. The version is that of --build-arg VERSION=1.2.3 or a placeholder.
FROM python:3.11-slim

ARG TORCH_INDEX=https://download.pytorch.org/whl/cpu
ARG VERSION=0.1.0.dev0
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1 PYTHONUNBUFFERED=1

RUN pip install --index-url "$TORCH_INDEX" "torch>=2.11,!=2.13.0" "torchvision>=0.26"
COPY . /src
RUN SETUPTOOLS_SCM_PRETEND_VERSION_FOR_LTROBUST="$VERSION" pip install /src && rm -r /src

WORKDIR /work
ENTRYPOINT ["ltrobust"]
CMD ["--help"]
