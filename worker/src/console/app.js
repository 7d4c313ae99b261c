"use strict";
const POLL_MS = 4000, MOST_TAILED = 200;
let session = { signedIn: false }, breakers = [];

// Building

const byId = (id) => document.getElementById(id);
const el = (tag, text, kind) => {
  const made = document.createElement(tag);
  if (text !== undefined && text !== null) made.textContent = text;
  if (kind) made.className = kind;
  return made;
};
const number = (n) => new Intl.NumberFormat("en", { maximumFractionDigits: 1 }).format(n);
const words = (text) => String(text).replaceAll("_", " ").replaceAll("-", " ");
const age = (s) => (s < 120 ? `${number(s)} s` : s < 7200 ? `${number(Math.round(s / 60))} min` : `${number(Math.round(s / 3600))} h`);
const since = (ms) => (ms === null || ms === undefined ? "–" : age(Math.max(0, Math.round((Date.now() - ms) / 1000))));
const button = (text, act, kind) => {
  const made = el("button", text, kind);
  made.type = "button";
  made.addEventListener("click", () => attempt(act));
  return made;
};
// What is red says what to do.
const runbook = (section) => {
  const made = el("a", "runbook");
  made.href = `console/runbook#${section}`;
  made.target = "_blank";
  made.rel = "noreferrer";
  return made;
};
const card = (title, content, help) => {
  const made = el("div", undefined, "card"), head = el("h2", title);
  if (help) head.append(" ", help);
  made.append(head, content);
  return made;
};
const tile = (name, value, note, kind, help) => {
  const made = el("div", undefined, "tile");
  made.append(el("span", name, "quiet"), el("b", value, kind), el("span", note, "quiet"));
  if (help) made.append(" ", help);
  return made;
};
// Columns: [name, kind]; cells are text, [text, class] or an element.
const table = (columns, rows, none) => {
  if (!rows.length) return el("p", none, "quiet");
  const made = el("table"), top = el("thead"), head = el("tr"), body = el("tbody"), scroll = el("div", undefined, "scroll");
  columns.forEach(([name, kind]) => {
    const cell = el("th", name, kind);
    cell.scope = "col";
    head.append(cell);
  });
  rows.forEach((row) => {
    const line = el("tr");
    row.forEach((cell, at) => {
      const kind = columns[at][1] || "";
      if (cell instanceof Node) {
        const made = el("td", undefined, kind);
        made.append(cell);
        line.append(made);
      } else {
        const [text, more] = Array.isArray(cell) ? cell : [cell, ""];
        line.append(el("td", text === null || text === undefined ? "–" : String(text), `${kind} ${more}`.trim()));
      }
    });
    body.append(line);
  });
  top.append(head);
  made.append(top, body);
  scroll.append(made);
  return scroll;
};
const pairs = (rows) => table([[""], ["", "wrap"]], rows, "nothing");

// Asking

// Where it is seen: what lies below a dialog isn't.
const notice = (text) => ["notice", "detail-notice"].forEach((id) => {
  const shown = text && byId("detail").open === (id === "detail-notice");
  byId(id).textContent = shown ? text : "";
  byId(id).hidden = !shown;
});
const attempt = async (act) => {
  notice("");
  try {
    await act();
  } catch (error) {
    notice(error.message);
  }
};
const api = async (method, path, { query, body } = {}) => {
  const given = Object.entries(query || {}).filter(([, value]) => value);
  const url = `console/api/${path}${given.length ? `?${new URLSearchParams(given)}` : ""}`;
  const headers = {};
  if (body) headers["Content-Type"] = "application/json";
  if (method !== "GET" && session.csrfToken) headers["X-CSRF-Token"] = session.csrfToken;
  const answer = await fetch(url, { method, headers, body: body && JSON.stringify(body), cache: "no-store" });
  const said = answer.status === 204 ? null : await answer.json().catch(() => null);
  if (answer.ok) return said;
  if (answer.status === 401 && path !== "session") {
    session = { ...session, signedIn: false };
    showSession();
    byId("sign-in-dialog").showModal();
  }
  throw new Error((said && said.error) || `the worker answers ${answer.status}`);
};
// What a form holds, without what was left empty.
const filled = (form) => Object.fromEntries([...new FormData(form)].map(([name, value]) => [name, value.trim()]).filter(([, value]) => value));
const onSubmit = (id, act) => byId(id).addEventListener("submit", (event) => {
  event.preventDefault();
  attempt(() => act(filled(event.target)));
});
const sure = (text, yes) => new Promise((resolve) => {
  const dialog = byId("question");
  byId("question-text").textContent = text;
  byId("question-yes").textContent = yes;
  dialog.returnValue = "no";
  dialog.addEventListener("close", () => resolve(dialog.returnValue === "yes"), { once: true });
  dialog.showModal();
});
const detail = (title, ...content) => {
  byId("detail-title").textContent = title;
  byId("detail-content").replaceChildren(...content);
  if (!byId("detail").open) byId("detail").showModal();
};

