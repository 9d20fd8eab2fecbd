// The submit page: the form writes into the JSON, the JSON is posted, the scans are uploaded with
// progress, then the job's page opens. Errors from the server are shown at their fields.

const form = document.querySelector("#submit");
// The path prefix of a proxy, or nothing.
const root = form.getAttribute("action").replace(/\/submit$/, "");
const body = form.elements.body;
const alertBox = document.querySelector("#alert");
const state = form.querySelector("[data-submit-state]");
const submitButton = form.querySelector("button.primary[type='submit']");
const panel = document.querySelector("#uploads");

let isBusy = false;
let key = form.elements.idempotencyKey.value;
let usedFor = null; // the body that the key stands for on record

// ------------------------------------------------------------------------- the form and the JSON

// Keeps the digits of numbers if the browser supports it.
const keepDigits = (_, value, context) =>
  typeof value === "number" && context?.source && JSON.rawJSON ? JSON.rawJSON(context.source) : value;

function parsed() {
  const value = JSON.parse(body.value, keepDigits);
  if (typeof value !== "object" || value === null || Array.isArray(value)) {
    throw new SyntaxError("expected an object");
  }
  return value;
}

const object = (value) => (typeof value === "object" && value !== null && !Array.isArray(value) ? value : {});

function set(target, name, value) {
  if (value) {
    target[name] = value;
  } else {
    delete target[name];
  }
}

const field = (name) => form.elements[name].value.trim();

// Each part of the form writes its own part of the JSON and leaves the rest as it is.
const writers = {
  inputs(job) {
    const inputs = object(job.inputFiles);
    for (const given of form.querySelectorAll("[data-scan]")) {
      const name = given.dataset.scan;
      if (given.checked) {
        const entry = { ...object(inputs[name]), extension: field(`extension.${name}`) };
        set(entry, "downloadUrl", field(`url.${name}`));
        inputs[name] = entry;
      } else {
        delete inputs[name];
      }
    }
    job.inputFiles = inputs;
  },
  outputs(job) {
    const ticked = [...form.querySelectorAll("[name='structure']:checked")].map((box) => box.value);
    const structures = [...ticked, ...field("structures").split(/[\s,;]+/).filter(Boolean)];
    const extension = field("outputExtension");
    const lists = field("spread") === "one" ? [structures] : structures.map((one) => [one]);
    const outputs = object(job.outputFiles);
    set(outputs, "meshes", structures.length > 0 && lists.map((list) => ({ extension, structures: list })));
    job.outputFiles = outputs;
  },
  labels(job) {
    set(job, "finishline", field("reference") && { reference: field("reference") });
    for (const name of ["endUserId", "cloudPackage", "finishWebhook"]) {
      set(job, name, field(name));
    }
  },
};

function write(part) {
  try {
    const job = parsed();
    writers[part](job);
    body.value = JSON.stringify(job, null, 2);
    sayAt(bodyWrong, "");
  } catch (error) {
    sayAt(bodyWrong, `Not JSON, so the form cannot write into it: ${error.message}`);
  }
}

form.addEventListener("input", (event) => {
  const part = event.target.closest("[data-part]")?.dataset.part;
  if (event.target === body) {
    check();
  } else if (part && event.target.type !== "file") {
    write(part);
  }
});

function check() {
  try {
    parsed();
    sayAt(bodyWrong, "");
    return true;
  } catch (error) {
    sayAt(bodyWrong, `Not JSON: ${error.message}`);
    return false;
  }
}

// Choosing a file ticks its scan and sets its extension.
form.addEventListener("change", (event) => {
  const { file: name } = event.target.dataset;
  const [chosen] = event.target.files ?? [];
  if (!name || !chosen) {
    return;
  }
  form.querySelector(`[data-scan="${name}"]`).checked = true;
  const select = form.elements[`extension.${name}`];
  const lower = chosen.name.toLowerCase();
  const fitting = [...select.options].map((option) => option.value).filter((one) => lower.endsWith(one));
  if (fitting.length > 0) {
    select.value = fitting.reduce((a, b) => (b.length > a.length ? b : a));
    sayAt(wrongAt(`/inputFiles/${name}`), "");
  } else {
    sayAt(wrongAt(`/inputFiles/${name}`), `${chosen.name} ends in none of these: check the extension`);
  }
  write("inputs");
});

