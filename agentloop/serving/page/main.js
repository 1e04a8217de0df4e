// The page: which conversation is shown, what is typed, and what the person asks the server for.

import { ApiError, Follower, api, auth, pictureBlob } from "./api.js";
import { BackgroundList } from "./background.js";
import { CommandList } from "./commands.js";
import { Conversation } from "./conversation.js";
import { confirm, edit } from "./dialogs.js";
import { announce, button, byId, h, icon, isModified } from "./dom.js";
import { ModelPicker } from "./picker.js";
import { SessionList, titleOf } from "./sessions.js";
import { plural, shorten, usageDetails, usageWords, visible, visibleText, windowDetails, windowWords } from "./text.js";
import { Transcript, hueOf } from "./transcript.js";

const REFRESH_MS = 10_000;
const HIDDEN_MS = 60_000;
const SLICE_MS = 12;
const TITLE_LENGTH = 60;
const DRAFTS = "agentloop.draft ";
const LAST_AGENT = "agentloop.agent";

const composer = byId("composer");
const field = byId("composer-text");
const state = {
  session: "",
  info: null,
  agents: [],
  commands: new Map(),
  /** The models that the server offers, and its agents. */
  offered: [[], []],
  servedAs: new Map(),
  agent: "",
  conversation: new Conversation(() => {}),
  follower: null,
  connection: "",
  waiting: [],
  isCaughtUp: true,
  /** The number of the last event that was read, while a hidden tab reads no events. */
  paused: undefined,
  isSending: false,
  /** Whether the person has chosen an agent for this conversation, instead of the one that spoke last in it. */
  isAgentChosen: false,
};

const actions = {
  answer: (id, answer) => api.answer(state.session, id, answer),
  focusComposer: () => field.focus(),
  resume: () => attempt(() => api.resume(state.session)),
  editFrom,
};
const transcript = new Transcript(byId("transcript"), byId("scroll"), actions);
const sessions = new SessionList(notice);
const picker = new ModelPicker(() => updateAll());
const commands = new CommandList(field, () => grow());
const background = new BackgroundList(
  (id) => attempt(() => api.stopBackground(state.session, id)),
  () => field.focus(),
);

// ------------------------------------------------------------------------ a conversation

function show(session) {
  saveDraft();
  state.follower?.close();
  state.session = session;
  state.info = null;
  state.paused = undefined;
  state.isAgentChosen = false;
  picker.forget();
  state.waiting = [];
  state.isCaughtUp = true;
  notice(null);
  state.conversation = new Conversation((node) => transcript.changed(node));
  transcript.show(state.conversation);
  field.value = sessionStorage.getItem(DRAFTS + session) ?? "";
  grow();
  sessions.setCurrent(session);
  setConnection("");
  if (session) {
    follow(0);
    look();
  }
  updateAll();
}

function follow(after) {
  const { session } = state;
  state.follower?.close();
  state.follower = new Follower(session, {
    after,
    onEvents: (events) => session === state.session && take(events),
    onState: (connection, wait, message) => session === state.session && setConnection(connection, wait, message),
  });
}

function take(events) {
  state.waiting.push(...events);
  if (state.isCaughtUp) {
    state.isCaughtUp = false;
    applySlice();
  }
}

/** Applies events in slices, so that a long conversation leaves the page usable while it is read. */
function applySlice() {
  const { conversation } = state;
  const wasRunning = conversation.isRunning;
  const questions = conversation.openQuestions.length;
  const deadline = performance.now() + SLICE_MS;
  let count = 0;
  while (count < state.waiting.length && performance.now() < deadline) {
    const raw = state.waiting[count];
    count += 1;
    const event = JSON.parse(raw);
    conversation.apply(event, event.type === "approval_requested" ? raw : undefined);
  }
  state.waiting.splice(0, count);
  if (state.waiting.length) {
    setTimeout(() => state.conversation === conversation && applySlice(), 0);
  } else {
    state.isCaughtUp = true;
  }
  told(wasRunning, questions);
}

function told(wasRunning, questions) {
  const { conversation } = state;
  if (wasRunning !== conversation.isRunning) {
    sessions.refresh();
    if (!conversation.isRunning && state.isCaughtUp) {
      const run = conversation.current;
      const text = run.blocks.filter((block) => block.kind === "text").map((block) => block.text).join(" ");
      announce(run.status === "completed" ? `${run.agent} has answered: ${shorten(text, 300)}` : `The run has ended: ${run.status}`);
    }
  }
  if (conversation.openQuestions.length > questions && state.isCaughtUp) {
    announce(`${conversation.openQuestions.at(-1).event.source.agents.at(-1)} waits for your answer`);
  }
  updateAll();
}

