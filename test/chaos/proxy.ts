/** A TCP proxy between a worker and its coordinator: passes bytes on, or cuts, holds or delays them. */
import { once } from "node:events";
import { type AddressInfo, connect, createServer, type Socket } from "node:net";

export interface TcpProxy {
  readonly port: number;
  /** Breaks every connection. */
  cut(): void;
  /** Half-open: connections stand, nothing passes for `ms`; then they break, as a router that forgot them would have it. */
  hold(ms: number): Promise<void>;
  /** Every chunk is `byMs` late, for `ms`. */
  delay(byMs: number, ms: number): Promise<void>;
  close(): void;
}

export async function startProxy(upstreamPort: number): Promise<TcpProxy> {
  const sockets = new Set<Socket>();
  let [isHeld, lateMs] = [false, 0];
  const keep = (socket: Socket, peer: Socket): void => {
    sockets.add(socket);
    socket.setNoDelay(true);
    socket.on("error", () => undefined);
    socket.once("close", () => {
      sockets.delete(socket);
      peer.destroy();
    });
    let passed = Promise.resolve();
    socket.on("data", (data) => {
      if (isHeld) return;
      const dueMs = performance.now() + lateMs;
      // One after the other: no chunk overtakes another when the delay ends.
      passed = passed.then(async () => {
        const waitMs = dueMs - performance.now();
        if (waitMs > 0) await pause(waitMs);
        if (!peer.destroyed) peer.write(data);
      });
    });
  };
  const server = createServer((near) => {
    const far = connect(upstreamPort, "127.0.0.1");
    keep(near, far);
    keep(far, near);
  });
  server.listen(0, "127.0.0.1");
  await once(server, "listening");
  const cut = (): void => {
    for (const socket of sockets) socket.destroy();
  };
  return {
    port: (server.address() as AddressInfo).port,
    cut,
    async hold(ms) {
      isHeld = true;
      await pause(ms);
      isHeld = false;
      cut();
    },
    async delay(byMs, ms) {
      lateMs = byMs;
      await pause(ms);
      lateMs = 0;
    },
    close() {
      server.close();
      cut();
    },
  };
}

export function pause(ms: number): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve, ms));
}
