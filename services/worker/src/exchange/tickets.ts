/** Tickets: small BullMQ jobs that tell a worker what lies for it in Redis. One queue per worker and generation. */
import { PaddockError } from "@paddock/contract";
import { failpoint } from "@paddock/service-kit/failpoints";
import { Queue, UnrecoverableError, Worker } from "bullmq";
import type { Redis } from "ioredis";
import type { ExchangeKey } from "./exchange.js";
import type { PayloadRef } from "./payload-store.js";
import type { RedisLink } from "./redis-link.js";

/** The JSON of a job. Never holds tensors. */
export interface Ticket extends ExchangeKey {
  readonly run: string;
  readonly from: number;
  readonly to: number;
  readonly content: Sent | Published;
}

/** One fragment of what was sent to one peer. */
export interface Sent {
  readonly kind: "sent";
  /** Bytes of the whole message; this fragment's place in it, and how many fragments there are. */
  readonly bytes: number;
  readonly start: number;
  readonly fragments: number;
  readonly payload: PayloadRef;
}

/** All that was published under one key. */
export interface Published {
  readonly kind: "published";
  readonly pieceBytes: number;
  /** [part, bytes, crc32c] */
  readonly parts: readonly (readonly [string, number, number])[];
}

/** Finished jobs that a queue keeps: for people who look, and to recognise one that is added twice. */
const keptJobs = 64;
/** A queue's event stream keeps about as many; nobody reads it but people. */
const keptEvents = 100;

export class TicketDesk {
  readonly #link: RedisLink;
  readonly #run: string;
  readonly #generation: number;
  readonly #redis: Redis;
  readonly #queues = new Map<number, Queue<Ticket>>();
  #consumer: Worker<Ticket> | undefined;

  constructor(link: RedisLink, run: string, generation: number) {
    this.#link = link;
    this.#run = run;
    this.#generation = generation;
    this.#redis = link.connect();
  }

  /** Hands every ticket for `worker` to `take`, several at a time. What it throws marks the job as failed, for people. */
  open(worker: number, take: (ticket: Ticket) => Promise<void>): void {
    this.#consumer = new Worker<Ticket>(
      queueName(this.#run, this.#generation, worker),
      async ({ data }) => {
        try {
          await failpoint("exchange.ticket.taken");
          await take(data);
        } catch (thrown) {
          const error = PaddockError.from(thrown);
          const failure = new UnrecoverableError(error.message);
          failure.cause = error;
          throw failure;
        }
      },
      {
        connection: this.#redis,
        concurrency: 32,
        // A ticket whose delivery was lost with a connection counts as taken until its lock is over; then it is
        // delivered again. Taking one twice is harmless. BullMQ's defaults would make that last a minute.
        lockDuration: 2000,
        stalledInterval: 1000,
        maxStalledCount: Number.MAX_SAFE_INTEGER,
        runRetryDelay: 250,
      },
    );
    this.#consumer.on("error", () => undefined);
  }

  /** Resolves when the ticket is in the queue of `ticket.to`. The same `id` twice is one ticket. */
  async post(ticket: Ticket, id: string): Promise<void> {
    const { key, step, to } = ticket;
    const add = () =>
      this.#queue(to).add("ticket", ticket, {
        jobId: id,
        removeOnComplete: { count: keptJobs },
        removeOnFail: { count: keptJobs },
      });
    await failpoint("exchange.ticket.posting", { again: add });
    await this.#link.answer(`announcing ${key} of step ${step} to worker ${to}`, add());
  }

  /** Deletes the queues of an older generation. */
  async remove(generation: number, workers: number): Promise<void> {
    for (let worker = 0; worker < workers; worker++) {
      const queue = this.#newQueue(queueName(this.#run, generation, worker));
      const what = `removing the queues of generation ${generation}`;
      await this.#link.answer(what, queue.obliterate({ force: true }));
      await queue.close();
    }
  }

  /** Forced: what the consumer still holds belongs to a generation that is over. The connection is the link's to close. */
  async close(): Promise<void> {
    await this.#consumer?.close(true).catch(() => undefined);
    for (const queue of this.#queues.values()) await queue.close().catch(() => undefined);
  }

  #queue(worker: number): Queue<Ticket> {
    let queue = this.#queues.get(worker);
    if (!queue) {
      queue = this.#newQueue(queueName(this.#run, this.#generation, worker));
      this.#queues.set(worker, queue);
    }
    return queue;
  }

  #newQueue(name: string): Queue<Ticket> {
    const queue = new Queue<Ticket>(name, {
      connection: this.#redis,
      streams: { events: { maxLen: keptEvents } },
    });
    queue.on("error", () => undefined);
    return queue;
  }
}

function queueName(run: string, generation: number, worker: number): string {
  return `paddock-x-${run}-g${generation}-w${worker}`;
}