async function look() {
  const { session } = state;
  try {
    const info = await api.look(session);
    if (session !== state.session) return;
    state.info = info;
    picker.take(info);
    if (info.state === "elsewhere") {
      // The process that ran the session was killed, perhaps: its lease ends by itself.
      notice("An earlier process of the server still holds this conversation, for half a minute if it was killed. Then it goes on here, and what you answer meanwhile is sent.", { isCalm: true });
      setTimeout(() => session === state.session && look(), 3000);
    } else {
      notice(null, { isCalm: true });
    }
    updateAll();
  } catch (error) {
    if (session !== state.session) return;
    if (error instanceof ApiError && error.status === 404) {
      state.follower?.close();
      notice("There is no such conversation here.");
      setConnection("");
    }
  }
}

// ----------------------------------------------------------------------------- sending

async function send() {
  const text = field.value;
  if (!text.trim() || state.isSending) return;
  state.isSending = true;
  notice(null);
  try {
    if (state.conversation.isRunning) {
      await steer(text);
    } else {
      await prompt(text);
    }
  } catch (error) {
    notice(error.message);
    if (!field.value) field.value = text;
  } finally {
    state.isSending = false;
    grow();
    updateAll();
  }
}

async function steer(text) {
  const { conversation } = state;
  // Before the request: the event that the agent has read the message may come before the response.
  const forget = conversation.expectMessage(text);
  try {
    await api.steer(state.session, text, byId("when").value);
    clearField();
    announce("Your message was sent");
    transcript.toEnd();
  } catch (error) {
    forget();
    // The run has ended meanwhile.
    if (!(error instanceof ApiError) || error.status !== 409) throw error;
    await prompt(text);
  }
}

async function prompt(text) {
  const isNew = !state.session;
  const session = isNew ? await api.create() : state.session;
  const { fields } = picker;
  // An agent of this server: the list has been read from it.
  await api.prompt(session, text, state.agents.length > 1 ? state.agent : "", fields);
  picker.wasSent(fields);
  clearField();
  if (isNew) {
    sessionStorage.removeItem(DRAFTS);
    const title = shorten(text, TITLE_LENGTH);
    // A conversation without a title is one all the same.
    await api.rename(session, title).catch(() => {});
    history.pushState(null, "", `#/s/${session}`);
    // Read before the conversation is shown, which forgets what was chosen for the one before.
    const { chosen } = picker;
    show(session);
    picker.take({ model: chosen.model, reasoning_effort: chosen.level });
    state.info = { id: session, title };
    updateAll();
  }
  transcript.toEnd();
  sessions.refresh();
}

function clearField() {
  field.value = "";
  sessionStorage.removeItem(DRAFTS + state.session);
  grow();
}

async function attempt(work) {
  try {
    notice(null);
    return await work();
  } catch (error) {
    notice(error.message);
    return undefined;
  }
}

function saveDraft() {
  if (field.value.trim()) sessionStorage.setItem(DRAFTS + state.session, field.value);
  else sessionStorage.removeItem(DRAFTS + state.session);
}

function grow() {
  field.style.height = "auto";
  field.style.height = `${Math.min(field.scrollHeight, innerHeight * 0.4)}px`;
  byId("send").disabled = !field.value.trim();
  commands.offer((!state.conversation?.isRunning && state.commands.get(state.agent)) || []);
}

// ------------------------------------------------------------- what a conversation's menu does

async function editFrom(index, text) {
  await attempt(async () => {
    if (index === 0) {
      open("");
    } else {
      open(await fork(index));
    }
    field.value = text;
    grow();
    field.focus();
    field.setSelectionRange(0, 0);
    announce("This is a copy of the conversation up to your message. Edit it, and send it.");
  });
}

async function fork(messages) {
  const session = await api.fork(state.session, messages);
  await api.rename(session, shorten(`${titleOf(state.info ?? {})} (copy)`, 200)).catch(() => {});
  sessions.refresh();
  return session;
}

function open(session) {
  if (session === state.session) return;
  history.pushState(null, "", session ? `#/s/${session}` : "#/");
  show(session);
}

