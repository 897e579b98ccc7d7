/** URLs of a Redis: with password, with TLS, and with the authority that its certificate is of; and how to show one. */
/** A `rediss://` URL with the authority's certificates (PEM) in it, so that whoever is told the URL trusts the same. */
export function withRedisCa(url: string, pem: string): string {
  const packed = Buffer.from(pem).toString("base64url");
  return `${url}${url.includes("?") ? "&" : "?"}paddock-ca=${packed}`;
}

const caInUrl = /[?&]paddock-ca=([\w-]+)$/;

/** The URL as it may be shown: user, password and certificates left out. A password may hold "/" and "@". */
export function hideSecret(url: string): string {
  return url.replace(caInUrl, "").replace(/\/\/.*@/, "//***@");
}

/** A URL for ioredis, and the option that goes with it. */
export interface RedisTarget {
  readonly url: string;
  /** Empty without an authority of its own. */
  readonly tls: { readonly tls?: { readonly ca: Buffer } };
}

export function redisTarget(url: string): RedisTarget {
  const packed = caInUrl.exec(url)?.[1];
  const tls = packed ? { tls: { ca: Buffer.from(packed, "base64url") } } : {};
  return { url: url.replace(caInUrl, ""), tls };
}

/** The host of the URL, or undefined when it is none. */
export function redisHost(url: string): string | undefined {
  try {
    return new URL(url).hostname;
  } catch {
    return undefined;
  }
}
