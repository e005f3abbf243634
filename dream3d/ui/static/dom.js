// Elements from data. Text only ever becomes a text node, so nothing a user wrote is read as markup.

export function h(tag, attributes = {}, ...children) {
  const element = tag.startsWith("svg:")
    ? document.createElementNS("http://www.w3.org/2000/svg", tag.slice(4))
    : document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (value === undefined || value === null || value === false) continue;
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else element.setAttribute(name, value === true ? "" : String(value));
  }
  element.append(...children.flat().filter((child) => child !== null && child !== undefined && child !== false));
  return element;
}

export function button(text, act, options = {}) {
  const { kind = "", ...rest } = options;
  return h("button", { type: "button", class: `d-button ${kind}`, onclick: act, ...rest }, text);
}

// Replace a place's contents only when they differ: what is unchanged keeps its focus and its scroll position.
export function fill(place, ...children) {
  const fresh = h("div", {}, ...children);
  if (place.innerHTML !== fresh.innerHTML) place.replaceChildren(...fresh.childNodes);
}

// Make `wanted` the children of a place, in order, without touching those already where they belong: they keep the focus.
export function arrange(place, wanted) {
  for (const child of [...place.children]) if (!wanted.includes(child)) child.remove();
  wanted.forEach((child, i) => place.children[i] === child || place.insertBefore(child, place.children[i] ?? null));
}

export function duration(seconds) {
  if (seconds < 10) return `${Math.max(0.1, seconds).toFixed(1)} s`;
  if (seconds < 90) return `${Math.round(seconds)} s`;
  if (seconds < 5400) return `${Math.round(seconds / 60)} min`;
  return `${(seconds / 3600).toFixed(1)} h`;
}

export function size(bytes) {
  if (bytes < 1e3) return `${bytes} B`;
  if (bytes < 1e6) return `${Math.round(bytes / 1e3)} kB`;
  return `${(bytes / 1e6).toFixed(1)} MB`;
}

export function when(seconds) {
  return new Date(seconds * 1000).toLocaleString([], { dateStyle: "medium", timeStyle: "short" });
}

// A question that must be answered; resolves to whether the answer was yes.
export function confirmed(question, yes) {
  return new Promise((resolve) => {
    const dialog = h("dialog", { class: "d-dialog", "aria-label": question });
    const close = (answer) => {
      dialog.close();
      dialog.remove();
      resolve(answer);
    };
    dialog.addEventListener("cancel", () => close(false));
    dialog.append(
      h("p", {}, question),
      h("div", { class: "d-row d-end" }, button("Keep it", () => close(false)), button(yes, () => close(true), { kind: "danger" })),
    );
    document.body.append(dialog);
    dialog.showModal();
  });
}

let told;
export function tell(text) {
  told ??= document.body.appendChild(h("div", { class: "d-toast", role: "status", "aria-live": "polite" }));
  told.textContent = text;
  told.classList.add("shown");
  clearTimeout(tell.timer);
  tell.timer = setTimeout(() => told.classList.remove("shown"), 4000);
}

const ICONS = {
  reset: "M4 10a8 8 0 1 1 1 6M4 4v6h6",
  full: "M4 9V4h5M15 4h5v5M20 15v5h-5M9 20H4v-5",
  sun: "M12 8a4 4 0 1 0 0 8 4 4 0 0 0 0-8M12 2v2M12 20v2M2 12h2M20 12h2M5 5l1.5 1.5M17.5 17.5 19 19M19 5l-1.5 1.5M6.5 17.5 5 19",
  moon: "M20 14.5A8.5 8.5 0 0 1 9.5 4 8.5 8.5 0 1 0 20 14.5",
};

export function icon(name) {
  return h("svg:svg", { class: "d-icon", viewBox: "0 0 24 24", "aria-hidden": "true" }, h("svg:path", { d: ICONS[name] }));
}
