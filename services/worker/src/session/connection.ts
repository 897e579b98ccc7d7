/** The session stream with the coordinator: messages out, messages in, one end. */
import { type CoordinatorMessage, type WorkerMessage, WorkerService } from "@paddock/proto";
import { createQueue, grpcClient } from "@paddock/service-kit";

export interface Session {
  /** Queues a message. Ignored after `close`. */
  send(message: WorkerMessage): void;
  /** Ends when the coordinator closes the stream; throws a PaddockError (`worker-lost`, or the coordinator's own) when it breaks. */
  readonly messages: AsyncIterable<CoordinatorMessage>;
  close(): void;
}

/** Far more than a step's worth of messages: a coordinator that leaves so many unread is gone. */
const maxQueuedMessages = 10_000;

export function connectSession(address: string): Session {
  const client = grpcClient(address, WorkerService);
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
