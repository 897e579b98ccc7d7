/** The session stream with the coordinator, opened again when it breaks: messages out, messages in, one loss at a time. */
import { PaddockError } from "@paddock/contract";
import { type CoordinatorMessage, type WorkerMessage, WorkerService } from "@paddock/proto";
import { createQueue, grpcClient, joinTokenHeader } from "@paddock/service-kit";
import { passingFailpoints } from "./failpoints.js";
import type { WorkerSecurity } from "./security.js";

export interface LinkOptions {
  /** host:port of the coordinator. */
  readonly address: string;
  readonly security: WorkerSecurity | undefined;
  /** How long a coordinator that does not answer is looked for. */
  readonly reconnectSeconds: number;
  /** A stream is open: the first message may be sent. */
  readonly onOpen: () => void;
  readonly onMessage: (message: CoordinatorMessage) => void;
  /** The stream is over. */
  readonly onLost: (reason: string) => void;
  /** No further stream will be opened. */
  readonly onGivenUp: (error: PaddockError) => void;
}

export interface Link {
  /** Opens a stream after a pause; one at a time. */
  open(afterMs: number): void;
  /** Queues a message on the open stream; without one it is lost. */
  send(message: WorkerMessage): void;
  close(): void;
}

interface Stream {
  send(message: WorkerMessage): void;
  readonly messages: AsyncIterable<CoordinatorMessage>;
  close(): void;
}

/** Far more than a step's worth of messages: a coordinator that leaves so many unread is gone. */
const maxQueuedMessages = 10_000;

export function createLink(options: LinkOptions): Link {
  const { reconnectSeconds } = options;
  let stream: Stream | undefined;
  let timer: NodeJS.Timeout | undefined;
  let isClosed = false;
  let wasWelcome = false;
  let awaySinceMs = performance.now();

  async function live(): Promise<void> {
    if (isClosed) return;
    let error = new PaddockError(
      "worker-lost",
      "the coordinator closed the session without a shutdown message",
    );
    let mine: Stream | undefined;
    try {
      // Throws when certificate files do not fit.
      mine = openStream(options);
      stream = mine;
      options.onOpen();
      for await (const message of mine.messages) {
        wasWelcome ||= message.kind === "welcome";
        awaySinceMs = Number.POSITIVE_INFINITY;
        options.onMessage(message);
      }
    } catch (thrown) {
      error = PaddockError.from(thrown);
    }
    mine?.close();
    if (isClosed) return;
    stream = undefined;
    lost(error);
  }

  function lost(error: PaddockError): void {
    const now = performance.now();
    awaySinceMs = Math.min(awaySinceMs, now);
    // Its own earlier stream may not have ended at the coordinator yet; a certificate that has expired may be renewed.
    const mayPass = error.code === "already-exists" || error.code === "unauthenticated";
    const isHopeless = error.retry === "never" && !(wasWelcome && mayPass);
    if (isHopeless || now - awaySinceMs >= reconnectSeconds * 1000) options.onGivenUp(error);
    else options.onLost(error.message);
  }

  return {
    open(afterMs) {
      clearTimeout(timer);
      timer = setTimeout(() => void live(), afterMs);
    },
    send: passingFailpoints((message) => stream?.send(message)),
    close() {
      isClosed = true;
      clearTimeout(timer);
      stream?.close();
    },
  };
}

function openStream({ address, security }: LinkOptions): Stream {
  const { tls, joinToken } = security ?? {};
  const headers = joinToken === undefined ? {} : { [joinTokenHeader]: joinToken };
  const client = grpcClient(address, WorkerService, { tls, headers });
  const outgoing = createQueue<WorkerMessage>(maxQueuedMessages);
  return {
    send: (message) => void outgoing.push(message),
    messages: client.session(outgoing),
    close() {
      outgoing.end();
      client.close();
    },
  };
}
