/** The session stream with the coordinator: messages out, messages in, one end. */
import { type CoordinatorMessage, type WorkerMessage, WorkerService } from "@paddock/proto";
import {
  createQueue,
  grpcClient,
  isLoopback,
  joinTokenHeader,
  type TlsOptions,
} from "@paddock/service-kit";

/** How a worker shows who it is, and what it may do in the open. */
export interface WorkerSecurity {
  /** Certificates on both sides, to the coordinator and between workers. Read again for every connection. */
  readonly tls?: TlsOptions | undefined;
  /** Lets it into the run where the coordinator asks for one. */
  readonly joinToken?: string | undefined;
  /** Listen without TLS where other machines reach it. */
  readonly insecureBind?: boolean;
}

/** Why collectives must not listen on `host`, or undefined: Gloo's connections have neither TLS nor a way to tell who connects. */
export function collectivesRefusal(
  host: string,
  security: WorkerSecurity = {},
): string | undefined {
  if (isLoopback(host) || security.insecureBind === true) return undefined;
  return `collectives have no TLS and would listen on ${host}; in a network that you trust, add --insecure-bind`;
}

export interface Session {
  /** Queues a message. Ignored after `close`. */
  send(message: WorkerMessage): void;
  /** Ends when the coordinator closes the stream; throws a PaddockError (`worker-lost`, or the coordinator's own) when it breaks. */
  readonly messages: AsyncIterable<CoordinatorMessage>;
  close(): void;
}

/** Far more than a step's worth of messages: a coordinator that leaves so many unread is gone. */
const maxQueuedMessages = 10_000;

export function connectSession(address: string, security: WorkerSecurity = {}): Session {
  const { tls, joinToken } = security;
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
