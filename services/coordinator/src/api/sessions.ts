/** The workers' side of the API: one stream per worker, messages in as events, effects out as messages. */

import { type ErrorCode, PaddockError } from "@paddock/contract";
import {
  type CoordinatorMessage,
  type Hello,
  protocolVersion,
  type Version,
  type Welcome,
  type WorkerMessage,
  WorkerService,
} from "@paddock/proto";
import {
  type CallContext,
  createQueue,
  type MessageQueue,
  type ReportRefusal,
  type ServedService,
  serve,
  withDeadline,
} from "@paddock/service-kit";
import { failpoint } from "@paddock/service-kit/failpoints";
import type { RunEvent } from "../run/event.js";
import type { WorkerId } from "../run/state.js";
import { checkedMessage } from "./checked-message.js";

export interface Sessions {
  readonly service: ServedService;
  /** Queues a message; dropped when the worker is gone. */
  send(id: WorkerId, message: CoordinatorMessage): void;
  /** Ends a session after what was sent; with an error if there is a code. */
  dismiss(id: WorkerId, code: ErrorCode | undefined, reason: string): void;
  /** Resolves once no worker is connected. */
  empty(): Promise<void>;
}

export interface SessionsOptions {
  /** What a new worker is told: resolves when there is a run, rejects when `signal` fires. */
  readonly welcome: (signal: AbortSignal) => Promise<Omit<Welcome, "version">>;
  /** Rejects, with the reason, when who opened the stream may not join. */
  readonly admit?: (context: CallContext) => Promise<void>;
  /** Told who was turned away, and why. */
  readonly onRefused?: ReportRefusal;
  /** Resolves when the event has been dealt with: a worker's messages are read no faster than that. */
  readonly post: (event: RunEvent) => Promise<void>;
}

interface Session {
  readonly id: WorkerId;
  readonly name: string;
  readonly outgoing: MessageQueue<CoordinatorMessage>;
  error: PaddockError | undefined;
}

/** Messages that may wait for a worker that does not read: more than any healthy one leaves. */
const maxWaiting = 1_000;
const helloMs = 10_000;

export function createSessions(options: SessionsOptions): Sessions {
  const sessions = new Map<WorkerId, Session>();
  const names = new Set<string>();
  const whenEmpty = new Set<() => void>();
  let lastId = 0;

  async function* session(
    messages: AsyncIterable<WorkerMessage>,
    context: CallContext,
  ): AsyncGenerator<CoordinatorMessage> {
    const incoming = messages[Symbol.asyncIterator]();
    const refuse = refusing(context);
    const hello = await admitted(incoming, context).catch(refuse);
    await failpoint("coordinator.hello.received");
    names.add(hello.workerName);
    lastId += 1;
    const outgoing = createQueue<CoordinatorMessage>(maxWaiting);
    const mine: Session = { id: lastId, name: hello.workerName, outgoing, error: undefined };
    sessions.set(mine.id, mine);
    context.signal.addEventListener("abort", outgoing.end, { once: true });
    try {
      const welcome = await options.welcome(context.signal);
      outgoing.push({ kind: "welcome", welcome: { version: protocolVersion, ...welcome } });
      await options.post({ kind: "joined", worker: infoOf(mine.id, hello) });
      await failpoint("coordinator.joined");
      void read(incoming, mine, refuse);
      yield* outgoing;
      if (mine.error) throw mine.error;
    } finally {
      await leave(mine, mine.error?.message ?? "the connection ended");
    }
  }

  async function admitted(
    incoming: AsyncIterator<WorkerMessage>,
    context: CallContext,
  ): Promise<Hello> {
    await options.admit?.(context);
    const hello = await receiveHello(incoming, context.signal);
    if (!names.has(hello.workerName)) return hello;
    throw new PaddockError(
      "already-exists",
      `expected a worker name that is not connected, received "${hello.workerName}"; give every worker its own --name`,
    );
  }

  /** Reports and throws on. */
  function refusing({ peer, identity }: CallContext): (thrown: unknown) => never {
    return (thrown) => {
      const error = PaddockError.from(thrown);
      const who = identity ? `${identity.role} ${identity.name}` : "unknown";
      options.onRefused?.({ who, from: peer, why: error.message, call: "WorkerService.Session" });
      throw error;
    };
  }

  /** Never rejects: what goes wrong ends this session only. */
  async function read(
    incoming: AsyncIterator<WorkerMessage>,
    mine: Session,
    refuse: (thrown: unknown) => never,
  ): Promise<void> {
    try {
      for (let next = await incoming.next(); !next.done; next = await incoming.next()) {
        const event = eventOf(mine.id, checkedOr(refuse, next.value));
        if (event?.kind === "prepared") await failpoint("coordinator.prepared.received");
        if (event?.kind === "held") await failpoint("coordinator.held.received");
        if (event) await options.post(event);
      }
    } catch (error) {
      mine.error ??= PaddockError.from(error);
    }
    mine.outgoing.end();
  }

  async function leave(mine: Session, reason: string): Promise<void> {
    await options.post({ kind: "gone", id: mine.id, reason });
    sessions.delete(mine.id);
    names.delete(mine.name);
    if (sessions.size > 0) return;
    for (const resolve of whenEmpty) resolve();
    whenEmpty.clear();
  }

  return {
    service: serve(WorkerService, { session }),
    send(id, message) {
      const to = sessions.get(id);
      try {
        to?.outgoing.push(message);
      } catch (error) {
        to?.outgoing.end();
        if (to) to.error = PaddockError.from(error);
      }
    },
    dismiss(id, code, reason) {
      const whom = sessions.get(id);
      if (whom && code) whom.error = new PaddockError(code, reason);
      whom?.outgoing.end();
    },
    empty: () =>
      new Promise((resolve) => {
        if (sessions.size === 0) resolve();
        else whenEmpty.add(resolve);
      }),
  };
}

