/** Folders that tests leave behind, and what to close after a test. */
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";

/** What to undo, last first. */
export class Cleanup {
  readonly #undo: (() => unknown)[] = [];

  add(undo: () => unknown): void {
    this.#undo.push(undo);
  }

  async run(): Promise<void> {
    for (const undo of this.#undo.splice(0).reverse()) await undo();
  }

  /** A new empty folder, removed by `run`. */
  async folder(): Promise<string> {
    const path = await mkdtemp(join(tmpdir(), "paddock-"));
    this.add(() => rm(path, { recursive: true, force: true }));
    return path;
  }
}
