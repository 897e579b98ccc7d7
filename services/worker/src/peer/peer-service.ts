/** Live state between workers: a shard's range, streamed in checked chunks, without a disk. */
import { crc32c } from "@node-rs/crc32";
import { PaddockError } from "@paddock/contract";
import { PeerService, type ShardRequest } from "@paddock/proto";
import { grpcClient, serve, startGrpcServer } from "@paddock/service-kit";

/** Elements per chunk: 1 MiB of fp32, far below gRPC's message limit. */
const chunkElements = 256 * 1024;

/** Elements [start, end) of what this worker holds, or undefined. */
export type ReadShard = (request: ShardRequest) => Float32Array | undefined;

/** Serves this worker's shards on a free port of `host`. */
export async function startPeerService(
  host: string,
  readShard: ReadShard,
): Promise<{ address: string; close(): Promise<void> }> {
  const server = await startGrpcServer({
    host,
    port: 0,
    services: [
      serve(PeerService, {
        async *streamShard(request) {
          const values = readShard(request);
          if (!values) {
            throw new PaddockError(
              "stale-generation",
              `expected to hold ${request.kind}/${request.unit} [${request.start}, ${request.end}) in generation ${request.generation}, but do not`,
            );
          }
          for (let start = 0; start < values.length; start += chunkElements) {
            const piece = values.slice(start, start + chunkElements);
            const data = Buffer.from(piece.buffer);
            yield { offset: request.start + start, data, crc32c: crc32c(data) };
          }
        },
      }),
    ],
  });
  return { address: server.address, close: () => server.close() };
}

/** The range of `request` from the worker at `address`, verified. Throws `exchange-corrupt` or what the peer throws. */
export async function fetchShard(
  address: string,
  request: ShardRequest,
  signal: AbortSignal,
): Promise<Float32Array> {
  const client = grpcClient(address, PeerService);
  try {
    const values = new Float32Array(request.end - request.start);
    const bytes = new Uint8Array(values.buffer);
    let at = 0;
    for await (const { offset, data, crc32c: expected } of client.streamShard(request, {
      signal,
    })) {
      const actual = crc32c(Buffer.from(data));
      const position = (offset - request.start) * 4;
      if (actual !== expected || position !== at || at + data.byteLength > bytes.byteLength) {
        throw new PaddockError(
          "exchange-corrupt",
          `${request.kind}/${request.unit} from ${address}: expected a chunk at byte ${at} with crc32c ${expected}, received byte ${position} with ${actual}`,
        );
      }
      bytes.set(data, at);
      at += data.byteLength;
    }
    if (at !== bytes.byteLength) {
      throw new PaddockError(
        "exchange-corrupt",
        `${request.kind}/${request.unit} from ${address}: expected ${bytes.byteLength} bytes, received ${at}`,
      );
    }
    return values;
  } finally {
    client.close();
  }
}