// ------------------------------------------------------------------------------------ what is wrong

const bodyWrong = document.querySelector("#body-wrong");

function sayAt(place, text) {
  place.textContent = text;
  place.hidden = !text;
}

// The element with the longest matching pointer.
function wrongAt(pointer) {
  let best = null;
  for (const place of form.querySelectorAll("[data-wrong]:not([data-wrong=''])")) {
    const known = place.dataset.wrong;
    if ((pointer === known || pointer.startsWith(`${known}/`)) && known.length > (best?.dataset.wrong.length ?? 0)) {
      best = place;
    }
  }
  return best;
}

function clear() {
  alertBox.hidden = true;
  for (const place of form.querySelectorAll("[data-wrong]")) {
    sayAt(place, "");
  }
}

function add(parent, name, text) {
  const element = document.createElement(name);
  element.textContent = text;
  parent.append(element);
  return element;
}

function tell(problem) {
  alertBox.replaceChildren();
  const line = add(alertBox, "p", "");
  add(line, "strong", `${problem.title ?? "It was not submitted"}. `);
  line.append(problem.detail ?? "");
  if (problem.engineBody !== undefined && problem.engineBody !== null) {
    add(alertBox, "pre", JSON.stringify(problem.engineBody, null, 2)).className = "raw";
  }
  let first = null;
  const others = document.createElement("ul");
  for (const { pointer, detail } of problem.errors ?? []) {
    const place = wrongAt(pointer);
    if (place) {
      const rest = pointer.slice(place.dataset.wrong.length + 1);
      const text = rest ? `${rest}: ${detail}` : detail;
      sayAt(place, place.textContent ? `${place.textContent}; ${text}` : text);
      first ??= place;
    } else {
      add(others, "li", `${pointer} ${detail}`);
    }
  }
  if (others.children.length > 0) {
    alertBox.append(others);
  }
  if (problem.jobId) {
    const link = add(add(alertBox, "p", ""), "a", "It is on record as a job");
    link.href = `${root}/jobs/${encodeURIComponent(problem.jobId)}`;
  }
  alertBox.hidden = false;
  (first ?? alertBox).scrollIntoView({ block: "center" });
}

// ------------------------------------------------------------------------------------- submitting

// A new idempotency key for the next body, once the last one's job is recorded.
function newKey() {
  const bytes = crypto.getRandomValues(new Uint8Array(16));
  return [...bytes].map((byte) => byte.toString(16).padStart(2, "0")).join("");
}

async function submit() {
  const text = body.value;
  if (usedFor !== null && usedFor !== text) {
    key = newKey();
    usedFor = null;
  }
  const answer = await fetch(`${root}/v1/jobs`, {
    method: "POST",
    headers: { "content-type": "application/json", "idempotency-key": key },
    body: text,
  });
  const said = await answer.json().catch(() => ({ title: `The answer cannot be read (status ${answer.status})` }));
  if (answer.ok) {
    return said;
  }
  if (said.jobId || said.code === "idempotency-mismatch") {
    usedFor = said.jobId ? text : "";
  }
  tell(said);
  return null;
}

form.addEventListener("submit", async (event) => {
  event.preventDefault();
  if (isBusy) {
    return;
  }
  clear();
  if (!check()) {
    body.focus();
    return;
  }
  isBusy = true;
  submitButton.setAttribute("aria-disabled", "true");
  state.textContent = "Submitting…";
  let job = null;
  try {
    job = await submit();
  } catch {
    tell({ title: "The service cannot be reached", detail: "Submit again: the same page never makes two jobs." });
  }
  state.textContent = "";
  submitButton.removeAttribute("aria-disabled");
  if (job) {
    await follow(job); // it stays busy: the job is made
  } else {
    isBusy = false;
  }
});

// -------------------------------------------------------------------------------------- uploading

