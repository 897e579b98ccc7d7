/** Certificates for tests: a fleet's folder with an authority, and odd ones beside it. */
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { createAuthority, issueCertificate, type KeyedCertificate } from "./authority.js";
import { roles } from "./identity.js";

const dayMs = 86_400_000;

/** Days from now. */
export interface Validity {
  readonly from: number;
  readonly to: number;
}

export interface TestFleet {
  /** ca.crt and the files of every role. */
  readonly dir: string;
  /** Replaces the files of a role, or of `as` with a certificate for `role`. */
  issue(
    role: string,
    o?: { readonly as?: string; readonly validity?: Validity },
  ): Promise<KeyedCertificate>;
  remove(): void;
}

export async function testFleet(): Promise<TestFleet> {
  const dir = mkdtempSync(join(tmpdir(), "paddock-tls-"));
  const dates = ({ from, to }: Validity) => ({
    notBefore: new Date(Date.now() + from * dayMs),
    notAfter: new Date(Date.now() + to * dayMs),
  });
  const authority = await createAuthority({ name: "test", ...dates({ from: -30, to: 30 }) });
  writeFileSync(join(dir, "ca.crt"), authority.cert);
  const fleet: TestFleet = {
    dir,
    async issue(role, { as = role, validity = { from: -1, to: 1 } } = {}) {
      const issued = await issueCertificate(authority, {
        ...{ role, name: `${role}-1`, hosts: ["127.0.0.1"] },
        ...dates(validity),
      });
      writeFileSync(join(dir, `${as}.crt`), issued.cert);
      writeFileSync(join(dir, `${as}.key`), issued.key);
      return issued;
    },
    remove: () => rmSync(dir, { recursive: true, force: true }),
  };
  for (const role of roles) await fleet.issue(role);
  return fleet;
}
