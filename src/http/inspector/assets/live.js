// Updates a page live: follows the events that its body names, and after each burst fetches the
// page again and replaces the parts marked data-live. It stops while the page is hidden, since a
// browser opens few connections to one host.

import { settle } from "./page.js";

const QUIET_MILLIS = 250; // events come in bursts; the page is fetched after one
const LONGEST_MILLIS = 1500; // and at the latest after this, if they do not stop
const AGE_MILLIS = 10000; // what still runs grows older without an event
const RETRY_MILLIS = [1000, 2000, 5000, 10000];

const source = document.body.dataset.events;
const state = document.querySelector("[data-live-state]");

let reading = null; // AbortController of the open stream
let failures = 0;
let timer = 0;
let waitingSince = 0;

function tell(isOn, text) {
  if (state) {
    state.hidden = false;
    state.classList.toggle("is-on", isOn);
    if (state.textContent !== text) {
      state.textContent = text;
    }
  }
}

function somethingHappened() {
  const now = performance.now();
  waitingSince ||= now;
  clearTimeout(timer);
  timer = setTimeout(refresh, Math.max(0, Math.min(QUIET_MILLIS, waitingSince + LONGEST_MILLIS - now)));
}

async function refresh() {
  waitingSince = 0;
  let answer;
  try {
    // The header marks an automatic request: a page that is left open does not keep its session
    // alive.
    const headers = { accept: "text/html", "finishline-by-itself": "1" };
    answer = await fetch(location.href, { redirect: "manual", headers });
  } catch {
    return; // the stream breaks too, and its return fetches again
  }
  if (answer.type === "opaqueredirect" || answer.status === 410) {
    location.reload(); // signed out, or erased: the server says what to show
    return;
  }
  if (!answer.ok) {
    return;
  }
  const fresh = new DOMParser().parseFromString(await answer.text(), "text/html");
  for (const part of document.querySelectorAll("[data-live][id]")) {
    const next = fresh.getElementById(part.id);
    if (next && next.innerHTML !== part.dataset.last) {
      replace(part, next);
    }
  }
}

// Replaces a part, and keeps the reader's state: open details, ticked boxes, the focus.
function replace(part, next) {
  next.dataset.last = next.innerHTML;
  const selected = document.getSelection();
  if (selected && !selected.isCollapsed && part.contains(selected.anchorNode)) {
    return; // about to be copied
  }
  const known = new Set([...part.querySelectorAll("[data-row]")].map((row) => row.dataset.row));
  for (const row of next.querySelectorAll("[data-row]")) {
    if (known.size > 0 && !known.has(row.dataset.row)) {
      row.classList.add("is-new");
    }
  }
  for (const details of part.querySelectorAll("details[data-key]")) {
    const same = next.querySelector(`details[data-key="${CSS.escape(details.dataset.key)}"]`);
    if (same) {
      same.open = details.open;
    }
  }
  for (const box of part.querySelectorAll("input[type=checkbox]")) {
    const same = next.querySelector(`input[type=checkbox][name="${CSS.escape(box.name)}"]`);
    if (same) {
      same.checked = box.checked;
    }
  }
  const focused = part.contains(document.activeElement) ? pathTo(document.activeElement, part) : null;
  settle(next);
  part.replaceWith(next);
  if (focused) {
    follow(focused, next)?.focus({ preventScroll: true });
  }
}

// Identifies an element by its address or key, which are the same in the new markup.
function pathTo(element) {
  const link = element.closest("[href], details[data-key], [data-copy]");
  return link && { href: link.getAttribute("href"), key: link.dataset.key, copy: link.dataset.copy };
}

function follow(focused, part) {
  const fits = (element) =>
    element.getAttribute("href") === focused.href &&
    element.dataset.key === focused.key &&
    element.dataset.copy === focused.copy;
  const found = [...part.querySelectorAll("[href], details[data-key], [data-copy]")].find(fits);
  return found?.querySelector(":scope > summary") ?? found;
}

// Reads the stream line by line. EventSource needs every event type listed in advance; here any
// event is a reason to fetch the page again.
async function read() {
  reading = new AbortController();
  const { signal } = reading;
  try {
    const answer = await fetch(source, { signal, headers: { accept: "text/event-stream" } });
    if (answer.status === 401) {
      location.reload(); // the session is over: the server says what to show
      return;
    }
    if (!answer.ok) {
      throw new Error(`status ${answer.status}`);
    }
    const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
    failures = 0;
    tell(true, "Live");
    somethingHappened(); // whatever came between the page and the stream
    let line = "";
    for (;;) {
      const { done, value } = await reader.read();
      if (done) {
        throw new Error("the stream ended");
      }
      const lines = (line + value).split("\n");
      line = lines.pop();
      if (lines.some((one) => one.startsWith("event:") && one !== "event: caught-up")) {
        somethingHappened();
      }
    }
  } catch {
    if (signal.aborted) {
      return;
    }
    tell(false, "Not connected; trying again");
    const pause = RETRY_MILLIS[Math.min(failures, RETRY_MILLIS.length - 1)];
    failures += 1;
    setTimeout(look, pause);
  }
}

function look() {
  reading?.abort();
  if (document.visibilityState === "visible") {
    read();
  } else {
    tell(false, "Paused");
  }
}

function age() {
  if (document.visibilityState === "visible" && document.querySelector("[data-live] [data-age]")) {
    somethingHappened();
  }
}

if (source) {
  setInterval(age, AGE_MILLIS);
  document.addEventListener("visibilitychange", look);
  addEventListener("pagehide", () => reading?.abort());
  addEventListener("pageshow", (event) => event.persisted && look());
  look();
}
