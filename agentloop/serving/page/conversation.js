// The state of a conversation, made of its events. No DOM here: `transcript.js` shows it.
//
//   conversation          runs, each from a prompt to its answer
//   run, child run        blocks: text, reasoning, call, question, note, message
//   call                  child runs that the tool has opened

import { addUsage } from "./text.js";

const KEPT_OUTPUT = 2_000_000;

class Node {
  constructor(kind, fields) {
    this.kind = kind;
    this.view = null;
    Object.assign(this, fields);
  }
}

function newRun(kind, event, conversation) {
  return new Node(kind, {
    id: event.source.stream,
    session: event.source.session,
    agent: event.source.agents.at(-1),
    depth: event.source.agents.length - 1,
    model: event.model,
    prompt: event.message,
    promptIndex: null,
    promptNote: "",
    pending: [],
    inBackground: [],
    blocks: [],
    turn: 0,
    turnBegin: 0,
    text: null,
    reasoning: null,
    status: "running",
    isPaused: false,
    background: event.background ?? "",
    isGivenUp: false,
    detail: "",
    error: null,
    usage: {},
    conversation,
  });
}

export const isOpenQuestion = (question) => question.state === "open" || question.state === "parked";

export class Conversation {
  /** `onChange(node)` is called for each node that has changed. */
  constructor(onChange) {
    this.onChange = onChange;
    this.runs = [];
    this.usage = {};
    this.questions = new Map();
    /** Tokens that the last request of the agent has had, with its response. */
    this.contextTokens = 0;
    this.agent = "";
    this.lastIndex = -1;
    /** By the id of a stream, and of the streams that resume it. */
    this.streams = new Map();
    this.calls = new Map();
  }

  get current() {
    return this.runs.at(-1) ?? null;
  }

  get isRunning() {
    return this.current !== null && this.current.status === "running";
  }

  get isPaused() {
    return this.isRunning && this.current.isPaused;
  }

  /** The runs that go on in the background of the current run. */
  get backgroundRuns() {
    return this.isRunning ? this.current.inBackground.filter((child) => child.status === "running") : [];
  }

  get openQuestions() {
    return [...this.questions.values()].filter(isOpenQuestion);
  }

  apply(event, raw) {
    const handler = HANDLERS[event.type];
    if (!handler) return;
    const run = this.streams.get(event.source?.stream);
    if (!run && !OPENING.has(event.type)) return;
    handler(this, event, run, raw);
  }

  changed(node) {
    this.onChange(node);
  }

  /** Shows a message for the run, which the agent has not read yet. Returns a function that takes it away. */
  expectMessage(text) {
    const run = this.current;
    run.pending.push(text);
    this.changed(run);
    return () => {
      run.pending = run.pending.filter((pending) => pending !== text);
      this.changed(run);
    };
  }

  add(run, block) {
    // What comes next is a text of its own.
    run.text = null;
    run.reasoning = null;
    run.blocks.push(block);
    this.changed(run);
    return block;
  }

  callOf(event) {
    return this.calls.get(`${event.source.session} ${event.call_id}`);
  }

  /** The call that an event of the model or of the loop begins: a new one, or one that a resumed run goes on with. */
  begunCall(run, event) {
    const known = this.callOf(event);
    return known && known.run === run && !known.result ? known : this.newCall(run, event);
  }

  newCall(run, event) {
    const call = new Node("call", {
      id: event.call_id,
      name: event.name,
      agent: run.agent,
      arguments: "",
      output: "",
      outputLength: 0,
      progress: null,
      status: "writing",
      result: null,
      elapsed: 0,
      error: null,
      children: [],
      run,
    });
    this.calls.set(`${event.source.session} ${event.call_id}`, call);
    this.add(run, call);
    return call;
  }
}

function removeBlocks(conversation, run, isRemoved) {
  const kept = [];
  run.blocks.forEach((block, index) => {
    if (index >= run.turnBegin && isRemoved(block)) {
      block.view?.element.remove();
      if (block.kind === "call") conversation.calls.delete(`${run.session} ${block.id}`);
    } else {
      kept.push(block);
    }
  });
  run.blocks = kept;
  run.text = null;
  run.reasoning = null;
  conversation.changed(run);
}

const isUnfinishedResponse = (block) =>
  ((block.kind === "text" || block.kind === "reasoning") && !block.isCommitted) || (block.kind === "call" && block.status === "writing");

function beginResumed(conversation, run, event) {
  conversation.streams.set(event.source.stream, run);
  run.status = "running";
  run.isPaused = false;
  run.detail = "";
  run.error = null;
  conversation.changed(run);
}

function stopped(conversation, run, event) {
  run.status = event.reason;
  run.detail = event.detail;
  run.error = event.error;
  for (const block of run.blocks.slice(run.turnBegin)) {
    if (block.kind === "call" && ["writing", "running"].includes(block.status)) {
      block.status = event.reason === "needs_input" || event.reason === "interrupted" ? "parked" : "interrupted";
      conversation.changed(block);
    }
  }
  run.text = null;
  run.reasoning = null;
  conversation.changed(run);
}

