"use strict";

const EACH_MS = 1000;
const SILENT_MS = 5000; // without an answer the page says so
const LIFE_DIGITS = 8;
const NAME_MAX = 30;
const REASON_MAX = 200;

const at = (id) => document.getElementById(id);
const whole = (number) => number.toLocaleString("en");
const short = (text, most) => (text.length > most ? `${text.slice(0, most)}…` : text);
const name = (member) => short(member, NAME_MAX) || "–";

let heardAt = Date.now();
let last = null;

function element(name, text, bad) {
  const made = document.createElement(name);
  made.textContent = text;
  if (bad) made.className = "bad";
  return made;
}

// classes: of the cells, by place.
function tableRow(cells, classes = {}) {
  const row = document.createElement("tr");
  row.append(...cells.map((cell) => element("td", cell)));
  for (const [place, name] of Object.entries(classes)) row.children[place].className = name;
  return row;
}

const time = (ms) => (ms ? new Date(ms).toISOString().slice(0, 19).replace("T", " ") : "–");

function showState(cluster) {
  const total = cluster.shards.length;
  const missing = total - cluster.live;
  const parts = [`${whole(cluster.live)} of ${whole(total)} shards live`];
  if (cluster.in_doubt) parts.push("the group may have given shards of this worker away");
  parts.push(`${whole(cluster.takeovers)} takeovers`);
  at("state").className = missing > 0 || cluster.in_doubt ? "bad" : "calm";
  at("state").textContent = parts.join("; ");
}

function showShards(cluster) {
  const odd = cluster.shards.filter((shard) => shard.state !== "live");
  const shown = at("which").value === "odd" ? odd : cluster.shards;
  at("found").textContent = `${whole(odd.length)} not live`;
  at("shards").replaceChildren(
    ...shown.map((shard) =>
      tableRow(
        [
          String(shard.shard),
          shard.state,
          name(shard.owner),
          name(shard.ready),
          time(shard.since_ms),
          whole(shard.revision),
          short(shard.reason, REASON_MAX),
        ],
        { 1: shard.state === "live" ? "" : "bad", 6: "wrap" },
      ),
    ),
  );
}

function moveText(move) {
  const from = move.from ? ` from ${name(move.from)}` : "";
  const how = move.takeover ? "taken over" : "given";
  return `${time(move.time_ms)} shard ${move.shard} ${how}${from} to ${name(move.to)}`;
}

function show(cluster) {
  at("name").textContent = cluster.cluster;
  at("revision").textContent = `revision ${whole(cluster.revision)}`;
  at("member").textContent = cluster.member;
  showState(cluster);
  at("workers").replaceChildren(
    ...cluster.workers.map((worker) =>
      tableRow([
        name(worker.member),
        whole(worker.shards),
        name(worker.where),
        worker.session.slice(0, LIFE_DIGITS),
      ]),
    ),
  );
  at("moves").replaceChildren(
    ...cluster.moves.map((move) => element("li", moveText(move), move.takeover)),
  );
  showShards(cluster);
}

async function ask() {
  try {
    const answer = await fetch("cluster.json", { cache: "no-store" });
    if (!answer.ok) return;
    last = await answer.json();
    heardAt = Date.now();
    show(last);
  } catch {
    // `watchSilence` says so
  }
}

function watchSilence() {
  if (Date.now() - heardAt < SILENT_MS) return;
  at("state").className = "bad";
  at("state").textContent = "no answer from the process";
}

async function turn() {
  if (!document.hidden) await ask();
  watchSilence();
  setTimeout(turn, EACH_MS);
}

at("which").addEventListener("change", () => last && showShards(last));
at("search").addEventListener("submit", (event) => event.preventDefault());
turn();