async function rename() {
  const title = await edit("Rename the conversation", "Title", state.info?.title ?? "", "Rename");
  if (!title) return;
  await attempt(async () => {
    await api.rename(state.session, title);
    state.info = { ...state.info, title };
    updateAll();
    await sessions.refresh();
  });
}

async function remove() {
  const isSure = await confirm("Delete the conversation?", "All of it is deleted on the server, for good.", "Delete");
  if (!isSure) return;
  await attempt(async () => {
    await api.remove(state.session);
    open("");
    announce("The conversation was deleted");
    await sessions.refresh();
  });
}

async function openPicture() {
  if (!auth.token) {
    window.open(api.pictureAddress(state.session), "_blank", "noopener");
    return;
  }
  // A link cannot carry the token, so the picture is read here, and saved as a file.
  const blob = await attempt(() => pictureBlob(state.session));
  if (!blob) return;
  const link = h("a", { href: URL.createObjectURL(blob), download: "run.html" });
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 10_000);
}

const stop = () => attempt(() => api.stop(state.session));
const pauseOrResume = () => attempt(() => (state.conversation.isPaused ? api.resume(state.session) : api.pause(state.session)));

// ------------------------------------------------------------------------- what is shown

let isUpdatePlanned = false;

function updateAll() {
  if (isUpdatePlanned) return;
  isUpdatePlanned = true;
  queueMicrotask(() => {
    isUpdatePlanned = false;
    update();
  });
}

function update() {
  const { conversation, session } = state;
  const isRunning = conversation.isRunning;
  const open = conversation.openQuestions;
  const served = state.servedAs.get(conversation.agent);
  if (session && !state.isAgentChosen && served) {
    state.agent = served;
    byId("agent").value = served;
  }
  const title = session ? titleOf(state.info ?? {}) : "New conversation";
  byId("title").textContent = session && !state.info ? "\u2026" : title;
  document.title = `${open.length ? "\u25cf " : ""}${title} \u2013 agentloop`;
  picker.setAgent(state.agent);
  const tokens = conversation.contextTokens;
  const facts = [conversation.agent ? visibleText(conversation.agent) : "", usageWords(conversation.usage), windowWords(tokens, picker.window)];
  byId("facts").textContent = facts.filter(Boolean).join(" \u00b7 ");
  byId("facts").title = [usageDetails(conversation.usage), windowDetails(tokens, picker.window)].filter(Boolean).join(". ");
  background.show(conversation.backgroundRuns);
  byId("welcome").hidden = Boolean(session);
  byId("actions").hidden = !session;
  byId("stop").hidden = !isRunning;
  showPause(isRunning, conversation.isPaused);
  byId("send-words").textContent = isRunning ? "Steer" : "Send";
  byId("when-choice").hidden = !isRunning;
  byId("agent-choice").hidden = isRunning || state.agents.length < 2 || !session;
  const who = visibleText(isRunning ? conversation.agent : state.agent || conversation.agent || "the agent");
  field.placeholder = isRunning ? `Write to ${who} while it works` : open.length ? `Answer above, or write something else to ${who}` : `Write to ${who}`;
  byId("composer-hint").textContent = isRunning ? "Enter sends, Escape stops the run" : "Enter sends, Shift+Enter begins a new line";
  byId("send").disabled = !field.value.trim();
  updateBars(open);
}

function showPause(isRunning, isPaused) {
  const pause = byId("pause");
  const shown = `${isRunning} ${isPaused}`;
  if (pause.dataset.shown === shown) return;
  pause.dataset.shown = shown;
  const hadFocus = document.activeElement === pause;
  pause.hidden = !isRunning;
  byId("pause-words").textContent = isPaused ? "Go on" : "Pause";
  pause.querySelector(".icon-place").replaceChildren(icon(isPaused ? "play" : "pause"));
  if (hadFocus && pause.hidden) field.focus();
  if (isRunning && isPaused) announce("The run is paused");
}

function updateBars(open = state.conversation.openQuestions) {
  const toQuestion = byId("to-question");
  const isInSight = open.some((question) => question.view && isVisible(question.view.element));
  toQuestion.hidden = !open.length || isInSight;
  toQuestion.replaceChildren(icon("hand"), `${plural(open.length, "question")} ${open.length === 1 ? "waits" : "wait"} for you`);
  byId("to-end").hidden = transcript.isStuck;
}

function isVisible(element) {
  const box = element.getBoundingClientRect();
  const place = byId("scroll").getBoundingClientRect();
  return box.height > 0 && box.top < place.bottom - 40 && box.bottom > place.top + 40;
}

