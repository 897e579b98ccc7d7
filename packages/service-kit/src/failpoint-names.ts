/**
 * Every failpoint: a place of the protocol where something can go wrong, with who passes it and what happens there. `failpoint`
 * takes no other name, and a test of a real run sees each of them passed.
 */

/** What besides killing, freezing, delaying, failing and cutting can be done at a point. */
export type PointNature =
  /** A message is sent there: it can be sent twice. */
  | "message"
  /** A file is written there: the disk can be full, the write torn. */
  | "write"
  /** Bytes pass there: one bit can be flipped. */
  | "bytes";

/** When a point is passed, which says how to get a running fleet to it. */
export type PointMoment =
  /** When the process starts. */
  | "start"
  /** When a generation begins. */
  | "generation"
  | "step"
  | "checkpoint"
  | "evaluation"
  /** When a generation is ended by a loss. */
  | "loss"
  /** When a worker leaves in order, and when its state goes to others. */
  | "leave"
  /** When the run ends. */
  | "end";

export interface PointFacts {
  readonly role: "worker" | "coordinator";
  readonly at: PointMoment;
  readonly what: string;
  readonly nature?: PointNature;
  /** Passed only where several workers exchange tensors. */
  readonly several?: true;
}

export const failpoints = {
  "worker.hello.sending": {
    role: "worker",
    at: "start",
    what: "connected; Hello is about to be sent",
    nature: "message",
  },
  "worker.welcome.received": {
    role: "worker",
    at: "start",
    what: "the run's spec has come, the dataset is not open yet",
  },
  "worker.assignment.received": {
    role: "worker",
    at: "generation",
    what: "shards are assigned, the generation before is still there",
  },
  "worker.load.begun": {
    role: "worker",
    at: "generation",
    what: "the exchange is entered, no state is read",
  },
  "worker.load.read": {
    role: "worker",
    at: "generation",
    what: "state is read into host memory, the engine has none of it",
  },
  "worker.load.done": {
    role: "worker",
    at: "generation",
    what: "the engine has the shards, nothing is published",
  },
  "worker.publish.begun": {
    role: "worker",
    at: "step",
    what: "weights are encoded, no peer can read them",
    several: true,
  },
  "worker.publish.done": {
    role: "worker",
    at: "step",
    what: "weights are published, those before are not retired",
    several: true,
  },
  "worker.segment.taken": {
    role: "worker",
    at: "generation",
    what: "a segment job is taken from the queue, no step of it is begun",
  },
  "worker.batch.ready": {
    role: "worker",
    at: "step",
    what: "the step's images are there, nothing is computed",
  },
  "worker.compute.begun": {
    role: "worker",
    at: "step",
    what: "the engine begins the step",
  },
  "worker.gather.begun": {
    role: "worker",
    at: "step",
    what: "a unit's weights are about to be fetched from the peers",
    several: true,
  },
  "worker.gather.done": {
    role: "worker",
    at: "step",
    what: "a unit's weights have come from all peers",
    several: true,
  },
  "worker.backward.gradient": {
    role: "worker",
    at: "step",
    what: "in the backward pass: a unit's gradient of one rank is complete",
  },
  "worker.bucket.sending": {
    role: "worker",
    at: "step",
    what: "a bucket of gradients, or a sum, is about to go to the peers",
    several: true,
  },
  "worker.bucket.received": {
    role: "worker",
    at: "step",
    what: "a bucket of gradients, or a sum, has come from all peers",
    several: true,
  },
  "worker.gradient.reduced": {
    role: "worker",
    at: "step",
    what: "the shard's gradient is reduced, its norms are not taken",
  },
  "worker.prepared.sending": {
    role: "worker",
    at: "step",
    what: "the step is prepared, the coordinator does not know",
    nature: "message",
  },
  "worker.prepared.sent": {
    role: "worker",
    at: "step",
    what: "Prepared is on its way, the decision is not here",
  },
  "worker.decision.received": {
    role: "worker",
    at: "step",
    what: "the decision is known here, the state is the old one",
  },
  "worker.update.half": {
    role: "worker",
    at: "step",
    what: "some units are updated, others are not",
  },
  "worker.update.done": {
    role: "worker",
    at: "step",
    what: "the shard is updated, nothing of it is published",
  },
  "worker.step.done": {
    role: "worker",
    at: "step",
    what: "the step is over here, the next one is not begun",
  },
  "worker.checkpoint.begun": {
    role: "worker",
    at: "checkpoint",
    what: "a checkpoint is due, no file of it is open",
  },
  "worker.checkpoint.half": {
    role: "worker",
    at: "checkpoint",
    what: "half of the shard file is written under its temporary name",
    nature: "write",
  },
  "worker.checkpoint.synced": {
    role: "worker",
    at: "checkpoint",
    what: "the shard file is on disk under its temporary name",
  },
  "worker.checkpoint.renamed": {
    role: "worker",
    at: "checkpoint",
    what: "the shard file has its name, the folder is not synced",
  },
  "worker.checkpoint.reporting": {
    role: "worker",
    at: "checkpoint",
    what: "the file is durable, the coordinator does not know",
    nature: "message",
  },
  "worker.evaluation.begun": {
    role: "worker",
    at: "evaluation",
    what: "an evaluation is due, no feature is computed",
  },
  "worker.evaluation.reporting": {
    role: "worker",
    at: "evaluation",
    what: "the accuracy is known here, the coordinator does not know",
    nature: "message",
  },
  "worker.abort.received": {
    role: "worker",
    at: "loss",
    what: "the generation was ended, its work still runs here",
  },
  "worker.rested": {
    role: "worker",
    at: "loss",
    what: "nothing of the generation runs any more, its shards may be read, nobody knows",
  },
  "worker.held.sending": {
    role: "worker",
    at: "loss",
    what: "the coordinator is about to be told what is held",
    nature: "message",
  },
  "worker.leave.sending": {
    role: "worker",
    at: "leave",
    what: "the worker was asked to go, the coordinator does not know",
    nature: "message",
  },
  "peer.stream.begun": {
    role: "worker",
    at: "leave",
    what: "a peer asks for a range of held shards",
  },
  "peer.chunk.sending": {
    role: "worker",
    at: "leave",
    what: "a chunk of held shards is about to go to a peer",
    nature: "bytes",
  },
  "peer.range.received": {
    role: "worker",
    at: "leave",
    what: "a range of shards has come from a peer, others have not",
  },
  "worker.goodbye.sending": {
    role: "worker",
    at: "end",
    what: "the run is over, or the worker may go; goodbye is not said",
    nature: "message",
  },
  "exchange.entered": {
    role: "worker",
    at: "generation",
    what: "Redis has the new generation, its queues are not listened to",
    several: true,
  },
  "exchange.payload.written": {
    role: "worker",
    at: "step",
    what: "a payload lies in Redis, nobody was told",
    several: true,
  },
  "exchange.ticket.posting": {
    role: "worker",
    at: "step",
    what: "a payload is about to be announced to its receiver",
    nature: "message",
    several: true,
  },
  "exchange.ticket.taken": {
    role: "worker",
    at: "step",
    what: "a ticket is taken from the queue, its payload is not read",
    several: true,
  },
  "exchange.payload.read": {
    role: "worker",
    at: "step",
    what: "a piece of a payload has come from Redis, it is not verified",
    nature: "bytes",
    several: true,
  },
  "exchange.payload.acknowledging": {
    role: "worker",
    at: "step",
    what: "a payload is read, Redis still has it and its sender does not know",
    several: true,
  },
  "coordinator.hello.received": {
    role: "coordinator",
    at: "start",
    what: "a worker has said Hello and is not welcomed",
  },
  "coordinator.joined": {
    role: "coordinator",
    at: "start",
    what: "a worker has joined, none of its messages is read",
  },
  "coordinator.generation.appending": {
    role: "coordinator",
    at: "generation",
    what: "a generation is decided on and not in the ledger",
  },
  "coordinator.generation.appended": {
    role: "coordinator",
    at: "generation",
    what: "a generation is in the ledger, nobody is assigned to it",
  },
  "coordinator.assignment.sending": {
    role: "coordinator",
    at: "generation",
    what: "an assignment is about to be sent; at the second, half of them are",
    nature: "message",
  },
  "coordinator.abort.sending": {
    role: "coordinator",
    at: "loss",
    what: "a member is about to be told that its generation is over",
    nature: "message",
  },
  "coordinator.prepared.received": {
    role: "coordinator",
    at: "step",
    what: "a worker's Prepared has come and is not counted",
  },
  "coordinator.held.received": {
    role: "coordinator",
    at: "loss",
    what: "a worker has said what it holds, it is not counted on",
  },
  "coordinator.ledger.appending": {
    role: "coordinator",
    at: "step",
    what: "a record is about to be written to the ledger",
    nature: "write",
  },
  "coordinator.commit.appending": {
    role: "coordinator",
    at: "step",
    what: "all members are prepared, the commit is not in the ledger",
  },
  "coordinator.commit.appended": {
    role: "coordinator",
    at: "step",
    what: "the commit is in the ledger, nobody knows the decision",
  },
  "coordinator.decision.sending": {
    role: "coordinator",
    at: "step",
    what: "a decision is about to be sent; at the second, half of them are",
    nature: "message",
  },
  "coordinator.step.written": {
    role: "coordinator",
    at: "step",
    what: "a step is in steps.jsonl",
  },
  "coordinator.file.synced": {
    role: "coordinator",
    at: "checkpoint",
    what: "a manifest (or another whole file) is on disk under its temporary name",
    nature: "write",
  },
  "coordinator.manifest.renamed": {
    role: "coordinator",
    at: "checkpoint",
    what: "the manifest has its name, the ledger does not know it",
  },
  "coordinator.checkpoint.appended": {
    role: "coordinator",
    at: "checkpoint",
    what: "a checkpoint is in the ledger, those it replaces are on disk",
  },
  "coordinator.checkpoint.deleting": {
    role: "coordinator",
    at: "checkpoint",
    what: "an old checkpoint is about to be deleted",
  },
  "coordinator.segments.made": {
    role: "coordinator",
    at: "generation",
    what: "a worker's segment jobs are in its queue, others' may not be",
  },
} as const satisfies Record<string, PointFacts>;

export type FailpointName = keyof typeof failpoints;

export function isFailpointName(name: string): name is FailpointName {
  return Object.hasOwn(failpoints, name);
}
