/** A typed gRPC client: promises and async iterables, each call with an AbortSignal and, if wanted, a deadline. */
import { once } from "node:events";
import { type CallOptions, Client, Metadata } from "@grpc/grpc-js";
import { type ErrorCode, PaddockError } from "@paddock/contract";
import type { Method } from "@paddock/proto";
import type { Role, TlsOptions } from "../security/identity.js";
import { channelOptions, defaultMaxMessageBytes } from "./channel.js";
import { fromServiceError } from "./errors.js";
import { type Secured, securedBy, unsecured } from "./secured.js";

export interface CallSettings {
  /** Cancels the call; the call then rejects with the signal's reason. */
  readonly signal?: AbortSignal;
  /** The call fails after so many milliseconds. Absent: no end, for streams that live as long as a run. */
  readonly timeoutMs?: number;
}

/** The shape of a method's call. Failures are PaddockErrors. */
export type Call<M> =
  M extends Method<infer Request, infer Response, infer RequestStream, infer ResponseStream>
    ? RequestStream extends true
      ? (requests: AsyncIterable<Request>, settings?: CallSettings) => AsyncGenerator<Response>
      : ResponseStream extends true
        ? (request: Request, settings?: CallSettings) => AsyncGenerator<Response>
        : (request: Request, settings?: CallSettings) => Promise<Response>
    : never;

export type GrpcClient<Service> = {
  readonly [Name in keyof Service]: Call<Service[Name]>;
} & {
  /** Resolves once a connection stands; rejects after `timeoutMs` with the code for unreachable. */
  ready(timeoutMs: number): Promise<void>;
  /** Closes the connection; running calls fail. */
  close(): void;
};

export interface GrpcClientOptions {
  /** Code of "nobody answers": what that means is the caller's to know. Default `worker-lost`. */
  readonly unreachable?: ErrorCode;
  /** Largest message in bytes, both ways. Default 4 MiB. */
  readonly maxMessageBytes?: number;
  /** Our certificate; absent: plain TCP. Its files are read once per client. */
  readonly tls?: TlsOptions | undefined;
  /** With TLS: the role that the server's certificate must have. Default coordinator. */
  readonly serverRole?: Role;
  /** Sent with every call, as metadata. */
  readonly headers?: Readonly<Record<string, string>>;
}

type AnyMethod = Method<unknown, unknown>;
interface Channel {
  readonly client: Client;
  readonly fail: (error: unknown, settings: CallSettings) => never;
  readonly metadata: () => Metadata;
}

/**
 * Connects lazily to `address` (host:port). The caller closes it. Throws `unauthenticated` when there are certificate files that do not fit.
 * A response stream that is left early (break, return) is cancelled.
 */
export function grpcClient<Service extends { readonly [name: string]: unknown }>(
  address: string,
  service: Service,
  options: GrpcClientOptions = {},
): GrpcClient<Service> {
  const { unreachable = "worker-lost", maxMessageBytes = defaultMaxMessageBytes } = options;
  const secured: Secured = options.tls
    ? securedBy({
        ...{ tls: options.tls, address, unreachable },
        serverRole: options.serverRole ?? "coordinator",
      })
    : unsecured(address, unreachable);
  const client = new Client(address, secured.credentials, {
    ...channelOptions(maxMessageBytes),
    ...secured.options,
  });
  const fail: Channel["fail"] = (error, { signal }) => {
    if (signal?.aborted) throw signal.reason;
    throw secured.explain(error) ?? fromServiceError(error, { address, unreachable });
  };
  const metadata = (): Metadata => {
    const made = new Metadata();
    for (const [name, value] of Object.entries(options.headers ?? {})) made.set(name, value);
    return made;
  };
  const calls = Object.entries(service as unknown as Record<string, AnyMethod>).map(
    ([name, method]) => [name, callOf({ client, fail, metadata }, method)],
  );
  const ready = async (timeoutMs: number): Promise<void> => {
    const failed = await new Promise<Error | undefined>((resolve) => {
      client.waitForReady(Date.now() + timeoutMs, resolve);
    });
    if (failed) {
      const refused = secured.explain(failed);
      if (refused) throw refused;
      throw new PaddockError(
        unreachable,
        `expected an answer from ${address} within ${timeoutMs} ms, received none; is it running, and is this its address?`,
        { cause: failed },
      );
    }
  };
  return { ...Object.fromEntries(calls), ready, close: () => client.close() };
}

