/** Live state between workers: a shard's range, streamed in checked chunks, without a disk. */
import { hostname } from "node:os";
import { crc32c } from "@node-rs/crc32";
import { invariant, PaddockError } from "@paddock/contract";
import { PeerService, type ShardChunk, type ShardRequest } from "@paddock/proto";
import {
  checkBind,
  formatAddress,
  type GrpcServer,
  grpcClient,
  type RefusalLogger,
  serve,
  startGrpcServer,
  type TlsOptions,
} from "@paddock/service-kit";
import { failpoint } from "@paddock/service-kit/failpoints";

/** Values per chunk: 1 MiB of fp32, a quarter of what gRPC accepts as one message. */
const chunkValues = 256 * 1024;

/**
 * Elements [start, end) of what this worker holds in that generation, or undefined. May be a view of live state: each chunk
 * is copied when it is sent, so the state must rest between two updates while a peer reads it.
 */
export type ReadShard = (
  request: ShardRequest,
) => Promise<Float32Array | undefined> | Float32Array | undefined;

export interface PeerServer {
  /** host:port */
  readonly address: string;
  close(): Promise<void>;
}

/** Who may read shards: with TLS workers only; without it whoever reaches `host`, which must be this machine unless allowed. */
export interface PeerSecurity {
  readonly tls?: TlsOptions | undefined;
  readonly insecureBind?: boolean;
  readonly logger?: RefusalLogger | undefined;
}

/**
 * Serves this worker's shards on a free port of `host`. Others than those it holds are refused as `stale-generation`. Errors:
 * `permission-denied` for an address that others reach, without TLS.
 */
export async function startPeerService(
  host: string,
  readShard: ReadShard,
  { tls, insecureBind = false, logger }: PeerSecurity = {},
): Promise<PeerServer> {
  const what = "this worker's peer service";
  const isEncrypted = tls !== undefined;
  const warning = checkBind({ what, host, isEncrypted, isInsecureAllowed: insecureBind });
  if (warning !== undefined) logger?.warn({ host }, warning);
  const streamShard = async function* (request: ShardRequest): AsyncGenerator<ShardChunk> {
    await failpoint("peer.stream.begun");
    const values = await readShard(request);
    if (values?.length !== request.end - request.start) {
      throw new PaddockError(
        "stale-generation",
        `expected to hold ${nameOf(request)} of generation ${request.generation} at step ${request.step}, but this worker does not; it holds another generation, step or shard, ask for a new assignment`,
      );
    }
    for (let start = 0; start < values.length; start += chunkValues) {
      const piece = values.slice(start, start + chunkValues);
      const data = Buffer.from(piece.buffer, piece.byteOffset, piece.byteLength);
      const stated = crc32c(data);
      await failpoint("peer.chunk.sending", { bytes: data });
      yield { offset: request.start + start, data, crc32c: stated };
    }
  };
  const services = [serve(PeerService, { streamShard })];
  const server = await startGrpcServer({ host, port: 0, services, tls, logger, reflection: false });
  return { address: reachable(host, server), close: () => server.close() };
}

/** Peers cannot reach "all interfaces": they are told of the one that bears this machine's name. */
function reachable(host: string, { address, port }: GrpcServer): string {
  return /^(0\.0\.0\.0|::)$/.test(host) ? formatAddress(hostname(), port) : address;
}

/** Another worker, whose shards can be read, over one connection. The caller closes it. */
export interface Peer {
  /**
   * The range of `request`, verified; the caller owns it. Throws `exchange-corrupt` for chunks that are damaged, missing or too many,
   * `worker-lost` when the peer does not finish within `timeoutMs`, and what the peer throws.
   */
  fetch(
    request: ShardRequest,
    settings: { readonly timeoutMs: number; readonly signal?: AbortSignal },
  ): Promise<Float32Array>;
  close(): void;
}

/**
 * The worker at `address` (host:port). Connects with the first fetch.
 * @param tls our certificate, where peers have one too
 */
export function openPeer(address: string, tls: TlsOptions | undefined): Peer {
  const client = grpcClient(address, PeerService, { tls, serverRole: "worker" });
  return {
    async fetch(request, settings) {
      const isRange = 0 <= request.start && request.start <= request.end;
      invariant(isRange, `the range of ${nameOf(request)}`);
      const values = new Float32Array(request.end - request.start);
      const bytes = new Uint8Array(values.buffer);
      let at = 0;
      for await (const chunk of client.streamShard(request, settings)) {
        checkChunk(chunk, { at, bytes: bytes.byteLength, request, address });
        bytes.set(chunk.data, at);
        at += chunk.data.byteLength;
      }
      if (at !== bytes.byteLength) {
        throw corrupt(request, address, `expected ${bytes.byteLength} bytes, received ${at}`);
      }
      await failpoint("peer.range.received");
      return values;
    },
    close: () => client.close(),
  };
}

interface Expected {
  /** Bytes received before this chunk. */
  readonly at: number;
  /** Bytes of the whole range. */
  readonly bytes: number;
  readonly request: ShardRequest;
  readonly address: string;
}

function checkChunk({ offset, data, crc32c: stated }: ShardChunk, expected: Expected): void {
  const { at, bytes, request, address } = expected;
  const position = (offset - request.start) * 4;
  if (position !== at || at + data.byteLength > bytes) {
    const received = `${data.byteLength} at ${position}`;
    throw corrupt(
      request,
      address,
      `expected at most ${bytes - at} bytes at ${at}, received ${received}`,
    );
  }
  const actual = crc32c(data);
  if (actual !== stated) {
    throw corrupt(request, address, `at byte ${at}: expected crc32c ${stated}, received ${actual}`);
  }
}

function corrupt(request: ShardRequest, address: string, what: string): PaddockError {
  return new PaddockError(
    "exchange-corrupt",
    `${nameOf(request)} from ${address}: ${what}; fetch it again, or load the checkpoint`,
  );
}

function nameOf({ kind, unit, start, end }: ShardRequest): string {
  return `${kind}/${unit} [${start}, ${end})`;
}
