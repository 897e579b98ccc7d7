/** Who may call which service: checked before a handler sees the call. */
import {
  type Metadata,
  ServerInterceptingCall,
  type ServerInterceptingCallInterface,
  type ServerInterceptor,
} from "@grpc/grpc-js";
import { type ErrorCode, PaddockError } from "@paddock/contract";
import { isLoopback } from "../security/bind.js";
import { commonNameOf, type PeerIdentity, type Role, roleOfNames } from "../security/identity.js";
import type { ReportRefusal } from "../security/refusals.js";
import { toServiceError } from "./errors.js";

/** Who may call a service. */
interface Access {
  /** With TLS: roles of certificates. */
  readonly roles: readonly Role[];
  /** Without TLS nobody is known: `local` leaves only callers on this machine. */
  readonly withoutTls: "anybody" | "local";
}

/** Every service of ours; one that is not here answers nobody. */
const accessByService: Readonly<Record<string, Access>> = {
  // Without TLS the coordinator asks for a join token.
  "paddock.v1.WorkerService": { roles: ["worker"], withoutTls: "anybody" },
  "paddock.v1.PeerService": { roles: ["worker"], withoutTls: "anybody" },
  "paddock.v1.RunService": { roles: ["client", "coordinator"], withoutTls: "local" },
};
const nobody: Access = { roles: [], withoutTls: "local" };

export type AuthContext = ReturnType<ServerInterceptingCallInterface["getAuthContext"]>;

/** The peer of a connection whose certificate was verified; undefined without TLS. */
export function peerIdentityOf({ sslPeerCertificate }: AuthContext): PeerIdentity | undefined {
  if (!sslPeerCertificate) return undefined;
  const role = roleOfNames(sslPeerCertificate.subjectaltname);
  if (!role) return undefined;
  return { role, name: commonNameOf(`CN=${String(sslPeerCertificate.subject.CN ?? "")}`) };
}

/** Names and values of a call's metadata, all together: far more than ours have. */
const maxMetadataBytes = 16 * 1024;

/** Refuses calls of those who may not make them, and metadata without measure; health and reflection answer whoever was let in. */
export function accessInterceptor(isEncrypted: boolean, report: ReportRefusal): ServerInterceptor {
  return (method, call) => {
    const refuse = (code: ErrorCode, why: string): void => {
      const identity = peerIdentityOf(call.getAuthContext());
      const who = identity ? `${identity.role} ${identity.name}` : "unknown";
      report({ who, from: call.getPeer(), why, call: method.path });
      call.sendStatus(toServiceError(new PaddockError(code, `${method.path}: ${why}`)));
    };
    const service = method.path.split("/")[1] ?? "";
    const why = service.startsWith("paddock.")
      ? refusalOf(accessByService[service] ?? nobody, call, isEncrypted)
      : undefined;
    return new ServerInterceptingCall(call, {
      start(next) {
        if (why !== undefined) {
          // Never started: the handler does not see it.
          refuse("permission-denied", why);
          return;
        }
        next({
          onReceiveMetadata(metadata, pass) {
            const bytes = sizeOf(metadata);
            if (bytes <= maxMetadataBytes) pass(metadata);
            else {
              const expected = `expected at most ${maxMetadataBytes} bytes of metadata`;
              refuse("invalid-argument", `${expected}, received ${bytes}`);
            }
          },
        });
      },
    });
  };
}

function sizeOf(metadata: Metadata): number {
  const values = Object.entries(metadata.toHttp2Headers());
  return values.reduce((sum, [name, value]) => sum + name.length + String(value ?? "").length, 0);
}

function refusalOf(
  { roles, withoutTls }: Access,
  call: ServerInterceptingCallInterface,
  isEncrypted: boolean,
): string | undefined {
  if (isEncrypted) {
    const role = peerIdentityOf(call.getAuthContext())?.role;
    if (role !== undefined && roles.includes(role)) return undefined;
    return `expected a certificate of the role ${roles.join(" or ")}, received ${role ?? "one without a role"}`;
  }
  const from = call.getConnectionInfo().remoteAddress;
  if (withoutTls === "anybody" || (from !== undefined && isLoopback(from))) return undefined;
  return "expected a caller on this machine, as there is no TLS; start the coordinator with --tls-dir to steer it from elsewhere";
}
