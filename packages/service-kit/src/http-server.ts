/** The small HTTP side of a service: /metrics for Prometheus, /healthz for orchestrators, /status for people and scripts. */
import { createServer, type ServerResponse } from "node:http";
import type { AddressInfo } from "node:net";
import type { Registry } from "prom-client";
import { formatAddress, listenError } from "./listen.js";

export interface HttpServerOptions {
  /** Loopback unless asked: these pages have no authentication. */
  readonly host?: string;
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

/** Listens; rejects with `port-in-use` when the port is taken. The caller closes it. */
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
  await new Promise<void>((resolve, reject) => {
    server.once("error", (error) => reject(listenError(host, port, error)));
    server.listen(port, host, resolve);
  });
  const { port: taken } = server.address() as AddressInfo;
  return {
    address: formatAddress(host, taken),
    close: () =>
      new Promise((resolve) => {
        server.close(() => resolve());
        server.closeAllConnections();
      }),
  };
}

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