// Signing in

const showSession = () => {
  byId("who").textContent = session.signedIn ? `signed in as ${session.by}` : session.canSignIn === false ? "WORKER_ADMIN_TOKEN is not set" : "";
  byId("sign-in").hidden = session.signedIn || session.canSignIn === false;
  byId("sign-out").hidden = !session.signedIn;
};
const askSession = async () => {
  session = await api("GET", "session");
  showSession();
};

// Overview

// A part of the report, or why it isn't known.
const part = (title, section, told) => {
  if (!section || section.unknown === undefined) return told(section);
  const content = el("p", `unknown: ${section.unknown}`, "bad");
  return card(title, content, runbook("serveraway"));
};
const known = (section) => (section && section.unknown === undefined ? section : null);
const sum = (list, of) => list.reduce((all, one) => all + of(one), 0);
const isDead = (queue) => queue.name.endsWith(".DLQ");
const owedOf = (partition, kinds) => sum(Object.entries(partition.owed).filter(([kind]) => kinds(kind)), ([, count]) => count);
const isMedia = (kind) => kind.endsWith("media");

// Webhooks that workers read a second, from what they had read when it was asked before and now.
let readBefore = null, readRate = null;
const throughput = (read) => {
  if (readBefore && read && read.atMs > readBefore.atMs) readRate = Math.max(0, read.webhooks - readBefore.webhooks) / ((read.atMs - readBefore.atMs) / 1000);
  readBefore = read;
  return read ? readRate : null;
};

const tiles = ({ redis, rabbitmq, store }) => {
  const rate = throughput(redis.read);
  const partitions = known(redis.partitions) || [], queues = known(rabbitmq.queues) || [];
  const failed = known(store.failed), spool = known(store.spool), limited = known(redis.limited) || [];
  const waiting = sum(partitions, (one) => one.length), media = sum(partitions, (one) => owedOf(one, isMedia));
  const oldest = Math.max(0, ...partitions.map((one) => one.oldestAgeSeconds || 0));
  const dead = sum(queues.filter(isDead), (one) => one.messages || 0);
  const more = (of) => `${number(of.objects)}${of.atLeast ? "+" : ""}`;
  const helped = (is, section) => (is ? runbook(section) : undefined);
  return [
    tile("Workers", number((known(redis.workers) || []).length), "that live"),
    tile("Webhooks a second", rate === null ? "–" : number(rate), "that workers read"),
    tile("Entries waiting", number(waiting), `the oldest for ${age(oldest)}`, oldest > 60 ? "warn" : "", helped(oldest > 60, "laggrowing")),
    tile("Owed", number(sum(partitions, (one) => owedOf(one, (kind) => !isMedia(kind)))), "pieces of acknowledged webhooks"),
    tile("Media waiting", number(media), "files", media ? "warn" : "", helped(media, "mediaparked")),
    tile("Set aside", failed ? more(failed) : "–", "payloads", failed && failed.objects ? "warn" : "", helped(failed && failed.objects, "failedstoregrowing")),
    tile("Dead letters", number(dead), "that consumers rejected", dead ? "bad" : "", helped(dead, "deadletters")),
    tile("Spool", spool ? more(spool) : "–", "webhooks", spool && spool.objects ? "warn" : "", helped(spool && spool.objects, "spoolinuse")),
    tile("At their limit", number(limited.length), "accounts within the hour", limited.length ? "warn" : "", helped(limited.length, "tenantatlimit")),
  ];
};

