/**
 * A group of GPUs, one process each, through NCCL. Tensors are handles of this thread's engine and stay on the device.
 * As on CPUs everything is one all-to-all and sums are taken here, in the caller's order: the same for every group.
 *
 * One process makes an id (`ncclUniqueId`), the caller carries it to all. NCCL wants a GPU of its own for each rank.
 */
import { type Handle, loadNative, type Native, resultInts } from "../native.js";
import { CollectiveError } from "./errors.js";
import type { SumOrder } from "./reduce.js";

const idBytes = 128;
/** Until an operation is likely to be done it is looked for at every turn of the event loop, then every millisecond. */
const eagerTurns = 200;

export interface NcclGroupOptions {
  readonly id: Uint8Array;
  readonly rank: number;
  readonly size: number;
  /** Longest wait for a peer, for each operation, in milliseconds. */
  readonly timeoutMs: number;
}

export interface NcclFacts {
  /** E.g. 2.30.7 */
  readonly version: string;
  readonly path: string;
}

/**
 * Which NCCL is used: the one libtorch brings, or the file at `path` if none has been looked for before.
 * @throws CollectiveError `engine-unavailable`
 */
export function describeNccl(path = ""): NcclFacts {
  const native = nativeOrThrow();
  const code = unavailable(() => native.ncclVersion(path));
  const version = [Math.floor(code / 10_000), Math.floor(code / 100) % 100, code % 100].join(".");
  return { version, path: native.ncclPath() };
}

/** What all ranks of a new group need. Works without a GPU. */
export function ncclUniqueId(): Uint8Array {
  const id = new Uint8Array(idBytes);
  const native = nativeOrThrow();
  unavailable(() => native.ncclUniqueId(id));
  return id;
}

export class NcclGroup {
  readonly rank: number;
  readonly size: number;
  readonly #native: Native;
  readonly #timeoutMs: number;
  readonly #communicator: number;
  #queue: Promise<void> = Promise.resolve();
  #broken: CollectiveError | undefined;

  private constructor(native: Native, { id, rank, size, timeoutMs }: NcclGroupOptions) {
    this.#native = native;
    this.rank = rank;
    this.size = size;
    this.#timeoutMs = timeoutMs;
    this.#communicator = native.ncclOpen(id, rank, size);
  }

  /** Resolves when all ranks have joined. The thread's engine must be `torch` on cuda. */
  static async open(options: NcclGroupOptions): Promise<NcclGroup> {
    const native = nativeOrThrow();
    const group = new NcclGroup(native, options);
    await group.#settle("joining the group");
    return group;
  }

