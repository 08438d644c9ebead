"use strict";

const HISTORY_MS = 15 * 60 * 1000;
const SILENT_MS = 5000; // without a snapshot the page says so
const SEARCH_MS = 2000;
const TYPING_MS = 250;
const WIDTH = 300;
const HEIGHT = 60;

const at = (id) => document.getElementById(id);
const whole = (number) => number.toLocaleString("en");
const tenth = (number) => (number === null || number === undefined ? "–" : number.toFixed(1));

const NAME_MAX = 60;
const short = (name) => (name.length > NAME_MAX ? `${name.slice(0, NAME_MAX)}…` : name);

let before = null;
let heardAt = 0;
let points = [];

function rate(now, earlier, seconds) {
  return seconds > 0 ? whole(Math.max(0, Math.round((now - earlier) / seconds))) : "–";
}

function element(name, text, bad) {
  const made = document.createElement(name);
  made.textContent = text;
  if (bad) made.className = "bad";
  return made;
}

function definitions(list, entries) {
  list.replaceChildren(
    ...entries.flatMap(([name, value, bad]) => [element("dt", name), element("dd", value, bad)]),
  );
}

function tableRow(cells, bad = []) {
  const row = document.createElement("tr");
  row.append(...cells.map((cell, place) => element("td", cell, bad[place])));
  return row;
}

function duration(seconds) {
  const [days, hours, minutes] = [86400, 3600, 60].map((unit) => Math.floor(seconds / unit));
  if (days) return `${days} d ${hours % 24} h`;
  if (hours) return `${hours} h ${minutes % 60} min`;
  if (minutes) return `${minutes} min ${Math.floor(seconds % 60)} s`;
  return `${Math.floor(seconds)} s`;
}

function kafka(status) {
  if (status.kafka_up === null) return "not used";
  if (!status.kafka_up) return "acknowledges nothing";
  return status.held.length ? `refuses ${status.held.join("; ")}` : "acknowledges";
}

function showState(status) {
  const wrong = status.wrong.length > 0;
  const lost = status.losses.length ? `; since the start: ${status.losses.join(", ")}` : "";
  at("state").className = wrong ? "bad" : "calm";
  at("state").textContent = wrong ? status.wrong.join("; ") + lost : `all is well${lost}`;
}

function showNow(status, earlier, seconds) {
  definitions(at("now"), [
    ["connections", `${whole(status.connected)} of ${whole(sum(Object.values(status.connections)))}`],
    ["frames/s", rate(status.frames, earlier.frames, seconds)],
    ["rows/s", rate(status.rows_appended, earlier.rows_appended, seconds)],
    ["lag p50 / p99 ms", `${tenth(status.lag_p50_ms)} / ${tenth(status.lag_p99_ms)}`],
    ["loop delay p99 ms", tenth(status.loop_delay_p99_ms)],
    ["books valid / invalid", `${whole(status.books.valid ?? 0)} / ${whole(status.books.invalid ?? 0)}`, status.books.invalid > 0],
    ["recorder", recorder(status), status.recorder === "failed"],
    ["reconnects", whole(status.reconnects)],
  ]);
  const [bound] = status.fullest;
  definitions(at("kafka"), [
    ["Kafka", kafka(status), status.kafka_up === false || status.held.length > 0],
    ["publish p99 ms", tenth(status.publish_p99_ms)],
    ...Object.entries(status.queue_fill).map(([name, fill]) => [
      `${name} of the budget${name === bound ? " (fullest)" : ""}`,
      `${(100 * fill).toFixed(1)} %`,
      fill >= 0.75,
    ]),
    ...Object.entries(status.auxiliary).map(([name, count]) => [
      `auxiliary records ${name}`,
      whole(count),
      count > 0 && (name === "refused" || name === "dropped"),
    ]),
  ]);
}

function recorder(status) {
  if (!status.recorder) return "off";
  return status.recorder_reason ? `${status.recorder}: ${status.recorder_reason}` : status.recorder;
}

const sum = (numbers) => numbers.reduce((total, number) => total + number, 0);

function showLedger(status) {
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
}

function showConnections(status) {
  const states = [...new Set(Object.values(status.venues).flatMap((counts) => Object.keys(counts)))];
  const head = document.createElement("tr");
  head.append(...["venue", ...states].map((name) => element("th", name)));
  at("venue-states").replaceChildren(head);
  at("venues").replaceChildren(
    ...Object.entries(status.venues).map(([venue, counts]) =>
      tableRow([venue, ...states.map((state) => whole(counts[state] ?? 0))]),
    ),
  );
  definitions(
    at("workers"),
    Object.entries(status.workers).map(([number, state]) => [
      `worker ${number}`,
      state,
      !state.startsWith("up"),
    ]),
  );
}

function showEvents(status) {
  const newestFirst = [...status.events].reverse();
  at("events").replaceChildren(
    ...newestFirst.map((event) => {
      const time = new Date(event.time_ns / 1e6).toISOString().slice(11, 19);
      return element("li", `${time} ${event.text}`, event.is_bad);
    }),
  );
}

