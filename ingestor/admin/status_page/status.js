"use strict";

const POLL_MS = 1000;
const at = (id) => document.getElementById(id);
let before = null;

const whole = (number) => number.toLocaleString("en");
const tenth = (number) => (number === null ? "–" : number.toFixed(1));

function rate(now, earlier, seconds) {
  return seconds > 0 ? whole(Math.max(0, Math.round((now - earlier) / seconds))) : "–";
}

function definitions(list, entries) {
  list.replaceChildren();
  for (const [name, value, bad] of entries) {
    const term = document.createElement("dt");
    const detail = document.createElement("dd");
    term.textContent = name;
    detail.textContent = value;
    if (bad) detail.className = "bad";
    list.append(term, detail);
  }
}

function tableRow(cells) {
  const row = document.createElement("tr");
  for (const cell of cells) {
    const data = document.createElement("td");
    data.textContent = cell;
    row.append(data);
  }
  return row;
}

function kafka(status) {
  if (status.kafka_up === null) return "not used";
  if (!status.kafka_up) return "acknowledges nothing";
  return status.held.length ? `refuses ${status.held.join("; ")}` : "acknowledges";
}

function show(status) {
  const seconds = before ? (status.time_ns - before.time_ns) / 1e9 : 0;
  const earlier = before ?? status;
  const states = Object.entries(status.connections).map(([state, n]) => `${n} ${state}`);
  const [bound, share] = status.fullest;
  at("phase").textContent = status.phase;
  at("uptime").textContent = `for ${Math.round(status.uptime_s)} s`;
  definitions(at("now"), [
    ["connections", states.join(", ") || "none"],
    ["frames/s", rate(status.frames, earlier.frames, seconds)],
    ["rows/s", rate(status.rows_appended, earlier.rows_appended, seconds)],
    ["lag p50 / p99 ms", `${tenth(status.lag_p50_ms)} / ${tenth(status.lag_p99_ms)}`],
    ["publish p99 ms", tenth(status.publish_p99_ms)],
    ["loop delay p99 ms", tenth(status.loop_delay_p99_ms)],
    ["buffer", `${(100 * share).toFixed(1)} % (${bound})`, share > 0.5],
    ["Kafka", kafka(status), status.kafka_up === false || status.held.length > 0],
    ["reconnects", whole(status.reconnects)],
  ]);
  definitions(at("ledger"), [
    ["rows decoded", whole(status.rows_appended)],
    ["acknowledged", whole(status.acked)],
    ["pending", whole(status.pending)],
    ["duplicates", whole(status.duplicates)],
    ["filtered", whole(status.filtered)],
    ["conflated", whole(status.conflated)],
    ["shed", whole(status.shed), status.shed > 0],
    ["dead-lettered", whole(status.dead_lettered), status.dead_lettered > 0],
    ["fenced", whole(status.fenced), status.fenced > 0],
    ["frames rejected", whole(status.rejected), status.rejected > 0],
    ["gaps declared", whole(status.gaps)],
    ["unaccounted", whole(status.unaccounted), status.unaccounted !== 0],
  ]);
  const rowsBefore = new Map(earlier.feeds.map((one) => [feedName(one), one.rows]));
  at("feeds").replaceChildren(
    ...status.feeds.map((one) =>
      tableRow([
        feedName(one),
        whole(one.rows),
        rate(one.rows, rowsBefore.get(feedName(one)) ?? one.rows, seconds),
        tenth(one.lag_p50_ms),
        tenth(one.lag_p99_ms),
        tenth(one.venue_lag_p99_ms),
        tenth(one.skew_ms),
      ]),
    ),
  );
  before = status;
}

const feedName = (one) => `${one.venue} ${one.market} ${one.channel}`;

async function poll() {
  try {
    const answer = await fetch("status.json", { cache: "no-store" });
    show(await answer.json());
    at("error").textContent = "";
  } catch {
    at("error").textContent = "no answer";
  }
  setTimeout(poll, POLL_MS);
}

poll();
