# The backend beside Label Studio, see docker-compose.yml:
#   docker build .                               with PyTorch for CPUs
#   docker build --build-arg TORCH_INDEX= .      with PyPI's PyTorch, which has CUDA and is gigabytes larger
#   docker build --build-arg EXTRAS= .           without PyTorch, for ENGINE=opencv
#   docker build --target label-studio-ml .      hosted under label-studio-ml's own server

FROM python:3.11-slim AS build
ARG TORCH_INDEX=auto
ARG EXTRAS=sam3
WORKDIR /src
# What we depend on changes seldom: a layer of its own, which a change of our code leaves alone.
COPY pyproject.toml constraints.txt docker/requirements.py docker/requirements.txt docker/torch_index.py docker/install.sh \
     ./docker/
RUN EXTRAS="$EXTRAS" sh docker/install.sh dependencies /opt/venv "$TORCH_INDEX"
COPY . .
RUN sh docker/install.sh package /opt/venv


FROM python:3.11-slim AS backend
LABEL org.opencontainers.image.title="sam3-backend" \
      org.opencontainers.image.description="SAM3 video tracking for Label Studio" \
      org.opencontainers.image.licenses="Apache-2.0"
# Group 0 may write, too: OpenShift runs a container as any user of that group.
RUN useradd --create-home --uid 1000 --gid 0 sam3 \
 && mkdir -p /data /models \
 && chown 1000:0 /data /models \
 && chmod 775 /data /models
COPY --from=build /opt/venv /opt/venv
COPY label_config.xml docker/first_start.sh docker/healthy.py docker/with_password.sh /opt/sam3-backend/
WORKDIR /opt/sam3-backend
ENV PATH=/opt/venv/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1 \
    HF_HOME=/models \
    NUMBA_CACHE_DIR=/data/compiled \
    SAM3_BACKEND_DATA_DIR=/data \
    SAM3_BACKEND_HOST=0.0.0.0
USER 1000
VOLUME ["/data", "/models"]
EXPOSE 9090
# It answers while a model loads; `model` in the answer says how far that is. 401: it answers who knows the password.
HEALTHCHECK --interval=10s --timeout=5s --start-period=60s --retries=6 \
    CMD ["python", "/opt/sam3-backend/healthy.py"]
# Saves what runs within six seconds.
STOPSIGNAL SIGTERM
# Other machines reach the server, so it has a password; /data/password keeps it unless BASIC_AUTH_PASS is set.
ENTRYPOINT ["sh", "/opt/sam3-backend/with_password.sh"]
CMD ["sam3-backend", "serve"]


# label-studio-ml's 2.x line is not on PyPI. This stage was never built by the authors; what it starts was run by hand.
FROM backend AS label-studio-ml
ENV PIP_PYTHON=/opt/venv/bin/python
# A commit of it, that of 2.0.1dev0 in August 2026.
ARG LABEL_STUDIO_ML=d02cedf35d0e5d21f2f437c120174c62f66bf57a
USER 0
COPY constraints.txt /tmp/
# It brings another OpenCV, which lies over ours and wants an older numpy: both OpenCVs go, ours and its numpy come back.
# hadolint ignore=DL3008
RUN apt-get update \
 && apt-get install -y --no-install-recommends git \
 && pip install --no-cache-dir gunicorn==23.0.0 \
    "label-studio-ml @ git+https://github.com/HumanSignal/label-studio-ml-backend.git@$LABEL_STUDIO_ML" \
 && pip uninstall -y opencv-python-headless opencv-contrib-python-headless \
 && pip install --no-cache-dir --no-deps opencv-contrib-python-headless numpy -c /tmp/constraints.txt \
 && apt-get purge -y --auto-remove git \
 && rm -rf /var/lib/apt/lists/*
COPY docker/label_studio_ml.py /opt/sam3-backend/hosted.py
USER 1000
# One worker: jobs, and the device, are one process's. Threads, because requests wait for tracks.
CMD ["gunicorn", "--bind=:9090", "--workers=1", "--threads=96", "--timeout=0", "hosted:app"]


FROM backend
