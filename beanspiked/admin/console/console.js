// The console: each hash is a page. The server says when something may have changed; the page is then redrawn, at most once a second.
import { bytes, chart, countdown, el, number, seconds } from "./charts.js";
import { keepTemplate, templates } from "./templates.js";

const main = document.getElementById("main");
const dialog = document.getElementById("dialog");
const PAGE = 50;
const LISTEN_AGAIN_AFTER = 3000;
let overview = null;
let view = null;

// --- asking the server

async function ask(path, options = {}) {
  const headers = options.method ? { "X-Beanspiked": "1", "Content-Type": "application/json" } : {};
  const body = options.said === undefined ? undefined : JSON.stringify(options.said);
  const answer = await fetch(`api/v1/${path}`, { method: options.method, headers, body });
  const told = await answer.json().catch((error) => ({ error: answer.ok ? error.message : `HTTP ${answer.status} ${answer.statusText}` }));
  if (told.error) throw new Error(told.error);
  return told;
}

const named = (path, tube) => `${path}?tube=${encodeURIComponent(tube)}`;

let silence = 0;
function say(text, bad = false) {
  const said = document.getElementById("said");
  said.textContent = text;
  said.classList.toggle("bad", bad);
  clearTimeout(silence);
  silence = setTimeout(() => (said.textContent = ""), bad ? 9000 : 4000);
}

/** Send a change, show its outcome, and look again. */
async function change(path, options, told) {
  try {
    say(told(await ask(path, { method: "POST", ...options })));
  } catch (error) {
    say(error.message, true);
  }
  setTimeout(refresh, 50);
}

// --- dialogs

/** Ask for some values; resolve with them, or with null. `options.chosen` hears what was changed, with all inputs. */
function form(title, fields, action, options = {}) {
  return new Promise((resolve) => {
    const inputs = {};
    const labels = fields.map(({ name, label, area, choices, ...attributes }) => {
      const input = choices
        ? el("select", {}, choices.map((choice) => el("option", { value: choice }, choice)))
        : el(area ? "textarea" : "input", attributes);
      if (area && attributes.value) input.value = attributes.value;
      inputs[name] = input;
      return el("label", {}, label, " ", input);
    });
    const go = el("button", { class: options.bad ? "bad" : "main", type: "submit" }, action);
    const check = (event) => {
      if (event) options.chosen?.(inputs, event.target);
      if (options.typed !== undefined) go.disabled = inputs.typed.value !== options.typed;
    };
    const end = (value) => {
      dialog.close();
      resolve(value);
    };
    const submit = (event) => {
      event.preventDefault();
      if (!go.disabled) end(Object.fromEntries(Object.entries(inputs).map(([name, input]) => [name, input.value])));
    };
    const cancel = el("button", { type: "button", onclick: () => end(null) }, "Cancel");
    dialog.replaceChildren(
      el("form", { onsubmit: submit, oninput: check }, el("h1", { id: "dialog-title" }, title), options.text ? el("p", {}, options.text) : null, labels, el("div", { class: "bar" }, cancel, go)),
    );
    dialog.oncancel = () => resolve(null);
    check();
    dialog.showModal();
  });
}

const sure = (title, action) => form(title, [], action, { bad: true });

// --- the overview

const TOTALS = [
  ["ready", "current-jobs-ready", "ready"],
  ["reserved", "current-jobs-reserved", "reserved"],
  ["delayed", "current-jobs-delayed", "delayed"],
  ["buried", "current-jobs-buried", "buried"],
  ["puts a second", null, "puts"],
  ["deletes a second", null, "deletes"],
  ["timeouts a second", null, "timeouts"],
  ["connections", "current-connections", "connections"],
  ["waiting workers", "current-waiting", "waiting"],
];

function tags(tube) {
  const found = [];
  if (tube.pause_left > 0) found.push([`paused, ${countdown(tube.pause_left)} left`, false]);
  if (tube.ready && !tube.watching && !(tube.age < 5)) found.push(["nobody watches", true]);
  if (tube.growth >= 1) found.push([`+${number(tube.growth)} a minute`, false]);
  return found.map(([text, hot]) => el("span", { class: hot ? "tag hot" : "tag" }, text));
}

function cell(label, value, hot = false) {
  return el("td", { "data-label": label, class: hot ? "hot" : null }, value);
}

