/** RPC handlers as async functions and iterables, adapted to grpc-js's calls and callbacks. */
import { once } from "node:events";
import type {
  handleBidiStreamingCall,
  handleServerStreamingCall,
  handleUnaryCall,
  Metadata,
  ServerDuplexStream,
  ServerWritableStream,
  ServiceDefinition,
  UntypedServiceImplementation,
} from "@grpc/grpc-js";
import type { Method } from "@paddock/proto";
import type { PeerIdentity } from "../security/identity.js";
import { type AuthContext, peerIdentityOf } from "./access.js";
import { toServiceError } from "./errors.js";

/** What a handler knows beside its request. */
export interface CallContext {
  /** Fires when the client cancels, its deadline passes or its connection ends. The handler must then return. */
  readonly signal: AbortSignal;
  /** Remote address. */
  readonly peer: string;
  /** Who the peer's certificate says it is; absent without TLS. */
  readonly identity?: PeerIdentity | undefined;
  /** A text of the call's metadata; undefined when there is none of that name. */
  header(name: string): string | undefined;
}

/** The shape of a method's handler. What it throws reaches the client as status and code. */
export type Handler<M> =
  M extends Method<infer Request, infer Response, infer RequestStream, infer ResponseStream>
    ? RequestStream extends true
      ? (requests: AsyncIterable<Request>, context: CallContext) => AsyncIterable<Response>
      : ResponseStream extends true
        ? (request: Request, context: CallContext) => AsyncIterable<Response>
        : (request: Request, context: CallContext) => Promise<Response>
    : never;

export type Handlers<Service> = { readonly [Name in keyof Service]: Handler<Service[Name]> };

/** A service ready for `startGrpcServer`. */
export interface ServedService {
  /** "paddock.v1.WorkerService" */
  readonly name: string;
  readonly definition: ServiceDefinition;
  readonly implementation: UntypedServiceImplementation;
}

type AnyMethod = Method<unknown, unknown>;
type Unary = (request: unknown, context: CallContext) => Promise<unknown>;
type Streaming = (request: unknown, context: CallContext) => AsyncIterable<unknown>;

/**
 * Binds handlers to a service. Responses are written with back-pressure: the handler's iterable is asked for the next
 * message only when the connection takes it.
 */
export function serve<Service extends { readonly [name: string]: unknown }>(
  service: Service,
  handlers: Handlers<Service>,
): ServedService {
  const definition = service as unknown as Record<string, AnyMethod>;
  const implementation: UntypedServiceImplementation = {};
  let name = "";
  for (const [key, method] of Object.entries(definition)) {
    const handler = handlers[key as keyof Service] as unknown;
    implementation[key] = adapt(method, handler);
    name = method.path.split("/")[1] ?? "";
  }
  return { name, definition, implementation };
}

function adapt(method: AnyMethod, handler: unknown): UntypedServiceImplementation[string] {
  if (method.requestStream) return bidi(handler as Streaming);
  return method.responseStream ? serverStream(handler as Streaming) : unary(handler as Unary);
}

function unary(handler: Unary): handleUnaryCall<unknown, unknown> {
  return (call, callback) => {
    handler(call.request, contextOf(call)).then(
      (response) => callback(null, response),
      (error: unknown) => callback(toServiceError(error)),
    );
  };
}

function serverStream(handler: Streaming): handleServerStreamingCall<unknown, unknown> {
  return (call) => {
    const context = contextOf(call);
    void writeAll(call, handler(call.request, context), context.signal);
  };
}

function bidi(handler: Streaming): handleBidiStreamingCall<unknown, unknown> {
  return (call) => {
    const context = contextOf(call);
    void writeAll(call, handler(requestsOf(call, context.signal), context), context.signal);
  };
}

/** The part of grpc-js's four call types that they share. */
interface AnyCall {
  on(event: "cancelled", listener: () => void): unknown;
  getPeer(): string;
  getAuthContext(): AuthContext;
  readonly metadata: Metadata;
}

function contextOf(call: AnyCall): CallContext {
  const controller = new AbortController();
  call.on("cancelled", () => controller.abort(new Error("the client ended the call")));
  return {
    signal: controller.signal,
    peer: call.getPeer(),
    identity: peerIdentityOf(call.getAuthContext()),
    header(name) {
      const [value] = call.metadata.get(name);
      return typeof value === "string" ? value : undefined;
    },
  };
}

/**
 * The client's messages until it ends or goes away; both end the iteration without an error. Not the stream's own iterator: that one
 * destroys the call when the handler fails, before messages and status on their way to the client have left.
 */
async function* requestsOf(
  call: ServerDuplexStream<unknown, unknown>,
  signal: AbortSignal,
): AsyncIterable<unknown> {
  while (!signal.aborted && !call.destroyed && !call.readableEnded) {
    const request: unknown = call.read();
    if (request !== null) yield request;
    else await somethingToRead(call, signal);
  }
}

/** Resolves when there is a message, or none will come any more. */
function somethingToRead(
  call: ServerDuplexStream<unknown, unknown>,
  signal: AbortSignal,
): Promise<void> {
  return new Promise((resolve) => {
    const events = ["readable", "end", "close", "error"] as const;
    const done = (): void => {
      for (const event of events) call.off(event, done);
      signal.removeEventListener("abort", done);
      resolve();
    };
    for (const event of events) call.once(event, done);
    signal.addEventListener("abort", done);
  });
}

/** Never rejects: an error of the iterable becomes the call's status. */
async function writeAll(
  call: ServerWritableStream<unknown, unknown> | ServerDuplexStream<unknown, unknown>,
  responses: AsyncIterable<unknown>,
  signal: AbortSignal,
): Promise<void> {
  try {
    for await (const response of responses) {
      if (signal.aborted) return;
      if (!call.write(response)) await once(call, "drain", { signal });
    }
    call.end();
  } catch (error) {
    if (!signal.aborted) call.emit("error", toServiceError(error));
  }
}
