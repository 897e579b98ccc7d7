# A worker: one device, one process, the torch engine on the CPU build of libtorch.
# Build from the repository's root: docker build -f deploy/docker/worker.Dockerfile -t paddock-worker .
FROM node:22-bookworm-slim AS build
RUN apt-get update \
 && apt-get install -y --no-install-recommends cmake g++ libgloo-dev make python3 python3-venv \
 && rm -rf /var/lib/apt/lists/*
WORKDIR /paddock
# libtorch first: it changes less often than the code.
ARG TORCH=2.13.0
RUN python3 -m venv .torch \
 && .torch/bin/pip install --no-cache-dir --index-url https://download.pytorch.org/whl/cpu "torch==${TORCH}"
COPY . .
RUN npm ci --no-audit --no-fund && npx tsc -b && npm run build:native && npm prune --omit=dev --no-audit --no-fund

FROM node:22-bookworm-slim
RUN apt-get update \
 && apt-get install -y --no-install-recommends dataset-fashion-mnist libgloo0 python3 \
 && rm -rf /var/lib/apt/lists/*
WORKDIR /paddock
COPY --from=build /paddock /paddock
ENV NODE_ENV=production
VOLUME /runs
ENTRYPOINT ["node", "services/cli/bin/paddock.mjs", "worker"]
# ca.crt, worker.crt, worker.key: made by paddock certs init
ENV PADDOCK_TLS_DIR=/tls
CMD ["--coordinator", "coordinator:7070", "--host", "0.0.0.0"]