const replayCard = (replay) => {
  if (!replay) return card("Replay", el("p", "none so far", "quiet"));
  const bar = el("progress"), content = el("div");
  bar.max = Math.max(1, replay.payloads);
  bar.value = replay.wentOut + replay.setAsideAgain + replay.left;
  bar.setAttribute("aria-label", "payloads that are through");
  const states = { running: "running", stopped: "stopped: nobody runs it", inTheStream: "in the stream", ended: "ended" };
  const of = [replay.source, replay.tenant, replay.reason].filter(Boolean).join(", ");
  content.append(bar, pairs([
    ["replay", `${replay.id} (${of})`], ["state", [states[replay.state], replay.state === "stopped" ? "bad" : ""]],
    ["payloads", replay.payloads], ["put back", replay.putBack], ["went out", replay.wentOut],
    ["set aside again", [replay.setAsideAgain, replay.setAsideAgain ? "warn" : ""]], ["left", replay.left],
  ]));
  if (replay.state === "stopped") content.append(button("Resume", async () => {
    await api("POST", "replay/resume");
    await poll();
  }));
  return card("Replay", content, replay.state === "stopped" ? runbook("replay") : undefined);
};

const cards = ({ redis, rabbitmq, store, partitionCount }) => [
  part("Workers", redis.workers, (workers) => {
    const versions = new Set(workers.map((one) => one.version));
    return card("Workers", table([["worker"], ["version", versions.size > 1 ? "warn" : ""]],
      workers.map((one) => [one.id, one.version || "unknown"]), "none lives"),
    !workers.length ? runbook("workersgone") : versions.size > 1 ? runbook("versionsmixed") : undefined);
  }),
  part("Partitions that aren't idle", redis.partitions, (partitions) => {
    const alone = partitions.some((one) => !one.owner);
    return card(`Partitions that aren't idle (of ${partitionCount})`, table(
      [["partition"], ["entries", "number"], ["pending", "number"], ["oldest", "number"], ["owed", "number"], ["owner"]],
      partitions.map((one) => [one.partition, one.length, one.pending, one.oldestAgeSeconds === null ? "–" : age(one.oldestAgeSeconds),
        sum(Object.values(one.owed), (count) => count), one.owner || ["nobody", "bad"]]), "all are idle"),
    alone ? runbook("partitionswithoutowner") : undefined);
  }),
  part("Queues", rabbitmq.queues, (queues) => {
    const alone = queues.some((one) => !isDead(one) && !one.consumers), dead = queues.some((one) => isDead(one) && one.messages);
    return card("Queues", table([["queue"], ["messages", "number"], ["consumers", "number"]], queues.map((one) => {
      if (one.unknown) return [one.name, ["unknown", "bad"], one.unknown];
      return isDead(one) ? [one.name, [one.messages, one.messages ? "bad" : ""], "–"]
        : [one.name, one.messages, [one.consumers, one.consumers ? "" : "bad"]];
    }), "none"), dead ? runbook("deadletters") : alone ? runbook("queuewithoutconsumer") : undefined);
  }),
  part("Set aside by reason", store.failed, (failed) => card("Set aside by reason", table([["reason"], ["payloads", "number"]],
    Object.entries(failed.byReason).map(([reason, count]) => [words(reason), count]), "nothing is set aside"),
  failed.objects ? runbook("failedstoregrowing") : undefined)),
  part("Replay", redis.replay, replayCard),
  part("Accounts at their limit", redis.limited, (limited) => card("Accounts at their limit", table(
    [["account"], ["429s within the hour", "number"]],
    limited.map((one) => [one.businessAccountId, one.refused]), "none"), limited.length ? runbook("tenantatlimit") : undefined)),
  part("Silent numbers", redis.silent, (silent) => card("Silent numbers", table(
    [["account"], ["phone number id"], ["quiet for", "number"]],
    silent.map((one) => [one.businessAccountId, one.phoneNumberId, `${one.hours} h`]), "none is quieter than usual"),
  silent.length ? runbook("numbersilent") : undefined)),
  part("Accounts that aren't well", redis.unwell, (unwell) => card("Accounts that aren't well", table(
    [["account"], ["what"], ["state"], ["since"]],
    unwell.map((one) => [one.businessAccountId, words(one.kind), [words(one.state), "bad"], since(one.sinceMs)]), "none"),
  unwell.some((one) => one.kind === "token") ? runbook("tokenrejected") : unwell.length ? runbook("accountunwell") : undefined)),
  card("Breakers of this worker", table([["neighbour"], ["state"]], breakers, "none"),
    breakers.some(([, [state]]) => state === "open") ? runbook("breakeropen") : undefined),
];

