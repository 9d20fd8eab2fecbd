// What scripts add to every page: times in the reader's zone, copy buttons, filters that apply on
// change, confirmations before irreversible forms. Pages are complete without them.

const zone = Intl.DateTimeFormat().resolvedOptions().timeZone;

const moment = new Intl.DateTimeFormat(undefined, {
  year: "numeric",
  month: "short",
  day: "numeric",
  hour: "2-digit",
  minute: "2-digit",
  second: "2-digit",
});

// Sets up a part of the page that was just loaded or replaced.
export function settle(part) {
  for (const time of part.querySelectorAll("time[datetime]")) {
    const at = new Date(time.dateTime);
    if (!Number.isNaN(at.getTime())) {
      time.textContent = moment.format(at);
    }
  }
  if (navigator.clipboard) {
    for (const button of part.querySelectorAll("[data-copy]")) {
      button.hidden = false;
    }
  }
}

async function copy(button) {
  const label = button.dataset.label ?? button.textContent;
  button.dataset.label = label;
  try {
    await navigator.clipboard.writeText(button.dataset.copy);
    button.textContent = "Copied";
  } catch {
    button.textContent = "Not copied";
  }
  setTimeout(() => {
    button.textContent = label;
  }, 1500);
}

document.addEventListener("click", (event) => {
  const button = event.target.closest?.("[data-copy]");
  if (button) {
    copy(button);
  }
});

document.addEventListener("change", (event) => {
  const form = event.target.closest?.("form[data-submit-on-change]");
  if (form && event.target.type === "checkbox") {
    form.requestSubmit();
  }
});

// A link on another site does not send the session cookie, which is for our own pages only. A
// request from this page does, so the server then recognises the session and redirects.
const signIn = document.querySelector("form[data-already]");
if (signIn) {
  fetch(location.href, { redirect: "manual" }).then((answer) => {
    if (answer.type === "opaqueredirect") {
      location.replace(signIn.dataset.already);
    }
  });
}

const told = document.querySelector("[data-zone]");
if (told && zone && zone !== "UTC") {
  told.textContent = `Times are ${zone}; hover for UTC.`;
}
settle(document);
