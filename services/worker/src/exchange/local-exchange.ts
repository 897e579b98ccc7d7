/** The exchange of a fleet of one: nobody to talk to, nothing through Redis. */
import { invariant } from "@paddock/contract";
import type { Exchange } from "./exchange.js";

export function createLocalExchange(): Exchange {
  const nobody = (): Promise<never> => {
    invariant(false, "a fleet of one has no peers to exchange with");
  };
  return {
    async enter(_generation, _worker, workers) {
      invariant(workers === 1, `a local exchange serves one worker, not ${workers}`);
    },
    send: nobody,
    receive: nobody,
    publish: nobody,
    fetch: nobody,
    allToAll: nobody,
    gather: nobody,
    async retire() {
      // Nothing was published.
    },
    stats: { sentBytes: 0, receivedBytes: 0, inFlightBytes: 0 },
    waitingOn: () => [],
    async close() {
      // Nothing is open.
    },
  };
}