function callOf(channel: Channel, method: AnyMethod): unknown {
  if (method.requestStream) {
    return (requests: AsyncIterable<unknown>, settings: CallSettings = {}) =>
      bidi(channel, method, requests, settings);
  }
  return method.responseStream
    ? (request: unknown, settings: CallSettings = {}) =>
        serverStream(channel, method, request, settings)
    : (request: unknown, settings: CallSettings = {}) => unary(channel, method, request, settings);
}

function optionsOf({ timeoutMs }: CallSettings): CallOptions {
  return timeoutMs === undefined ? {} : { deadline: Date.now() + timeoutMs };
}

async function unary(
  { client, fail, metadata }: Channel,
  method: AnyMethod,
  request: unknown,
  settings: CallSettings,
): Promise<unknown> {
  settings.signal?.throwIfAborted();
  const { path, requestSerialize, responseDeserialize } = method;
  let cancel = (): void => undefined;
  try {
    return await new Promise((resolve, reject) => {
      const call = client.makeUnaryRequest(
        path,
        requestSerialize,
        responseDeserialize,
        request,
        metadata(),
        optionsOf(settings),
        (error, response) => (error ? reject(error) : resolve(response)),
      );
      cancel = () => call.cancel();
      settings.signal?.addEventListener("abort", cancel, { once: true });
    });
  } catch (error) {
    return fail(error, settings);
  } finally {
    settings.signal?.removeEventListener("abort", cancel);
  }
}

type Responses = AsyncIterable<unknown> & { cancel(): void };

async function* serverStream(
  channel: Channel,
  method: AnyMethod,
  request: unknown,
  settings: CallSettings,
): AsyncGenerator<unknown> {
  const { path, requestSerialize, responseDeserialize } = method;
  settings.signal?.throwIfAborted();
  const call = channel.client.makeServerStreamRequest(
    path,
    requestSerialize,
    responseDeserialize,
    request,
    channel.metadata(),
    optionsOf(settings),
  );
  yield* responsesOf(channel, call, settings);
}

async function* bidi(
  channel: Channel,
  method: AnyMethod,
  requests: AsyncIterable<unknown>,
  settings: CallSettings,
): AsyncGenerator<unknown> {
  const { path, requestSerialize, responseDeserialize } = method;
  settings.signal?.throwIfAborted();
  const call = channel.client.makeBidiStreamRequest(
    path,
    requestSerialize,
    responseDeserialize,
    channel.metadata(),
    optionsOf(settings),
  );
  const ended = new AbortController();
  const writing = (async () => {
    for await (const request of requests) {
      if (ended.signal.aborted) return;
      if (!call.write(request)) await once(call, "drain", { signal: ended.signal });
    }
    call.end();
  })().catch((error: unknown) => {
    // Ours to report only while the call stands; else the responses carry the reason.
    if (!ended.signal.aborted) call.destroy(PaddockError.from(error));
  });
  try {
    yield* responsesOf(channel, call, settings);
  } finally {
    ended.abort();
    void writing;
  }
}

async function* responsesOf(
  { fail }: Channel,
  call: Responses,
  settings: CallSettings,
): AsyncGenerator<unknown> {
  const cancel = (): void => call.cancel();
  settings.signal?.addEventListener("abort", cancel, { once: true });
  try {
    yield* call;
  } catch (error) {
    fail(error, settings);
  } finally {
    settings.signal?.removeEventListener("abort", cancel);
    call.cancel();
  }
}
