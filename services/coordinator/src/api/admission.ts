/** Who may join the run: with TLS whoever has a worker's certificate; else, and where tokens were made, whoever has a token. */
import { PaddockError } from "@paddock/contract";
import {
  type CallContext,
  checkJoinToken,
  isLoopback,
  joinTokenHeader,
  type TlsOptions,
} from "@paddock/service-kit";
import { addJoinToken, openJoinTokens } from "../run-dir/join-tokens.js";

export interface CoordinatorSecurity {
  /** Certificates on both sides of every connection. */
  readonly tls?: TlsOptions | undefined;
  /** Workers must have this token, or another one of the run directory. Its hash is kept there. */
  readonly joinToken?: string | undefined;
  /** A token for workers that this process starts itself. Does not oblige others. */
  readonly localToken?: string | undefined;
  /** Listen without TLS where other machines reach it. */
  readonly insecureBind?: boolean;
}

export interface AdmissionOptions {
  readonly runDir: string;
  readonly host: string;
  readonly security: CoordinatorSecurity | undefined;
  /** The run's id; empty before there is one. */
  readonly runId: () => string;
}

/**
 * A check that rejects with `unauthenticated`. Errors: `invalid-argument` when workers would come over an open network and there is no
 * token that could tell them from others.
 */
export async function openAdmission(
  options: AdmissionOptions,
): Promise<(context: CallContext) => Promise<void>> {
  const { runDir, host, security = {}, runId } = options;
  const { tls, joinToken, localToken } = security;
  if (joinToken !== undefined) {
    await addJoinToken(runDir, checkJoinToken(joinToken, "--join-token-file"), null);
  }
  const tokens = openJoinTokens(runDir, localToken === undefined ? [] : [localToken]);
  const isOpen = tls === undefined && !isLoopback(host);
  if (isOpen && !(await tokens.areUsed())) {
    throw new PaddockError(
      "invalid-argument",
      `expected a join token for workers, as ${host} is reached without TLS; make one with: paddock token create --out FILE, and pass --join-token-file FILE to coordinator and workers`,
    );
  }
  return async (context) => {
    if (!isOpen && !(await tokens.areUsed())) return;
    const why = await tokens.refusalOf(context.header(joinTokenHeader), runId(), Date.now());
    if (why === undefined) return;
    throw new PaddockError(
      "unauthenticated",
      `expected a worker with a join token of this run, but ${why}; make one with: paddock token create --run-dir DIR, and pass it with --join-token-file FILE`,
    );
  };
}
