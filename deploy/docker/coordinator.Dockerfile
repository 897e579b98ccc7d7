# The coordinator: membership, decisions, ledger, /metrics. No tensors: Node alone, no libtorch.
# Build from the repository's root: docker build -f deploy/docker/coordinator.Dockerfile -t paddock-coordinator .
FROM node:22-bookworm-slim AS build
WORKDIR /paddock
COPY . .
RUN npm ci --no-audit --no-fund && npx tsc -b && npm prune --omit=dev --no-audit --no-fund

FROM node:22-bookworm-slim
WORKDIR /paddock
COPY --from=build /paddock /paddock
ENV NODE_ENV=production
# gRPC, metrics
EXPOSE 7070 9464
VOLUME /runs
# tini is not needed: node as PID 1 handles SIGTERM itself, by draining the run.
STOPSIGNAL SIGTERM
ENTRYPOINT ["node", "services/cli/bin/paddock.mjs", "coordinator"]
# Certificates: paddock certs init --dir /tls. The page of metrics is plain HTTP, for the Prometheus beside it.
ENV PADDOCK_TLS_DIR=/tls
CMD ["deploy/runs/fashion-mnist.yaml", "--host", "0.0.0.0", "--port", "7070", "--metrics-host", "0.0.0.0", "--metrics-port", "9464", "--insecure-bind", "--run-dir", "/runs/fashion-mnist"]
