/** One Prometheus registry per process. */
import { collectDefaultMetrics, Registry } from "prom-client";

/**
 * A registry whose every series carries `labels`, with prom-client's process and Node metrics in it. Several may live in
 * one process.
 */
export function createMetrics(labels: Readonly<Record<string, string>>): Registry {
  const registry = new Registry();
  registry.setDefaultLabels({ ...labels });
  collectDefaultMetrics({ register: registry });
  // Gauges that end in _total, which `promtool check metrics` rightly refuses.
  for (const kind of ["handles", "requests", "resources"]) {
    registry.removeSingleMetric(`nodejs_active_${kind}_total`);
  }
  return registry;
}