function tubeRow(tube) {
  const link = el("a", { href: `#/tube/${encodeURIComponent(tube.name)}` }, tube.name);
  return el(
    "tr",
    {},
    el("td", {}, link, el("div", {}, tags(tube))),
    cell("ready", number(tube.ready)),
    cell("oldest", seconds(tube.age), tube.age > 60),
    cell("reserved", number(tube.reserved)),
    cell("delayed", number(tube.delayed)),
    cell("buried", number(tube.buried), tube.buried > 0),
    cell("watching", number(tube.watching)),
    cell("waiting", number(tube.waiting)),
    cell("put in all", number(tube.total_jobs)),
  );
}

function overviewPage() {
  const cards = el("div", { class: "cards" });
  const rows = el("tbody");
  const count = el("span", { class: "soft", role: "status" });
  const state = { search: "", sort: "trouble", offset: 0 };
  const search = el("input", { type: "search", class: "grow", placeholder: "Find a tube", "aria-label": "Find a tube", id: "search" });
  search.addEventListener("input", () => {
    state.search = search.value;
    state.offset = 0;
    refresh();
  });
  const sorts = ["trouble", "ready", "buried", "age", "growth", "reserved", "delayed", "total_jobs", "name"];
  const sort = el("select", { "aria-label": "Sort by" }, sorts.map((name) => el("option", { value: name }, `by ${name.replace("_", " ")}`)));
  sort.addEventListener("change", () => {
    state.sort = sort.value;
    state.offset = 0;
    refresh();
  });
  const turn = (by) => () => {
    state.offset = Math.max(0, state.offset + by);
    refresh();
  };
  const before = el("button", { type: "button", onclick: turn(-PAGE) }, "Before");
  const after = el("button", { type: "button", onclick: turn(PAGE) }, "Next");
  const heads = ["Tube", "Ready", "Oldest", "Reserved", "Delayed", "Buried", "Watching", "Waiting", "Put in all"];
  main.replaceChildren(
    el("h1", {}, "Everything"),
    cards,
    el("h2", {}, "Tubes"),
    el("div", { class: "bar" }, search, sort, before, after, count),
    el("div", { class: "table" }, el("table", {}, el("thead", {}, el("tr", {}, heads.map((head) => el("th", { scope: "col" }, head)))), rows)),
  );
  let hour = null;
  let hourAt = 0;
  return async () => {
    const query = new URLSearchParams({ search: state.search, sort: state.sort, offset: state.offset, limit: PAGE });
    if (Date.now() - hourAt > 9000) {
      hour = (await ask("history")).series;
      hourAt = Date.now();
    }
    const page = await ask(`tubes?${query}`);
    if (overview) {
      cards.replaceChildren(
        ...TOTALS.map(([name, key, series]) => {
          const value = key ? overview.stats[key] : hour[series].at(-1);
          return el("div", { class: "card" }, el("span", {}, name), el("b", {}, number(value)), chart(name, { [name]: hour[series] }));
        }),
      );
    }
    redraw(rows, page.tubes.map(tubeRow));
    before.disabled = state.offset === 0;
    after.disabled = state.offset + PAGE >= page.total;
    const last = Math.min(state.offset + PAGE, page.total);
    count.textContent = page.total ? `${state.offset + 1}–${last} of ${number(page.total)}` : "no tube";
  };
}

/** Put new rows in the place of old ones, and keep the focus where it was. */
function redraw(rows, made) {
  const held = rows.contains(document.activeElement) ? document.activeElement.getAttribute("href") : null;
  rows.replaceChildren(...made);
  if (held) [...rows.querySelectorAll("a")].find((link) => link.getAttribute("href") === held)?.focus();
}

// --- a tube

function renew(element, text) {
  if (element.textContent !== text) element.textContent = text;
}

// How many levels of JSON are indented.
const DEEPEST = 50;
const TIMES = ["reserves", "timeouts", "releases", "buries", "kicks"];

function decode(encoded) {
  return Uint8Array.from(atob(encoded), (letter) => letter.charCodeAt(0));
}

function hex(data) {
  const lines = [];
  for (let at = 0; at < data.length; at += 16) {
    const part = [...data.subarray(at, at + 16)];
    const digits = part.map((byte) => byte.toString(16).padStart(2, "0")).join(" ");
    const text = part.map((byte) => (byte > 31 && byte < 127 ? String.fromCharCode(byte) : ".")).join("");
    lines.push(`${at.toString(16).padStart(6, "0")}  ${digits.padEnd(47)}  ${text}`);
  }
  return lines.join("\n");
}

/** Decode text; null for other bytes. The beginning of a text may end within a character, which is left out. */
function asText(data, whole = true) {
  try {
    return new TextDecoder("utf-8", { fatal: true, ignoreBOM: true }).decode(data, { stream: !whole });
  } catch {
    return null;
  }
}

