// A mesh viewer: opened by a button with data-mesh, drawn with WebGL in a dialog. The file is
// fetched from this service only when the viewer is opened; mesh-file.js reads it in a worker.

const MAX_BYTES = 150 * 1024 * 1024;
const MAX_READING_MILLIS = 60_000;
const STEP = Math.PI / 24; // of the arrow keys
const ZOOM_STEP = 1.2;
const MOST_ZOOM = 40;
const LEAST_ZOOM = 0.3;

const VERTEX = `#version 300 es
in vec3 place;
uniform mat3 turn;
uniform vec2 scale;
out vec3 seen;
void main() {
  seen = turn * place;
  gl_Position = vec4(seen.xy * scale, -seen.z * 0.5, 1.0);
}`;

// Each triangle has flat shading, from both sides: the picture shows exactly the file.
const FRAGMENT = `#version 300 es
precision highp float;
in vec3 seen;
uniform vec3 colour;
out vec4 drawn;
void main() {
  vec3 normal = normalize(cross(dFdx(seen), dFdy(seen)));
  float key = abs(dot(normal, normalize(vec3(0.35, 0.45, 0.85))));
  float fill = abs(dot(normal, normalize(vec3(-0.8, 0.1, 0.4))));
  float gleam = pow(abs(dot(normal, normalize(vec3(0.2, 0.3, 1.0)))), 24.0);
  drawn = vec4(colour * (0.28 + 0.62 * key + 0.16 * fill) + 0.14 * gleam, 1.0);
}`;

class Refused extends Error {}

function make(name, attributes = {}, ...children) {
  const element = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) {
    element.setAttribute(key, value);
  }
  element.append(...children);
  return element;
}

// ------------------------------------------------------------------------------------ the file

// The service's reason for not sending the file.
async function problemOf(answer) {
  if (answer.type === "opaqueredirect") {
    return "This file is not copied here, so it cannot be shown: download it from the Engine.";
  }
  const problem = await answer.json().catch(() => ({}));
  return `The file cannot be had: ${problem.title ?? `status ${answer.status}`}${problem.detail ? `, ${problem.detail}` : ""}.`;
}

const mebibytes = (bytes) => `${(bytes / 1024 / 1024).toFixed(1)} MiB`;

function checkSize(bytes) {
  if (bytes > MAX_BYTES) {
    throw new Refused(`Files of more than ${mebibytes(MAX_BYTES)} are not shown here: download it.`);
  }
}

async function load(address, signal, tell) {
  const answer = await fetch(address, { signal, redirect: "manual" });
  if (!answer.ok) {
    throw new Refused(await problemOf(answer));
  }
  const whole = Number(answer.headers.get("content-length")) || 0;
  checkSize(whole);
  const pieces = [];
  let length = 0;
  for (const reader = answer.body.getReader(); ; ) {
    const { done, value } = await reader.read();
    if (done) {
      break;
    }
    length += value.length;
    checkSize(length);
    pieces.push(value);
    tell(length, whole);
  }
  const bytes = new Uint8Array(length);
  let at = 0;
  for (const piece of pieces) {
    bytes.set(piece, at);
    at += piece.length;
  }
  return bytes.buffer;
}

function read(format, buffer, signal) {
  return new Promise((resolve, reject) => {
    const worker = new Worker(new URL("mesh-file.js", import.meta.url), { type: "module" });
    const end = (settle, value) => {
      clearTimeout(timer);
      worker.terminate();
      settle(value);
    };
    const timer = setTimeout(() => end(reject, new Refused("Reading it takes too long: download it.")), MAX_READING_MILLIS);
    signal.addEventListener("abort", () => end(reject, signal.reason));
    worker.onerror = () => end(reject, new Refused("It cannot be read here: download it."));
    worker.onmessage = ({ data }) =>
      data.found ? end(resolve, data.found) : end(reject, new Refused(`It cannot be shown: ${data.why}.`));
    worker.postMessage({ format, buffer }, [buffer]);
  });
}

// --------------------------------------------------------------------------------- the picture

function program(gl) {
  const linked = gl.createProgram();
  for (const [type, source] of [[gl.VERTEX_SHADER, VERTEX], [gl.FRAGMENT_SHADER, FRAGMENT]]) {
    const shader = gl.createShader(type);
    gl.shaderSource(shader, source);
    gl.compileShader(shader);
    gl.attachShader(linked, shader);
  }
  gl.bindAttribLocation(linked, 0, "place");
  gl.linkProgram(linked);
  if (!gl.getProgramParameter(linked, gl.LINK_STATUS)) {
    throw new Refused("This browser cannot draw it: download the file.");
  }
  return linked;
}

