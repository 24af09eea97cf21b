// The page: follows the events of every run and draws what they say.

const POLL = 1000;
const QUIET = 120;
const runs = new Map();

function newRun(id) {
  return { id, name: id, report: false, cursor: { offset: 0, check: 0 }, quiet: 0, on: true, colour: COLOURS[runs.size % COLOURS.length], ...empty() };
}

function empty() {
  return { title: "", device: "", at: 0, phases: [], evaluated: [], kl: [], samples: new Map(), warnings: [], gates: [], stopped: "", finished: false, error: "" };
}

function phaseOf(run, name) {
  let phase = run.phases.find((phase) => phase.name === name);
  if (!phase) run.phases.push((phase = { name, steps: 0, dimension: "", start: "", figures: [], heldOut: [], done: false }));
  return phase;
}

/// One event; the names are those of events.jsonl.
function take(run, record) {
  run.at = record.at;
  switch (record.event) {
    case "run-started":
      Object.assign(run, { title: record.name, device: record.device });
      for (const [name, steps] of record.phases) phaseOf(run, name).steps = steps;
      break;
    case "phase-started": {
      const { dimension, steps, start, control } = record;
      Object.assign(phaseOf(run, record.phase), { dimension, steps, start, control });
      break;
    }
    case "step":
    case "window": // runs of versions before 0.2
      phaseOf(run, record.phase).figures.push(record);
      break;
    case "held-out":
      phaseOf(run, record.phase).heldOut.push(record);
      break;
    case "phase-finished":
      phaseOf(run, record.phase).done = true;
      break;
    case "evaluated":
      for (const score of record.scores) {
        if (score.kind !== "log-ratio" || !score.subsets.all) continue;
        run.evaluated.push({ policy: record.policy, step: record.step, dimension: score.dimension, ...score.subsets.all });
      }
      break;
    case "kl-estimated":
      run.kl.push(record);
      break;
    case "sampled": {
      const answers = run.samples.get(record.prompt) || new Map();
      for (const [policy, answer] of record.by_policy) answers.set(policy, answer);
      run.samples.set(record.prompt, answers);
      break;
    }
    case "warning":
      run.warnings.push(record.text);
      break;
    case "phase-ended":
      phaseOf(run, record.phase).done = true;
      run.warnings.push(`${record.phase} ended after ${record.step} of ${record.steps} steps with the policy of step ${record["policy-of"]}: ${record.reason}`);
      break;
    case "gate-checked":
      run.gates.push(record);
      break;
    case "run-stopped":
      run.stopped = record.reason;
      break;
    case "run-finished":
      run.finished = true;
      break;
  }
}

async function ask(path) {
  const answer = await fetch(path, { cache: "no-store" });
  if (!answer.ok) throw new Error(`${path}: ${answer.status} ${(await answer.text()).trim()}`);
  return answer.json();
}

async function follow(run) {
  for (;;) {
    const { offset, check } = run.cursor;
    const added = await ask(`/api/runs/${run.id}/events?offset=${offset}&check=${check}`);
    if (added.restarted) Object.assign(run, empty());
    run.cursor = added.next;
    run.quiet = added.quiet;
    run.error = "";
    if (!added.text) return added.restarted;
    for (const line of added.text.split("\n")) if (line) take(run, JSON.parse(line));
    run.changed = true;
  }
}

async function poll() {
  let changed = false;
  try {
    for (const { id, name, report } of await ask("/api/runs")) {
      if (!runs.has(id)) runs.set(id, newRun(id));
      const run = runs.get(id);
      changed ||= run.report !== report;
      Object.assign(run, { name, report });
    }
    const errors = await Promise.all([...runs.values()].map((run) => follow(run).catch((error) => { run.error = String(error.message); return true; })));
    changed ||= errors.some(Boolean) || [...runs.values()].some((run) => run.changed);
    document.getElementById("status").textContent = `${runs.size} ${runs.size === 1 ? "run" : "runs"}, up to date at ${new Date().toLocaleTimeString()}`;
  } catch (error) {
    document.getElementById("status").textContent = `no answer from spo serve (${error.message}); still trying`;
  }
  drawRuns();
  if (changed) draw();
  for (const run of runs.values()) run.changed = false;
  document.body.dataset.polls = 1 + Number(document.body.dataset.polls || 0);
  document.body.dataset.ready = "yes";
  setTimeout(poll, POLL);
}

