/** A group of real processes, for tests of collectives. */
import { type ChildProcess, fork } from "node:child_process";
import { once } from "node:events";
import { fileURLToPath } from "node:url";
import type { SideAnswer, SideCommand } from "./collective-side.js";

const script = fileURLToPath(new URL("../dist/support/collective-side.js", import.meta.url));

export interface Member {
  readonly process: ChildProcess;
  tell(message: object): void;
  /** What it says next; rejects when it has ended. */
  hear<T = SideAnswer>(): Promise<T>;
}

export interface ProcessGroup {
  readonly members: readonly Member[];
  /** Gives each rank its command at once; the answers, by rank. */
  ask(commands: readonly SideCommand[]): Promise<readonly SideAnswer[]>;
  /** All ranks the same. */
  askAll(command: SideCommand): Promise<readonly SideAnswer[]>;
  close(): Promise<void>;
}

/** Starts `size` processes and connects them. */
export async function startGroup(size: number, timeoutMs = 30_000): Promise<ProcessGroup> {
  const members = Array.from({ length: size }, (_, rank) => startMember(rank, size, timeoutMs));
  const addresses = await Promise.all(members.map((member) => member.hear<number[][]>()));
  for (const [rank, member] of members.entries()) {
    member.tell(addresses.map((toAll) => toAll[rank] as number[]));
  }
  await Promise.all(members.map((member) => member.hear()));
  const group: ProcessGroup = {
    members,
    ask: (commands) =>
      Promise.all(
        commands.map((command, rank) => {
          const member = members[rank] as Member;
          member.tell(command);
          return member.hear();
        }),
      ),
    askAll: (command) => group.ask(members.map(() => command)),
    async close() {
      await Promise.all(
        members.map(async ({ process }) => {
          if (process.exitCode !== null || process.signalCode !== null) return;
          process.kill("SIGCONT");
          if (process.connected) process.disconnect();
          await once(process, "exit");
        }),
      );
    },
  };
  return group;
}

function startMember(rank: number, size: number, timeoutMs: number): Member {
  // Without the test runner's own flags: compiled packages, as users run them.
  const child = fork(script, [rank, size, timeoutMs].map(String), { execArgv: [] });
  const said: unknown[] = [];
  let ended = false;
  let wake = (): void => undefined;
  child.on("message", (message) => {
    said.push(message);
    wake();
  });
  child.on("exit", () => {
    ended = true;
    wake();
  });
  return {
    process: child,
    tell: (message) => void child.send(message),
    async hear<T>() {
      while (said.length === 0) {
        if (ended) throw new Error(`rank ${rank} ended without an answer`);
        await new Promise<void>((resolve) => {
          wake = resolve;
        });
      }
      return said.shift() as T;
    },
  };
}
