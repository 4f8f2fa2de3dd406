// Typed arrays, an array of objects, a Map of strings: built, changed, collected, summed up.
"use strict";

const crypto = require("crypto");

function xorshift(seed) {
  let x = seed | 0;
  return () => {
    x ^= x << 13;
    x ^= x >>> 17;
    x ^= x << 5;
    return x >>> 0;
  };
}

const random = xorshift(42);
const hash = crypto.createHash("sha256");

const numbers = new Float64Array(6_000_000);
for (let i = 0; i < numbers.length; i++) numbers[i] = random() / 3;
hash.update(new Uint8Array(numbers.buffer));
console.log("numbers", numbers.reduce((a, b) => a + b, 0));

const objects = [];
for (let i = 0; i < 600_000; i++) objects.push({ id: i, name: "object " + i * 7, weight: i % 101 });
console.log("objects", objects.reduce((sum, o) => sum + o.weight + o.name.length, 0));

const map = new Map();
for (let i = 0; i < 400_000; i++) map.set("key" + i, ("" + (i * 2654435761) % 1e9).repeat(6));
for (let i = 0; i < 400_000; i += 3) map.delete("key" + i);
for (let i = 1; i < 400_000; i += 3) map.set("key" + i, "changed " + i);
for (const [key, value] of map) hash.update(key + value);
console.log("map", map.size);

let garbage = 0;
for (let round = 0; round < 10; round++) {
  const pieces = [];
  for (let i = 0; i < 100_000; i++) pieces.push([round, i, round * i]);
  garbage += pieces.reduce((sum, piece) => sum + piece[2], 0);
}
console.log("garbage", garbage);

objects.sort((a, b) => a.weight - b.weight || b.id - a.id);
for (const o of objects) hash.update(o.name);
for (let i = 0; i < 20_000; i++) {
  const at = random() % numbers.length;
  hash.update(String(numbers[at]));
}
console.log("hash", hash.digest("hex"));
