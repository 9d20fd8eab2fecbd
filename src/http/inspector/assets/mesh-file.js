// Reads mesh files: STL (binary and ASCII), PLY (ASCII and binary), OBJ. A worker of mesh.js, which
// terminates it when it takes too long. Files are not trusted: nothing is read beyond the end, no
// more memory is allocated than the bytes can fill, and triangles whose positions are not numbers
// are dropped.

const MAX_TRIANGLES = 6_000_000; // 72 MB of indices; more than any scan
const MAX_HEAD_BYTES = 64 * 1024;
const MAX_ELEMENTS = 64;
const MAX_PROPERTIES = 256;
const MAX_SIDES = 1024; // of one polygon

class Unreadable extends Error {}

const refuse = (why) => {
  throw new Unreadable(why);
};

// A growing list of numbers, so that no count in a file is trusted.
class Growing {
  constructor(type) {
    this.items = new type(1024);
    this.length = 0;
  }

  push(...numbers) {
    if (this.length + numbers.length > this.items.length) {
      const larger = new this.items.constructor(this.items.length * 2);
      larger.set(this.items);
      this.items = larger;
    }
    for (const number of numbers) {
      this.items[this.length++] = number;
    }
  }

  done() {
    return this.items.slice(0, this.length);
  }
}

// Words of ASCII bytes, line by line.
class Words {
  constructor(bytes, at = 0) {
    this.bytes = bytes;
    this.at = at;
  }

  get isDone() {
    return this.at >= this.bytes.length;
  }

  // The next word of this line; null at its end.
  next() {
    const { bytes } = this;
    while (this.at < bytes.length && bytes[this.at] <= 32 && bytes[this.at] !== 10) {
      this.at += 1;
    }
    const from = this.at;
    while (this.at < bytes.length && bytes[this.at] > 32) {
      this.at += 1;
    }
    if (from === this.at) {
      return null;
    }
    // Numbers and keywords are never longer.
    return String.fromCharCode.apply(null, bytes.subarray(from, Math.min(this.at, from + 64)));
  }

  // The next word, on this line or a later one.
  any() {
    for (;;) {
      const word = this.next();
      if (word !== null || this.isDone) {
        return word;
      }
      this.at += 1;
    }
  }

  endLine() {
    const end = this.bytes.indexOf(10, this.at);
    this.at = end < 0 ? this.bytes.length : end + 1;
  }
}

// An indexed mesh; triangles with an invalid corner are dropped.
function mesh(positions, corners) {
  const places = positions.length / 3;
  const kept = new Uint32Array(corners.length);
  let length = 0;
  for (let at = 0; at + 2 < corners.length; at += 3) {
    let isWhole = true;
    for (let side = 0; side < 3; side++) {
      const corner = corners[at + side];
      isWhole &&= corner < places;
      for (let axis = 0; isWhole && axis < 3; axis++) {
        isWhole = Number.isFinite(positions[corner * 3 + axis]);
      }
    }
    if (isWhole) {
      kept[length++] = corners[at];
      kept[length++] = corners[at + 1];
      kept[length++] = corners[at + 2];
    }
  }
  return { positions, corners: kept.slice(0, length) };
}

// A mesh of triangles without shared corners.
function soup(positions) {
  const corners = new Uint32Array(positions.length / 3);
  for (let at = 0; at < corners.length; at++) {
    corners[at] = at;
  }
  return mesh(positions, corners);
}

// A polygon as a fan of triangles.
function fan(corners, polygon) {
  for (let side = 2; side < polygon.length; side++) {
    if (corners.length >= MAX_TRIANGLES * 3) {
      refuse(`it has more than ${MAX_TRIANGLES.toLocaleString()} triangles`);
    }
    corners.push(polygon[0], polygon[side - 1], polygon[side]);
  }
}

// ------------------------------------------------------------------------------------------- STL

