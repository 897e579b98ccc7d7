/** What a command that asks a coordinator needs, and no more. A door of its own: such a command starts in half a second without the rest. */
export { type GrpcClient, grpcClient } from "./grpc/client.js";
export { hideSecret } from "./redis/redis-url.js";
export { roles, type TlsOptions } from "./security/identity.js";
