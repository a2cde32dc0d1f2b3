"use strict";
// The items of the report: filtered, and rendered when they are opened. Text from models and input
// is only ever set as textContent, so it cannot inject HTML.
const report = JSON.parse(document.getElementById("report").textContent);
const MARKS = { accepted: "✓", revised: "↺", "given up": "✕", error: "!", passed: "✓", failed: "✕", impossible: "✕" };
const PAGE = 100;
const byId = (id) => document.getElementById(id);

function node(tag, className, text) {
  const element = document.createElement(tag);
  if (className) element.className = className;
  if (text !== undefined) element.textContent = text;
  return element;
}

function marked(word) {
  const element = node("span", "mark " + word.replaceAll(" ", "-"));
  const sign = node("i", "", MARKS[word] || "");
  sign.setAttribute("aria-hidden", "true");
  element.append(sign, word);
  return element;
}

// Lists -------------------------------------------------------------------------------------------

let shown = [];
let rendered = 0;

function fits(item, outcome, check, text) {
  return (!outcome || item.outcome === outcome)
    && (check === "" || item.refused.includes(Number(check)))
    && (!text || item.found.includes(text));
}

function filter() {
  const outcome = byId("f-outcome").value, check = byId("f-check").value;
  const text = byId("f-text").value.trim().toLowerCase();
  shown = report.items.filter((item) => fits(item, outcome, check, text));
  rendered = 0;
  byId("list").replaceChildren();
  more();
}

function more() {
  const next = shown.slice(rendered, rendered + PAGE);
  byId("list").append(...next.map(row));
  rendered += next.length;
  byId("more").hidden = rendered >= shown.length;
  byId("f-count").textContent = shown.length === report.items.length && rendered === shown.length
    ? `${shown.length} items` : `showing ${rendered} of ${shown.length}` + (shown.length < report.items.length ? `, ${report.items.length} on this page` : "");
}

function row(item) {
  const element = node("li"), details = node("details"), line = node("summary");
  const said = item.reply.replace(/\s+/g, " ") || item.why;
  line.append(marked(item.outcome), node("span", "id", item.id), node("span", "said", said), node("span", "cost", cost(item)));
  details.append(line);
  details.addEventListener("toggle", () => {
    if (details.open && details.children.length === 1) details.append(opened(item));
  });
  element.append(details);
  return element;
}

const count = (number, word) => `${number} ${word}${number === 1 ? "" : "s"}`;

function cost(item) {
  if (item.source !== "model") return `from a ${item.source}`;
  const parts = [count(item.tokens.computed, "token")];
  if (item.rounds > 1) parts.unshift(count(item.rounds, "round"));
  if (item.backtracks) parts.unshift(`${item.backtracks} taken back`);
  return parts.join(", ");
}

// One item ----------------------------------------------------------------------------------------

function opened(item) {
  const element = node("div", "item"), left = node("div"), right = node("div");
  left.append(node("h3", "", "message"), ...item.messages.map(turn));
  right.append(node("h3", "", item.accepted ? "reply" : "best reply, not accepted"));
  right.append(textWithSpans(item.reply, item.verdicts), verdicts(item.verdicts), node("p", "why", item.why));
  const spent = `${item.tokens.reply} tokens in the reply, ${item.tokens.computed} computed, ${item.tokens.discarded} discarded, ${item.tokens.prompt} for the prompt`;
  if (item.rule) right.append(node("small", "", `rule: ${item.rule}`));
  if (item.refused_answer) right.append(node("small", "", `the ready answer did not pass: ${item.refused_answer}`));
  if (item.source === "model") right.append(node("small", "", spent));
  element.append(left, right);
  if (item.drafts.length > 1) element.append(rounds(item.drafts));
  return element;
}

function turn([role, content]) {
  const element = node("p", content.length > 400 ? "turn long" : "turn");
  if (content.length > 400) element.tabIndex = 0;
  element.append(node("b", "", role), content);
  return element;
}

function textWithSpans(text, list) {
  const element = node("p", "reply");
  const spans = list.filter((v) => !v.passed && v.span).map((v) => v.span).sort((a, b) => a[0] - b[0]);
  // Spans count code points, as Python does; strings here count UTF-16 units.
  const points = Array.from(text);
  let at = 0;
  for (const [start, end] of spans) {
    if (start < at || end <= start) continue;
    element.append(points.slice(at, start).join(""), node("mark", "", points.slice(start, end).join("")));
    at = end;
  }
  element.append(points.slice(at).join("") || (text ? "" : "(no text)"));
  return element;
}