function delta(kind) {
  return (conversation, event, run) => {
    let block = run[kind];
    if (!block) {
      block = conversation.add(run, new Node(kind, { text: "", isCommitted: false, isFinal: false, run }));
      run[kind] = block;
    }
    block.text += event.text;
    conversation.changed(block);
  };
}

function asked(conversation, event, run, raw) {
  const known = conversation.questions.get(event.id);
  if (known) {
    // A resumed run asks its question again.
    known.event = event;
    known.state = "open";
    known.answer = null;
    known.run = run;
    conversation.changed(known);
  } else {
    const question = new Node("question", { event, raw, run, state: "open", answer: null, by: "", note: "", draft: null });
    conversation.questions.set(event.id, question);
    conversation.add(run, question);
  }
  conversation.changed(conversation);
}

function questionEnds(state, change = () => {}) {
  return (conversation, event) => {
    const question = conversation.questions.get(event.id);
    if (!question) return;
    question.state = state;
    change(question, event);
    conversation.changed(question);
    conversation.changed(conversation);
  };
}

const textOf = (parts) => parts.filter((part) => part.type === "text").map((part) => part.text).join("");

function committed(conversation, event, run) {
  const { message } = event;
  if (run.kind === "run") conversation.lastIndex = event.index;
  if (message.type === "user") {
    if (run.promptIndex === null) {
      run.promptIndex = event.index;
      conversation.changed(run);
    } else if (message.reports?.length) {
      const text = `${message.reports.join(", ")} ${message.reports.length > 1 ? "have" : "has"} ended in the background`;
      conversation.add(run, new Node("note", { level: "info", text, code: "", run }));
    } else if (message.context?.length) {
      // The program keeps the model up to date, and nobody has said it.
      run.turnBegin = run.blocks.length;
    } else {
      const place = run.pending.indexOf(textOf(message.parts));
      if (place !== -1) run.pending.splice(place, 1);
      conversation.add(run, new Node("message", { message, run }));
      run.turnBegin = run.blocks.length;
    }
  } else if (message.type === "assistant") {
    // The message is what the transcript has. The deltas have said the same, unless this reader has missed some.
    const texts = run.blocks.slice(run.turnBegin).filter((block) => block.kind === "text" && !block.isCommitted);
    const whole = textOf(message.parts);
    if (texts.map((block) => block.text).join("") !== whole) {
      removeBlocks(conversation, run, (block) => texts.includes(block));
      if (whole) conversation.add(run, new Node("text", { text: whole, isCommitted: true, run }));
    }
    for (const block of run.blocks.slice(run.turnBegin)) {
      if (block.kind === "text" || block.kind === "reasoning") {
        block.isCommitted = true;
        conversation.changed(block);
      }
    }
    run.text = null;
    run.reasoning = null;
  }
}

function note(conversation, run, level, text, code = "") {
  conversation.add(run, new Node("note", { level, text, code, run }));
}

/** A new prompt gives up a run that was parked or cut off: its questions cannot be answered any more. */
function giveUpParked(conversation) {
  for (const question of conversation.openQuestions) {
    question.state = "withdrawn";
    conversation.changed(question);
  }
  for (const call of conversation.calls.values()) {
    if (call.status === "parked") {
      call.status = "interrupted";
      conversation.changed(call);
    }
  }
  const run = conversation.current;
  if (run && (run.status === "needs_input" || run.status === "interrupted")) {
    run.isGivenUp = true;
    conversation.changed(run);
  }
}

const OPENING = new Set(["stream_started", "child_stream_started"]);

