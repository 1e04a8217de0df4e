// Requests to the server, and its events: read with `fetch`, which can send a token, and followed across lost
// connections.

// The page may be mounted anywhere; the endpoints are beside its folder.
const BASE = new URL("../", import.meta.url);
const TOKEN_KEY = `agentloop.token ${BASE.pathname}`;

export class ApiError extends Error {
  constructor(status, message) {
    super(message);
    this.status = status;
  }
}

export const auth = {
  get token() {
    return sessionStorage.getItem(TOKEN_KEY) ?? "";
  },
  set token(token) {
    if (token) sessionStorage.setItem(TOKEN_KEY, token);
    else sessionStorage.removeItem(TOKEN_KEY);
  },
  /** Called when the server refuses the token, or asks for one. */
  onRefused: () => {},
};

function headers(extra = {}) {
  return auth.token ? { ...extra, authorization: `Bearer ${auth.token}` } : extra;
}

async function failure(response) {
  let message = `the server answered with status ${response.status}`;
  try {
    message = (await response.json()).error.message;
  } catch {
    // A proxy in between has words of its own.
  }
  if (response.status === 401) auth.onRefused();
  return new ApiError(response.status, message);
}

export async function request(method, path, body) {
  const sent = body === undefined ? { headers: headers() } : { headers: headers({ "content-type": "application/json" }), body: JSON.stringify(body) };
  let response;
  try {
    response = await fetch(new URL(path, BASE), { method, ...sent, credentials: "same-origin" });
  } catch {
    throw new ApiError(0, "The server cannot be reached.");
  }
  if (!response.ok) throw await failure(response);
  return response.status === 204 ? null : response.json();
}

const of = (session) => `sessions/${encodeURIComponent(session)}`;

export const api = {
  agents: async () => (await request("GET", "agents")).agents,
  models: async () => (await request("GET", "models")).models,
  sessions: async ({ search = "", before = "", limit = 40 } = {}) => {
    const query = new URLSearchParams({ limit });
    if (search) query.set("search", search);
    if (before) query.set("before", before);
    return (await request("GET", `sessions?${query}`)).sessions;
  },
  create: async () => (await request("POST", "sessions", {})).id,
  look: (session) => request("GET", of(session)),
  rename: (session, title) => request("PATCH", of(session), { title }),
  remove: (session) => request("DELETE", of(session)),
  fork: async (session, messages) => (await request("POST", `${of(session)}/forks`, messages === undefined ? {} : { messages })).id,
  // The text may be a slash command: a person has typed it. `choice` has the model and the level, if they are new.
  prompt: (session, text, agent, choice) =>
    request("POST", `${of(session)}/prompts`, { text, commands: true, ...(agent ? { agent } : {}), ...choice }),
  steer: (session, text, when) => request("POST", `${of(session)}/messages`, { text, when }),
  stop: (session) => request("POST", `${of(session)}/stop`, {}),
  stopBackground: (session, background) => request("POST", `${of(session)}/stop`, { background }),
  pause: (session) => request("POST", `${of(session)}/pause`, {}),
  resume: (session) => request("POST", `${of(session)}/resume`, {}),
  answer: (session, id, answer) => request("POST", `${of(session)}/answers`, { answers: { [id]: answer } }),
  pictureAddress: (session) => new URL(`${of(session)}/picture`, BASE).href,
};

export async function pictureBlob(session) {
  const response = await fetch(api.pictureAddress(session), { headers: headers() });
  if (!response.ok) throw await failure(response);
  return response.blob();
}

const SILENT_MS = 45_000; // the server sends a comment every 15 s
const FIRST_WAIT_MS = 400;
const LONGEST_WAIT_MS = 5_000;

/**
 * Follows the events of a session from number `after` on: each event once, across lost connections, until `close`.
 *
 * `onEvents` gets lists of JSON texts. `onState` gets "connecting", "live", "waiting" or "refused", and for "waiting"
 * the milliseconds until the next attempt.
 */
export class Follower {
  constructor(session, { after = 0, onEvents, onState }) {
    this.session = session;
    this.after = after;
    this.onEvents = onEvents;
    this.onState = onState;
    this.isClosed = false;
    this.wake = () => {};
    this.attempts = 0;
    this.retryNow = () => this.wake();
    window.addEventListener("online", this.retryNow);
    this.run();
  }

  close() {
    this.isClosed = true;
    window.removeEventListener("online", this.retryNow);
    this.abort?.abort();
    this.wake();
  }

  async run() {
    while (!this.isClosed) {
      this.onState(this.attempts ? "waiting" : "connecting", 0);
      try {
        await this.read();
      } catch (error) {
        if (this.isClosed) return;
        if (error instanceof ApiError && [400, 401, 403, 404, 421].includes(error.status)) {
          this.onState("refused", 0, error.message);
          return;
        }
      }
      if (this.isClosed) return;
      const longest = Math.min(LONGEST_WAIT_MS, FIRST_WAIT_MS * 2 ** this.attempts);
      // Not all tabs at the same moment, after a restart.
      const wait = longest * (0.7 + 0.3 * Math.random());
      this.attempts += 1;
      this.onState("waiting", wait);
      await new Promise((resolve) => {
        this.wake = resolve;
        setTimeout(resolve, wait);
      });
    }
  }

  async read() {
    this.abort = new AbortController();
    const path = new URL(`${of(this.session)}/events?after=${this.after}`, BASE);
    let timer = setTimeout(() => this.abort.abort(), SILENT_MS);
    try {
      const extra = { accept: "text/event-stream", "last-event-id": String(this.after) };
      const response = await fetch(path, { headers: headers(extra), signal: this.abort.signal, cache: "no-store" });
      if (!response.ok) throw await failure(response);
      const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
      let rest = "";
      this.onState("live", 0);
      for (;;) {
        const { done, value } = await reader.read();
        if (done || this.isClosed) return;
        this.attempts = 0;
        clearTimeout(timer);
        timer = setTimeout(() => this.abort.abort(), SILENT_MS);
        const frames = (rest + value).split("\n\n");
        rest = frames.pop();
        const events = [];
        for (const frame of frames) this.take(frame, events);
        if (events.length) this.onEvents(events);
      }
    } finally {
      clearTimeout(timer);
      this.abort.abort();
    }
  }

  take(frame, events) {
    let id = 0;
    let data = "";
    for (const line of frame.split("\n")) {
      if (line.startsWith("id: ")) id = Number(line.slice(4));
      else if (line.startsWith("data: ")) data = line.slice(6);
    }
    // An event that was read before the connection was lost does not come a second time.
    if (!data || id <= this.after) return;
    this.after = id;
    events.push(data);
  }
}
