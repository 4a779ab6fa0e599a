/* The page: a picture goes to the server of this page, its hands come back. */
"use strict";

const $ = (id) => document.getElementById(id);
const METHODS = {
  auto: "auto",
  both: "both: the network's hand, fitted to landmarks",
  network: "network: trained weights alone",
  fit: "fit: a hand model fitted to landmarks",
};
const HINT = "A joint is in the wrong place? Drag it; the mesh follows.";
const HINT_BOX = "Draw a box round the hand that was missed.";

let settings = { methods: [], default: "", max_bytes: 64e6, joint_names: [] };
let viewer = null;
let turn = 0; /* counts pictures: answers to earlier ones are dropped */
let picture = null; /* {file, depth, id}: keys of the server */
let edit = { running: false, next: null };

class Refusal extends Error {}

const pause = (ms) => new Promise((resolve) => setTimeout(resolve, ms));

/* One request; a busy server is tried again, other refusals are thrown with their reason. */
async function request(path, options = {}) {
  for (let attempt = 0; ; attempt++) {
    let response;
    try {
      response = await fetch(path, options);
    } catch {
      throw new Refusal("The server does not answer. Is `utnet serve` still running?");
    }
    if (response.ok) return response;
    const reason = await response.text();
    if (response.status !== 503 || attempt === 5) throw new Refusal(reason || `refused (${response.status})`);
    await pause(1000 * (attempt + 1));
  }
}

const post = async (path, message) =>
  (
    await request(path, {
      method: "POST",
      headers: { "Content-Type": "application/json" },
      body: JSON.stringify(message),
    })
  ).json();

async function upload(blob, name) {
  if (blob.size > settings.max_bytes)
    throw new Refusal(`${name}: ${(blob.size / 1e6).toFixed(0)} MB; at most ${settings.max_bytes / 1e6} MB`);
  if (blob.size === 0) throw new Refusal(`${name}: the file is empty`);
  const headers = { "Content-Type": "application/octet-stream", "X-File-Name": encodeURIComponent(name) };
  return (await (await request("/api/files", { method: "POST", headers, body: blob })).json()).id;
}

/* ------------------------------------------------------------------------------------------------ what is shown */

const stage = new Stage({
  element: $("stage"),
  image: $("view"),
  svg: $("joints"),
  onMove: (hand, points) => queueEdit({ hand, points }),
  onBox: (box) => {
    setAdding(false);
    queueEdit({ box });
  },
});

function say(text, kind = "") {
  $("status").textContent = text;
  $("status").className = kind;
}

function setWorking(on, { dim = on } = {}) {
  $("progress").hidden = !on;
  $("spinner").hidden = !(on && dim);
  $("stage").classList.toggle("working", on && dim);
  $("find").disabled = on || picture === null;
}

function setAdding(on) {
  stage.adding = on;
  $("add").setAttribute("aria-pressed", on);
  $("hint").textContent = on ? HINT_BOX : stage.movable && stage.hands.length ? HINT : "";
}

function showPart(name) {
  for (const part of ["drop", "live", "stage"]) $(part).hidden = part !== name;
}

function clearResult() {
  setAdding(false);
  viewer?.clear();
  $("scene-note").hidden = false;
  $("result").classList.add("empty");
  for (const id of ["hands", "downloads", "tools"]) $(id).hidden = true;
  $("reset").disabled = true;
}

async function showResult(state, { keepView = false } = {}) {
  const base = `/api/pictures/${picture.id}`;
  await stage.show(`${base}/view.jpg?version=${state.version}`, state);
  showPart("stage");
  say(state.note);
  $("tools").hidden = false;
  setAdding(stage.adding);
  $("undo").disabled = !state.hands.some((hand) => Object.keys(hand.points).length);
  const some = state.hands.length > 0;
  $("result").classList.remove("empty");
  showTable(state.hands);
  $("downloads").hidden = false;
  $("glb").hidden = !some;
  for (const [id, file] of Object.entries({ glb: "hands.glb", json: "hands.json", jpg: "overlay.jpg" }))
    $(id).href = `${base}/${file}`;
  $("reset").disabled = !some || viewer === null;
  if (some && viewer !== null) {
    const glb = await (await request(`${base}/hands.glb?version=${state.version}`)).arrayBuffer();
    await viewer.show(glb, { keepView });
    $("scene-note").hidden = true;
  }
}

function showTable(hands) {
  $("hands").hidden = hands.length === 0;
  $("hands").tBodies[0].replaceChildren(
    ...hands.map((hand, index) => {
      const row = document.createElement("tr");
      const source = hand.distance_source === "sensor" ? "depth" : "its size";
      for (const text of [index + 1, hand.side, hand.score.toFixed(2), `${hand.distance_m.toFixed(2)} m`, source])
        row.insertCell().textContent = text;
      return row;
    }),
  );
}

function showError(error) {
  if (!(error instanceof Refusal)) console.error(error);
  say(error instanceof Refusal ? error.message : `Something went wrong on this page: ${error.message}`, "refused");
}

/* ------------------------------------------------------------------------------------------------- the work */

async function usePicture(blob, name) {
  const mine = ++turn;
  stopCamera();
  clearResult();
  picture = null;
  stage.preview(URL.createObjectURL(blob));
  showPart("stage");
  setWorking(true);
  say("Sending the picture ...");
  try {
    const file = await upload(blob, name);
    if (mine !== turn) return;
    picture = { file, id: null };
    await findHands(mine);
  } catch (error) {
    if (mine !== turn) return;
    showError(error);
    if (picture === null || picture.id === null) showPart("drop");
  } finally {
    if (mine === turn) setWorking(false);
  }
}