  /**
   * Sends `outgoing[r]` to every rank r and fills `incoming[r]`, contiguous tensors of agreed sizes; copies the own one.
   * All ranks ask for the same in the same order. The caller keeps its handles until it resolves.
   */
  async allToAll(
    key: string,
    outgoing: readonly Handle[],
    incoming: readonly Handle[],
  ): Promise<void> {
    const turn = this.#queue.then(async () => {
      if (this.#broken) throw this.#broken;
      const { shared } = this.#native;
      shared.set([...outgoing, ...incoming], resultInts);
      this.#guard(key, () =>
        this.#native.ncclAllToAll(this.#communicator, outgoing.length, incoming.length),
      );
      await this.#settle(key);
    });
    this.#queue = turn.catch(() => undefined);
    await turn;
  }

  /** All ranks' vectors one after the other, `lengths[r]` float32 values of each. The caller frees the result. */
  async allGather(key: string, own: Handle, lengths: readonly number[]): Promise<Handle> {
    const whole = this.#vector(sumOf(lengths));
    const parts = this.#parts(whole, lengths);
    return await this.#freeing([whole, ...parts], async () => {
      const outgoing = parts.map(() => own);
      await this.allToAll(key, outgoing, parts);
      return this.#parts(whole, [sumOf(lengths)])[0] as Handle;
    });
  }

  /**
   * The sum of all ranks' contributions on this rank's elements, added in `order` (see reduce.ts), in float32. The caller
   * frees the result.
   * @param vectors this rank's contributions, 1-D and contiguous
   * @param contributions how many each rank has
   * @param lengths how many elements each rank gets, in order
   */
  async reduceScatter(
    key: string,
    vectors: readonly Handle[],
    o: {
      readonly contributions: readonly number[];
      readonly lengths: readonly number[];
      readonly order: SumOrder;
    },
  ): Promise<Handle> {
    const native = this.#native;
    const mine = o.lengths[this.rank] as number;
    const temporary: Handle[] = [];
    return await this.#freeing(temporary, async () => {
      const slices = vectors.map((vector) => this.#parts(vector, o.lengths));
      temporary.push(...slices.flat());
      // Several contributions travel to a rank as one tensor, one after the other.
      const outgoing = o.lengths.map((_, rank) => {
        const some = slices.map((parts) => parts[rank] as Handle);
        native.shared.set(some, resultInts);
        return native.concat(some.length, 0);
      });
      const incoming = o.contributions.map((count) => this.#vector(count * mine));
      temporary.push(...outgoing, ...incoming);
      await this.allToAll(key, outgoing, incoming);
      const addends = incoming.flatMap((whole, rank) =>
        this.#parts(whole, new Array<number>(o.contributions[rank] as number).fill(mine)),
      );
      temporary.push(...addends);
      const stack: Handle[] = [];
      for (const item of o.order) {
        if (item !== "add") {
          stack.push(addends[item] as Handle);
          continue;
        }
        const right = stack.pop() as Handle;
        const sum = native.add(stack.pop() as Handle, right);
        temporary.push(sum);
        stack.push(sum);
      }
      // A view of the sum outlives the handles that are freed here.
      return this.#parts(stack[0] as Handle, [mine])[0] as Handle;
    });
  }

  /** The sum of all ranks' contributions, `length` float32 values, on every rank: a reduce-scatter, then an all-gather. */
  async allReduce(
    key: string,
    vectors: readonly Handle[],
    o: {
      readonly contributions: readonly number[];
      readonly length: number;
      readonly order: SumOrder;
    },
  ): Promise<Handle> {
    const boundary = (rank: number): number => Math.floor((o.length * rank) / this.size);
    const lengths = o.contributions.map((_, rank) => boundary(rank + 1) - boundary(rank));
    const sum = await this.reduceScatter(key, vectors, { ...o, lengths });
    return await this.#freeing([sum], () => this.allGather(key, sum, lengths));
  }

  /** Ends the group here; what waits rejects with `stale-generation`, and the peers' kernels end at their deadline. */
  close(reason: string): void {
    this.#break(new CollectiveError(reason, { code: "stale-generation" }));
  }

  async #settle(what: string): Promise<void> {
    const end = performance.now() + this.#timeoutMs;
    for (let turn = 0; ; turn++) {
      if (this.#broken) throw this.#broken;
      if (this.#guard(what, () => this.#native.ncclPoll(this.#communicator))) return;
      if (performance.now() > end) {
        const message = `${what}: a peer did not come within ${this.#timeoutMs / 1000} s`;
        throw this.#break(new CollectiveError(message, { code: "exchange-timeout" }));
      }
      await new Promise<void>((resolve) => {
        if (turn < eagerTurns) setImmediate(resolve);
        else setTimeout(resolve, 1);
      });
    }
  }

  /** What NCCL reports while a group works is a peer or its network that is gone. */
  #guard<T>(what: string, work: () => T): T {
    try {
      return work();
    } catch (thrown) {
      const message = `${what}: ${thrown instanceof Error ? thrown.message : String(thrown)}`;
      throw this.#break(new CollectiveError(message, { code: "worker-lost", cause: thrown }));
    }
  }

  #break(error: CollectiveError): CollectiveError {
    if (!this.#broken) this.#native.ncclAbort(this.#communicator);
    this.#broken ??= error;
    return this.#broken;
  }

  #vector(length: number): Handle {
    this.#native.shared.set([length], resultInts);
    return this.#native.fill(1, 0, 0);
  }

  /** Views of a vector, one after the other. */
  #parts(vector: Handle, lengths: readonly number[]): Handle[] {
    let start = 0;
    return lengths.map((length) => {
      this.#native.shared.set([start, length], resultInts);
      start += length;
      return this.#native.slice(vector, 1, 1);
    });
  }

  async #freeing<T>(handles: readonly Handle[], work: () => Promise<T>): Promise<T> {
    try {
      return await work();
    } finally {
      for (const handle of new Set(handles)) this.#native.free(handle);
    }
  }
}

function sumOf(lengths: readonly number[]): number {
  return lengths.reduce((sum, length) => sum + length, 0);
}

function nativeOrThrow(): Native {
  const load = loadNative();
  if (load.kind === "absent") throw new CollectiveError(load.why, { code: "engine-unavailable" });
  return load.native;
}

function unavailable<T>(work: () => T): T {
  try {
    return work();
  } catch (thrown) {
    const message = thrown instanceof Error ? thrown.message : String(thrown);
    throw new CollectiveError(message, { code: "engine-unavailable", cause: thrown });
  }
}