const HANDLERS = {
  stream_started(conversation, event) {
    const resumed = conversation.streams.get(event.resumes);
    conversation.agent = event.source.agents[0];
    if (resumed) {
      beginResumed(conversation, resumed, event);
      conversation.changed(conversation);
      return;
    }
    giveUpParked(conversation);
    const run = newRun("run", event, conversation);
    if (!event.message.parts.length) {
      run.promptIndex = -1;
      run.promptNote = event.continues ? "The conversation goes on" : "The conversation is being shortened";
    }
    conversation.runs.push(run);
    conversation.streams.set(event.source.stream, run);
    conversation.changed(conversation);
  },
  stream_stopped(conversation, event, run) {
    stopped(conversation, run, event);
    conversation.changed(conversation);
  },
  child_stream_started(conversation, event) {
    const resumed = conversation.streams.get(event.resumes);
    if (resumed) {
      beginResumed(conversation, resumed, event);
      return;
    }
    const child = newRun("child", event, conversation);
    conversation.streams.set(event.source.stream, child);
    const parent = conversation.streams.get(event.source.parent) ?? conversation.current;
    if (!parent) return;
    const call = conversation.calls.get(`${parent.session} ${event.call_id}`);
    child.parent = parent;
    if (child.background) parent.inBackground.push(child);
    if (call) {
      child.call = call;
      call.children.push(child);
      conversation.changed(call);
    } else {
      conversation.add(parent, child);
    }
  },
  child_stream_stopped(conversation, event, run) {
    stopped(conversation, run, event);
    if (run.call) conversation.changed(run.call);
  },
  turn_started(conversation, event, run) {
    if (event.turn !== run.turn) {
      // A response that was cut off is requested again by the run that resumes, as another turn. A turn whose response
      // was complete keeps its number: its calls continue.
      removeBlocks(conversation, run, isUnfinishedResponse);
      run.turn = event.turn;
      run.turnBegin = run.blocks.length;
    }
    run.text = null;
    run.reasoning = null;
  },
  turn_finished(conversation, event, run) {
    run.text = null;
    run.reasoning = null;
    for (const block of run.blocks.slice(run.turnBegin)) {
      if (block.kind === "text" && !block.isFinal) {
        block.isFinal = true;
        conversation.changed(block);
      }
    }
  },
  text_delta: delta("text"),
  reasoning_delta: delta("reasoning"),
  tool_call_delta(conversation, event, run) {
    const call = conversation.begunCall(run, event);
    if (call.status === "writing") {
      call.arguments += event.arguments;
      conversation.changed(call);
    }
  },
  response_discarded(conversation, event, run) {
    if (event.purpose !== "turn" && event.purpose !== undefined) return;
    removeBlocks(conversation, run, isUnfinishedResponse);
    const next = event.next_model === event.model ? "It is asked again" : `${event.next_model} is asked instead`;
    const wait = event.delay >= 1 ? `, in ${Math.round(event.delay)} s` : "";
    note(conversation, run, "info", `${event.model} failed: ${event.error.message}. ${next}${wait}.`);
  },
  compaction_started(conversation, event, run) {
    note(conversation, run, "info", "The conversation is being shortened for the model.");
  },
  compaction_finished(conversation, event, run) {
    const words = event.problem ? `The conversation could not be shortened: ${event.problem}` : "The model reads a shorter form of the conversation from here on.";
    note(conversation, run, event.problem ? "warning" : "info", words);
  },
  message_committed: committed,
  usage_reported(conversation, event, run) {
    addUsage(conversation.usage, event.usage);
    if (run.kind === "run" && (event.purpose ?? "turn") === "turn" && event.is_complete !== false) {
      conversation.contextTokens = (event.usage.input_tokens ?? 0) + (event.usage.output_tokens ?? 0);
    }
    for (let one = run; one; one = one.parent) {
      addUsage(one.usage, event.usage);
      conversation.changed(one);
    }
  },
  tool_call_started(conversation, event, run) {
    const call = conversation.begunCall(run, event);
    call.arguments = event.arguments;
    call.status = "running";
    // The text before the calls is whole.
    run.text = null;
    run.reasoning = null;
    conversation.changed(call);
  },
  tool_call_output(conversation, event) {
    const call = conversation.callOf(event);
    if (!call) return;
    call.outputLength += event.text.length;
    call.output += event.text;
    if (call.output.length > 2 * KEPT_OUTPUT) call.output = call.output.slice(-KEPT_OUTPUT);
    conversation.changed(call);
  },
  tool_call_progress(conversation, event) {
    const call = conversation.callOf(event);
    if (!call) return;
    call.progress = { done: event.progress, total: event.total, message: event.message };
    conversation.changed(call);
  },
  tool_call_finished(conversation, event) {
    const call = conversation.callOf(event);
    if (!call) return;
    call.result = event.result;
    call.status = event.result.status ?? "ok";
    call.elapsed = event.elapsed;
    call.error = event.error;
    conversation.changed(call);
  },
  tool_call_parked(conversation, event) {
    const call = conversation.callOf(event);
    if (!call) return;
    call.status = "parked";
    conversation.changed(call);
  },
  handed_off(conversation, event, run) {
    run.agent = event.to;
    if (!run.parent) conversation.agent = event.to;
    note(conversation, run, "info", `${event.source.agents.at(-1)} hands the conversation to ${event.to}.`);
    conversation.changed(run);
  },
  paused(conversation, event, run) {
    run.isPaused = true;
    note(conversation, run, "info", "Paused: the run holds before its next step.");
  },
  resumed(conversation, event, run) {
    run.isPaused = false;
    note(conversation, run, "info", "The run goes on.");
  },
  elicitation_requested: asked,
  approval_requested: asked,
  continue_requested: asked,
  question_answered: questionEnds("answered", (question, event) => {
    question.answer = event.answer;
    question.by = event.by;
  }),
  question_declined: questionEnds("declined", (question, event) => {
    question.note = event.note;
  }),
  question_withdrawn: questionEnds("withdrawn"),
  question_parked: questionEnds("parked"),
  warning_issued(conversation, event, run) {
    note(conversation, run, "warning", event.message, event.code);
  },
};
