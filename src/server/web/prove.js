// "Prove it": the browser checks an entry and the growth of the log by itself (RFC 6962 hashing, C2SP checkpoints).
// The checkpoint and the key of the last visit stay in local storage: a log that was rewritten, cut, or signed by
// another key since then is noticed here, whatever the server says.
"use strict";
(() => {
  const bytes = (base64) => Uint8Array.from(atob(base64), (c) => c.charCodeAt(0));
  const text = new TextEncoder();
  const same = (a, b) => a.length === b.length && a.every((x, i) => x === b[i]);
  const hash = async (...parts) => {
    const all = new Uint8Array(parts.reduce((n, p) => n + p.length, 0));
    parts.reduce((at, p) => (all.set(p, at), at + p.length), 0);
    return new Uint8Array(await crypto.subtle.digest("SHA-256", all));
  };
  const leafHash = (body) => hash([0], body);
  const nodeHash = (left, right) => hash([1], left, right);

  // Sizes are BigInt: shifts of numbers end at 32 bits.
  async function rootFromInclusion(index, size, leaf, path) {
    let [fn, sn, root] = [BigInt(index), BigInt(size) - 1n, leaf];
    if (fn > sn) throw new Error("the entry lies outside the log");
    for (const p of path) {
      if (sn === 0n) throw new Error("the path is too long");
      if (fn & 1n || fn === sn) {
        root = await nodeHash(p, root);
        while (!(fn & 1n) && fn !== 0n) { fn >>= 1n; sn >>= 1n; }
      } else root = await nodeHash(root, p);
      fn >>= 1n; sn >>= 1n;
    }
    if (sn !== 0n) throw new Error("the path is too short");
    return root;
  }

  async function consistent(oldSize, newSize, oldRoot, newRoot, path) {
    const [m, n] = [BigInt(oldSize), BigInt(newSize)];
    if (m === n) return path.length === 0 && same(oldRoot, newRoot);
    if (m === 0n) return true;
    const list = [...path];
    if ((m & (m - 1n)) === 0n) list.unshift(oldRoot);
    if (!list.length) return false;
    let [fn, sn] = [m - 1n, n - 1n];
    while (fn & 1n) { fn >>= 1n; sn >>= 1n; }
    let [fr, sr] = [list[0], list[0]];
    for (const c of list.slice(1)) {
      if (sn === 0n) return false;
      if (fn & 1n || fn === sn) {
        fr = await nodeHash(c, fr);
        sr = await nodeHash(c, sr);
        while (!(fn & 1n) && fn !== 0n) { fn >>= 1n; sn >>= 1n; }
      } else sr = await nodeHash(sr, c);
      fn >>= 1n; sn >>= 1n;
    }
    return sn === 0n && same(fr, oldRoot) && same(sr, newRoot);
  }

  // A checkpoint: origin, size, root, a blank line, signatures ("— name base64(keyid ‖ signature)").
  async function openCheckpoint(note, vkey) {
    const at = note.indexOf("\n\n");
    if (at < 0) throw new Error("the checkpoint is not a note");
    const body = note.slice(0, at + 1);
    const [origin, size, root] = body.split("\n");
    // name+keyid+base64(type ‖ key): the base64 may hold "+" itself.
    const [, name, , key] = /^(.+?)\+([0-9a-f]{8})\+(.+)$/s.exec(vkey.trim()) ?? [];
    const raw = bytes(key ?? "");
    if (raw[0] !== 1 || raw.length !== 33 || name !== origin) throw new Error("the log's key is of no known kind");
    const line = note.slice(at + 2).split("\n").find((l) => l.startsWith(`— ${name} `));
    if (!line) throw new Error("the checkpoint is not signed by the log");
    const signature = bytes(line.slice(`— ${name} `.length)).slice(4);
    const imported = await crypto.subtle.importKey("raw", raw.slice(1), "Ed25519", false, ["verify"]);
    if (!(await crypto.subtle.verify("Ed25519", imported, signature, text.encode(body)))) {
      throw new Error("the signature of the checkpoint is wrong");
    }
    return { origin, size: Number(size), root: bytes(root) };
  }

  function readProof(proof) {
    const at = proof.indexOf("\n\n");
    const [kind, index, ...path] = proof.slice(0, at).split("\n");
    if (kind !== "c2sp.org/tlog-proof@v1" || !index.startsWith("index ")) throw new Error("the proof cannot be read");
    return { index: Number(index.slice(6)), path: path.map(bytes), note: proof.slice(at + 2) };
  }

  const KEPT = "stagedoor-log";
  const kept = () => { try { return JSON.parse(localStorage.getItem(KEPT)); } catch { return null; } };

  async function ask(query) {
    const answer = await fetch(`/console/audit/proof?${query}`, { cache: "no-store", credentials: "same-origin" });
    if (answer.status === 401 || answer.redirected) throw new Error("you are not signed in any more; sign in and try again");
    if (!answer.ok) {
      const why = (await answer.json().catch(() => ({}))).detail;
      throw new Error(why ?? "the server cannot prove it now; try again");
    }
    return answer.json();
  }

  /** Checks that the log of the last visit is the beginning of today's; keeps today's for the next. */
  async function watch(said, checkpoint) {
    const before = kept();
    let grown = "first visit: this checkpoint is kept for the next";
    if (before && before.vkey !== said.vkey) throw new Error("the log is signed by another key than at your last visit");
    if (before) {
      if (before.size > checkpoint.size) throw new Error(`the log had ${before.size} entries at your last visit and has ${checkpoint.size} now: entries were removed`);
      const path = (said.consistency?.hashes ?? []).map(bytes);
      const ok = await consistent(before.size, checkpoint.size, bytes(before.root), checkpoint.root, path);
      if (!ok) throw new Error(`the first ${before.size} entries are not those of your last visit: the log was rewritten`);
      grown = `unchanged since your last visit (${before.size} entries then, ${checkpoint.size} now)`;
    }
    const root = btoa(String.fromCharCode(...checkpoint.root));
    localStorage.setItem(KEPT, JSON.stringify({ vkey: said.vkey, size: checkpoint.size, root, at: Date.now() }));
    return grown;
  }

  async function prove(index) {
    const from = kept()?.size;
    const said = await ask(`index=${index}${from ? `&from=${from}` : ""}`);
    const proof = readProof(said.proof);
    if (proof.index !== index) throw new Error("the proof is for another entry");
    const checkpoint = await openCheckpoint(proof.note, said.vkey);
    const root = await rootFromInclusion(index, checkpoint.size, await leafHash(text.encode(said.body)), proof.path);
    if (!same(root, checkpoint.root)) throw new Error("this entry is not what the log was signed with: it was changed");
    for (const disclosure of said.disclosures ?? []) {
      const digest = await hash(text.encode(disclosure));
      const base64url = btoa(String.fromCharCode(...digest)).replace(/\+/g, "-").replace(/\//g, "_").replace(/=+$/, "");
      if (!said.body.includes(`"${base64url}"`)) throw new Error("what is disclosed is not what was sealed: it was changed");
    }
    return `It holds: entry ${index} is in the signed log of ${checkpoint.size} entries; ${await watch(said, checkpoint)}.`;
  }

  async function check() {
    const from = kept()?.size;
    const said = await ask(from ? `from=${from}` : "");
    const checkpoint = await openCheckpoint(said.checkpoint, said.vkey);
    return `It holds: ${await watch(said, checkpoint)}.`;
  }

  const show = async (button, work) => {
    const out = document.querySelector("[data-proof]");
    button.disabled = true;
    out.dataset.state = "busy";
    out.textContent = "Checking…";
    try {
      out.textContent = await work();
      out.dataset.state = "holds";
    } catch (error) {
      out.textContent = `IT DOES NOT HOLD: ${error.message}.`;
      out.dataset.state = "fails";
    } finally {
      button.disabled = false;
    }
  };
  for (const button of document.querySelectorAll("[data-prove]")) {
    button.addEventListener("click", () => show(button, () => prove(Number(button.dataset.prove))));
  }
  for (const button of document.querySelectorAll("[data-watch]")) {
    button.addEventListener("click", () => show(button, check));
  }
})();
