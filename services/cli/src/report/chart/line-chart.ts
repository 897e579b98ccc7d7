/** A line chart as inline SVG, coloured by the page's style sheet (classes c0 to c5) so that it follows light and dark. */
import { escapeHtml } from "../html.js";
import { type Bucket, bucketed, type Point } from "./buckets.js";
import { linearScale, type Scale, tickLabel } from "./scale.js";

export interface Series {
  readonly name: string;
  readonly points: readonly Point[];
}

export interface LineChart {
  readonly title: string;
  readonly series: readonly Series[];
  /** What x counts. Default "step". */
  readonly xName?: string;
  /** Marks every point: for few points. */
  readonly dots?: boolean;
  /** A dashed horizontal line with a label. */
  readonly baseline?: { readonly y: number; readonly label: string };
  /** Always show y = 0. */
  readonly fromZero?: boolean;
  /** y counts things: ticks are whole. */
  readonly whole?: boolean;
  /** Short form: for small multiples. */
  readonly small?: boolean;
  /** Text of the latest value, shown beside the title. */
  readonly latest?: string;
}

const margin = { left: 46, right: 14, top: 12, bottom: 24 };
const limit = 240;

interface Frame {
  readonly width: number;
  readonly height: number;
  readonly x: Scale;
  readonly y: Scale;
}

/** A `figure` with title, legend and chart; nothing when no series has a point. */
export function lineChart(chart: LineChart): string {
  const lines = chart.series
    .map(({ name, points }) => ({ name, buckets: bucketed(points, limit) }))
    .filter(({ buckets }) => buckets.length > 0);
  if (lines.length === 0) return "";
  const frame = frameOf(
    chart,
    lines.flatMap(({ buckets }) => buckets),
  );
  const { width, height } = frame;
  const drawn = lines.map(({ buckets }, i) => drawLine(buckets, i, frame, chart.dots === true));
  const svg = [
    `<svg viewBox="0 0 ${width} ${height}" role="img" aria-label="${escapeHtml(chart.title)}">`,
    axes(frame, chart.xName ?? "step"),
    chart.baseline ? baselineOf(chart.baseline, frame) : "",
    ...drawn,
    "</svg>",
  ].join("");
  return `<figure${chart.small ? ' class="small"' : ""}>${caption(chart, lines.length > 1)}${svg}</figure>`;
}

function caption({ title, series, latest }: LineChart, legend: boolean): string {
  const value = latest === undefined ? "" : `<span class="latest">${escapeHtml(latest)}</span>`;
  const keys = series
    .filter(({ points }) => points.length > 0)
    .map(({ name }, i) => `<span class="key c${i}">${escapeHtml(name)}</span>`)
    .join("");
  return `<figcaption><b>${escapeHtml(title)}</b>${value}${legend ? `<span class="keys">${keys}</span>` : ""}</figcaption>`;
}

function frameOf(
  { series, small, fromZero, baseline, whole }: LineChart,
  buckets: readonly Bucket[],
): Frame {
  const width = small ? 340 : 560;
  const height = small ? 150 : 240;
  const xs = series.flatMap(({ points }) => points.map(({ x }) => x));
  const ys = buckets.flatMap(({ low, high }) => [low, high]);
  if (fromZero) ys.push(0);
  if (baseline) ys.push(baseline.y);
  const x = linearScale({
    low: least(xs),
    high: greatest(xs),
    from: margin.left,
    to: width - margin.right,
    count: small ? 4 : 6,
    round: false,
  });
  const y = linearScale({
    low: least(ys),
    high: greatest(ys),
    from: height - margin.bottom,
    to: margin.top,
    count: small ? 3 : 5,
    round: true,
    minStep: whole ? 1 : 0,
  });
  return { width, height, x, y };
}

// Math.min(...values) would overflow the stack on long series.
const least = (values: readonly number[]): number =>
  values.reduce((a, b) => Math.min(a, b), Number.POSITIVE_INFINITY);
const greatest = (values: readonly number[]): number =>
  values.reduce((a, b) => Math.max(a, b), Number.NEGATIVE_INFINITY);

function axes({ width, height, x, y }: Frame, xName: string): string {
  const right = width - margin.right;
  const bottom = height - margin.bottom;
  const horizontal = y.ticks.map((tick) => {
    const at = y.at(tick).toFixed(1);
    return `<line class="grid" x1="${margin.left}" x2="${right}" y1="${at}" y2="${at}"/><text x="${margin.left - 7}" y="${at}" dy="0.35em" text-anchor="end">${tickLabel(tick, stepOf(y))}</text>`;
  });
  // The axis' name takes the place of labels near the right end.
  const vertical = x.ticks
    .filter((tick) => x.at(tick) < right - 44)
    .map((tick) => {
      const at = x.at(tick).toFixed(1);
      return `<text x="${at}" y="${bottom + 16}" text-anchor="middle">${tickLabel(tick, stepOf(x))}</text>`;
    });
  const name = `<text class="axis" x="${right}" y="${bottom + 16}" text-anchor="end">${escapeHtml(xName)}</text>`;
  return [...horizontal, ...vertical, name].join("");
}

function stepOf({ ticks }: Scale): number {
  return ticks.length > 1
    ? (ticks[1] as number) - (ticks[0] as number)
    : Math.abs(ticks[0] ?? 1) || 1;
}

function drawLine(
  buckets: readonly Bucket[],
  color: number,
  { x, y }: Frame,
  dots: boolean,
): string {
  const place = (px: number, py: number): string => `${x.at(px).toFixed(1)},${y.at(py).toFixed(1)}`;
  const line = buckets.map((b) => place(b.x, b.y)).join(" ");
  const upper = buckets.map((b) => place(b.x, b.high));
  const lower = buckets.map((b) => place(b.x, b.low)).reverse();
  const hasBand = buckets.some((b) => b.high > b.low);
  const band = hasBand
    ? `<polygon class="band c${color}" points="${[...upper, ...lower].join(" ")}"/>`
    : "";
  const marks = dots || buckets.length === 1 ? buckets.map((b) => dot(b, color, { x, y })) : [];
  return `${band}<polyline class="line c${color}" points="${line}"/>${marks.join("")}`;
}

function dot(b: Bucket, color: number, { x, y }: Pick<Frame, "x" | "y">): string {
  const title = `<title>${Math.round(b.x)}: ${Number(b.y.toPrecision(6))}</title>`;
  return `<circle class="dot c${color}" cx="${x.at(b.x).toFixed(1)}" cy="${y.at(b.y).toFixed(1)}" r="3">${title}</circle>`;
}

function baselineOf(
  { y: value, label }: { y: number; label: string },
  { width, y }: Frame,
): string {
  const at = y.at(value).toFixed(1);
  return `<line class="baseline" x1="${margin.left}" x2="${width - margin.right}" y1="${at}" y2="${at}"/><text class="baseline" x="${width - margin.right}" y="${at}" dy="-0.5em" text-anchor="end">${escapeHtml(label)}</text>`;
}
