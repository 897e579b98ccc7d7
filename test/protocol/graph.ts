/** The worlds seen, as numbers: how each was reached, and which lead where without a fault. */
export class Graph {
  readonly #parents = new Numbers();
  readonly #ordinals = new Numbers();
  readonly #from = new Numbers();
  readonly #to = new Numbers();
  readonly #ends: number[] = [];

  /** A new world, reached from `parent` (-1: the first one) by the successor at `ordinal`. */
  add(parent: number, ordinal: number): void {
    this.#parents.push(parent);
    this.#ordinals.push(ordinal);
  }

  /** Without a fault. */
  connect(from: number, to: number): void {
    this.#from.push(from);
    this.#to.push(to);
  }

  /** The run has ended in this world. */
  end(id: number): void {
    this.#ends.push(id);
  }

  /** Ordinals of the successors that lead from the first world to this one. */
  wayTo(id: number): number[] {
    const way: number[] = [];
    for (let at = id; at > 0; at = this.#parents.at(at)) way.push(this.#ordinals.at(at));
    return way.reverse();
  }

  /** The first world from which no end can be reached without a fault. */
  firstThatCannotEnd(): number | undefined {
    const count = this.#parents.length;
    const [starts, sources] = this.#backwards(count);
    const ends = new Uint8Array(count);
    const queue = [...this.#ends];
    for (const id of queue) ends[id] = 1;
    for (let id = queue.pop(); id !== undefined; id = queue.pop()) {
      for (let at = starts[id] ?? 0; at < (starts[id + 1] ?? 0); at++) {
        const source = sources[at] ?? 0;
        if (ends[source] === 1) continue;
        ends[source] = 1;
        queue.push(source);
      }
    }
    const lost = ends.indexOf(0);
    return lost < 0 ? undefined : lost;
  }

  /** Edges by their end: those to `id` are at [starts[id], starts[id + 1]). */
  #backwards(count: number): [Int32Array, Int32Array] {
    const starts = new Int32Array(count + 1);
    const edges = this.#to.length;
    for (let i = 0; i < edges; i++) starts[this.#to.at(i) + 1] = (starts[this.#to.at(i) + 1] ?? 0) + 1;
    for (let id = 0; id < count; id++) starts[id + 1] = (starts[id + 1] ?? 0) + (starts[id] ?? 0);
    const fill = starts.slice();
    const sources = new Int32Array(edges);
    for (let i = 0; i < edges; i++) {
      const to = this.#to.at(i);
      sources[fill[to] ?? 0] = this.#from.at(i);
      fill[to] = (fill[to] ?? 0) + 1;
    }
    return [starts, sources];
  }
}

/** Whole numbers, 4 bytes each. */
class Numbers {
  #values = new Int32Array(1024);
  length = 0;

  push(value: number): void {
    if (this.length === this.#values.length) {
      const larger = new Int32Array(2 * this.length);
      larger.set(this.#values);
      this.#values = larger;
    }
    this.#values[this.length] = value;
    this.length++;
  }

  at(index: number): number {
    return this.#values[index] ?? 0;
  }
}