function stl(bytes) {
  const HEAD = 84;
  const TRIANGLE = 50;
  if (bytes.length >= HEAD) {
    const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.length);
    const told = view.getUint32(80, true);
    const held = Math.floor((bytes.length - HEAD) / TRIANGLE);
    const isText = String.fromCharCode(...bytes.subarray(0, 5)) === "solid";
    // Binary files may begin with "solid" too; then the length decides.
    if (!isText || HEAD + told * TRIANGLE === bytes.length) {
      const count = Math.min(told, held);
      if (count > MAX_TRIANGLES) {
        refuse(`it has more than ${MAX_TRIANGLES.toLocaleString()} triangles`);
      }
      const positions = new Float32Array(count * 9);
      for (let triangle = 0; triangle < count; triangle++) {
        const from = HEAD + triangle * TRIANGLE + 12; // after the normal
        for (let number = 0; number < 9; number++) {
          positions[triangle * 9 + number] = view.getFloat32(from + number * 4, true);
        }
      }
      return soup(positions);
    }
  }
  const words = new Words(bytes);
  const positions = new Growing(Float32Array);
  while (!words.isDone) {
    if (words.next() === "vertex") {
      positions.push(Number(words.next()), Number(words.next()), Number(words.next()));
      if (positions.length > MAX_TRIANGLES * 9) {
        refuse(`it has more than ${MAX_TRIANGLES.toLocaleString()} triangles`);
      }
    }
    words.endLine();
  }
  return soup(positions.done().slice(0, positions.length - (positions.length % 9)));
}

// ------------------------------------------------------------------------------------------- OBJ

function obj(bytes) {
  const words = new Words(bytes);
  const positions = new Growing(Float32Array);
  const corners = new Growing(Uint32Array);
  while (!words.isDone) {
    const kind = words.next();
    if (kind === "v") {
      positions.push(Number(words.next()), Number(words.next()), Number(words.next()));
    } else if (kind === "f") {
      const polygon = [];
      for (let word = words.next(); word !== null && polygon.length < MAX_SIDES; word = words.next()) {
        const number = Number.parseInt(word, 10); // up to the first slash
        const corner = number < 0 ? positions.length / 3 + number : number - 1;
        if (!(corner >= 0 && corner < 2 ** 32)) {
          refuse("a face names a corner that cannot be");
        }
        polygon.push(corner);
      }
      fan(corners, polygon);
    }
    words.endLine();
  }
  return mesh(positions.done(), corners.done());
}

// ------------------------------------------------------------------------------------------- PLY

const NUMBERS = {
  char: [1, "getInt8"], int8: [1, "getInt8"], uchar: [1, "getUint8"], uint8: [1, "getUint8"],
  short: [2, "getInt16"], int16: [2, "getInt16"], ushort: [2, "getUint16"], uint16: [2, "getUint16"],
  int: [4, "getInt32"], int32: [4, "getInt32"], uint: [4, "getUint32"], uint32: [4, "getUint32"],
  float: [4, "getFloat32"], float32: [4, "getFloat32"], double: [8, "getFloat64"], float64: [8, "getFloat64"],
};

function plyHead(bytes) {
  const words = new Words(bytes.subarray(0, MAX_HEAD_BYTES));
  if (words.next() !== "ply") {
    refuse("it does not begin as a PLY file");
  }
  const head = { format: null, elements: [], end: 0 };
  const kindOf = (name) => (Object.hasOwn(NUMBERS, name ?? "") ? NUMBERS[name] : refuse(`its numbers of type ${name} are not known`));
  while (!words.isDone) {
    words.endLine();
    const keyword = words.next();
    const element = head.elements.at(-1);
    if (keyword === "format") {
      head.format = words.next();
    } else if (keyword === "element") {
      const [name, count] = [words.next(), Number(words.next())];
      if (!Number.isSafeInteger(count) || count < 0 || head.elements.length >= MAX_ELEMENTS) {
        refuse("its head counts what cannot be counted");
      }
      head.elements.push({ name, count, properties: [] });
    } else if (keyword === "property" && element) {
      if (element.properties.length >= MAX_PROPERTIES) {
        refuse("its head lists too many properties");
      }
      const type = words.next();
      const length = type === "list" ? kindOf(words.next()) : null;
      const kind = kindOf(type === "list" ? words.next() : type);
      element.properties.push({ length, kind, name: words.next() });
    } else if (keyword === "end_header") {
      words.endLine();
      head.end = words.at;
      return head;
    }
  }
  return refuse("its head has no end");
}