function setConnection(connection, wait = 0, message = "") {
  const was = state.connection;
  state.connection = connection;
  const element = byId("connection");
  if (connection === "waiting") {
    if (was !== "waiting") element.replaceChildren(h("span", { class: "pulse", "aria-hidden": "true" }), "Reconnecting", button("Now", { kind: "quiet", onclick: () => state.follower?.retryNow() }));
  } else if (connection === "refused") {
    element.replaceChildren(message);
  } else {
    element.replaceChildren();
    if (connection === "live" && was === "waiting") {
      announce("Connected again");
      sessions.refresh();
      look();
    }
  }
  document.body.dataset.connection = connection;
}

let isNoticeCalm = false;

/** Shows a sentence above the message field. A calm one does not replace an error, and takes only calm ones away. */
function notice(message, { isCalm = false } = {}) {
  const element = byId("notice");
  if (isCalm && !isNoticeCalm && !element.hidden) return;
  const text = message instanceof Error ? (message.status === 401 ? "" : message.message) : message;
  element.hidden = !text;
  isNoticeCalm = isCalm;
  element.classList.toggle("is-calm", isCalm);
  element.replaceChildren(...(text ? [h("span", {}, visible(text)), button("Close", { icon: "close", iconOnly: true, onclick: () => notice(null) })] : []));
}

function showAgents() {
  const choice = byId("agent");
  choice.replaceChildren(...state.agents.map((name) => h("option", { value: name }, visible(name).textContent)));
  const last = localStorage.getItem(LAST_AGENT);
  state.agent = state.agents.includes(last) ? last : (state.agents[0] ?? "");
  const place = byId("welcome-agents");
  place.replaceChildren(
    ...state.agents.map((name) => {
      const input = h("input", { type: "radio", name: "welcome-agent", value: name, class: "hidden" });
      input.addEventListener("change", () => choose(name));
      const avatar = h("span", { class: "avatar", "aria-hidden": "true", "data-hue": hueOf(name), text: name.slice(0, 1).toUpperCase() });
      return h("label", { class: "agent-card" }, input, avatar, h("span", { dir: "auto" }, visible(name)));
    }),
  );
  byId("welcome-title").textContent = state.agents.length > 1 ? "Whom do you want to talk to?" : `Talk to ${visibleText(state.agents[0] ?? "the agent")}`;
  byId("welcome-hint").textContent = "Write anything below. The conversation belongs to the server: close the page and come back when you like.";
  choose(state.agent);
}

function choose(name) {
  state.agent = name;
  localStorage.setItem(LAST_AGENT, name);
  byId("agent").value = name;
  for (const input of document.querySelectorAll("input[name=welcome-agent]")) input.checked = input.value === name;
  updateAll();
}

// ---------------------------------------------------------------------------- the drawer

function setDrawer(isOpen) {
  document.body.classList.toggle("drawer-open", isOpen);
  byId("open-drawer").setAttribute("aria-expanded", String(isOpen));
  byId("scrim").hidden = !isOpen;
  byId("main").inert = isOpen;
  if (isOpen) byId("close-drawer").focus();
}

function closeDrawer() {
  if (!document.body.classList.contains("drawer-open")) return;
  setDrawer(false);
  byId("open-drawer").focus();
}

// -------------------------------------------------------------------------------- login

function showLogin(words = "") {
  byId("app").hidden = true;
  byId("skip").hidden = true;
  byId("login").hidden = false;
  byId("login-error").textContent = words;
  state.follower?.close();
  byId("token").focus();
}

auth.onRefused = () => {
  if (!byId("login").hidden) return;
  const words = auth.token ? "The server does not accept this token any more." : "";
  auth.token = "";
  showLogin(words);
};

byId("login-form").addEventListener("submit", async (event) => {
  event.preventDefault();
  const token = byId("token").value.trim();
  if (!token) return;
  auth.token = token;
  try {
    await api.agents();
    byId("token").value = "";
    byId("login").hidden = true;
    await begin();
  } catch (error) {
    auth.token = "";
    byId("login-error").textContent = error.status === 401 ? "The server does not accept this token." : error.message;
    byId("token").select();
  }
});

// -------------------------------------------------------------------------------- begin

const sessionInAddress = () => /^#\/s\/(.+)$/.exec(location.hash)?.[1] ?? "";