/** Indent JSON; null for other text. Its words stay as they are: a long number that is read and written again gets other digits. */
function asJson(text) {
  try {
    if (typeof (JSON.parse(text.replace(/^\ufeff/, "")) ?? 0) !== "object") return null;
  } catch {
    return null;
  }
  let depth = 0;
  const line = () => `\n${"  ".repeat(Math.min(depth, DEEPEST))}`;
  const words = text.match(/"(?:[^"\\]|\\.)*"|[[{]\s*[\]}]|[[\]{},:]|[^\s[\]{},:"]+/g).map((word) => {
    if (word === "{" || word === "[") depth += 1;
    if (word === "}" || word === "]") {
      depth -= 1;
      return line() + word;
    }
    if (word === "{" || word === "[" || word === ",") return word + line();
    return word === ":" ? ": " : word;
  });
  return words.join("");
}

// How each job's body is shown; a redraw keeps this.
const shownAs = new Map();

function bodyOf(job) {
  const data = decode(job.body);
  const text = asText(data, data.length === job.size);
  const json = text === null ? null : asJson(text);
  const faces = { JSON: json, Text: text ?? new TextDecoder().decode(data), Hex: hex(data) };
  const pre = el("pre", { tabindex: "0", "aria-label": `body of job ${job.id}` });
  const buttons = Object.keys(faces).filter((name) => faces[name] !== null).map((name) =>
    el("button", { type: "button", onclick: () => show(name) }, name),
  );
  function show(name) {
    shownAs.set(job.id, name);
    pre.textContent = faces[name];
    for (const button of buttons) button.setAttribute("aria-pressed", String(button.textContent === name));
  }
  show(shownAs.get(job.id) ?? (json !== null ? "JSON" : text !== null ? "Text" : "Hex"));
  const rest = job.size > data.length && !job.damage ? el("p", { class: "soft" }, `the first ${bytes(data.length)} of ${bytes(job.size)}`) : null;
  const whole = el("a", { href: `api/v1/jobs/${job.id}/body`, download: `job-${job.id}` }, "Save");
  return [el("div", { class: "bar" }, buttons, whole), job.damage ? el("p", { class: "reason" }, `damaged: ${job.damage}`) : null, pre, rest];
}

function factsOf(job) {
  const facts = [
    ["age", seconds(job.age)],
    ["priority", number(job.priority)],
    ["time to run", job.ttr ? seconds(job.ttr) : "no limit"],
    ["size", bytes(job.size)],
    ["tries", TIMES.map((name) => `${job[name]} ${name}`).join(", ")],
  ];
  if (job.time_left !== null) facts.push([job.state === "delayed" ? "ready in" : "time left", seconds(job.time_left)]);
  if (job.metadata) facts.push(["metadata", job.metadata]);
  return facts;
}

function jobCard(state, job) {
  if (!job) return el("section", { class: "card" }, el("b", {}, `Next ${state}`), el("p", { class: "soft" }, "none"));
  return el(
    "section",
    { class: "card" },
    el("b", {}, `Next ${state}: ${job.id}`),
    state === "buried" ? el("p", { class: "reason" }, job.reason ? `buried: ${job.reason}` : "buried, and no reason was given") : null,
    el("dl", {}, factsOf(job).map(([name, value]) => [el("dt", {}, name), el("dd", {}, value)])),
    bodyOf(job),
    overview?.read_only ? null : jobActions(job),
  );
}

/** Return a job's whole body as text; null where it is none. */
async function wholeText(job) {
  if (job.size <= decode(job.body).length) return asText(decode(job.body));
  const answer = await fetch(`api/v1/jobs/${job.id}/body`);
  if (!answer.ok) throw new Error((await answer.json()).error);
  return asText(new Uint8Array(await answer.arrayBuffer()));
}

// An empty field would be 0: the end of a pause, or a second to run.
const NUMBER = { type: "number", min: 0, max: 4294967295, required: true };
const DELAY = { name: "delay", label: "Ready in how many seconds (0 is now)", ...NUMBER, value: 0 };
const TARGET = { name: "target", label: "To the tube", maxlength: 200, required: true };
const PRIORITY = { name: "priority", label: "Priority (0 is the most urgent)", ...NUMBER };