const askBreakers = async () => {
  const report = await (await fetch("status.json", { cache: "no-store" })).json();
  const states = { 0: ["closed", "well"], 1: ["half-open", "warn"], 2: ["open", "bad"] };
  breakers = (report.metrics.whatsapp_breaker_state || []).map((one) => [words(one.labels.neighbour), states[one.value] || ["unknown", "warn"]]);
};
const showReasons = (reasons) => {
  const select = byId("failed-form").elements.reason;
  if (select.options.length > 1) return;
  select.append(...reasons.map((reason) => {
    const made = el("option", words(reason));
    made.value = reason;
    return made;
  }));
};
const poll = async () => {
  const state = byId("state");
  try {
    const [report] = await Promise.all([api("GET", "overview"), askBreakers()]);
    const away = JSON.stringify(report).includes('"unknown":"');
    state.textContent = away ? "something is away" : "answers";
    state.className = `state ${away ? "bad" : "well"}`;
    byId("when").textContent = `version ${report.version}, ${new Date(report.atMs).toLocaleTimeString()}`;
    showReasons(report.reasons);
    byId("tiles").replaceChildren(...tiles(report));
    const focused = document.activeElement;
    if (!byId("cards").contains(focused) || focused.tagName !== "BUTTON") byId("cards").replaceChildren(...cards(report));
  } catch (error) {
    state.textContent = `no answer: ${error.message}`;
    state.className = "state bad";
  }
};

// Payloads

const showPayload = async (id, event) => {
  const { lines } = await api("POST", "cat", { body: { id, event: Boolean(event) } });
  const shown = lines.map((line) => {
    try {
      return JSON.stringify(JSON.parse(line), null, 2);
    } catch {
      return line;
    }
  });
  detail(event ? "Events as they would go out" : "Payload", ...(shown.length ? shown.map((text) => el("pre", text)) : [el("p", "nothing has this id", "bad")]));
};
const payloadButtons = (key) => {
  const made = el("div", undefined, "actions");
  made.append(button("Show the payload", () => showPayload(key)), button("Show the events", () => showPayload(key, true)));
  return made;
};
const showFailed = async (key) => {
  const found = await api("GET", "failed/show", { query: { id: key } });
  if (!found.length) throw new Error("it is gone");
  const cards = found.map((one) => {
    const content = el("div");
    content.append(pairs([
      ["reason", one.reason], ["error", one.error], ["attempts", one.attempts], ["tenant", one.tenant], ["account", one.businessAccountId],
      ["taken", one.receivedAtMs === null ? null : new Date(one.receivedAtMs).toISOString()], ["correlation id", one.correlationId], ["entry", one.entry],
      ["bytes", one.sizeBytes], ["lies in", one.place], ...(one.discardedBy ? [["discarded", `by ${one.discardedBy}, ${one.discardedAt}`]] : []),
    ]), table([["item", "number"], ["set aside"], ["place"], ["message", "wrap"], ["hash in logs"]],
      one.itemsOfBody.map((item) => [item.number, item.setAside ? ["yes", "bad"] : "no", item.place, item.messageId, item.messageHash]), "no items can be read"),
    payloadButtons(one.key));
    if (one.place === "failed") content.append(button("Replay", () => replay({ ids: [one.key] })), " ", button("Discard …", () => discard({ ids: [one.key] })));
    return card(one.key, content);
  });
  detail("Set aside", ...cards);
};

// Set aside

