/** What of a turn goes into a trace. */
import type { Effect } from "./event.js";
import type { RunState } from "./state.js";

/** Without the layout, which is large and a function of the spec. */
export function traced({
  state,
  effects,
}: {
  readonly state: RunState;
  readonly effects: readonly Effect[];
}): { readonly state: object; readonly effects: readonly Effect[] } {
  return { state: { ...state, layout: null }, effects };
}
