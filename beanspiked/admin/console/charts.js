// Small charts and formatted figures. Everything is made of elements and text; nothing that a job or a tube says is ever parsed as HTML.

const SVG = "http://www.w3.org/2000/svg";

/** Make an element: attributes, listeners (functions named on...), children that are elements or texts. */
export function el(tag, attributes = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (value === null || value === undefined || value === false) continue;
    if (typeof value === "function") made.addEventListener(name.slice(2), value);
    else made.setAttribute(name, value === true ? "" : value);
  }
  made.append(...children.flat(Infinity).filter((child) => child !== null && child !== undefined && child !== ""));
  return made;
}

export function number(value) {
  if (value === null || value === undefined) return "–";
  if (Math.abs(value) < 10 && value % 1) return value.toFixed(1);
  return Math.round(value).toLocaleString("en");
}

export function seconds(value) {
  if (value === null || value === undefined) return "–";
  if (value < 10) return `${value.toFixed(1)} s`;
  if (value < 120) return `${Math.round(value)} s`;
  if (value < 7200) return `${Math.round(value / 60)} min`;
  if (value < 172800) return `${Math.round(value / 3600)} h`;
  return `${Math.round(value / 86400)} d`;
}

/** Show what is left of a time, to the second: 1:02:05. */
export function countdown(value) {
  const [hours, minutes, rest] = [value / 3600, (value / 60) % 60, value % 60].map((part) => String(Math.floor(part)));
  return `${hours}:${minutes.padStart(2, "0")}:${rest.padStart(2, "0")}`;
}

export function bytes(value) {
  return value < 1024 ? `${value} B` : value < 1048576 ? `${(value / 1024).toFixed(1)} KiB` : `${(value / 1048576).toFixed(1)} MiB`;
}

/** Draw the points of an hour, a line for each series. A missing point leaves a gap. */
export function chart(title, series, large = false) {
  const names = Object.keys(series);
  const top = Math.max(1, ...names.flatMap((name) => series[name].filter((value) => value !== null)));
  const width = 360;
  const height = 100;
  const drawn = document.createElementNS(SVG, "svg");
  drawn.setAttribute("class", large ? "chart large" : "chart");
  drawn.setAttribute("viewBox", `0 0 ${width} ${height}`);
  drawn.setAttribute("preserveAspectRatio", "none");
  drawn.setAttribute("role", "img");
  const last = names.map((name) => `${name} ${number(series[name].at(-1))}`).join(", ");
  drawn.setAttribute("aria-label", `${title}, last hour: now ${last}, at most ${number(top)}`);
  names.forEach((name, place) => {
    const values = series[name];
    let path = "";
    let pen = "M";
    // A history of less than an hour is drawn wider, but not wider than six minutes would be.
    const step = width / Math.max(36, values.length);
    values.forEach((value, at) => {
      if (value === null) {
        pen = "M";
        return;
      }
      const x = (width - (values.length - 1 - at) * step).toFixed(1);
      const y = (height - 2 - (value / top) * (height - 4)).toFixed(1);
      // Otherwise a single point would be invisible.
      path += pen === "M" ? `M${x - step} ${y}L${x} ${y}` : `L${x} ${y}`;
      pen = "L";
    });
    const line = document.createElementNS(SVG, "path");
    line.setAttribute("d", path);
    line.setAttribute("class", `s${place % 4}`);
    drawn.append(line);
  });
  if (!large) return drawn;
  const legend = names.map((name, place) => el("span", { class: `s${place % 4}` }, `${name} ${number(series[name].at(-1))}`));
  return el("figure", { class: "card" }, el("span", {}, title), drawn, el("div", { class: "legend" }, legend));
}
