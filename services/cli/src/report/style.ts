/** The page's style sheet: quiet, legible, light and dark. */

export const style = `
:root {
  color-scheme: light dark;
  --paper: #fbfaf8; --card: #ffffff; --ink: #1d1f23; --soft: #6b7078; --rule: #e5e3de; --accent: #2f6fde;
  --c0: #2f6fde; --c1: #d9622b; --c2: #2a9468; --c3: #8a55cf; --c4: #c23b66; --c5: #7d8590;
}
@media (prefers-color-scheme: dark) {
  :root {
    --paper: #131417; --card: #1b1d21; --ink: #e8e8e6; --soft: #999fa8; --rule: #2e3137; --accent: #7aa7ff;
    --c0: #7aa7ff; --c1: #f2935f; --c2: #5cc698; --c3: #ba94f0; --c4: #ee7a9d; --c5: #a3abb6;
  }
}
* { box-sizing: border-box; }
body {
  margin: 0; background: var(--paper); color: var(--ink);
  font: 15px/1.55 system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", sans-serif;
  font-variant-numeric: tabular-nums;
}
main { max-width: 1120px; margin: 0 auto; padding: 48px 28px 64px; }
.brand { margin: 0; color: var(--soft); font-size: 13px; letter-spacing: 0.04em; }
h1 { margin: 2px 0 6px; font-size: 34px; line-height: 1.15; letter-spacing: -0.02em; }
h2 { margin: 0 0 4px; font-size: 20px; letter-spacing: -0.01em; }
.lead { margin: 0; max-width: 76ch; color: var(--soft); overflow-wrap: anywhere; }
.note { margin: 0 0 14px; max-width: 92ch; color: var(--soft); font-size: 13.5px; }
.warning { margin: 0 0 14px; max-width: 92ch; color: var(--c4); }
section { margin-top: 46px; }
.tiles { display: grid; grid-template-columns: repeat(auto-fit, minmax(160px, 1fr)); gap: 12px; margin-top: 26px; }
.tile { padding: 14px 16px; background: var(--card); border: 1px solid var(--rule); border-radius: 10px; }
.tile span, .tile small { display: block; color: var(--soft); font-size: 12.5px; }
.tile b { display: block; font-size: 25px; font-weight: 620; letter-spacing: -0.02em; line-height: 1.3; }
.tile:first-child b { color: var(--accent); }
.charts { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(430px, 100%), 1fr)); gap: 14px; }
.charts.thirds { grid-template-columns: repeat(auto-fit, minmax(min(300px, 100%), 1fr)); }
figure { margin: 0; padding: 12px 14px 8px; background: var(--card); border: 1px solid var(--rule); border-radius: 10px; }
figcaption { display: flex; flex-wrap: wrap; gap: 2px 12px; align-items: baseline; font-size: 13.5px; }
figcaption b { font-weight: 600; }
.latest { color: var(--soft); }
.keys { display: flex; flex-wrap: wrap; gap: 0 12px; margin-left: auto; font-size: 12.5px; color: var(--soft); }
.key::before { content: ""; display: inline-block; width: 10px; height: 3px; margin: 0 5px 3px 0; border-radius: 2px; background: var(--c); }
svg { display: block; width: 100%; height: auto; margin-top: 6px; }
svg text { fill: var(--soft); font-size: 11px; }
.grid { stroke: var(--rule); stroke-width: 1; }
.line { fill: none; stroke: var(--c); stroke-width: 1.8; stroke-linejoin: round; stroke-linecap: round; }
.band { fill: var(--c); opacity: 0.15; }
.dot { fill: var(--card); stroke: var(--c); stroke-width: 1.8; }
line.baseline { stroke: var(--soft); stroke-width: 1; stroke-dasharray: 4 4; }
.c0 { --c: var(--c0); } .c1 { --c: var(--c1); } .c2 { --c: var(--c2); }
.c3 { --c: var(--c3); } .c4 { --c: var(--c4); } .c5 { --c: var(--c5); }
table { border-collapse: collapse; }
th { text-align: left; font-weight: 400; color: var(--soft); }
.parts { width: 100%; margin: 8px 0; font-size: 13.5px; }
.parts td { padding: 3px 0 3px 12px; text-align: right; white-space: nowrap; }
.parts .bar { width: 45%; }
.bar i { display: block; height: 9px; border-radius: 3px; background: var(--c0); opacity: 0.85; }
.cards { display: grid; grid-template-columns: repeat(auto-fill, minmax(236px, 1fr)); gap: 14px; }
.card { padding: 10px 12px 12px; background: var(--card); border: 1px solid var(--rule); border-radius: 10px; }
.card p { margin: 0 0 6px; font-size: 13px; color: var(--soft); overflow-wrap: anywhere; }
.card img { display: block; width: 100%; border-radius: 4px; image-rendering: pixelated; }
.pair { display: grid; grid-template-columns: 1fr 1fr; gap: 6px; }
.heads { display: grid; grid-template-columns: repeat(6, 1fr); gap: 4px; margin-top: 6px; }
.recipes { columns: 3 300px; column-gap: 26px; }
.recipe { width: 100%; margin: 0 0 20px; break-inside: avoid; font-size: 13px; }
.recipe caption { padding-bottom: 2px; text-align: left; font-weight: 600; border-bottom: 1px solid var(--rule); }
.recipe td { text-align: right; overflow-wrap: anywhere; }
.recipe th, .recipe td { padding: 2px 0; vertical-align: top; }
.chosen td { font-weight: 650; } .chosen th { color: var(--ink); }
footer { margin-top: 40px; color: var(--soft); font-size: 12.5px; overflow-wrap: anywhere; }
@media print { body { background: none; } figure, .tile, .card { break-inside: avoid; } }
`;
