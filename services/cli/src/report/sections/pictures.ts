/** What the teacher sees: patch features as colours, attention as brightness. */
import { escapeHtml, section } from "../html.js";
import type { ReportData } from "../read-run.js";

export function picturesSection({ visuals }: ReportData): string {
  const cards = visuals.map(({ label, source, pca, attention }) => {
    const maps = attention.map((uri, head) => image(uri, `attention head ${head + 1}`)).join("");
    return `<div class="card"><p>${escapeHtml(label)}</p><div class="pair">${image(source, "image")}${image(pca, "PCA of patch features")}</div><div class="heads">${maps}</div></div>`;
  });
  return section(
    "What the teacher sees",
    cards.length === 0 ? "" : `<div class="cards">${cards.join("")}</div>`,
    "Held-out images. Beside each: its patch features, their three main components over all these images shown as red, green and blue. Below: attention of the class token in the last block, one map per head.",
  );
}

function image(uri: string, alt: string): string {
  return `<img src="${uri}" alt="${alt}" title="${alt}">`;
}