// The numbers of the body, one by one; reading past the file's end throws.
function plyNumbers(bytes, head) {
  if (head.format === "ascii") {
    const words = new Words(bytes, head.end);
    return () => {
      const word = words.any();
      return word === null ? refuse("it ends too early") : Number(word);
    };
  }
  const isLittle = head.format === "binary_little_endian";
  if (!isLittle && head.format !== "binary_big_endian") {
    refuse(`its format ${head.format} is not known`);
  }
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.length);
  let at = head.end;
  return ([size, read]) => {
    if (at + size > bytes.length) {
      refuse("it ends too early");
    }
    const number = view[read](at, isLittle);
    at += size;
    return number;
  };
}

function ply(bytes) {
  const head = plyHead(bytes);
  const next = plyNumbers(bytes, head);
  const positions = new Growing(Float32Array);
  const corners = new Growing(Uint32Array);
  for (const { name, count, properties } of head.elements) {
    if (properties.length === 0) {
      continue; // takes no bytes, however often it is there
    }
    const axes = properties.map((property) => (property.length ? -1 : ["x", "y", "z"].indexOf(property.name)));
    const isFace = (property) => name === "face" && /^vertex_ind(ex|ices)$/.test(property.name ?? "");
    for (let item = 0; item < count; item++) {
      const place = [NaN, NaN, NaN];
      for (const [index, property] of properties.entries()) {
        if (!property.length) {
          const number = next(property.kind);
          if (axes[index] >= 0) {
            place[axes[index]] = number;
          }
          continue;
        }
        const sides = next(property.length);
        if (!(sides >= 0)) {
          refuse("it lists fewer than nothing");
        }
        const polygon = [];
        for (let side = 0; side < sides; side++) {
          const corner = next(property.kind);
          if (isFace(property) && side < MAX_SIDES) {
            polygon.push(corner >= 0 ? corner : 0xffffffff);
          }
        }
        fan(corners, polygon);
      }
      if (name === "vertex") {
        positions.push(...place);
      }
    }
  }
  return mesh(positions.done(), corners.done());
}

// ------------------------------------------------------------------------------------------------

// Centres the mesh and scales it to a ball of radius 1. In double precision, since scans may be far
// from their origin.
function centre({ positions, corners }) {
  const low = [Infinity, Infinity, Infinity];
  const high = [-Infinity, -Infinity, -Infinity];
  for (const corner of corners) {
    for (let axis = 0; axis < 3; axis++) {
      const value = positions[corner * 3 + axis];
      low[axis] = Math.min(low[axis], value);
      high[axis] = Math.max(high[axis], value);
    }
  }
  const sizes = low.map((value, axis) => high[axis] - value);
  const radius = Math.hypot(...sizes) / 2 || 1;
  for (let at = 0; at < positions.length; at++) {
    const axis = at % 3;
    positions[at] = (positions[at] - (low[axis] + high[axis]) / 2) / radius;
  }
  return { positions, corners, sizes };
}

export function read(format, buffer) {
  const readers = { stl, ply, obj };
  const found = readers[format](new Uint8Array(buffer));
  if (found.corners.length === 0) {
    refuse("it holds no triangle");
  }
  return centre(found);
}

if (typeof WorkerGlobalScope !== "undefined") {
  onmessage = ({ data }) => {
    try {
      const found = read(data.format, data.buffer);
      postMessage({ found }, [found.positions.buffer, found.corners.buffer]);
    } catch (error) {
      postMessage({ why: error instanceof Unreadable ? error.message : "it takes more memory than there is" });
    }
  };
}
