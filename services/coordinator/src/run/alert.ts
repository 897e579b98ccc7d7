/** What a coordinator does about signs of collapse: says so once per episode, and stops the run if it is to. */

import { type Look, look, rewound } from "./collapse.js";
import { collapseText } from "./collapse-text.js";
import { fail } from "./ending.js";
import type { ActiveGeneration } from "./state.js";
import { append, count, log, type Turn, update } from "./turn.js";

/** After a step that was looked at. `active` is the generation that computed it. */
export function watchForCollapse(turn: Turn, active: ActiveGeneration, now: Look): void {
  const { spec } = turn.state.durable;
  const known = rewound(turn.state.watch, now.step);
  const before = known.collapse;
  const watch = look(known, spec, now);
  update(turn, { watch });
  const { collapse } = watch;
  if (collapse === null) {
    update(turn, { alert: "" });
    if (before) log(turn, "info", "collapse over", { collapse: before.kind, step: now.step });
    return;
  }
  if (collapse.kind === before?.kind) return;
  const message = collapseText(spec, collapse.kind, now);
  const stops = spec.monitor.onCollapse === "stop" && !turn.state.active?.stopping;
  update(turn, { alert: message });
  count(turn, { alerts: 1 });
  append(turn, {
    kind: "alert",
    step: now.step,
    generation: active.generation,
    collapse: collapse.kind,
    action: stops ? "stop" : "warn",
    message,
    unixMs: turn.now,
  });
  log(turn, "warn", "collapse", { collapse: collapse.kind, step: now.step, message });
  // After the last step there is nothing to be saved by stopping.
  if (stops) fail(turn, "collapsed", message);
}