function checkedOr(refuse: (thrown: unknown) => never, message: WorkerMessage): WorkerMessage {
  try {
    return checkedMessage(message);
  } catch (error) {
    return refuse(error);
  }
}

async function receiveHello(
  incoming: AsyncIterator<WorkerMessage>,
  signal: AbortSignal,
): Promise<Hello> {
  const deadline = { timeoutMs: helloMs, what: "Hello", code: "invalid-argument", signal } as const;
  const { value, done } = await withDeadline(deadline, () => incoming.next());
  if (done || value.kind !== "hello") {
    throw new PaddockError(
      "invalid-argument",
      `expected Hello as the first message, received ${done ? "the end" : value.kind}`,
    );
  }
  checkVersion(value.hello.version);
  checkedMessage(value);
  return value.hello;
}

function checkVersion(version: Version | null): void {
  if (version?.major === protocolVersion.major) return;
  const received = version ? `${version.major}.${version.minor}` : "none";
  throw new PaddockError(
    "version-mismatch",
    `expected protocol version ${protocolVersion.major}.x, received ${received}; run coordinator and workers from the same release`,
  );
}

function infoOf(id: WorkerId, hello: Hello) {
  const { workerName: name, host, pid, engine, device, peerAddress, holdings } = hello;
  return { id, name, host, pid, engine, device, peerAddress, holdings };
}

/** Undefined for kinds that only a newer minor version has. */
function eventOf(id: WorkerId, message: WorkerMessage): RunEvent | undefined {
  switch (message.kind) {
    case "progress":
      return { kind: "progress", id, progress: message.progress };
    case "prepared":
      return { kind: "prepared", id, prepared: message.prepared };
    case "checkpointWritten":
      return { kind: "checkpoint-written", id, written: message.checkpointWritten };
    case "evaluationDone":
      return { kind: "evaluation-done", id, evaluation: message.evaluationDone };
    case "goodbye":
      return { kind: "gone", id, reason: `said goodbye: ${message.goodbye.reason || "no reason"}` };
    case "failed":
      return { kind: "failed", id, failure: message.failed };
    case "held":
      return { kind: "held", id, held: message.held };
    case "leave":
      return { kind: "leaving", id, reason: message.leave.reason };
    case "checkpointFailed":
      return { kind: "checkpoint-failed", id, failed: message.checkpointFailed };
    case "hello":
    case undefined:
      return undefined;
  }
}