function jobActions(job) {
  const path = `jobs/${job.id}`;
  const act = (what, label, options = {}) =>
    el("button", { type: "button", onclick: () => change(`${path}/${what}`, options, () => `job ${job.id}: ${label.toLowerCase()}`) }, label);
  const bury = async () => {
    const given = await form(`Bury job ${job.id}`, [{ name: "reason", label: "Reason", maxlength: 1000 }], "Bury");
    if (given) change(`${path}/bury`, { said: given }, () => `job ${job.id} is buried`);
  };
  const remove = async () => {
    if (await sure(`Delete job ${job.id}?`, "Delete")) change(path, { method: "DELETE" }, () => `job ${job.id} is deleted`);
  };
  const urge = async () => {
    const given = await form(`Priority of job ${job.id}`, [{ ...PRIORITY, value: job.priority }], "Change");
    if (given) change(`${path}/priority`, { said: { priority: Number(given.priority) } }, () => `job ${job.id} has the priority ${given.priority}`);
  };
  const later = async () => {
    const given = await form(`Delay of job ${job.id}`, [DELAY], "Change");
    if (given) change(`${path}/delay`, { said: { delay: Number(given.delay) } }, () => `job ${job.id} is ready in ${given.delay} s`);
  };
  const move = async () => {
    const given = await form(`Move job ${job.id}`, [TARGET], "Move");
    if (given) change(named("tube/move", job.tube), { said: { target: given.target, ids: [job.id] } }, (told) => (told.moved ? `job ${job.id} moved to ${given.target}` : `job ${job.id} cannot be moved any more`));
  };
  const copy = () => change(`${path}/duplicate`, {}, (told) => `job ${told.id} is a copy of job ${job.id}`);
  const held = job.state === "reserved";
  return el(
    "div",
    { class: "bar" },
    held ? act("release", "Release") : job.state === "ready" ? null : act("kick", "Kick"),
    job.state === "buried" ? null : el("button", { type: "button", onclick: bury }, "Bury"),
    held ? null : el("button", { type: "button", onclick: urge }, "Priority"),
    held ? null : el("button", { type: "button", onclick: later }, "Delay"),
    held ? null : el("button", { type: "button", onclick: move }, "Move"),
    el("button", { type: "button", onclick: copy }, "Duplicate"),
    el("button", { type: "button", onclick: () => putAgain(job) }, "Put again"),
    el("button", { type: "button", class: "bad", onclick: remove }, "Delete"),
  );
}

const WHOLE = "one job";
const BY_LINE = "a job for each line";
const NO_TEMPLATE = "none";

/** Ask for a job, or for many, and put them. It starts with what is given, or with a template. */
async function put(name, start = {}) {
  const known = templates();
  const fields = [
    known && { name: "template", label: "Template", choices: [NO_TEMPLATE, ...Object.keys(known)] },
    { name: "body", label: "Body", area: true, value: start.body },
    { name: "each", label: "Put it as", choices: [WHOLE, BY_LINE] },
    { ...PRIORITY, value: start.priority ?? 1024 },
    { name: "delay", label: "Delay in seconds", ...NUMBER, value: 0 },
    { name: "ttr", label: "Time to run in seconds", ...NUMBER, min: 1, value: start.ttr ?? 60 },
    known && { name: "keep", label: "Keep it in this browser as the template (an empty body forgets that one)", maxlength: 100 },
  ].filter(Boolean);
  const chosen = (inputs, input) => {
    if (input !== inputs.template) return;
    for (const [field, value] of Object.entries(known[input.value] ?? {})) inputs[field].value = value;
  };
  const given = await form(`Put into ${name}`, fields, "Put", { chosen });
  if (!given) return;
  const { template, keep, each, body, ...numbers } = given;
  if (keep) {
    try {
      keepTemplate(keep, { body, each, ...numbers });
    } catch (error) {
      say(`the template cannot be kept, and nothing was put: ${error.message}`, true);
      return;
    }
    if (!body) {
      say(`the template ${keep} is forgotten`);
      return;
    }
  }
  const how = Object.fromEntries(Object.entries(numbers).map(([field, value]) => [field, Number(value)]));
  if (each === BY_LINE) change(named("tube/put-lines", name), { said: { lines: body, ...how } }, (told) => `${number(told.put)} jobs are put`);
  else change(named("tube/put", name), { said: { body, ...how } }, (told) => `job ${told.id} is put`);
}

/** Put a job like one that is there, with other values if wanted. */
async function putAgain(job) {
  try {
    const body = await wholeText(job);
    // A form would make CR LF a mere LF.
    if (body === null || body.includes("\r")) say(`the body of job ${job.id} is not text, or has CR, which a form loses: Duplicate copies it`, true);
    else await put(job.tube, { body, priority: job.priority, ttr: job.ttr });
  } catch (error) {
    say(error.message, true);
  }
}

