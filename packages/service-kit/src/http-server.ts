/** The small HTTP side of a service: /metrics for Prometheus, /healthz for orchestrators, /status for people and scripts. */
import { createServer, type ServerResponse } from "node:http";
import type { Registry } from "prom-client";
import type { TlsOptions } from "./security/identity.js";
import { listen } from "./security/listener.js";
import { type RefusalLogger, refusalLog } from "./security/refusals.js";

export interface HttpServerOptions {
  /** Loopback unless asked. */
  readonly host?: string;
  /** Only for certificates of clients and the coordinator; absent: plain HTTP, for whoever reaches it. */
  readonly tls?: TlsOptions | undefined;
  /** Told of callers that were turned away. */
  readonly logger?: RefusalLogger | undefined;
  /** 0: any free port. */
  readonly port: number;
  readonly registry: Registry;
  /** The body of /status, as JSON. */
  readonly status: () => unknown;
  /** Why this process cannot do its work now, or undefined. /healthz answers 503 with it. */
  readonly unhealthy?: () => string | undefined;
  /** Called before every answer on /metrics, to refresh gauges. */
  readonly beforeScrape?: () => void | Promise<void>;
}

export interface HttpServer {
  /** host:port, with the port that was taken. */
  readonly address: string;
  /** Stops to listen and cuts open connections. */
  close(): Promise<void>;
}

/** Listens; rejects with `port-in-use` when the port is taken, `unauthenticated` when certificate files do not fit. The caller closes it. */
export async function startHttpServer(options: HttpServerOptions): Promise<HttpServer> {
  const { host = "127.0.0.1", port } = options;
  const server = createServer((request, response) => {
    if (request.method !== "GET" && request.method !== "HEAD") {
      answer(response, 405, "text/plain", "expected GET\n");
      return;
    }
    const path = new URL(request.url ?? "/", "http://localhost").pathname;
    respond(path, options, response).catch((error: Error) => {
      answer(response, 500, "text/plain", `${error.message}\n`);
    });
  });
  // A page takes milliseconds; Prometheus comes back every few seconds, on a new connection if need be.
  server.setTimeout(idleMs);
  const listener = await listen({
    ...{ host, port, tls: options.tls, protocol: "http/1.1" },
    roles: ["client", "coordinator"],
    onConnection: (socket) => void server.emit("connection", socket),
    report: refusalLog(options.logger),
  });
  return { address: listener.address, close: listener.close };
}

const idleMs = 30_000;

async function respond(
  path: string,
  options: HttpServerOptions,
  response: ServerResponse,
): Promise<void> {
  switch (path) {
    case "/metrics":
      await options.beforeScrape?.();
      answer(response, 200, options.registry.contentType, await options.registry.metrics());
      break;
    case "/healthz": {
      const reason = options.unhealthy?.();
      answer(response, reason ? 503 : 200, "text/plain", `${reason ?? "ok"}\n`);
      break;
    }
    case "/status":
      answer(response, 200, "application/json", `${JSON.stringify(options.status())}\n`);
      break;
    default:
      answer(response, 404, "text/plain", "expected /metrics, /healthz or /status\n");
  }
}

function answer(response: ServerResponse, status: number, type: string, body: string): void {
  response.writeHead(status, { "content-type": type, "cache-control": "no-store" });
  response.end(body);
}
