/** Calls over a MessagePort, both ways: between a worker's main thread (I/O) and its engine thread (tensors). */
import type { MessagePort, Transferable } from "node:worker_threads";
import { type ErrorCode, isErrorCode, PaddockError } from "@paddock/contract";

/** A set of named asynchronous functions of one argument. */
export type Calls = { [name: string]: (argument: never) => unknown };

export type Argument<C extends Calls, N extends keyof C> = Parameters<C[N]>[0];
export type Result<C extends Calls, N extends keyof C> = Awaited<ReturnType<C[N]>>;

export interface Rpc<Remote extends Calls> {
  /** Rejects with the remote's PaddockError, or `worker-lost` once `fail` was called. */
  call<N extends keyof Remote & string>(
    name: N,
    argument: Argument<Remote, N>,
    transfer?: readonly Transferable[],
  ): Promise<Result<Remote, N>>;
  /** Ends the connection: every pending call rejects with `reason`. */
  fail(reason: PaddockError): void;
}

type Message =
  | { kind: "call"; id: number; name: string; argument: unknown }
  | { kind: "result"; id: number; value: unknown }
  | { kind: "error"; id: number; code: string; message: string; stack: string };

interface Port {
  postMessage(value: unknown, transfer?: readonly Transferable[]): void;
  on(event: "message", listener: (value: unknown) => void): unknown;
}

export function createRpc<Remote extends Calls, Local extends Calls>(
  port: Port | MessagePort,
  local: Local,
): Rpc<Remote> {
  const pending = new Map<number, { resolve: (v: unknown) => void; reject: (e: Error) => void }>();
  let nextId = 0;
  let failure: PaddockError | undefined;

  const answer = async (message: Message & { kind: "call" }): Promise<void> => {
    try {
      const handler = local[message.name];
      if (!handler) throw new PaddockError("internal", `no handler for call "${message.name}"`);
      const value = await handler(message.argument as never);
      port.postMessage({ kind: "result", id: message.id, value } satisfies Message);
    } catch (thrown) {
      const error = PaddockError.from(thrown);
      const code = codeOf(thrown) ?? error.code;
      const stack = thrown instanceof Error ? (thrown.stack ?? "") : "";
      port.postMessage({ kind: "error", id: message.id, code, message: error.message, stack });
    }
  };

  (port as Port).on("message", (value) => {
    const message = value as Message;
    if (message.kind === "call") {
      void answer(message);
      return;
    }
    const waiting = pending.get(message.id);
    pending.delete(message.id);
    if (message.kind === "result") waiting?.resolve(message.value);
    else {
      const code: ErrorCode = isErrorCode(message.code) ? message.code : "internal";
      const error = new PaddockError(code, message.message);
      if (message.stack) error.stack = message.stack;
      waiting?.reject(error);
    }
  });

  return {
    call(name, argument, transfer) {
      if (failure) return Promise.reject(failure);
      const id = nextId++;
      return new Promise((resolve, reject) => {
        pending.set(id, { resolve: resolve as (v: unknown) => void, reject });
        port.postMessage({ kind: "call", id, name, argument } satisfies Message, transfer);
      });
    },
    fail(reason) {
      failure = reason;
      for (const { reject } of pending.values()) reject(reason);
      pending.clear();
    },
  };
}

/** Errors of packages that do not know PaddockError carry a `code` of ours as a plain property. */
function codeOf(thrown: unknown): ErrorCode | undefined {
  const code = (thrown as { code?: unknown } | null)?.code;
  return typeof code === "string" && isErrorCode(code) ? code : undefined;
}