function tubeActions(name) {
  const pause = async () => {
    const given = await form(`Pause ${name}`, [{ name: "seconds", label: "For how many seconds (0 ends a pause)", ...NUMBER, value: 60 }], "Pause");
    if (given) change(named("tube/pause", name), { said: { seconds: Number(given.seconds) } }, (told) => (told.pause ? `paused for ${told.pause} s` : "not paused any more"));
  };
  const kick = async () => {
    const given = await form(`Kick jobs of ${name}`, [{ name: "count", label: "How many at most", ...NUMBER, min: 1, value: 1 }], "Kick", { text: "Buried jobs become ready, oldest first; if none is buried, delayed ones." });
    if (given) change(named("tube/kick", name), { said: { count: Number(given.count) } }, (told) => `${told.kicked} kicked`);
  };
  const clear = async () => {
    const fields = [
      { name: "state", label: "All jobs that are", choices: ["buried", "ready", "delayed"] },
      { name: "typed", label: "Type the tube's name", autocomplete: "off" },
    ];
    const given = await form(`Clear ${name}`, fields, "Delete them all", { bad: true, typed: name, text: "Deleted jobs do not come back." });
    if (given) change(named("tube/clear", name), { said: { state: given.state } }, (told) => `${told.deleted} deleted`);
  };
  return el(
    "div",
    { class: "bar" },
    el("button", { type: "button", class: "main", onclick: () => put(name) }, "Put"),
    el("button", { type: "button", onclick: kick }, "Kick"),
    el("button", { type: "button", onclick: pause }, "Pause"),
    el("button", { type: "button", class: "bad", onclick: clear }, "Clear"),
  );
}

// --- finding jobs of a tube

const LISTED = 50;
const FIELDS = [
  { name: "text", label: "Body contains", maxlength: 1000 },
  { name: "min_age", label: "Older than, in seconds", type: "number", min: 0, max: 4294967295 },
  { name: "min_tries", label: "Reserved at least, times", type: "number", min: 0, max: 4294967295 },
  { name: "min_priority", label: "Priority from", type: "number", min: 0, max: 4294967295 },
  { name: "max_priority", label: "Priority to", type: "number", min: 0, max: 4294967295 },
];

function listedRow(job, picked, count) {
  const data = decode(job.body);
  const start = asText(data, data.length === job.size) ?? hex(data.subarray(0, 16));
  const told = [start.slice(0, 200), job.reason ? `buried: ${job.reason}` : "", job.damage ? `damaged: ${job.damage}` : ""];
  const pick = el("input", { type: "checkbox", "aria-label": `select job ${job.id}` });
  pick.checked = picked.has(job.id);
  pick.addEventListener("change", () => {
    if (pick.checked) picked.add(job.id);
    else picked.delete(job.id);
    count();
  });
  return el(
    "tr",
    {},
    el("td", {}, el("label", {}, pick, ` ${job.id}`)),
    cell("age", seconds(job.age)),
    cell("priority", number(job.priority)),
    cell("reserved, times", number(job.reserves)),
    cell("size", bytes(job.size)),
    el("td", { class: "left" }, told.filter(Boolean).map((text) => el("div", { class: "body" }, text))),
  );
}

