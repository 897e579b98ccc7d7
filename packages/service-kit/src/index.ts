/** Plumbing that every service needs: gRPC, HTTP, logs, metrics, shutdown, deadlines. */
export type { Logger } from "pino";
export type { Registry } from "prom-client";
export { type Deadline, sleep, withDeadline } from "./deadline.js";
export { type EventLoopMonitor, monitorEventLoop } from "./event-loop.js";
export { type FailpointName, failpoints, type PointFacts } from "./failpoint-names.js";
export {
  type Call,
  type CallSettings,
  type GrpcClient,
  type GrpcClientOptions,
  grpcClient,
} from "./grpc/client.js";
export { fromServiceError, toServiceError } from "./grpc/errors.js";
export {
  type CallContext,
  type Handler,
  type Handlers,
  type ServedService,
  serve,
} from "./grpc/handlers.js";
export { type GrpcServer, type GrpcServerOptions, startGrpcServer } from "./grpc/server.js";
export { type HttpServer, type HttpServerOptions, startHttpServer } from "./http-server.js";
export { formatAddress, listenError } from "./listen.js";
export { createLogger, type LoggerOptions, type LogLevel, logLevels } from "./logger.js";
export { createMetrics } from "./metrics.js";
export { createQueue, type MessageQueue } from "./queue.js";
export { checkRedis } from "./redis/check-redis.js";
export {
  type OpenRedis,
  type OpenRedisOptions,
  openRedis,
  type RedisRoute,
} from "./redis/open-redis.js";
export { hideSecret, type RedisTarget, redisTarget, withRedisCa } from "./redis/redis-url.js";
export {
  clockSkewMs,
  createAuthority,
  type Issue,
  issueCertificate,
  type KeyedCertificate,
} from "./security/authority.js";
export { type Bind, checkBind, isLoopback } from "./security/bind.js";
export {
  commonNameOf,
  outOfDate,
  type PeerIdentity,
  type Role,
  readIdentity,
  roleOfNames,
  roles,
  type TlsOptions,
} from "./security/identity.js";
export {
  checkJoinToken,
  createJoinToken,
  expiryOf,
  hashJoinToken,
  isSameHash,
  joinTokenHeader,
  readJoinToken,
} from "./security/join-token.js";
export {
  type Refusal,
  type RefusalLogger,
  type ReportRefusal,
  refusalLog,
} from "./security/refusals.js";
export { listenForShutdown, type Shutdown } from "./shutdown.js";
export { diskError, syncFolder, writeDurably } from "./storage/durable-files.js";
export {
  digestsOf,
  openTrace,
  readTrace,
  type Trace,
  type TraceEvent,
  type TraceHead,
  type TraceRole,
} from "./trace.js";
export { digestOf } from "./trace-values.js";