function clock(seconds) {
  const whole = Math.max(0, Math.round(seconds));
  const two = (value) => String(value).padStart(2, "0");
  return whole < 3600 ? `${Math.floor(whole / 60)}:${two(whole % 60)}` : `${Math.floor(whole / 3600)}:${two(Math.floor(whole / 60) % 60)}:${two(whole % 60)}`;
}

function lastWindow(run) {
  for (const phase of [...run.phases].reverse()) if (phase.figures.length) return phase.figures[phase.figures.length - 1];
  return undefined;
}

function secondsLeft(run) {
  const mean = (phase) => {
    const recent = phase.figures.slice(-20);
    return recent.length ? recent.reduce((sum, step) => sum + step.seconds, 0) / recent.length : undefined;
  };
  const last = lastWindow(run);
  if (!last) return undefined;
  const usual = mean(phaseOf(run, last.phase));
  return run.phases.filter((phase) => !phase.done).reduce((sum, phase) => sum + (phase.steps - phase.figures.length) * (mean(phase) ?? usual), 0);
}

function drawRuns() {
  const cards = [...runs.values()].map((run) => {
    const last = lastWindow(run);
    const [state, text] = run.error ? ["quiet", run.error]
      : run.finished ? ["finished", `finished in ${clock(run.at)}`]
      : run.stopped ? ["quiet", "stopped"]
      : run.quiet > QUIET ? ["quiet", `no event for ${clock(run.quiet)}`] : ["running", "running"];
    const box = html("input", { type: "checkbox" });
    box.checked = run.on;
    box.addEventListener("change", () => { run.on = box.checked; drawRuns(); draw(); });
    const card = html("div", { class: run.on ? "run" : "run off", style: { "--colour": run.colour } },
      html("label", {}, box, run.name, html("span", { class: `state ${state}` }, text)));
    card.dataset.run = run.name;
    card.dataset.state = state;
    const steps = run.phases.reduce((sum, phase) => sum + phase.steps, 0);
    const done = run.phases.reduce((sum, phase) => sum + (phase.done ? phase.steps : phase.figures.length), 0);
    card.append(html("progress", { value: done, max: Math.max(1, steps) }));
    if (last) {
      const words = [`${last.phase} step ${last.step}/${last.steps}`, `epoch ${last.epoch.toFixed(2)}`, `loss ${last.loss.toFixed(4)}`];
      if (last.margin !== undefined) words.push(`margin ${last.margin.toFixed(3)}`);
      if (last.accuracy !== undefined) words.push(`accuracy ${(100 * last.accuracy).toFixed(0)} %`);
      if (last.seconds > 0) words.push(`${Math.round(last.tokens / last.seconds)} tokens/s`);
      if (last["memory-bytes"]) words.push(`${Math.round(last["memory-bytes"] / 2 ** 20)} MiB`);
      const left = run.finished ? undefined : secondsLeft(run);
      if (left !== undefined) words.push(`${clock(left)} of steps left`);
      card.append(html("p", {}, words.join(" · ")));
      card.dataset.step = `${last.phase} ${last.step}`;
    }
    if (run.stopped) card.append(html("p", { class: "lost" }, run.stopped));
    const link = (file, name) => html("a", { href: `/runs/${run.id}/${file}`, target: "_blank", rel: "noopener" }, name);
    card.append(html("p", {}, ...(run.report ? [link("report.html", "report"), link("summary.json", "summary")] : []),
      link("plan.json", "plan"), link("metrics.csv", "metrics"), link("events.jsonl", "events")));
    return card;
  });
  document.getElementById("runs").replaceChildren(...cards);
}

