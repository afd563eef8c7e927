"use strict";
(() => {
  const $ = (id) => document.getElementById(id);
  const el = (tag, given = {}, ...children) => {
    const made = Object.assign(document.createElement(tag), given);
    made.append(...children);
    return made;
  };

  // Theme ------------------------------------------------------------------------------------------------------------
  const root = document.documentElement, toggle = document.querySelector(".theme");
  const isDark = () => (root.dataset.theme ? root.dataset.theme === "dark" : matchMedia("(prefers-color-scheme: dark)").matches);
  const showTheme = () => toggle.setAttribute("aria-pressed", String(isDark()));
  try {
    const kept = localStorage.getItem("trimtab-theme");
    if (kept === "dark" || kept === "light") root.dataset.theme = kept;
  } catch { /* storage is off: the choice lasts for this visit */ }
  toggle.addEventListener("click", () => {
    root.dataset.theme = isDark() ? "light" : "dark";
    try { localStorage.setItem("trimtab-theme", root.dataset.theme); } catch { /* as above */ }
    showTheme();
  });
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", showTheme);
  showTheme();

  // Asking the server ------------------------------------------------------------------------------------------------
  class Refused extends Error {}
  const post = async (path, body, signal) => {
    const answer = await fetch(path, {
      method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify(body), signal,
    });
    if (answer.ok) return answer;
    const said = await answer.json().catch(() => ({}));
    const { message = `The server answered ${answer.status}.`, where, fix } = said.error ?? {};
    throw new Refused([where ? `${where}: ${message}` : message, fix].filter(Boolean).join(" "));
  };
  async function* events(answer) {
    const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
    for (let rest = ""; ;) {
      const { done, value } = await reader.read();
      if (done) return;
      const lines = (rest + value).split("\n\n");
      rest = lines.pop();
      for (const line of lines) {
        const data = line.replace(/^data: /, "");
        if (data === "[DONE]") return;
        const event = JSON.parse(data);
        if (event.error) throw new Refused(event.error.message);
        yield event;
      }
    }
  }

  // Tasks and their fields -------------------------------------------------------------------------------------------
  let tasks = [], backbone = "", current = null;
  const ITSELF = { name: "", fields: ["text"], itself: true };
  const about = (task) => {
    if (task.itself) return "writes the text on, as it is";
    const layers = Object.values(task.deep_layers);
    const size = layers.length ? `deep, ${Math.max(...layers)} layers` : `${task.virtual_tokens} virtual tokens`;
    const gives = task.writes ? "writes text" : task.classes.length ? task.classes.slice(0, 4).join(", ") : task.answer;
    return `${gives}${task.classes.length > 4 ? ", …" : ""} · ${size}`;
  };
  const boxes = () => [...document.querySelectorAll("#tasks input")];
  const chosen = () => boxes().filter((box) => box.checked).map((box) => box.task);
  const showFields = () => {
    const kept = Object.fromEntries([...document.querySelectorAll("#fields textarea")].map((t) => [t.name, t.value]));
    const names = [...new Set(chosen().flatMap((task) => task.fields))];
    const isNew = !names.some((name) => name in kept);  // what was typed goes along to a task of other fields
    const areas = names.map((name, i) => {
      const value = kept[name] ?? (isNew && i === 0 ? Object.values(kept)[0] : "") ?? "";
      const area = el("textarea", { name, rows: 3, value });
      return el("label", { className: "field" }, name[0].toUpperCase() + name.slice(1), area);
    });
    $("fields").replaceChildren(...(areas.length ? areas : [el("p", { className: "hint" }, "Choose a task.")]));
  };
  const showTasks = () => {
    const items = tasks.map((task, i) => {
      const box = el("input", { type: "checkbox", checked: i < 2, value: task.name });
      box.task = task;
      const name = task.itself ? backbone : task.name;
      return el("label", { className: "choice" }, box, el("span", {}, name, el("small", {}, about(task))));
    });
    $("tasks").replaceChildren(...items);
    document.querySelector(".filter").hidden = tasks.length < 9;
    showFields();
  };
  const mark = (value) => {
    for (const box of boxes()) if (!box.parentElement.hidden) box.checked = value;
    showFields();
  };
  $("tasks").addEventListener("change", showFields);
  $("all").addEventListener("click", () => mark(true));
  $("none").addEventListener("click", () => mark(false));
  $("filter").addEventListener("input", () => {
    const wanted = $("filter").value.trim().toLowerCase();
    for (const box of boxes()) box.parentElement.hidden = !box.parentElement.textContent.toLowerCase().includes(wanted);
  });

  // Answers ----------------------------------------------------------------------------------------------------------
  const percent = (share) => `${(100 * share).toFixed(1)} %`;
  const scores = (its) => {
    const best = Math.max(...its.map(([, share]) => share));
    return el("ul", { className: "scores" }, ...its.map(([name, share]) => {
      const bar = el("i", { ariaHidden: "true" });
      bar.style.width = `${100 * share}%`;
      return el("li", { className: share === best ? "score best" : "score" }, bar, el("span", {}, name), el("span", {}, percent(share)));
    }));
  };
  const text = (said) => el("p", { className: said ? "text" : "text empty" }, said || "(nothing)");
  const tags = (its) => el("p", { className: "text" }, ...its.tokens.map((word, i) =>
    its.tags[i] === "O" ? `${word} ` : el("span", { className: "tag" }, word, el("small", {}, its.tags[i]))));
  const shown = (its) => {
    if (its.tokens) return [tags(its)];
    if (its.top) return [scores(its.top.map((word) => [word.text, word.score]))];
    const found = its.text === undefined ? [] : [text(its.text)];
    if (its.scores) found.push(scores(Object.entries(its.scores)));
    else if ("label" in its) found.push(el("p", { className: "hint" }, its.label ? `means ${its.label}` : "names no class"));
    if (typeof its.score === "number") found.push(el("p", { className: "hint" }, percent(its.score)));
    return found;
  };
  const side = (title, isPlain) => {
    const body = el("div", {}, el("p", { className: "text waits" }, "…"));
    return { body, whole: el("section", { className: isPlain ? "side plain" : "side" }, el("h3", {}, title), body) };
  };
  const fill = async (body, work) => {
    try {
      await work((...its) => body.replaceChildren(...its));
      return true;
    } catch (error) {
      const stopped = error.name === "AbortError";
      const said = stopped ? "stopped" : error instanceof Refused ? error.message : "The server does not answer.";
      body.append(el("p", { className: stopped ? "hint" : "problem" }, said));
      body.querySelector(".waits")?.remove();
      return false;
    }
  };
  const stream = (model, said, signal) => async (show) => {
    const place = el("p", { className: "text" });
    const body = { model, prompt: said, stream: true, ...(model === backbone ? { max_tokens: 32 } : {}) };
    const answer = await post("v1/completions", body, signal);
    show(place);
    for await (const event of events(answer)) place.append(event.choices[0]?.text ?? "");
    if (!place.textContent) show(text(""));
  };
  const ask = (task, values, bare, signal) => async (show) => {
    const input = Object.fromEntries(task.fields.map((name) => [name, values[name]]));
    const answer = await (await post(`tasks/${encodeURIComponent(task.name)}`, { inputs: [input], bare }, signal)).json();
    show(...shown(answer.predictions[0]));
  };

  const begin = (task, values, signal) => {
    const works = [], sides = [];
    const add = (title, isPlain, work) => {
      const { body, whole } = side(title, isPlain);
      sides.push(whole);
      works.push(fill(body, work));
    };
    const streams = task.writes && $("form").dataset.writes && task.fields.length === 1;
    if (task.itself) add("Bare model", true, stream(backbone, values.text, signal));
    else {
      add("With the prompt", false, streams ? stream(task.name, values[task.fields[0]], signal) : ask(task, values, false, signal));
      if ($("bare").checked && task.has_bare) add("Bare model", true, ask(task, values, true, signal));
    }
    const name = task.itself ? backbone : task.name;
    $("results").append(el("article", { className: "answer" }, el("h2", {}, name), el("div", { className: "sides" }, ...sides)));
    return works;
  };
  $("form").addEventListener("submit", async (event) => {
    event.preventDefault();
    current?.abort();
    const mine = current = new AbortController();
    const values = Object.fromEntries([...document.querySelectorAll("#fields textarea")].map((t) => [t.name, t.value]));
    const wanted = chosen();
    $("results").replaceChildren();
    if (!wanted.length) { $("said").textContent = "Choose a task first."; return; }
    $("stop").disabled = false;
    $("said").textContent = "Asking …";
    const began = performance.now();
    const done = await Promise.all(wanted.flatMap((task) => begin(task, values, mine.signal)));
    if (mine !== current) return;
    $("stop").disabled = true;
    const good = done.filter(Boolean).length;
    const time = ((performance.now() - began) / 1000).toFixed(2);
    $("said").textContent = `${good} of ${done.length} answers, ${time} s.`;
  });
  $("stop").addEventListener("click", () => current?.abort());
  document.addEventListener("keydown", (event) => {
    if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) $("form").requestSubmit();
  });

  // What there is ----------------------------------------------------------------------------------------------------
  (async () => {
    try {
      const told = await (await fetch("tasks")).json();
      backbone = told.backbone;
      tasks = told.can_write ? [...told.tasks, ITSELF] : told.tasks;
      if (told.can_write) $("form").dataset.writes = "yes";
      $("backbone").textContent = backbone;
      const n = told.tasks.length;
      $("about").textContent = `One frozen model and ${n} ${n === 1 ? "prompt" : "prompts"}. All that you ask at once shares its batches.`;
      showTasks();
    } catch {
      $("about").textContent = "The server does not answer.";
    }
  })();
})();
