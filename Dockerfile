# The web app in a container, for every place that is not a Space:
#   docker build -t bonaface .
#   docker run -p 7860:7860 bonaface --model USER/NAME
#   docker run -p 7860:7860 --user "$(id -u)" -v "$PWD/runs/faces:/model:ro" bonaface --model /model
#   (--user, because a run's weights are its owner's alone to read)
# PyPI's torch brings CUDA. For a CPU alone the image is several GB smaller with
#   --build-arg UV_EXTRA_INDEX_URL=https://download.pytorch.org/whl/cpu --build-arg UV_INDEX_STRATEGY=unsafe-best-match

FROM debian:bookworm-slim AS build
ARG UV_EXTRA_INDEX_URL
ARG UV_INDEX_STRATEGY
RUN apt-get update && apt-get install -y --no-install-recommends python3 python3-venv
RUN python3 -m venv /opt/uv && /opt/uv/bin/pip install --no-cache-dir uv
RUN python3 -m venv --without-pip /opt/venv
COPY requirements.txt /tmp/requirements.txt
RUN /opt/uv/bin/uv pip install --no-cache --compile-bytecode --python /opt/venv/bin/python -r /tmp/requirements.txt

# The last layer: an interpreter, the packages and the app; nothing that builds or installs Python packages.
FROM debian:bookworm-slim
RUN apt-get update && apt-get install -y --no-install-recommends python3 && rm -rf /var/lib/apt/lists/*
RUN useradd --create-home --uid 1000 user
COPY --from=build /opt/venv /opt/venv
WORKDIR /home/user/app
COPY --chown=1000:1000 . .
USER 1000
ENV PATH=/opt/venv/bin:/usr/bin:/bin HOME=/home/user PYTHONUNBUFFERED=1 GRADIO_SERVER_NAME=0.0.0.0 GRADIO_SERVER_PORT=7860
EXPOSE 7860
# Healthy means that the model is there and can be asked, by no way around a proxy.
HEALTHCHECK --interval=30s --timeout=10s --start-period=180s --retries=3 CMD ["python", "-c", "import urllib.request as r; r.build_opener(r.ProxyHandler({})).open('http://127.0.0.1:7860/health', timeout=8)"]
ENTRYPOINT ["python", "app.py"]