const CURVES = [
  ["Loss", (step) => step.loss],
  ["Held-out loss", null, (found) => found.loss],
  ["Accuracy on training pairs, %", (step) => step.accuracy === undefined ? NaN : 100 * step.accuracy],
  ["Reward margin on training pairs", (step) => step.margin],
  ["Log-ratio of chosen answers, nats", (step) => step["chosen-log-ratio"]],
  ["Log-ratio of rejected answers, nats", (step) => step["rejected-log-ratio"]],
  ["Margin offset c, mean", (step) => step["margin-offset"] ?? step.carry],
  ["Gradient norm", (step) => step["grad-norm"]],
  ["Learning rate", (step) => step["learning-rate"]],
  ["Tokens per second", (step) => step.seconds > 0 ? step.tokens / step.seconds : NaN],
  ["Memory, MiB", (step) => step["memory-bytes"] ? step["memory-bytes"] / 2 ** 20 : NaN],
];

/// Steps from the start of the run to a phase, along the policies it started from: a control lies beside its round.
function before(run, name) {
  let sum = 0;
  const seen = new Set([name]);
  const find = (name) => run.phases.find((phase) => phase.name === name);
  for (let at = find((find(name) || {}).start); at && !seen.has(at.name); at = find(at.start)) {
    seen.add(at.name);
    sum += at.steps;
  }
  return sum;
}

/// With one run, colours tell phases or dimensions apart; with several, the run.
function series(shown, read, readHeldOut) {
  const several = shown.length > 1;
  return shown.flatMap((run) => run.phases.map((phase, index) => {
    const at = before(run, phase.name);
    const points = read ? phase.figures.map((step) => [at + step.step, read(step)])
      : phase.heldOut.map((found) => [at + found.step, readHeldOut(found)]);
    return { name: several ? `${run.name} ${phase.name}` : phase.name, colour: several ? run.colour : COLOURS[index % COLOURS.length], dashed: phase.control, points: points.map(([x, y]) => [x, y ?? NaN]), exact: !read };
  }));
}

function heldOutByDimension(shown, what) {
  const several = shown.length > 1;
  const colours = new Map();
  return shown.flatMap((run) => {
    const lines = new Map();
    const put = (dimension, policy, x, y) => {
      const phase = run.phases.find((phase) => phase.name === policy);
      const key = phase && phase.control ? `${dimension}, ${policy}` : dimension;
      if (!lines.has(key)) lines.set(key, { dimension, dashed: Boolean(phase && phase.control), points: [] });
      lines.get(key).points.push([x, y]);
    };
    for (const phase of run.phases) for (const found of phase.heldOut) for (const of of found.dimensions) {
      put(of.dimension, phase.name, before(run, phase.name) + found.step, what === "accuracy" ? 100 * of.accuracy : of.margin);
    }
    for (const score of run.evaluated) {
      put(score.dimension, score.policy, before(run, score.policy) + score.step, what === "accuracy" ? 100 * score.accuracy : score.mean_margin);
    }
    return [...lines].map(([name, line]) => {
      if (!colours.has(line.dimension)) colours.set(line.dimension, COLOURS[colours.size % COLOURS.length]);
      line.points.sort((a, b) => a[0] - b[0]);
      return { name: several ? `${run.name} ${name}` : name, colour: several ? run.colour : colours.get(line.dimension), dashed: line.dashed || (several && [...colours.keys()].indexOf(line.dimension) % 2 === 1), points: line.points, exact: true };
    });
  });
}

function drawCurves(shown) {
  const box = document.getElementById("curves");
  const weight = Number(document.getElementById("smoothing").value);
  const all = [
    ["Held out, accuracy %, by dimension", heldOutByDimension(shown, "accuracy")],
    ["Held out, mean margin, by dimension", heldOutByDimension(shown, "margin")],
    ...CURVES.map(([title, read, readHeldOut]) => [title, series(shown, read, readHeldOut)]),
  ];
  while (box.children.length < all.length) box.append(html("figure", { class: "chart" }));
  all.forEach(([title, lines], index) => {
    box.children[index].dataset.title = title;
    drawChart(box.children[index], title, lines, weight);
  });
}

/// The best accuracy that a policy or one that it started from had.
function bestBefore(run, policy, dimension) {
  let best = -Infinity;
  const seen = new Set();
  for (let name = policy; name && !seen.has(name); name = (run.phases.find((phase) => phase.name === name) || {}).start) {
    seen.add(name);
    for (const score of run.evaluated) if (score.policy === name && score.dimension === dimension) best = Math.max(best, score.accuracy);
  }
  return best;
}

