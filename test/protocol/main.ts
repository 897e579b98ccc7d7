import { full, short } from "./bounds.js";
import { type Exploration, explore } from "./explore.js";
import { real } from "./subject.js";

for (const bounds of process.argv.includes("--short") ? short : full) {
  const r: Exploration = explore(real, bounds);
  console.log(bounds.name, r.states, r.transitions, r.depth, r.complete, r.seconds.toFixed(1), Math.round(process.memoryUsage().heapUsed/2**20));
  if (r.violation) {
    console.log(r.violation.message);
    for (const line of r.violation.trace) console.log("  ", line);
  }
}
