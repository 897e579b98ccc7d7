/** What workers say, believed only as far as its form goes: names reach file names, ledgers, logs and terminals. */
import { isErrorCode, PaddockError } from "@paddock/contract";
import type { CheckpointWritten, WorkerMessage } from "@paddock/proto";

type Kind<K extends WorkerMessage["kind"]> = Extract<WorkerMessage, { kind: K }>;

/** Names of workers, units, tensors: nothing that a shell, a path or a terminal could read as its own. */
const patterns = {
  workerName: /^[A-Za-z0-9][\w.-]{0,63}$/,
  /** A plain file name. */
  file: /^[A-Za-z0-9][\w.-]{0,127}$/,
  sha256: /^[0-9a-f]{64}$/,
  ghash: /^[0-9a-f]{32}$/,
  host: /^[\w.:-]{0,253}$/,
  /** host:port, IPv6 in brackets. */
  address: /^(|[\w.-]{1,253}:\d{1,5}|\[[0-9A-Fa-f:.]{2,45}\]:\d{1,5})$/,
  word: /^[\w.:-]{0,64}$/,
  /** "weight blocks.0.attn.qkv.weight", "heads/dino". */
  tensor: /^[\w.:/ -]{0,256}$/,
} as const;

const maxTextCharacters = 4_000;

/** The message with its free texts made safe to show. Errors: `invalid-argument`, when a name has not the form of one. */
export function checkedMessage(message: WorkerMessage): WorkerMessage {
  switch (message.kind) {
    case "hello":
      checkHello(message);
      return message;
    case "progress":
      check("Progress.phase", "word", message.progress.phase);
      return message;
    case "prepared":
      checkPrepared(message);
      return message;
    case "checkpointWritten":
      checkWritten(message.checkpointWritten);
      return message;
    case "failed":
      return { ...message, failed: checkedFailure(message.failed) };
    case "checkpointFailed":
      return { ...message, checkpointFailed: checkedFailure(message.checkpointFailed) };
    case "goodbye":
      return { ...message, goodbye: { reason: plainText(message.goodbye.reason) } };
    case "leave":
      return { ...message, leave: { reason: plainText(message.leave.reason) } };
    // Numbers only, or a kind of a newer minor version, which is ignored.
    case "evaluationDone":
    case "held":
    case undefined:
      return message;
  }
}

function checkHello({ hello }: Kind<"hello">): void {
  check("Hello.workerName", "workerName", hello.workerName);
  check("Hello.host", "host", hello.host);
  check("Hello.engine", "word", hello.engine);
  check("Hello.device", "word", hello.device);
  check("Hello.peerAddress", "address", hello.peerAddress);
}

function checkPrepared({ prepared }: Kind<"prepared">): void {
  for (const { unit } of prepared.normRoots) check("NormRoot.unit", "tensor", unit);
  for (const part of Object.keys(prepared.seconds)) check("Prepared.seconds", "word", part);
  for (const { tensor } of prepared.offenders) check("Offender.tensor", "tensor", tensor);
}

function checkWritten(written: CheckpointWritten): void {
  const { file, sha256, bytes, headBytes, headSha256, ghash } = written;
  check("CheckpointWritten.file", "file", file);
  check("CheckpointWritten.sha256", "sha256", sha256);
  if (ghash !== "") check("CheckpointWritten.ghash", "ghash", ghash);
  if (headBytes > 0) check("CheckpointWritten.head_sha256", "sha256", headSha256);
  if (headBytes <= bytes) return;
  throw new PaddockError(
    "invalid-argument",
    `CheckpointWritten.head_bytes: expected at most ${bytes}, received ${headBytes}`,
  );
}

function checkedFailure<T extends { readonly code: string; readonly message: string }>(
  failure: T,
): T {
  const code = isErrorCode(failure.code) ? failure.code : "internal";
  return { ...failure, code, message: plainText(failure.message) };
}

function check(field: string, pattern: keyof typeof patterns, value: string): void {
  if (patterns[pattern].test(value)) return;
  throw new PaddockError(
    "invalid-argument",
    `${field}: expected ${patterns[pattern].source}, received ${plainText(JSON.stringify(value)).slice(0, 80)}`,
  );
}

/** Without control characters, which could rewrite a terminal; lines stay lines. */
export function plainText(text: string): string {
  const cut = text.length > maxTextCharacters ? `${text.slice(0, maxTextCharacters)} [cut]` : text;
  return cut.replace(/[^\P{C}\n\t]/gu, "?");
}