function drawMatrix(shown) {
  const dimensions = [...new Set(shown.flatMap((run) => run.evaluated.map((score) => score.dimension)))];
  const rows = shown.flatMap((run) => [...new Set(run.evaluated.map((score) => score.policy))].map((policy) => [run, policy]));
  const box = document.getElementById("matrix");
  if (!rows.length) return box.replaceChildren(html("p", { class: "empty" }, "No policy was evaluated yet."));
  const head = html("tr", {}, ...["run", "policy", ...dimensions, "sampled KL, nats"].map((name) => html("th", {}, name)));
  const body = rows.map(([run, policy]) => {
    const cells = dimensions.map((dimension) => {
      const score = run.evaluated.filter((score) => score.policy === policy && score.dimension === dimension).pop();
      if (!score) return html("td", {}, "–");
      const percent = (share) => (100 * share).toFixed(1);
      const lost = bestBefore(run, policy, dimension) - score.accuracy;
      const [low, high] = score.interval;
      const cell = html("td", { class: "number" }, `${percent(score.accuracy)} (${percent(low)} to ${percent(high)})`,
        html("div", { class: "span" }, html("u"), html("i", { style: { left: `${100 * low}%`, width: `${100 * (high - low)}%` } }), html("b", { style: { left: `${100 * score.accuracy}%` } })),
        html("small", {}, `margin ${score.mean_margin.toFixed(2)} ± ${score.margin_stderr.toFixed(2)}, ${score.pairs} pairs`));
      if (lost > 0) cell.append(html("small", { class: "lost" }, `${percent(lost)} points forgotten`));
      cell.dataset.cell = `${policy}|${dimension}|${percent(score.accuracy)}`;
      return cell;
    });
    const kl = run.kl.filter((estimate) => estimate.policy === policy);
    const words = kl.map((estimate) => `${estimate.mean.toFixed(1)} ± ${estimate.stderr.toFixed(1)} from ${estimate.reference}`);
    return html("tr", {}, html("td", { style: { "border-left": `5px solid ${run.colour}`, "padding-left": ".6rem" } }, run.name), html("td", {}, policy), ...cells,
      html("td", {}, ...(words.length ? words.map((text) => html("div", {}, text)) : ["–"])));
  });
  box.replaceChildren(html("div", { class: "wide" }, html("table", {}, head, ...body)));
}

function drawSamples(shown) {
  const prompts = [...new Set(shown.flatMap((run) => [...run.samples.keys()]))];
  const several = shown.length > 1;
  const cards = prompts.map((prompt) => {
    const answers = shown.flatMap((run) => [...(run.samples.get(prompt) || new Map())].map(([policy, answer]) =>
      html("div", {}, html("b", { style: several ? { color: run.colour } : {} }, several ? `${run.name} ${policy}` : policy), answer)));
    return html("div", { class: "sample" }, html("div", { class: "prompt" }, prompt), html("div", { class: "answers" }, ...answers));
  });
  document.getElementById("samples").replaceChildren(...(cards.length ? cards : [html("p", { class: "empty" }, "No answers yet.")]));
}

function drawWarnings(shown) {
  const gate = (gate) => `${gate.policy}: gate ${gate.outcome}: ${gate.checks.map((check) => `${check.what} ${check.found.toFixed(4)} ${check.passed ? "meets" : "misses"} ${check.wanted}`).join(", ")}`;
  const items = shown.flatMap((run) => [...run.gates.map(gate), ...run.warnings].map((text) => html("li", {}, shown.length > 1 ? `${run.name}: ${text}` : text)));
  document.getElementById("warnings").replaceChildren(items.length ? html("ul", {}, ...items) : html("p", { class: "empty" }, "None."));
}

function draw() {
  const shown = [...runs.values()].filter((run) => run.on);
  drawCurves(shown);
  drawMatrix(shown);
  drawSamples(shown);
  drawWarnings(shown);
}

document.getElementById("smoothing").addEventListener("input", draw);
poll();
