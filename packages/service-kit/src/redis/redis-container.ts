/** Redis in a Docker container, where Docker runs: the last route. */
import { randomBytes } from "node:crypto";
import { PaddockError } from "@paddock/contract";

const image = "redis:7.4-alpine";

export type Container =
  | { readonly kind: "started"; readonly url: string; close(): Promise<void> }
  | { readonly kind: "unavailable"; readonly reason: string };

/**
 * A started container on a free port, or why there is none. testcontainers' reaper removes it even when this process is killed.
 * The package is an optional dependency: without it this route is closed.
 */
export async function startContainer(): Promise<Container> {
  const password = randomBytes(18).toString("base64url");
  try {
    const { GenericContainer } = await import("testcontainers");
    const container = await new GenericContainer(image)
      .withExposedPorts(6379)
      .withCommand([
        "redis-server",
        ...["--requirepass", password, "--save", "", "--appendonly", "no"],
        ...["--maxmemory-policy", "noeviction"],
      ])
      .start();
    const address = `${container.getHost()}:${container.getMappedPort(6379)}`;
    return {
      kind: "started",
      url: `redis://:${password}@${address}`,
      close: async () => {
        await container.stop();
      },
    };
  } catch (error) {
    return { kind: "unavailable", reason: PaddockError.from(error).message };
  }
}
