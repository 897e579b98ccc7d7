/** What certificates are issued for: the roles of Paddock, and a Redis beside them. */
import { roles } from "@paddock/service-kit/client";

export const issuedRoles = [...roles, "redis"] as const;
export type IssuedRole = (typeof issuedRoles)[number];
