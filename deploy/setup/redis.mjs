/** Which Redis the run and the tests will take. Found or installed here, started by Paddock itself, never as a service. */
import { environment, run, which } from "./command.mjs";
import { say } from "./log.mjs";

/** Debian packages that are still needed; none when a URL is given. */
export function redisPackages(args) {
  return givenUrl(args) || which("redis-server", "valkey-server") ? [] : ["redis-server"];
}

/** Prints the route. Without any, the run itself ends with the error and its remedy. */
export async function reportRedis(args) {
  say("redis", await route(args));
}

async function route(args) {
  const url = givenUrl(args);
  if (url) return `given: ${url.replace(/\/\/[^@/]*@/, "//***@")}`;
  const server = which("redis-server", "valkey-server");
  if (server) return `${server}, started per run on a free loopback port`;
  if (which("docker") && (await run("docker", ["info"])).code === 0)
    return "a Docker container per run";
  return "none found: install redis-server or valkey-server, start Docker, or pass --redis URL";
}

function givenUrl(args) {
  const at = args.indexOf("--redis");
  const inline = args.find((arg) => arg.startsWith("--redis="))?.slice("--redis=".length);
  return inline ?? (at >= 0 ? args[at + 1] : undefined) ?? environment.REDIS_URL;
}