const chosen = (rows) => [...byId(rows).querySelectorAll("input:checked")].map((box) => box.value);
const box = (value, label) => {
  const made = el("input");
  made.type = "checkbox";
  made.value = value;
  made.setAttribute("aria-label", label);
  return made;
};
const some = (ids) => {
  if (!ids.length) throw new Error("nothing is chosen");
  return ids;
};
let failedQuery = {}, failedNext = null;

const listFailed = async (query, after) => {
  const page = await api("GET", "failed", { query: { ...query, after } });
  [failedQuery, failedNext] = [query, page.next];
  byId("failed-count").textContent = `${number(page.count)}${page.atLeast ? "+" : ""} are set aside in this time, whatever the reason`;
  byId("failed-rows").replaceChildren(table(
    [[""], ["reason"], ["tenant"], ["since"], ["items"], ["correlation id"], ["object", "wrap"]],
    page.objects.map((one) => [box(one.key, `choose ${one.key}`), button(one.reason ? words(one.reason) : "can't be read", () => showFailed(one.key), "link"), one.tenant, since(one.receivedAtMs),
      one.items || "all", one.correlationId, button(one.key, () => showFailed(one.key), "link")]), "nothing of this"));
  byId("failed-next").hidden = !page.next;
};
const replay = async (what) => {
  const started = await api("POST", "failed/replay", { body: what });
  if (!started.replay) throw new Error("there is nothing to put back");
  if (started.another) throw new Error(`replay ${started.replay} is under way: ask again when it has ended`);
  if (byId("detail").open) byId("detail").close();
  location.hash = "#overview";
  await poll();
};
const discard = async (what) => {
  const { count } = await api("POST", "failed/discard", { body: what });
  if (!count) throw new Error("there is nothing to discard");
  if (!(await sure(`Discard ${number(count)} payloads? They go to discarded/, where a lifecycle rule deletes them.`, "Discard"))) return;
  const done = await api("POST", "failed/discard", { body: { ...what, yes: true } });
  if (byId("detail").open) byId("detail").close();
  await listFailed(failedQuery);
  if (done.left.length) throw new Error(`left where they are: ${done.left.map((one) => `${one.key}: ${one.why}`).join("; ")}`);
  if (done.stopped) throw new Error(`${number(done.discarded)} are discarded, and it took long: discard again for the rest`);
};

// Search

const showLocated = (found) => {
  const rows = found.found.map((one) => {
    const what = Object.entries(one).filter(([name]) => name !== "place" && name !== "key").map(([name, value]) => `${name} ${value}`).join(", ");
    if (!one.key) return [one.place, what];
    const act = el("div");
    act.append(el("div", `${one.key} ${what}`));
    if (["failed", "replayed", "discarded"].includes(one.place)) act.append(button("Open", () => showFailed(one.key)), " ");
    if (one.place !== "media") act.append(payloadButtons(one.key));
    return [one.place, act];
  });
  const looked = found.looked.map((one) => `${one.at} (${one.unknown || `${one.count}${one.all ? "" : ", not all"}`})`).join(", ");
  const ids = found.items.map((one) => [one.messageId, one.messageHash]);
  byId("search-result").replaceChildren(
    card(found.id, table([["place"], ["", "wrap"]], rows, "found nowhere")),
    card("It is", table([["message", "wrap"], ["hash in logs"]], ids, "no message was met under this id")),
    el("p", `Looked at: ${looked}. Queues are not looked into: Dead letters lists them.`, "quiet"));
};
const showFound = ({ found, tally, all }) => {
  const rows = found.map((one) => [one.receivedAt, one.tenant, one.items.map((item) => item.type).join(", "),
    button(one.key, () => showPayload(one.key), "link")]);
  const note = `${number(tally.found)} of ${number(tally.read)} payloads have something of this customer${all ? "" : "; not all were looked at: name a tenant, or a later time"}`;
  byId("search-result").replaceChildren(card("Payloads of the customer", table([["taken"], ["tenant"], ["items"], ["object", "wrap"]], rows, "none")), el("p", note, "quiet"));
};

// Tenant