const feedName = (feed) => `${feed.venue} ${feed.market} ${feed.channel}`;

function showFeeds(status, earlier, seconds) {
  const rowsBefore = new Map(earlier.feeds.map((feed) => [feedName(feed), feed.rows]));
  at("feeds").replaceChildren(
    ...status.feeds.map((feed) =>
      tableRow([
        feedName(feed),
        whole(feed.rows),
        rate(feed.rows, rowsBefore.get(feedName(feed)) ?? feed.rows, seconds),
        tenth(feed.lag_p50_ms),
        tenth(feed.lag_p99_ms),
        tenth(feed.venue_lag_p99_ms),
        tenth(feed.skew_ms),
      ]),
    ),
  );
}

// A point is [time_ns, rows, frames, lag p50 ms, lag p99 ms, fill of the fullest bound].
function draw(svg, series, newest) {
  const values = series.filter(([, value]) => value !== null);
  const top = Math.max(1e-9, ...values.map(([, value]) => value));
  const end = values.length ? values[values.length - 1][0] : 0;
  const text = values
    .map(([ms, value]) => {
      const x = WIDTH * (1 - (end - ms) / HISTORY_MS);
      const y = HEIGHT - (HEIGHT - 2) * (value / top);
      return `${x.toFixed(1)},${y.toFixed(1)}`;
    })
    .join(" ");
  svg.querySelector("polyline").setAttribute("points", text);
  const last = values.length ? values[values.length - 1][1] : null;
  newest.textContent = last === null ? "–" : `${newest.id === "rate-now" ? whole(Math.round(last)) : last.toFixed(1)} (most ${newest.id === "rate-now" ? whole(Math.round(top)) : top.toFixed(1)})`;
}

function showHistory(status) {
  const last = points[points.length - 1];
  if (!last || (status.time_ns - last[0]) / 1e9 >= 5) {
    points.push([status.time_ns, status.rows_appended, status.frames, status.lag_p50_ms, status.lag_p99_ms, status.fullest[1]]);
  }
  points = points.filter(([time]) => (status.time_ns - time) / 1e6 <= HISTORY_MS);
  const rates = points.slice(1).map((point, place) => {
    const seconds = (point[0] - points[place][0]) / 1e9;
    return [point[0] / 1e6, seconds > 0 ? Math.max(0, point[1] - points[place][1]) / seconds : null];
  });
  draw(at("rate"), rates, at("rate-now"));
  draw(at("lag"), points.map((point) => [point[0] / 1e6, point[4]]), at("lag-now"));
}

function show(status) {
  const seconds = before ? (status.time_ns - before.time_ns) / 1e9 : 0;
  const earlier = before ?? status;
  at("version").textContent = status.version;
  at("phase").textContent = status.phase;
  at("uptime").textContent = `for ${duration(status.uptime_s)}`;
  showState(status);
  showNow(status, earlier, seconds);
  showLedger(status);
  showConnections(status);
  showEvents(status);
  showFeeds(status, earlier, seconds);
  showHistory(status);
  before = status;
  heardAt = Date.now();
}

async function search() {
  const parameters = new URLSearchParams({
    text: at("text").value,
    order: at("order").value,
    limit: "50",
  });
  try {
    const answer = await fetch(`streams.json?${parameters}`, { cache: "no-store" });
    const page = await answer.json();
    at("found").textContent = answer.ok
      ? `${whole(page.streams.length)} of ${whole(page.matching)} shown, ${whole(page.total)} streams`
      : page.error;
    if (!answer.ok) return;
    at("streams").replaceChildren(
      ...page.streams.map((stream) =>
        tableRow(
          [
            `${feedName(stream)} ${short(stream.symbol)}`,
            stream.is_up ? "yes" : "no",
            tenth(stream.silence_s),
            tenth(1000 * stream.lag_s),
            whole(stream.gaps),
            whole(stream.messages),
          ],
          [false, !stream.is_up],
        ),
      ),
    );
  } catch {
    at("found").textContent = "no answer";
  }
}

let searching = 0;
function searchAgain(afterMs) {
  clearTimeout(searching);
  searching = setTimeout(async () => {
    if (!document.hidden) await search();
    searchAgain(SEARCH_MS);
  }, afterMs);
}

function watchSilence() {
  if (Date.now() - heardAt < SILENT_MS) return;
  at("state").className = "bad";
  at("state").textContent = "no answer from the process";
}

const events = new EventSource("events");
events.addEventListener("history", (event) => {
  points = JSON.parse(event.data).points;
});
events.addEventListener("status", (event) => show(JSON.parse(event.data)));
at("text").addEventListener("input", () => searchAgain(TYPING_MS));
at("order").addEventListener("change", () => searchAgain(0));
at("search").addEventListener("submit", (event) => event.preventDefault());
setInterval(watchSilence, 1000);
searchAgain(0);
