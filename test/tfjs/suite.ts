/** Runs the test suite that TF.js publishes for backends, in this process, on a backend `torch` of its own. */
import { register } from "node:module";
import type { KernelBackend } from "@tensorflow/tfjs-core";
import Jasmine from "jasmine";

export interface SpecOutcome {
  /** Of the suites and the test, without the environment's name that TF.js adds. */
  readonly name: string;
  readonly status: "passed" | "failed" | "pending";
  /** First lines of what failed. */
  readonly messages: readonly string[];
}

export interface SuiteRun {
  /** Of TF.js and of the library that computes. */
  readonly version: string;
  /** In the order of the tests. Names may repeat. */
  readonly outcomes: readonly SpecOutcome[];
}

const environment = "torch";

/**
 * Runs every test whose name contains `filter`. Once per process, which must not have loaded TF.js before.
 * @throws EngineError `engine-unavailable` without torch; Error if something failed outside of a test
 */
export async function runSuite(threads: number, filter: string | undefined): Promise<SuiteRun> {
  const core = new URL("./", import.meta.resolve("@tensorflow/tfjs-core")).href;
  register("./resolve-hooks.js", { parentURL: import.meta.url, data: { core } });
  const outcomes: SpecOutcome[] = [];
  const outside: string[] = [];
  const { env } = new Jasmine();
  env.clearReporters();
  env.configure({
    random: false,
    forbidDuplicateNames: false, // TF.js repeats some
    specFilter: (spec) => filter === undefined || nameOf(spec.getFullName()).includes(filter),
  });
  env.addReporter({
    specDone({ fullName, status, failedExpectations }) {
      if (status === "excluded") return;
      const messages = failedExpectations.map(({ message }) => message.split("\n")[0] ?? "");
      outcomes.push({ name: nameOf(fullName), status, messages });
    },
    suiteDone: ({ failedExpectations }) => outside.push(...failedExpectations.map(messageOf)),
    jasmineDone: ({ failedExpectations }) => outside.push(...failedExpectations.map(messageOf)),
  });
  const version = await offerBackend(threads);
  await importOfCore("register_all_gradients.js");
  const util = await importOfCore<JasmineUtil>("jasmine_util.js");
  util.setTestEnvs([{ name: environment, backendName: environment, flags: {}, isDataSync: true }]);
  await importOfCore("tests.js");
  await env.execute();
  if (outside.length > 0) throw new Error(`failures outside of tests: ${outside.join("; ")}`);
  return { version, outcomes };
}

interface JasmineUtil {
  setTestEnvs(environments: readonly object[]): void;
}

/** A path that TypeScript does not follow: these files are for the hooks to load. */
async function importOfCore<T>(file: string): Promise<T> {
  const module: T = await import(`@tensorflow/tfjs-core/dist/${file}`);
  return module;
}

/** TF.js's tests reset the engine between suites, which disposes a backend for good: each suite gets a new one. */
async function offerBackend(threads: number): Promise<string> {
  const { openEngine } = await import("@paddock/engine");
  const tf = await import("@tensorflow/tfjs-core");
  const { version } = await openEngine({ name: "torch", threads });
  const backend = tf.backend() as KernelBackend & { readonly native: object };
  const Backend = backend.constructor as new (native: object) => KernelBackend;
  tf.removeBackend("torch");
  tf.registerBackend("torch", () => new Backend(backend.native));
  return `TF.js ${tf.version_core}, ${version}`;
}

function nameOf(fullName: string): string {
  return fullName.replaceAll(` ${environment} {}`, "");
}

function messageOf({ message }: { readonly message: string }): string {
  return message;
}