const value = (section, told = (known) => known) => (section && section.unknown !== undefined ? [`unknown: ${section.unknown}`, "bad"] : told(section));
const showTenant = (report) => {
  const aside = value(report.setAside, (failed) => (failed.objects
    ? [Object.entries(failed.byReason).map(([reason, count]) => `${count} ${words(reason)}`).join(", "), "warn"] : "nothing"));
  const accounts = report.accounts.map((one) => {
    const content = el("div");
    content.append(pairs([
      ["verdict", value(one.verdict, (verdict) => [verdict, verdict === "active" ? "well" : "bad"])],
      ["last seen", value(one.lastSeen)], ["partition", one.partition],
      ["webhooks of the last minute", value(one.rate, (rate) => `${rate.lastMinute}${rate.ownLimit ? ` of ${rate.ownLimit}` : ""}`)],
      ["429s of the last hour", value(one.rate, (rate) => [rate.refusedLastHour, rate.refusedLastHour ? "bad" : ""])],
    ]));
    const checks = value(one.checks, (list) => list);
    if (Array.isArray(checks) && checks.every((it) => it.status)) content.append(table([["check"], ["", "wrap"], ["", "wrap"]],
      checks.map((it) => [[it.status, { OK: "well", WARN: "warn", FAIL: "bad" }[it.status] || ""], it.said, it.advice || ""]), "none"));
    const numbers = value(one.numbers, (list) => list);
    if (Array.isArray(numbers) && numbers.every((it) => it.phoneNumberId)) content.append(table([["phone number id"], ["last traffic", "number"], [""]],
      numbers.map((it) => [it.phoneNumberId, `${it.lastTrafficHoursAgo} h ago`, it.silent ? ["silent", "bad"] : ""]), "no numbers seen"));
    return card(`Account ${one.businessAccountId}`, content);
  });
  byId("tenant-result").replaceChildren(
    card(report.tenantId ? `Tenant ${report.tenantId}` : "No tenant", pairs([
      ["last webhook in the archive", value(report.lastArchived)], ["last one set aside", value(report.lastSetAside)], ["set aside", aside],
      ["media waiting", value(report.mediaWaiting, (count) => [count, count ? "warn" : ""])],
    ]), runbook("why-did-a-tenant-stop")), ...accounts);
};

// Dead letters

// One look at a time: what one holds in its hands, another one doesn't see.
const listDead = async () => {
  const list = byId("dlq-list");
  if (list.disabled) return;
  list.disabled = true;
  const letters = await api("GET", "dlq").finally(() => { list.disabled = false; });
  byId("dlq-count").textContent = `${number(letters.length)} dead letters, at most 50 of a queue`;
  byId("dlq-rows").replaceChildren(table(
    [[""], ["queue"], ["type"], ["tenant"], ["reason"], ["bytes", "number"], ["event", "wrap"], ["correlation id", "wrap"]],
    letters.map((one) => [box(one.eventId, `choose ${one.eventId}`), one.queue, one.eventType, one.tenantId, one.reason, one.sizeBytes,
      button(one.eventId, () => showPayload(one.eventId), "link"), one.correlationId]), "no dead letters"));
};
const takeDead = async (action, ids) => {
  const { done } = await api("POST", `dlq/${action}`, { body: { ids: some(ids), yes: true } });
  await listDead();
  if (done < ids.length) throw new Error(`${done} of ${ids.length} are done: somebody else may look at the others now`);
};

// Live

let tail = null, tailed = [];

const stopTail = () => {
  if (tail) tail.close();
  tail = null;
  byId("tail-stop").disabled = true;
  byId("tail-start").disabled = false;
};
const showTailed = () => byId("tail-rows").replaceChildren(table(
  [["at"], ["type"], ["tenant"], ["event"], ["correlation id"]],
  tailed.map((one) => [one.at, one.eventType, one.tenantId, one.eventId, one.correlationId]), "nothing yet"));
const startTail = async (query) => {
  if (!session.signedIn) return byId("sign-in-dialog").showModal();
  stopTail();
  tailed = [];
  showTailed();
  tail = new EventSource(`console/api/tail?${new URLSearchParams(query)}`);
  byId("tail-stop").disabled = false;
  byId("tail-start").disabled = true;
  tail.onopen = () => { byId("tail-state").textContent = "listening"; };
  tail.onerror = () => { byId("tail-state").textContent = "no connection"; };
  tail.onmessage = (message) => {
    tailed = [JSON.parse(message.data), ...tailed].slice(0, MOST_TAILED);
    showTailed();
  };
};

