/** `steps.jsonl`: one object per committed step, for people and scripts. The ledger is the truth; this is its story. */
import { type FileHandle, open } from "node:fs/promises";
import type { StepRecord } from "@paddock/contract";
import { diskError } from "@paddock/service-kit";

export interface StepsFile {
  /** Appends, or changes nothing; visible to readers at once, durable after `sync`. Numbers that are not finite become null. */
  write(record: StepRecord): Promise<void>;
  /** Drops the records of `step` and later, and whatever follows a damaged line. Resolves with the number left. */
  truncate(step: number): Promise<number>;
  sync(): Promise<void>;
  /** The first and the last record. */
  ends(): Promise<{ readonly first: StepRecord; readonly last: StepRecord } | undefined>;
  close(): Promise<void>;
}

/** Opens or creates the file. The caller closes it; calls must not overlap. */
export async function openStepsFile(path: string): Promise<StepsFile> {
  const file = await attempt(`open ${path}`, () => open(path, "a+"));
  return {
    write: (record) =>
      attempt(`append to ${path}`, async () => {
        const { size } = await file.stat();
        try {
          await file.appendFile(`${JSON.stringify(record)}\n`);
        } catch (error) {
          await file.truncate(size);
          throw error;
        }
      }),
    truncate: (step) => attempt(`truncate ${path}`, () => truncate(file, step)),
    sync: () => attempt(`fsync ${path}`, () => file.datasync()),
    async ends() {
      const lines = (await read(file)).toString("utf8").split("\n").slice(0, -1);
      const [first, last] = [parse(lines[0] ?? ""), parse(lines.at(-1) ?? "")];
      return first && last ? { first, last } : undefined;
    },
    close: () => file.close(),
  };
}

async function truncate(file: FileHandle, step: number): Promise<number> {
  const bytes = await read(file);
  let kept = 0;
  let end = 0;
  for (let next = bytes.indexOf("\n"); next >= 0; next = bytes.indexOf("\n", end)) {
    const record = parse(bytes.toString("utf8", end, next));
    if (!record || record.step >= step) break;
    kept += 1;
    end = next + 1;
  }
  if (end < bytes.length) await file.truncate(end);
  return kept;
}

/** Undefined for a damaged line. */
function parse(line: string): StepRecord | undefined {
  try {
    return JSON.parse(line) as StepRecord;
  } catch {
    return undefined;
  }
}

/** The whole file: a long run has some 100 MB, read once per generation. */
async function read(file: FileHandle): Promise<Buffer> {
  const { size } = await file.stat();
  const bytes = Buffer.alloc(size);
  const { bytesRead } = await file.read(bytes, 0, size, 0);
  return bytes.subarray(0, bytesRead);
}

async function attempt<T>(doing: string, work: () => Promise<T>): Promise<T> {
  try {
    return await work();
  } catch (error) {
    throw diskError(error, doing);
  }
}