async function begin() {
  try {
    const [agents, models] = await Promise.all([api.agents(), api.models()]);
    state.agents = agents.map(({ name }) => name);
    // An agent's own name, and those of a team's members, are in the events.
    state.commands = new Map(agents.map(({ name, commands }) => [name, commands ?? []]));
    state.offered = [models, agents];
    state.servedAs = new Map(agents.flatMap(({ name, members }) => members.map((member) => [member, name])));
  } catch (error) {
    if (error.status === 401) return;
    byId("app").hidden = false;
    notice(error.message);
    setTimeout(begin, 2000);
    return;
  }
  byId("app").hidden = false;
  byId("skip").hidden = false;
  byId("log-out").hidden = !auth.token;
  showAgents();
  picker.offer(...state.offered);
  show(sessionInAddress());
  sessions.refresh();
  field.focus();
}

function setUp() {
  byId("close-drawer").append(icon("close"));
  byId("open-drawer").append(icon("menu"));
  byId("to-end").append(icon("down"));
  byId("new-session").querySelector(".icon-place").append(icon("plus"));
  byId("stop").querySelector(".icon-place").append(icon("stop"));
  byId("send").querySelector(".icon-place").append(icon("send"));
  byId("actions").append(
    button("Picture of the run, in a new tab", { icon: "chart", iconOnly: true, onclick: openPicture }),
    button("Rename", { icon: "pencil", iconOnly: true, onclick: rename }),
    button("Copy the conversation, to continue in another way", { icon: "fork", iconOnly: true, onclick: () => attempt(async () => open(await fork())) }),
    button("Delete", { icon: "trash", iconOnly: true, onclick: remove }),
  );

  composer.addEventListener("submit", (event) => {
    event.preventDefault();
    send();
  });
  field.addEventListener("input", grow);
  field.addEventListener("keydown", (event) => {
    if (event.isComposing || commands.take(event)) return;
    if (event.key === "Enter" && !isModified(event)) {
      event.preventDefault();
      send();
    } else if (event.key === "Escape" && state.conversation.isRunning && !field.value) {
      stop();
    }
  });
  byId("stop").addEventListener("click", stop);
  byId("pause").addEventListener("click", pauseOrResume);
  byId("agent").addEventListener("change", (event) => {
    state.isAgentChosen = true;
    choose(event.target.value);
  });
  byId("new-session").addEventListener("click", () => {
    setDrawer(false);
    open("");
    field.focus();
  });
  byId("to-end").addEventListener("click", () => {
    transcript.toEnd();
    field.focus();
  });
  byId("to-question").addEventListener("click", () => {
    const [question] = state.conversation.openQuestions;
    for (let place = question.view.element.parentElement; place; place = place.parentElement) if (place.tagName === "DETAILS") place.open = true;
    question.view.focus();
  });
  byId("sessions").addEventListener("click", (event) => {
    const link = event.target.closest("a");
    if (!link || isModified(event) || event.button) return;
    event.preventDefault();
    setDrawer(false);
    open(link.dataset.session);
    field.focus();
  });
  byId("open-drawer").addEventListener("click", () => setDrawer(true));
  byId("close-drawer").addEventListener("click", closeDrawer);
  byId("scrim").addEventListener("click", closeDrawer);
  byId("log-out").addEventListener("click", () => {
    auth.token = "";
    location.hash = "#/";
    location.reload();
  });
  document.addEventListener("keydown", (event) => {
    if (event.key === "Escape") closeDrawer();
  });
  const followAddress = () => byId("login").hidden && sessionInAddress() !== state.session && show(sessionInAddress());
  window.addEventListener("popstate", followAddress);
  window.addEventListener("hashchange", followAddress);
  window.addEventListener("pagehide", saveDraft);
  transcript.onShown = () => updateBars();

  // A tab that nobody looks at, and in which nothing happens, gives its connection back: a browser has few of them.
  let hiddenTimer = 0;
  document.addEventListener("visibilitychange", () => {
    clearTimeout(hiddenTimer);
    if (document.hidden) {
      hiddenTimer = setTimeout(() => {
        if (state.conversation.isRunning || !state.follower) return;
        state.paused = state.follower.after;
        state.follower.close();
        state.follower = null;
      }, HIDDEN_MS);
    } else {
      if (state.session && !state.follower && state.paused !== undefined) follow(state.paused);
      state.paused = undefined;
      if (!byId("app").hidden) sessions.refresh();
    }
  });
  setInterval(() => {
    if (!document.hidden && !byId("app").hidden && state.connection !== "waiting") sessions.refresh();
  }, REFRESH_MS);
}

setUp();
begin();
