# The build stage makes a virtual environment, the last stage copies it: no pip, no package
# index and no build backend are in what runs.

FROM python:3.13-slim AS build
WORKDIR /src
RUN python -m venv --without-pip /venv
COPY requirements/runtime.txt requirements/
# Only wheels: there is no compiler here, and none is needed.
RUN pip --no-cache-dir --python /venv/bin/python install \
      --only-binary=:all: --require-hashes -r requirements/runtime.txt
COPY pyproject.toml README.md LICENSE ./
COPY imgsvc imgsvc
RUN pip --no-cache-dir --python /venv/bin/python install --no-deps --no-build-isolation . \
    && pip --python /venv/bin/python uninstall --yes flit_core

FROM python:3.13-slim
RUN useradd --system --uid 10001 --user-group --no-create-home imgsvc \
    && install -d -m 0700 -o imgsvc -g imgsvc /var/spool/imgsvc
COPY --from=build /venv /venv
WORKDIR /app
COPY config.toml ./
ENV PATH=/venv/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1 \
    IMGSVC_HTTP__HOST=0.0.0.0 \
    IMGSVC_SPOOL__DIR=/var/spool/imgsvc
USER 10001:10001
# A volume of each container's own: spool files belong to one replica and are never shared.
VOLUME /var/spool/imgsvc
EXPOSE 3000
HEALTHCHECK --interval=10s --timeout=5s --start-period=20s --retries=3 \
    CMD ["python", "-c", "import os, urllib.request as r; p = os.environ.get('PORT', ''); r.urlopen('http://127.0.0.1:' + (p if p.isdigit() else '3000') + '/readyz', timeout=4)"]
# Exec form: no shell stands between the engine's SIGTERM and the service.
CMD ["imgsvc", "serve"]
