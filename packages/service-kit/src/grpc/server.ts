/** A gRPC server with health and reflection, on plain TCP. */
import { logVerbosity, Server, ServerCredentials, setLogVerbosity } from "@grpc/grpc-js";
import { loadSync } from "@grpc/proto-loader";
import { ReflectionService } from "@grpc/reflection";
import { protoFiles, protoRoot } from "@paddock/proto";
import { HealthImplementation, protoPath as healthProto } from "grpc-health-check";
import { formatAddress, listenError } from "../listen.js";
import { channelOptions, defaultMaxMessageBytes } from "./channel.js";
import type { ServedService } from "./handlers.js";

export interface GrpcServerOptions {
  readonly host: string;
  /** 0: any free port. */
  readonly port: number;
  readonly services: readonly ServedService[];
  /** Largest message in bytes, both ways. Default 4 MiB. */
  readonly maxMessageBytes?: number;
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

/** Listens; rejects with `port-in-use` when the port is taken. The caller closes it. */
export async function startGrpcServer(options: GrpcServerOptions): Promise<GrpcServer> {
  const { host, port, services, maxMessageBytes = defaultMaxMessageBytes } = options;
  // grpc-js also prints to stderr what it reports: errors are ours to log, once.
  setLogVerbosity(logVerbosity.NONE);
  const server = new Server(channelOptions(maxMessageBytes));
  for (const { definition, implementation } of services) {
    server.addService(definition, implementation);
  }
  const names = ["", ...services.map(({ name }) => name)];
  const health = new HealthImplementation(
    Object.fromEntries(names.map((name) => [name, "SERVING" as const])),
  );
  health.addToServer(server);
  addReflection(server);
  const taken = await new Promise<number>((resolve, reject) => {
    server.bindAsync(
      formatAddress(host, port),
      ServerCredentials.createInsecure(),
      (error, bound) => (error ? reject(listenError(host, port, error)) : resolve(bound)),
    );
  });
  return {
    address: formatAddress(host, taken),
    port: taken,
    setServing(serving) {
      for (const name of names) health.setStatus(name, serving ? "SERVING" : "NOT_SERVING");
    },
    close: (graceMs = 0) => close(server, graceMs),
  };
}

/** So that grpcurl and the like need no .proto files. */
function addReflection(server: Server): void {
  const ours = loadSync([...protoFiles], { includeDirs: [protoRoot] });
  new ReflectionService({ ...ours, ...loadSync(healthProto) }).addToServer(server);
}

async function close(server: Server, graceMs: number): Promise<void> {
  const drained = new Promise<void>((resolve) => {
    server.tryShutdown(() => resolve());
  });
  const timer = setTimeout(() => server.forceShutdown(), graceMs);
  await drained;
  clearTimeout(timer);
}
