/** Which exchange a generation uses: none for a fleet of one, else what the spec says. */
import type { RunSpec } from "@paddock/contract";
import { createCollectiveExchange } from "./collective-exchange.js";
import type { Exchange } from "./exchange.js";
import { createLocalExchange } from "./local-exchange.js";
import { createRedisExchange } from "./redis-exchange.js";

export interface ExchangeSurroundings {
  readonly redisUrl: string;
  readonly runId: string;
  readonly workers: number;
  /** Address at which the other workers reach this one. */
  readonly host: string;
  /** Why collectives must not be used here, if so: tensors then go through Redis. */
  readonly collectivesRefused?: string | undefined;
  /** Told where collectives are asked for: undefined when they are used, else why not. */
  readonly onMeeting: (why: string | undefined) => void;
}

/** An exchange for one generation. The caller enters and closes it. */
export function openExchange(
  { kind, maxInFlightBytes, timeoutSeconds }: RunSpec["exchange"],
  { redisUrl, runId, workers, host, collectivesRefused, onMeeting }: ExchangeSurroundings,
): Exchange {
  if (workers === 1) return createLocalExchange();
  const options = { redisUrl, runId, maxInFlightBytes, timeoutMs: timeoutSeconds * 1000 };
  switch (kind) {
    case "redis":
      return createRedisExchange(options);
    case "collective":
      return createCollectiveExchange({ ...options, host, collectivesRefused, onMeeting });
  }
}