/** Find jobs by a filter and count them; only then offer to change them all. */
function matching(name) {
  const state = el("select", {}, ["ready", "delayed", "buried", "reserved"].map((one) => el("option", { value: one }, one)));
  const inputs = {};
  const labels = FIELDS.map(({ name: field, label, ...attributes }) => {
    inputs[field] = el("input", attributes);
    return el("label", {}, label, " ", inputs[field]);
  });
  const rows = el("tbody");
  const found = el("div", { class: "bar", role: "status" });
  const heads = ["Job", "Age", "Priority", "Reserved, times", "Size", "Body"].map((head) => el("th", { scope: "col", class: head === "Body" ? "left" : null }, head));
  const table = el("div", { class: "table", hidden: true }, el("table", {}, el("thead", {}, el("tr", {}, heads)), rows));

  function wanted() {
    const said = { state: state.value };
    for (const { name: field, type } of FIELDS) {
      if (inputs[field].value !== "") said[field] = type === "number" ? Number(inputs[field].value) : inputs[field].value;
    }
    return said;
  }

  // The answer to an earlier question is not shown.
  let questions = 0;
  async function look(after = "") {
    const said = wanted();
    const question = ++questions;
    const query = `${new URLSearchParams({ tube: name, ...said })}`;
    try {
      const [{ count }, page] = await Promise.all([ask(`tube/jobs/count?${query}`), ask(`tube/jobs?${query}&limit=${LISTED}&after=${encodeURIComponent(after)}`)]);
      if (question !== questions) return;
      const picked = new Set();
      const more = page.after ? el("button", { type: "button", onclick: () => look(page.after) }, "Next page") : null;
      // Actions change the selected jobs, or else all jobs that match.
      const offer = () => {
        const chosen = picked.size ? { state: said.state, ids: [...picked] } : said;
        const does = count && !overview?.read_only ? actions(chosen, picked.size || count, picked.size > 0) : [];
        const told = picked.size ? `${number(picked.size)} of ${number(count)} selected` : `${number(count)} match`;
        const one = picked.size === 1 && does.length ? page.jobs.find((job) => picked.has(job.id)) : null;
        if (one) does.push(el("button", { type: "button", onclick: () => putAgain(one) }, "Put again"));
        found.replaceChildren(el("b", {}, told), ...[more, ...does].filter(Boolean));
      };
      rows.replaceChildren(...page.jobs.map((job) => listedRow(job, picked, offer)));
      table.hidden = page.jobs.length === 0;
      offer();
    } catch (error) {
      if (question !== questions) return;
      table.hidden = true;
      found.replaceChildren(error.message);
    }
  }

  // A change takes the filter that was counted, whatever the user has typed since.
  function actions(said, count, some) {
    const all = `${number(count)} ${said.state} ${count === 1 ? "job" : "jobs"}`;
    const act = async (path, more, told) => {
      await change(named(path, name), { said: { ...said, ...more } }, told);
      look();
    };
    const remove = async () => {
      const field = { name: "typed", label: "Type the tube's name", autocomplete: "off" };
      const text = some ? "Deleted jobs do not come back." : "Deleted jobs do not come back. Jobs that match by now but were not counted are deleted as well.";
      const given = await form(`Delete ${all} of ${name}?`, [field], "Delete them", { bad: true, typed: name, text });
      if (given) act("tube/clear", {}, (told) => `${told.deleted} deleted`);
    };
    const kick = async () => {
      if (await form(`Kick ${all} of ${name}?`, [], "Kick them")) act("tube/kick-jobs", {}, (told) => `${told.kicked} kicked`);
    };
    const move = async () => {
      const given = await form(`Move ${all} of ${name}`, [TARGET], "Move them");
      if (given) act("tube/move", { target: given.target }, (told) => `${told.moved} moved to ${given.target}`);
    };
    const bury = async () => {
      const given = await form(`Bury ${all} of ${name}`, [{ name: "reason", label: "Reason", maxlength: 1000 }], "Bury them");
      if (given) act("tube/bury-jobs", given, (told) => `${told.buried} buried`);
    };
    const again = async () => {
      const given = await form(`Priority of ${all} of ${name}`, [PRIORITY], "Change it");
      if (given) act("tube/priority", { priority: Number(given.priority) }, (told) => `${told.changed} have the priority ${given.priority}`);
    };
    const later = async () => {
      const given = await form(`Delay of ${all} of ${name}`, [DELAY], "Change it");
      if (given) act("tube/delay", { delay: Number(given.delay) }, (told) => `${told.changed} are ready in ${given.delay} s`);
    };
    const release = async () => {
      if (await form(`Release ${all} of ${name}?`, [], "Release them", { text: "Their workers lose them." })) act("tube/release-jobs", {}, (told) => `${told.released} released`);
    };
    const copy = async () => {
      if (await form(`Duplicate ${all} of ${name}?`, [], "Duplicate them", { text: "The copies are ready." })) act("tube/duplicate", {}, (told) => `${told.duplicated} duplicated`);
    };
    const [held, waits, buried] = ["reserved", "ready", "buried"].map((state) => said.state === state);
    const button = (label, onclick, bad) => el("button", { type: "button", class: bad ? "bad" : null, onclick }, some ? label : `${label} all`);
    return [
      held || waits ? null : button("Kick", kick),
      held || buried ? null : button("Bury", bury),
      held ? null : button("Move", move),
      held ? button("Release", release) : null,
      held ? null : button("Priority", again),
      held ? null : button("Delay", later),
      button("Duplicate", copy),
      held ? null : button("Delete", remove, true),
    ];
  }

  const submit = (event) => {
    event.preventDefault();
    look();
  };
  const go = el("button", { class: "main", type: "submit" }, "Count and list");
  const filter = el("form", { class: "filter", onsubmit: submit, "aria-label": "Find jobs" }, el("label", {}, "State ", state), labels, el("div", { class: "bar" }, go));
  return [filter, found, table];
}

