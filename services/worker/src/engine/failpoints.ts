/** The failpoints on the way from the engine thread to the peers. */
import { failpoint } from "@paddock/service-kit/failpoints";
import type { HostCalls } from "./calls.js";

export function callsWithFailpoints(calls: HostCalls): HostCalls {
  return {
    ...calls,
    async fetchUnit(unit) {
      await failpoint("worker.gather.begun");
      const parts = await calls.fetchUnit(unit);
      await failpoint("worker.gather.done");
      return parts;
    },
    async allToAll(bucket) {
      await failpoint("worker.bucket.sending");
      const received = await calls.allToAll(bucket);
      await failpoint("worker.bucket.received");
      return received;
    },
  };
}
