/** What the setup prints: one timed line per event, so that parallel steps stay readable. */

const startedMs = performance.now();

const seconds = (sinceMs) => `${((performance.now() - sinceMs) / 1000).toFixed(1)} s`;

/** One line: seconds since the start, topic, message. */
export function say(topic, message) {
  const elapsed = ((performance.now() - startedMs) / 1000).toFixed(1).padStart(6);
  process.stdout.write(`[${elapsed} s] ${topic.padEnd(9)} ${message}\n`);
}

/** Runs `work` between two lines, `intent` and what it took. Returns what `work` returns. */
export async function timed(topic, intent, work) {
  say(topic, `${intent} ...`);
  const sinceMs = performance.now();
  const result = await work();
  say(topic, `${intent}: done in ${seconds(sinceMs)}`);
  return result;
}
