/** For whom an exchange waits. */

export class PeerWaits {
  readonly #counts = new Map<number, number>();

  /** Runs what waits for a peer. */
  async during<T>(peer: number, work: () => Promise<T>): Promise<T> {
    this.#add(peer, 1);
    try {
      return await work();
    } finally {
      this.#add(peer, -1);
    }
  }

  /** In ascending order. */
  peers(): number[] {
    return [...this.#counts.keys()].sort((a, b) => a - b);
  }

  #add(peer: number, by: number): void {
    const count = (this.#counts.get(peer) ?? 0) + by;
    if (count > 0) this.#counts.set(peer, count);
    else this.#counts.delete(peer);
  }
}
