/** A gRPC server with health and reflection, on plain TCP or mutual TLS. */
import { logVerbosity, Server, ServerCredentials, setLogVerbosity } from "@grpc/grpc-js";
import { HealthImplementation } from "grpc-health-check";
import type { TlsOptions } from "../security/identity.js";
import { type ConnectionLimits, type Listener, listen } from "../security/listener.js";
import { type RefusalLogger, refusalLog } from "../security/refusals.js";
import { accessInterceptor } from "./access.js";
import { channelOptions, defaultMaxMessageBytes, maxStreamsPerConnection } from "./channel.js";
import type { ServedService } from "./handlers.js";

export interface GrpcServerOptions {
  readonly host: string;
  /** 0: any free port. */
  readonly port: number;
  readonly services: readonly ServedService[];
  /** Largest message in bytes, both ways. Default 4 MiB. */
  readonly maxMessageBytes?: number;
  /** Certificates on both sides; absent: plain TCP. */
  readonly tls?: TlsOptions | undefined;
  /** Told of callers that were turned away. */
  readonly logger?: RefusalLogger | undefined;
  readonly limits?: Partial<ConnectionLimits>;
  /** false: it does not tell its services to whom asks. */
  readonly reflection?: boolean;
}

export interface GrpcServer {
  /** host:port, with the port that was taken. */
  readonly address: string;
  readonly port: number;
  /** What grpc.health.v1.Health answers for all services; SERVING from the start. */
  setServing(serving: boolean): void;
  /** Stops to listen, waits up to `graceMs` for running calls, then cuts them. */
  close(graceMs?: number): Promise<void>;
}

/** Listens; rejects with `port-in-use` when the port is taken, `unauthenticated` when certificate files do not fit. The caller closes it. */
export async function startGrpcServer(options: GrpcServerOptions): Promise<GrpcServer> {
  const { host, port, services, tls, limits, maxMessageBytes = defaultMaxMessageBytes } = options;
  // grpc-js also prints to stderr what it reports: errors are ours to log, once.
  setLogVerbosity(logVerbosity.NONE);
  const report = refusalLog(options.logger);
  const server = new Server({
    ...channelOptions(maxMessageBytes),
    "grpc.max_concurrent_streams": maxStreamsPerConnection,
    interceptors: [accessInterceptor(tls !== undefined, report)],
  });
  for (const { definition, implementation } of services) {
    server.addService(definition, implementation);
  }
  const names = ["", ...services.map(({ name }) => name)];
  const health = new HealthImplementation(
    Object.fromEntries(names.map((name) => [name, "SERVING" as const])),
  );
  health.addToServer(server);
  if (options.reflection !== false) (await import("./reflection.js")).addReflection(server);
  // Our own listener decides who gets in; what it hands over is decrypted already.
  const injector = server.createConnectionInjector(ServerCredentials.createInsecure());
  const onConnection = injector.injectConnection;
  const listener = await listen({
    ...{ host, port, tls, onConnection, report },
    ...(limits ? { limits } : {}),
    protocol: "h2",
  });
  return {
    address: listener.address,
    port: listener.port,
    setServing(serving) {
      for (const name of names) health.setStatus(name, serving ? "SERVING" : "NOT_SERVING");
    },
    close: (graceMs = 0) => close(server, listener, graceMs),
  };
}

async function close(server: Server, listener: Listener, graceMs: number): Promise<void> {
  listener.stop();
  let timer: NodeJS.Timeout | undefined;
  await new Promise<void>((resolve) => {
    server.tryShutdown(() => resolve());
    // Not every connection ends by itself: grpc-js waits for ever for one that never spoke HTTP/2.
    timer = setTimeout(() => {
      server.forceShutdown();
      resolve();
    }, graceMs);
  });
  clearTimeout(timer);
  await listener.close();
}
