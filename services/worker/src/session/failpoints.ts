/** The failpoints on a worker's way to its coordinator. */
import type { WorkerMessage } from "@paddock/proto";
import type { FailpointName } from "@paddock/service-kit";
import { failpointSync } from "@paddock/service-kit/failpoints";

type Kind = Exclude<WorkerMessage["kind"], undefined>;

const points: Readonly<
  Partial<Record<Kind, { readonly before: FailpointName; readonly after?: FailpointName }>>
> = {
  hello: { before: "worker.hello.sending" },
  prepared: { before: "worker.prepared.sending", after: "worker.prepared.sent" },
  checkpointWritten: { before: "worker.checkpoint.reporting" },
  evaluationDone: { before: "worker.evaluation.reporting" },
  held: { before: "worker.held.sending" },
  leave: { before: "worker.leave.sending" },
  goodbye: { before: "worker.goodbye.sending" },
};

/** The same way to send, past the message's failpoints. */
export function passingFailpoints(
  send: (message: WorkerMessage) => void,
): (message: WorkerMessage) => void {
  return (message) => {
    const { before, after } = (message.kind && points[message.kind]) || {};
    if (before) failpointSync(before, { again: () => send(message) });
    send(message);
    if (after) failpointSync(after);
  };
}
