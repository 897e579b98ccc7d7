/** Channel options that server and client must agree on. */
import type { ChannelOptions } from "@grpc/grpc-js";

/** Largest message that is sent or accepted unless asked otherwise: gRPC's own default, 4 MiB. */
export const defaultMaxMessageBytes = 4 * 2 ** 20;
/** Calls that one connection may have open at once: a worker has one, a peer a few. */
export const maxStreamsPerConnection = 100;

export function channelOptions(maxMessageBytes: number): ChannelOptions {
  return {
    "grpc.max_receive_message_length": maxMessageBytes,
    "grpc.max_send_message_length": maxMessageBytes,
    // A peer whose machine vanished closes no socket: a ping finds out. Leases find the ones that hang.
    "grpc.keepalive_time_ms": 10_000,
    "grpc.keepalive_timeout_ms": 10_000,
    "grpc.initial_reconnect_backoff_ms": 100,
    "grpc.max_reconnect_backoff_ms": 2_000,
    // Fleets talk inside their own network; a proxy from the environment would swallow loopback calls.
    "grpc.enable_http_proxy": 0,
    // One connection per client object: closing the client closes it.
    "grpc.use_local_subchannel_pool": 1,
  };
}