async function findAgain() {
  const mine = ++turn;
  setWorking(true);
  try {
    await findHands(mine);
  } catch (error) {
    if (mine === turn) {
      clearResult();
      showError(error);
    }
  } finally {
    if (mine === turn) setWorking(false);
  }
}

async function findHands(mine) {
  const depth = $("depth").files[0];
  const number = (input) => (input.value.trim() === "" ? null : Number(input.value));
  const query = {
    file: picture.file,
    depth: depth ? await upload(depth, depth.name) : null,
    depth_scale: number($("depth-scale")),
    camera: [...document.querySelectorAll(".camera")].map(number),
    method: $("method").value,
  };
  const { id } = await post("/api/pictures", query);
  const begun = performance.now();
  for (let wait = 60; ; wait = Math.min(wait * 1.3, 500)) {
    const state = await (await request(`/api/pictures/${id}`)).json();
    if (mine !== turn) return;
    if (state.state === "done") {
      picture.id = id;
      return showResult(state);
    }
    if (state.state !== "waiting" && state.state !== "working") throw new Refusal(state.note);
    const seconds = Math.floor((performance.now() - begun) / 1000);
    const others = state.before === 1 ? "1 picture is" : `${state.before} pictures are`;
    const step = state.state === "working" ? state.step : state.before ? `${others} before yours` : "Getting ready";
    say(`${step} ...${seconds > 0 ? ` ${seconds} s` : ""}`);
    await pause(wait);
  }
}

/* Corrections go one at a time; while one is under way only the newest of the others is kept. */
async function queueEdit(change) {
  edit.next = change;
  if (edit.running || picture === null) return;
  const mine = turn;
  edit.running = true;
  setWorking(true, { dim: "box" in change });
  try {
    while (edit.next !== null && mine === turn) {
      const message = edit.next;
      edit.next = null;
      const state = await post(`/api/pictures/${picture.id}/edits`, message);
      if (mine === turn) await showResult(state, { keepView: true });
    }
  } catch (error) {
    edit.next = null;
    if (mine === turn) showError(error);
  } finally {
    edit.running = false;
    if (mine === turn) setWorking(false);
  }
}

async function undo() {
  for (const [hand, { points }] of stage.hands.entries())
    if (Object.keys(points).length) await queueEdit({ hand, points: {} });
}

function startAnew() {
  turn++;
  picture = null;
  stopCamera();
  clearResult();
  setWorking(false);
  showPart("drop");
  say("Drop a picture to begin.");
}

/* ------------------------------------------------------------------------------------------------- camera, drop, paste */

async function startCamera() {
  startAnew();
  const mine = turn;
  try {
    const stream = await navigator.mediaDevices.getUserMedia({ video: { width: { ideal: 1280 } }, audio: false });
    if (mine !== turn) return stream.getTracks().forEach((track) => track.stop());
    $("video").srcObject = stream;
    showPart("live");
    await $("video").play();
  } catch (error) {
    stopCamera();
    if (mine === turn) {
      startAnew();
      say(`The camera cannot be used: ${error.message}`, "refused");
    }
  }
}

function stopCamera() {
  $("video").srcObject?.getTracks().forEach((track) => track.stop());
  $("video").srcObject = null;
}

function shoot() {
  const video = $("video");
  const canvas = document.createElement("canvas");
  [canvas.width, canvas.height] = [video.videoWidth, video.videoHeight];
  canvas.getContext("2d").drawImage(video, 0, 0);
  canvas.toBlob((blob) => usePicture(blob, "camera.jpg"), "image/jpeg", 0.95);
}

const firstFile = (list) => [...(list || [])].find((item) => item instanceof File);

function listen() {
  $("choose").onclick = () => $("file").click();
  $("file").onchange = () => {
    const file = $("file").files[0];
    if (file) usePicture(file, file.name);
    $("file").value = "";
  };
  $("camera").onclick = startCamera;
  $("shoot").onclick = shoot;
  $("close-camera").onclick = startAnew;
  $("example").onclick = async () => {
    try {
      usePicture(await (await request("/static/example.jpg")).blob(), "example.jpg");
    } catch (error) {
      showError(error);
    }
  };
  $("again").onclick = startAnew;
  $("find").onclick = findAgain;
  $("add").onclick = () => setAdding(!stage.adding);
  $("undo").onclick = undo;
  $("reset").onclick = () => viewer.resetView();
  document.addEventListener("dragover", (event) => {
    event.preventDefault();
    document.body.classList.add("dragging");
  });
  document.addEventListener("dragleave", (event) => {
    if (event.relatedTarget === null) document.body.classList.remove("dragging");
  });
  document.addEventListener("drop", (event) => {
    event.preventDefault();
    document.body.classList.remove("dragging");
    const file = firstFile(event.dataTransfer.files);
    if (file) usePicture(file, file.name);
  });
  document.addEventListener("paste", (event) => {
    const file = firstFile(event.clipboardData.files);
    if (file) usePicture(file, file.name || "pasted.png");
  });
}

async function begin() {
  $("camera").hidden = !navigator.mediaDevices; /* browsers give it to localhost and https only */
  try {
    viewer = new HandViewer($("scene"));
  } catch {
    $("scene-note").textContent = "This browser shows no 3D (WebGL); the files can be downloaded all the same.";
  }
  listen();
  try {
    settings = await (await request("/api/settings")).json();
  } catch (error) {
    showError(error);
  }
  stage.names = settings.joint_names;
  $("method-label").hidden = settings.methods.length < 2;
  for (const name of settings.methods)
    $("method").add(new Option(name === "auto" ? `auto: ${settings.default}` : METHODS[name], name));
}

begin();