function tubePage(name) {
  const heading = el("h1", {}, name);
  const facts = el("div", { class: "cards" });
  const charts = el("div", { class: "charts" });
  const next = el("div", { class: "jobs" });
  main.replaceChildren(heading, overview?.read_only ? "" : tubeActions(name), facts, el("h2", {}, "Last hour"), charts, el("h2", {}, "Next jobs"), next, el("h2", {}, "Find jobs"), ...matching(name));
  const cards = {};
  let hourAt = 0;
  return async () => {
    const [tube, jobs] = await Promise.all([ask(named("tube", name)), ask(named("tube/next", name))]);
    const shown = [
      ["ready", number(tube.ready)],
      ["oldest ready", seconds(tube.age)],
      ["reserved", number(tube.reserved)],
      ["delayed", number(tube.delayed)],
      ["buried", number(tube.buried)],
      ["watching, waiting", `${number(tube.watching)}, ${number(tube.waiting)}`],
      ["put, deleted", `${number(tube.total_jobs)}, ${number(tube.deletes)}`],
      ["pause", tube.pause_left > 0 ? `${countdown(tube.pause_left)} left` : "none"],
    ];
    facts.replaceChildren(...shown.map(([label, value]) => el("div", { class: "card" }, el("span", {}, label), el("b", {}, value))));
    // A redraw leaves text alone that the user reads or selects, unless another job is next.
    for (const [state, job] of Object.entries(jobs)) {
      const key = JSON.stringify(job && [job.id, job.state, job.priority, job.releases, job.buries, job.kicks, job.time_left === null]);
      if (cards[state]?.key === key) {
        if (job) cards[state].card.querySelectorAll("dd").forEach((fact, at) => renew(fact, factsOf(job)[at][1]));
        continue;
      }
      const card = jobCard(state, job);
      if (cards[state]) cards[state].card.replaceWith(card);
      else next.append(card);
      cards[state] = { key, card };
    }
    if (Date.now() - hourAt < 9000) return;
    hourAt = Date.now();
    const { ready, reserved, delayed, buried, puts, deletes } = (await ask(named("history", name))).series;
    if (ready.length) charts.replaceChildren(chart("Jobs", { ready, reserved, delayed, buried }, true), chart("Jobs a second", { puts, deletes }, true));
    else charts.replaceChildren(el("p", { class: "soft" }, "Nothing is remembered of this tube: it is new, or not one of the thousand busiest."));
  };
}

// --- connections

function connectionsPage() {
  const rows = el("tbody");
  const count = el("span", { class: "soft", role: "status" });
  let offset = 0;
  const turn = (by) => () => {
    offset = Math.max(0, offset + by);
    refresh();
  };
  const before = el("button", { type: "button", onclick: turn(-PAGE) }, "Before");
  const after = el("button", { type: "button", onclick: turn(PAGE) }, "Next");
  const heads = ["Client", "Open for", "Does", "Uses", "Watches", "Holds", ""];
  main.replaceChildren(
    el("h1", {}, "Connections"),
    el("div", { class: "bar" }, before, after, count),
    el("div", { class: "table" }, el("table", {}, el("thead", {}, el("tr", {}, heads.map((head) => el("th", { scope: "col" }, head)))), rows)),
  );
  const row = (one) => {
    const close = async () => {
      if (await sure(`Close the connection of ${one.peer}? The jobs that it holds become ready.`, "Close")) {
        change(`connections/${one.id}`, { method: "DELETE" }, (told) => `closed ${told.peer}`);
      }
    };
    const does = [one.waiting ? "waits" : "", one.producer ? "puts" : "", one.worker ? "reserves" : ""].filter(Boolean).join(", ");
    const more = one.watching_count > one.watching.length ? ` and ${one.watching_count - one.watching.length} more` : "";
    return el(
      "tr",
      {},
      el("td", {}, one.peer),
      cell("for", seconds(one.age)),
      cell("", does || "nothing yet"),
      cell("uses", one.using),
      cell("watches", one.watching.join(", ") + more),
      cell("holds", number(one.holding)),
      el("td", {}, overview?.read_only ? "" : el("button", { type: "button", class: "bad", onclick: close }, "Close")),
    );
  };
  return async () => {
    const page = await ask(`connections?offset=${offset}&limit=${PAGE}`);
    if (!rows.contains(document.activeElement)) rows.replaceChildren(...page.connections.map(row));
    before.disabled = offset === 0;
    after.disabled = offset + PAGE >= page.total;
    count.textContent = `${number(page.total)} open`;
  };
}

