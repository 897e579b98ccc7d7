/** What a doctor's check finds. */
import { PaddockError } from "@paddock/contract";

export interface Finding {
  readonly name: string;
  readonly ok: boolean;
  /** What was found. */
  readonly detail: string;
  /** What to do when it is not ok; empty otherwise. */
  readonly remedy: string;
}

/** What a working part says of itself; throwing means it does not work. `advice` is for what works but could be better. */
export interface Healthy {
  readonly detail: string;
  readonly advice?: string | undefined;
}

/** Runs one check. The remedy of a failure is the part of its message after the last "; ", where our errors have it. */
export async function check(name: string, probe: () => Promise<Healthy>): Promise<Finding> {
  try {
    const { detail, advice = "" } = await probe();
    return { name, ok: true, detail, remedy: advice };
  } catch (thrown) {
    const { message } = PaddockError.from(thrown);
    const at = message.lastIndexOf("; ");
    return {
      name,
      ok: false,
      detail: at < 0 ? message : message.slice(0, at),
      remedy: at < 0 ? "" : message.slice(at + 2),
    };
  }
}
