// Templates of jobs, by name. This browser keeps them, for all servers that it reaches at this address.

const KEY = "beanspiked-templates";

/** Return all templates; null where the browser is told to keep nothing. */
export function templates() {
  try {
    return JSON.parse(localStorage.getItem(KEY) ?? "{}");
  } catch {
    return null;
  }
}

/** Keep a template; without a body, forget the one of this name. */
export function keepTemplate(name, template) {
  const kept = { ...templates(), [name]: template };
  if (!template.body) delete kept[name];
  localStorage.setItem(KEY, JSON.stringify(kept));
}
