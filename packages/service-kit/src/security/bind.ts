/** Where a server may listen: on this machine only, unless it is protected or somebody says that the network is. */
import { BlockList, isIP, isIPv6 } from "node:net";
import { PaddockError } from "@paddock/contract";

const loopback = new BlockList();
loopback.addSubnet("127.0.0.0", 8, "ipv4");
loopback.addAddress("::1", "ipv6");

/** Whether only this machine reaches a server there. Names other than localhost do not count: they may come to mean anything. */
export function isLoopback(host: string): boolean {
  const plain = host.replace(/^\[(.*)\]$/, "$1").replace(/^::ffff:(?=\d+\.)/i, "");
  if (isIP(plain) === 0) return plain.toLowerCase() === "localhost";
  return loopback.check(plain, isIPv6(plain) ? "ipv6" : "ipv4");
}

export interface Bind {
  /** What listens there, for messages: "the coordinator". */
  readonly what: string;
  readonly host: string;
  readonly isEncrypted: boolean;
  /** Somebody asked for it with --insecure-bind. */
  readonly isInsecureAllowed: boolean;
}

/**
 * Undefined when it is fine to listen there, a warning when it is only allowed. Errors: `permission-denied` for an address that others
 * reach, without TLS and without being asked for.
 */
export function checkBind(bind: Bind): string | undefined {
  const { what, host, isEncrypted, isInsecureAllowed } = bind;
  if (isEncrypted || isLoopback(host)) return undefined;
  if (isInsecureAllowed) {
    return `${what} listens on ${host} without TLS: whoever reaches that address can read and change what goes through it`;
  }
  throw new PaddockError(
    "permission-denied",
    `expected TLS (--tls-dir DIR, made by: paddock certs init) or a loopback address for ${what}, received ${host} without TLS; in a network that you trust, add --insecure-bind`,
  );
}