function follow(job) {
  const address = `${root}/jobs/${encodeURIComponent(job.id)}`;
  const awaited = job.inputs.filter((input) => input.state === "awaiting");
  if (awaited.length === 0) {
    location.assign(address);
    return;
  }
  document.querySelector("#to-the-job").href = address;
  form.hidden = true;
  panel.hidden = false;
  panel.querySelector("h2").focus();
  const rows = awaited.map((input) => new Row(job.id, input));
  panel.querySelector(".uploads").replaceChildren(...rows.map((row) => row.element));
  Row.whenAllAreDone = () => location.assign(address);
  Row.all = rows;
  for (const row of rows) {
    const [chosen] = form.querySelector(`[data-file="${CSS.escape(row.name)}"]`)?.files ?? [];
    if (chosen) {
      row.upload(chosen);
    }
  }
}

const mebibytes = (bytes) => `${(bytes / 1024 / 1024).toFixed(1)} MiB`;

// The upload of one scan.
class Row {
  static all = [];
  static whenAllAreDone = () => {};

  constructor(job, { name, extension }) {
    this.name = name;
    this.isDone = false;
    this.isGoing = false;
    this.address = `${root}/v1/jobs/${encodeURIComponent(job)}/inputs/${encodeURIComponent(name)}`;
    this.element = document.createElement("li");
    add(this.element, "strong", name);
    add(this.element, "code", extension);
    this.file = add(this.element, "input", "");
    this.file.type = "file";
    this.file.setAttribute("aria-label", `The scan for ${name}`);
    this.file.addEventListener("change", () => this.file.files[0] && this.upload(this.file.files[0]));
    this.progress = add(this.element, "progress", "");
    this.progress.setAttribute("aria-label", `Upload of ${name}`);
    this.progress.hidden = true;
    this.said = add(this.element, "p", "");
    this.said.setAttribute("role", "status");
    this.again = add(this.element, "button", "Try again");
    this.again.type = "button";
    this.again.hidden = true;
    this.again.addEventListener("click", () => this.upload(this.chosen));
  }

  upload(chosen) {
    this.chosen = chosen;
    this.isGoing = true;
    this.file.hidden = true;
    this.again.hidden = true;
    this.progress.hidden = false;
    this.progress.removeAttribute("value");
    this.say(`${chosen.name}, ${mebibytes(chosen.size)}`, false);
    const request = new XMLHttpRequest();
    request.open("PUT", this.address);
    request.setRequestHeader("content-type", "application/octet-stream");
    request.upload.onprogress = (event) => {
      if (event.lengthComputable) {
        this.progress.max = event.total || 1;
        this.progress.value = event.loaded;
        this.say(`${chosen.name}, ${mebibytes(event.loaded)} of ${mebibytes(event.total)}`, false);
      }
    };
    request.upload.onload = () => {
      this.progress.removeAttribute("value");
      this.say("Handing it on to the Engine…", false);
    };
    request.onload = () => (request.status >= 200 && request.status < 300 ? this.finish() : this.fail(problemOf(request)));
    request.onerror = () => this.fail("The connection broke.");
    request.send(chosen);
  }

  finish() {
    this.isGoing = false;
    this.isDone = true;
    this.progress.max = 1;
    this.progress.value = 1;
    this.say("The Engine has it.", false);
    if (Row.all.every((row) => row.isDone)) {
      Row.whenAllAreDone();
    }
  }

  fail(why) {
    this.isGoing = false;
    this.progress.hidden = true;
    this.file.hidden = false;
    this.again.hidden = false;
    this.say(why, true);
  }

  say(text, isWrong) {
    this.said.textContent = text;
    this.said.className = isWrong ? "wrong" : "muted";
  }
}

function problemOf(request) {
  try {
    const problem = JSON.parse(request.responseText);
    return `${problem.title}: ${problem.detail}`;
  } catch {
    return `The upload was refused with status ${request.status}.`;
  }
}

addEventListener("beforeunload", (event) => {
  if (Row.all.some((row) => row.isGoing)) {
    event.preventDefault();
  }
});

// A page restored from the browser's history has the key of the job that it created: load it again.
addEventListener("pageshow", (event) => event.persisted && location.reload());