// --- pages, keys and live updates

/** Read the name of a tube in an address, which somebody may have typed. */
function nameOf(text) {
  try {
    return decodeURIComponent(text);
  } catch {
    return text;
  }
}

let opened;
function open() {
  opened = location.hash;
  const [, page, name] = location.hash.match(/^#\/(tube|connections)?\/?(.*)$/) ?? [];
  if (page === "tube") view = tubePage(nameOf(name));
  else view = page === "connections" ? connectionsPage() : overviewPage();
  for (const link of document.querySelectorAll("nav a")) {
    const here = link.hash === (page === "connections" ? "#/connections" : "#/");
    if (here) link.setAttribute("aria-current", "page");
    else link.removeAttribute("aria-current");
  }
  document.title = page === "tube" ? `${nameOf(name)} – beanspiked` : "beanspiked";
  main.focus({ preventScroll: true });
  refresh();
}

let asking = false;
let again = false;
async function refresh() {
  if (asking) {
    again = true;
    return;
  }
  asking = true;
  const asked = view;
  try {
    await asked();
  } catch (error) {
    // Not over what was said of a change that has just ended: the tube may have gone with its last job.
    if (asked === view && !document.getElementById("said").textContent) say(error.message, true);
  }
  asking = false;
  if (again) {
    again = false;
    refresh();
  }
}

let events = null;
let listenAgain = 0;
function listen() {
  const live = document.getElementById("live");
  clearTimeout(listenAgain);
  events?.close();
  events = null;
  if (document.hidden) return;
  events = new EventSource("api/v1/events");
  events.onmessage = (event) => {
    const first = overview === null;
    overview = JSON.parse(event.data);
    live.textContent = "live";
    live.classList.add("on");
    const troubles = document.getElementById("troubles");
    const told = [...overview.troubles, ...(overview.stats.draining === "true" ? ["draining: puts are refused"] : [])];
    troubles.textContent = told.join("; ");
    troubles.hidden = told.length === 0;
    const stats = overview.stats;
    document.getElementById("about").textContent = `beanspiked ${stats["beanspiked-version"]} on ${stats.hostname}, up ${seconds(stats.uptime)}${overview.read_only ? ", read-only" : ""}`;
    if (first) open();
    else if (!dialog.open) refresh();
  };
  events.onerror = () => {
    live.textContent = "no connection";
    live.classList.remove("on");
    // A browser asks again by itself after a broken connection, but not after an answer such as 502, a proxy's while the server restarts.
    if (events.readyState === EventSource.CLOSED) listenAgain = setTimeout(listen, LISTEN_AGAIN_AFTER);
  };
}

const KEYS = { "/": "find a tube", t: "tubes", c: "connections", j: "next row", k: "row before", Enter: "open the row", "?": "these keys", Escape: "close a dialog" };

function help() {
  const close = el("button", { type: "button", class: "main", onclick: () => dialog.close() }, "Close");
  const rows = Object.entries(KEYS).map(([key, text]) => [el("dt", {}, key), el("dd", {}, text)]);
  dialog.replaceChildren(el("h1", { id: "dialog-title" }, "Keys"), el("dl", {}, rows), el("div", { class: "bar" }, close));
  dialog.showModal();
}

function step(by) {
  const links = [...main.querySelectorAll("tbody a, tbody button, tbody input")];
  const at = links.indexOf(document.activeElement);
  links[Math.max(0, Math.min(links.length - 1, at + by))]?.focus();
}

document.addEventListener("keydown", (event) => {
  const typing = event.target.matches("input:not([type=checkbox]), textarea, select");
  if (dialog.open || event.ctrlKey || event.metaKey || event.altKey) return;
  if (typing) {
    if (event.key === "Escape") event.target.blur();
    return;
  }
  const does = {
    "/": () => document.getElementById("search")?.focus(),
    t: () => (location.hash = "#/"),
    c: () => (location.hash = "#/connections"),
    j: () => step(1),
    k: () => step(-1),
    "?": help,
  }[event.key];
  if (does) {
    event.preventDefault();
    does();
  }
});
document.getElementById("help").addEventListener("click", help);
document.addEventListener("visibilitychange", listen);
addEventListener("hashchange", () => {
  // After two quick keys there are two such events, and at the second one the page is open and may have the focus.
  if (opened !== location.hash) open();
});
open();
listen();
