/** HTML as text: what comes from outside is escaped, what is built here is not. */

/** Text made safe for element content and attribute values. */
export function escapeHtml(text: string): string {
  return text
    .replaceAll("&", "&amp;")
    .replaceAll("<", "&lt;")
    .replaceAll(">", "&gt;")
    .replaceAll('"', "&quot;");
}

/** A titled part of the page; nothing when its content is empty. */
export function section(title: string, content: string, note = ""): string {
  if (content === "") return "";
  const lead = note === "" ? "" : `<p class="note">${note}</p>`;
  return `<section><h2>${escapeHtml(title)}</h2>${lead}${content}</section>`;
}
