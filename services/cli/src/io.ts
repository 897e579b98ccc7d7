/** What commands know of the outside: where they write and what the environment says. Made in main.ts, faked in tests. */

export interface Io {
  /** Results. */
  out(text: string): void;
  /** Everything that is not a result. */
  err(text: string): void;
  /** Whether `out` is a terminal that can be redrawn. */
  readonly isTerminal: boolean;
  /** Width of that terminal in characters. */
  columns(): number;
  /** Environment variables: REDIS_URL, and what worker processes inherit. */
  readonly environment: NodeJS.ProcessEnv;
  /** Folder that relative paths of flags are relative to. */
  readonly cwd: string;
}
