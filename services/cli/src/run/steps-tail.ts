/** Follows `steps.jsonl`: whoever looks often enough sees every committed step, however fast they come. */
import { closeSync, fstatSync, openSync, readSync } from "node:fs";
import { join } from "node:path";

export interface StepsTail {
  /** The whole lines that were appended since the last look, without their line ends. */
  take(): string[];
}

/**
 * Starts at the file's present end. When the file gets shorter (steps of a lost generation are cut off), it goes on from
 * there: steps that are committed again are seen again.
 */
export function followSteps(runDir: string): StepsTail {
  const path = join(runDir, "steps.jsonl");
  let offset = sizeOf(path);
  return {
    take() {
      const size = sizeOf(path);
      if (size <= offset) {
        offset = size;
        return [];
      }
      const text = read(path, offset, size);
      const end = text.lastIndexOf("\n") + 1;
      offset += Buffer.byteLength(text.slice(0, end));
      return text.slice(0, end).split("\n").slice(0, -1);
    },
  };
}

function sizeOf(path: string): number {
  return withFile(path, (file) => fstatSync(file).size) ?? 0;
}

function read(path: string, start: number, end: number): string {
  const bytes = Buffer.alloc(end - start);
  const length = withFile(path, (file) => readSync(file, bytes, 0, bytes.length, start)) ?? 0;
  return bytes.toString("utf8", 0, length);
}

/** undefined when there is no such file yet. */
function withFile<T>(path: string, use: (file: number) => T): T | undefined {
  let file: number;
  try {
    file = openSync(path, "r");
  } catch {
    return undefined;
  }
  try {
    return use(file);
  } finally {
    closeSync(file);
  }
}