// Views

const views = { overview: poll, failed: () => listFailed(filled(byId("failed-form"))), search: null, tenant: null, dlq: listDead, tail: null };
const show = () => {
  const name = location.hash.slice(1);
  const view = name in views ? name : "overview";
  document.querySelectorAll(".view").forEach((section) => { section.hidden = section.id !== `view-${view}`; });
  document.querySelectorAll("nav a").forEach((link) => {
    if (link.hash === `#${view}`) link.setAttribute("aria-current", "page");
    else link.removeAttribute("aria-current");
  });
  notice("");
  if (view !== "overview" && !session.signedIn) {
    if (session.canSignIn === false) notice("This needs WORKER_ADMIN_TOKEN, which is not set");
    else if (!byId("sign-in-dialog").open) byId("sign-in-dialog").showModal();
  } else if (views[view]) attempt(views[view]);
};

const start = async () => {
  document.querySelectorAll("[data-close]").forEach((close) => close.addEventListener("click", () => close.closest("dialog").close()));
  byId("sign-in").addEventListener("click", () => byId("sign-in-dialog").showModal());
  byId("sign-out").addEventListener("click", () => attempt(async () => {
    await api("POST", "session/end");
    location.hash = "#overview";
    location.reload();
  }));
  byId("sign-in-form").addEventListener("submit", async (event) => {
    event.preventDefault();
    const form = event.target;
    byId("sign-in-error").textContent = "";
    try {
      session = await api("POST", "session", { body: filled(form) });
      form.elements.token.value = "";
      showSession();
      byId("sign-in-dialog").close();
      show();
    } catch (error) {
      byId("sign-in-error").textContent = error.message;
    }
  });
  onSubmit("failed-form", (query) => listFailed(query));
  byId("failed-next").addEventListener("click", () => attempt(() => listFailed(failedQuery, failedNext)));
  byId("failed-replay").addEventListener("click", () => attempt(() => replay({ ids: some(chosen("failed-rows")) })));
  byId("failed-discard").addEventListener("click", () => attempt(() => discard({ ids: some(chosen("failed-rows")) })));
  byId("failed-replay-all").addEventListener("click", () => attempt(async () => {
    if (await sure(`Put all that is listed back into the stream (${byId("failed-count").textContent})?`, "Replay")) await replay(failedQuery);
  }));
  byId("failed-discard-all").addEventListener("click", () => attempt(() => discard({ ...failedQuery, all: !Object.keys(failedQuery).length })));
  onSubmit("search-form", async (query) => {
    byId("search-result").replaceChildren(el("p", "looking …", "quiet"));
    showLocated(await api("GET", "search", { query }));
  });
  onSubmit("find-form", async (body) => {
    byId("search-result").replaceChildren(el("p", "reading …", "quiet"));
    showFound(await api("POST", "find", { body }));
  });
  onSubmit("tenant-form", async (query) => {
    byId("tenant-result").replaceChildren(el("p", "asking …", "quiet"));
    showTenant(await api("GET", "tenant", { query }));
  });
  byId("dlq-list").addEventListener("click", () => attempt(listDead));
  byId("dlq-requeue").addEventListener("click", () => attempt(() => takeDead("requeue", chosen("dlq-rows"))));
  byId("dlq-discard").addEventListener("click", () => attempt(async () => {
    const ids = some(chosen("dlq-rows"));
    if (await sure(`Delete ${ids.length} dead letters?`, "Delete")) await takeDead("discard", ids);
  }));
  onSubmit("tail-form", startTail);
  byId("tail-stop").addEventListener("click", () => {
    stopTail();
    byId("tail-state").textContent = "stopped";
  });
  window.addEventListener("hashchange", show);
  await attempt(askSession);
  show();
  if (byId("view-overview").hidden) await poll();
  setInterval(() => {
    if (!document.hidden && !byId("view-overview").hidden) poll();
  }, POLL_MS);
};
start();