// The rows of a rotation about a screen axis, applied after the given one.
function turned(turn, about, angle) {
  const [c, s] = [Math.cos(angle), Math.sin(angle)];
  const [first, second] = about === "x" ? [1, 2] : [2, 0];
  const next = turn.slice();
  for (let column = 0; column < 3; column++) {
    const [a, b] = [turn[column * 3 + first], turn[column * 3 + second]];
    next[column * 3 + first] = c * a - s * b;
    next[column * 3 + second] = s * a + c * b;
  }
  return next;
}

// Patients are scanned with z to the head and their back to y: seen from the front, slightly above.
function fromTheFront() {
  return turned([1, 0, 0, 0, 0, -1, 0, 1, 0], "x", 0.2);
}

class Picture {
  constructor(canvas, found) {
    const gl = canvas.getContext("webgl2", { antialias: true, alpha: true, premultipliedAlpha: false });
    if (!gl) {
      throw new Refused("This browser has no WebGL, which turns meshes: download the file.");
    }
    Object.assign(this, { canvas, gl, count: found.corners.length, isAsked: false });
    const linked = program(gl);
    gl.useProgram(linked);
    this.places = Object.fromEntries(["turn", "scale", "colour"].map((name) => [name, gl.getUniformLocation(linked, name)]));
    gl.bindBuffer(gl.ARRAY_BUFFER, gl.createBuffer());
    gl.bufferData(gl.ARRAY_BUFFER, found.positions, gl.STATIC_DRAW);
    gl.enableVertexAttribArray(0);
    gl.vertexAttribPointer(0, 3, gl.FLOAT, false, 0, 0);
    gl.bindBuffer(gl.ELEMENT_ARRAY_BUFFER, gl.createBuffer());
    gl.bufferData(gl.ELEMENT_ARRAY_BUFFER, found.corners, gl.STATIC_DRAW);
    gl.enable(gl.DEPTH_TEST);
    gl.clearColor(0, 0, 0, 0);
    if (gl.getError() !== gl.NO_ERROR) {
      throw new Refused("It takes more graphics memory than there is: download the file.");
    }
    this.reset();
  }

  reset() {
    this.turn = fromTheFront();
    this.zoom = 1;
    this.ask();
  }

  rotate(across, down) {
    this.turn = turned(turned(this.turn, "y", across), "x", down);
    this.ask();
  }

  zoomBy(factor) {
    this.zoom = Math.min(MOST_ZOOM, Math.max(LEAST_ZOOM, this.zoom * factor));
    this.ask();
  }

  // Requests a redraw in the next frame.
  ask() {
    if (!this.isAsked) {
      this.isAsked = true;
      requestAnimationFrame(() => {
        this.isAsked = false;
        this.draw();
      });
    }
  }

  draw() {
    const { canvas, gl } = this;
    const ratio = Math.min(devicePixelRatio || 1, 2);
    canvas.width = Math.max(1, Math.round(canvas.clientWidth * ratio));
    canvas.height = Math.max(1, Math.round(canvas.clientHeight * ratio));
    gl.viewport(0, 0, canvas.width, canvas.height);
    gl.clear(gl.COLOR_BUFFER_BIT | gl.DEPTH_BUFFER_BIT);
    const side = Math.min(canvas.width, canvas.height);
    const scale = this.zoom * 0.92;
    gl.uniformMatrix3fv(this.places.turn, false, this.turn);
    gl.uniform2f(this.places.scale, (scale * side) / canvas.width, (scale * side) / canvas.height);
    gl.uniform3fv(this.places.colour, colourOf(canvas));
    gl.drawElements(gl.TRIANGLES, this.count, gl.UNSIGNED_INT, 0);
  }

  close() {
    this.gl.getExtension("WEBGL_lose_context")?.loseContext();
  }
}

// The style sheet's colour in the current scheme, in WebGL's form.
function colourOf(element) {
  const numbers = getComputedStyle(element).color.match(/[\d.]+/g) ?? [];
  return [0, 1, 2].map((index) => Number(numbers[index] ?? 200) / 255);
}

// -------------------------------------------------------------------------- hands and keyboard

