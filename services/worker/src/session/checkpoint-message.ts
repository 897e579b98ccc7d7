/** What a worker says of its file of a checkpoint. */
import { PaddockError } from "@paddock/contract";
import type { WorkerMessage } from "@paddock/proto";
import type { WrittenFile } from "../checkpoint/writer.js";

interface Of {
  readonly generation: number;
  readonly step: number;
  readonly worker: number;
}

/** Once it is there, or cannot be: that costs the checkpoint, not the generation, which may have ended meanwhile. */
export function tellOfFile(
  written: Promise<WrittenFile>,
  of: Of,
  tell: (message: WorkerMessage) => void,
): void {
  written.then(
    (file) => tell(writtenMessage(file, of)),
    (thrown) => {
      const { code, message } = PaddockError.from(thrown);
      const { generation, step } = of;
      tell({ kind: "checkpointFailed", checkpointFailed: { generation, step, code, message } });
    },
  );
}

function writtenMessage(
  { name: file, bytes, sha256, head }: WrittenFile,
  { generation, step, worker }: Of,
): WorkerMessage {
  const [headBytes, headSha256] = [head?.bytes ?? 0, head?.sha256 ?? ""];
  return {
    kind: "checkpointWritten",
    checkpointWritten: { generation, step, file, bytes, sha256, worker, headBytes, headSha256 },
  };
}