function verdicts(list) {
  const element = node("ul", "verdicts");
  for (const v of list) {
    const line = node("li"), name = node("span", "", report.checks[v.check]);
    const message = v.error || v.message;
    if (message) name.append(node("small", "", message));
    line.append(marked(v.error ? "error" : v.passed ? "passed" : "failed"), name);
    element.append(line);
  }
  return element;
}

// Drafts ------------------------------------------------------------------------------------------

function rounds(drafts) {
  const element = node("div", "rounds");
  element.append(node("h3", "", "drafts"));
  let before = null;
  for (const group of grouped(drafts)) {
    const round = node("div", "round"), list = node("ol", "drafts");
    round.append(node("h3", "", `round ${group[0].round + 1}` + (before === null ? "" : ", compared with the round before")));
    group.forEach((draft, n) => list.append(oneDraft(draft, n === group.length - 1 ? before : null)));
    before = whole(group[group.length - 1]);
    round.append(list);
    element.append(round);
  }
  return element;
}

function grouped(drafts) {
  const groups = [];
  for (const draft of drafts) {
    const last = groups[groups.length - 1];
    if (last && last[0].round === draft.round) last.push(draft);
    else groups.push([draft]);
  }
  return groups;
}

const whole = (draft) => draft.before + draft.taken;

function oneDraft(draft, before) {
  const element = node("li"), text = node("p", "text");
  if (before === whole(draft)) text.append(before, node("small", "", "the same text as in the round before"));
  else if (before !== null) text.append(...differences(before, whole(draft)));
  else {
    text.append(node("span", draft.taken ? "before" : "", draft.before));
    if (draft.taken) text.append(node("del", "", draft.taken));
    if (draft.tried.length) text.append(node("small", "", ` after ${count(draft.tried.length, "other text")} at this place: `), ...draft.tried.flatMap((tried) => [node("del", "", tried), " "]));
  }
  element.append(text);
  if (draft.checks.length) {
    const lost = draft.lost ? ` (${count(draft.lost, "token")} taken back)` : "";
    const reason = node("small");
    reason.append(marked("failed"), ` ${draft.message}${lost}`);
    element.append(reason);
  } else element.append(node("small", "", draft.message));
  return element;
}

// The longest common subsequence of words, by the quadratic table; long texts skip it.
function differences(before, after) {
  const a = words(before), b = words(after);
  if (a.length * b.length > 250000) return [after];
  const best = Array.from({ length: a.length + 1 }, () => new Uint16Array(b.length + 1));
  for (let i = a.length - 1; i >= 0; i--)
    for (let j = b.length - 1; j >= 0; j--)
      best[i][j] = a[i] === b[j] ? best[i + 1][j + 1] + 1 : Math.max(best[i + 1][j], best[i][j + 1]);
  const parts = [];
  let i = 0, j = 0;
  const put = (tag, word) => {
    const last = parts[parts.length - 1];
    if (last && last[0] === tag) last[1] += word;
    else parts.push([tag, word]);
  };
  while (i < a.length || j < b.length) {
    if (i < a.length && j < b.length && a[i] === b[j]) { put("span", b[j]); i++; j++; }
    else if (i < a.length && (j === b.length || best[i + 1][j] >= best[i][j + 1])) put("del", a[i++]);
    else put("ins", b[j++]);
  }
  return parts.map(([tag, text]) => node(tag, "", text));
}

const words = (text) => text.match(/\s*\S+|\s+$/g) || [];

// Start -------------------------------------------------------------------------------------------

function options(select, pairs) {
  for (const [value, text] of pairs) {
    const option = node("option", "", text);
    option.value = value;
    select.append(option);
  }
}

const outcomes = new Map();
for (const item of report.items) {
  outcomes.set(item.outcome, (outcomes.get(item.outcome) || 0) + 1);
  item.found = [item.id, item.reply, ...item.messages.map((m) => m[1])].join("\n").toLowerCase();
}
options(byId("f-outcome"), [...outcomes].map(([name, n]) => [name, `${name} (${n})`]));
options(byId("f-check"), report.checks.map((name, n) => [String(n), name]));
byId("filter").addEventListener("submit", (event) => event.preventDefault());
byId("f-outcome").addEventListener("change", filter);
byId("f-check").addEventListener("change", filter);
byId("f-text").addEventListener("input", filter);
byId("more").addEventListener("click", more);
filter();

// report.html#item=ID shows that item, opened.
const linked = decodeURIComponent(location.hash).match(/^#item=(.*)$/);
if (linked) {
  shown = report.items.filter((item) => item.id === linked[1]);
  rendered = 0;
  byId("list").replaceChildren();
  more();
  const details = byId("list").querySelector("details");
  if (details) details.open = true;
  byId("items").scrollIntoView();
}