function follow(canvas, picture, signal) {
  const fingers = new Map();
  const apart = () => {
    const [a, b] = [...fingers.values()];
    return Math.hypot(a.x - b.x, a.y - b.y) || 1;
  };
  const on = (type, handle, options = {}) => canvas.addEventListener(type, handle, { signal, ...options });
  on("pointerdown", (event) => {
    canvas.setPointerCapture(event.pointerId);
    fingers.set(event.pointerId, { x: event.clientX, y: event.clientY });
  });
  on("pointermove", (event) => {
    const last = fingers.get(event.pointerId);
    if (!last) {
      return;
    }
    const before = fingers.size === 2 ? apart() : 0;
    fingers.set(event.pointerId, { x: event.clientX, y: event.clientY });
    if (fingers.size === 2) {
      picture.zoomBy(apart() / before);
    } else if (fingers.size === 1) {
      const reach = Math.min(canvas.clientWidth, canvas.clientHeight) / Math.PI;
      picture.rotate((event.clientX - last.x) / reach, (event.clientY - last.y) / reach);
    }
  });
  for (const type of ["pointerup", "pointercancel"]) {
    on(type, (event) => fingers.delete(event.pointerId));
  }
  on("wheel", (event) => {
    event.preventDefault();
    picture.zoomBy(Math.exp(-Math.max(-100, Math.min(100, event.deltaY)) / 400));
  }, { passive: false });
  on("keydown", (event) => {
    const keys = {
      ArrowLeft: () => picture.rotate(-STEP, 0),
      ArrowRight: () => picture.rotate(STEP, 0),
      ArrowUp: () => picture.rotate(0, -STEP),
      ArrowDown: () => picture.rotate(0, STEP),
      "+": () => picture.zoomBy(ZOOM_STEP),
      "=": () => picture.zoomBy(ZOOM_STEP),
      "-": () => picture.zoomBy(1 / ZOOM_STEP),
      0: () => picture.reset(),
      Home: () => picture.reset(),
    };
    if (Object.hasOwn(keys, event.key) && !event.ctrlKey && !event.metaKey && !event.altKey) {
      event.preventDefault();
      keys[event.key]();
    }
  });
}

function tools(picture, signal) {
  const tool = (label, name, act) => {
    const button = make("button", { type: "button", "aria-label": name, title: name }, label);
    button.addEventListener("click", act, { signal });
    return button;
  };
  return make("div", { class: "viewer-tools" },
    tool("+", "Nearer", () => picture.zoomBy(ZOOM_STEP)),
    tool("−", "Further away", () => picture.zoomBy(1 / ZOOM_STEP)),
    tool("Reset", "As it was", () => picture.reset()),
    make("span", { class: "muted" }, "Drag or arrow keys turn it, wheel or + and − zoom, 0 resets."));
}

// ---------------------------------------------------------------------------------- the dialog

async function show({ mesh, format, name }, download) {
  const aborting = new AbortController();
  const { signal } = aborting;
  const state = make("p", { role: "status" }, "Loading…");
  const progress = make("progress", { "aria-label": "Loading" });
  const stage = make("div", { class: "viewer-stage" }, state, progress);
  const close = make("button", { type: "button", "aria-label": "Close", class: "quiet" }, "Close");
  const foot = make("div", { class: "viewer-foot" });
  const links = make("span", { class: "actions" });
  if (download) {
    links.append(make("a", { class: "button", href: download, rel: "noreferrer" }, "Download"));
  }
  links.append(close);
  const title = make("h2", { id: "viewer-title" }, name);
  const dialog = make("dialog", { class: "viewer", "aria-labelledby": "viewer-title" }, make("header", {}, title, links), stage, foot);
  let picture = null;
  close.addEventListener("click", () => dialog.close());
  dialog.addEventListener("close", () => {
    aborting.abort(new DOMException("closed", "AbortError"));
    picture?.close();
    dialog.remove();
  });
  document.body.append(dialog);
  dialog.showModal();
  const fail = (text) => {
    picture = null;
    progress.remove();
    state.textContent = text;
    stage.replaceChildren(state);
    foot.replaceChildren();
  };
  try {
    const buffer = await load(mesh, signal, (length, whole) => {
      state.textContent = whole ? `Loading ${mebibytes(length)} of ${mebibytes(whole)}` : `Loading ${mebibytes(length)}`;
      if (whole) {
        progress.max = whole;
        progress.value = length;
      }
    });
    state.textContent = "Reading…";
    progress.removeAttribute("value");
    const bytes = buffer.byteLength;
    const found = await read(format, buffer, signal);
    const triangles = (found.corners.length / 3).toLocaleString();
    const canvas = make("canvas", { tabindex: "0", role: "img", "aria-label": `${name}: a mesh of ${triangles} triangles, turned by the arrow keys` });
    stage.replaceChildren(canvas);
    picture = new Picture(canvas, found);
    canvas.addEventListener("webglcontextlost", () => signal.aborted || fail("The graphics card gave up: close this and show it again."));
    new ResizeObserver(() => picture?.ask()).observe(canvas);
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => picture?.ask(), { signal });
    follow(canvas, picture, signal);
    const sizes = found.sizes.map((size) => size.toLocaleString(undefined, { maximumFractionDigits: 1 })).join(" × ");
    foot.append(tools(picture, signal), make("p", { class: "muted" }, `${triangles} triangles · ${sizes} in the file's unit · ${mebibytes(bytes)}`));
    canvas.focus();
  } catch (error) {
    if (!signal.aborted) {
      fail(error instanceof Refused ? error.message : "The file cannot be had: the connection broke.");
    }
  }
}

document.addEventListener("click", (event) => {
  const button = event.target.closest?.("[data-mesh]");
  if (button) {
    show(button.dataset, button.parentElement.querySelector("a[href]")?.href);
  }
});
