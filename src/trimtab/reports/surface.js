"use strict";
(() => {
  const clamp = (v, low, high) => Math.min(high, Math.max(low, v));
  const short = (v) => {
    const text = Math.abs(v) < 1e-12 ? "0" : String(Number(v.toPrecision(3)));
    return text.replace("-", "\u2212");
  };
  const colorOf = (stops) => {
    const parsed = stops.map((hex) => [1, 3, 5].map((i) => parseInt(hex.slice(i, i + 2), 16)));
    return (share) => {
      const place = clamp(share, 0, 1) * (parsed.length - 1);
      const i = Math.min(Math.floor(place), parsed.length - 2);
      return parsed[i].map((c, k) => Math.round(c + (parsed[i + 1][k] - c) * (place - i)));
    };
  };
  const css = (rgb) => `rgb(${rgb[0]},${rgb[1]},${rgb[2]})`;
  const ink = () => {
    const style = getComputedStyle(document.documentElement);
    const its = (name) => style.getPropertyValue(name).trim();
    return { ink: its("--ink"), soft: its("--soft"), rule: its("--grid"), card: its("--card") };
  };
  /* The name of an axis, with its unit where there is room; the caption has it in any case. */
  const fitting = (pen, letter, axis, room) => {
    const name = `${letter}: ${axis.name}`, whole = `${name} (1 = ${axis.unit})`;
    return pen.measureText(whole).width <= room ? whole : name;
  };
  const ticks = (low, high, many) => {
    const raw = (high - low) / many;
    const unit = 10 ** Math.floor(Math.log10(raw));
    const step = [1, 2, 2.5, 5, 10].map((m) => m * unit).find((s) => s >= raw * 0.999);
    const found = [];
    for (let i = Math.ceil(low / step - 1e-9); i <= Math.floor(high / step + 1e-9); i++) found.push(i * step);
    return found;
  };
  const logTicks = (low, high) => {
    const found = [];
    for (let e = Math.floor(Math.log10(low)); e <= Math.ceil(Math.log10(high)); e++) {
      for (const m of [1, 2, 5]) {
        const v = m * 10 ** e;
        if (v >= low * 0.999 && v <= high * 1.001) found.push(v);
      }
    }
    return found.length > 1 ? found : [low, high];
  };

  /* A canvas in device pixels; drawn in CSS pixels. Null while it has no size. */
  const sheet = (canvas) => {
    const { width, height } = canvas.getBoundingClientRect();
    if (width < 2 || height < 2) return null;
    const ratio = devicePixelRatio || 1;
    const w = Math.round(width * ratio), h = Math.round(height * ratio);
    if (canvas.width !== w || canvas.height !== h) { canvas.width = w; canvas.height = h; }
    const pen = canvas.getContext("2d");
    pen.setTransform(ratio, 0, 0, ratio, 0, 0);
    pen.clearRect(0, 0, width, height);
    pen.font = `11px ${getComputedStyle(document.body).fontFamily}`;
    return { pen, width, height };
  };

  const rangeOf = (surfaces, log) => {
    let values = surfaces.flatMap((s) => s.z.flat());
    if (log) {
      values = values.filter((v) => v > 0);
      if (!values.length) values = [1];
    }
    let low = Infinity, high = -Infinity;
    for (const v of values) { low = Math.min(low, v); high = Math.max(high, v); }
    if (high - low < 1e-6 * Math.max(Math.abs(high), 1e-6)) {
      [low, high] = log ? [low / 1.1, high * 1.1] : [low - 0.05, high + 0.05];
    }
    const share = log
      ? (v) => (Math.log(Math.max(v, low)) - Math.log(low)) / (Math.log(high) - Math.log(low))
      : (v) => (v - low) / (high - low);
    return { low, high, share, ticks: log ? logTicks(low, high) : ticks(low, high, 4) };
  };

  /* The loss between grid points, bilinear; null outside. */
  const lossAt = (s, x, y) => {
    const place = (line, v) => {
      const t = (v - line[0]) / (line[line.length - 1] - line[0]) * (line.length - 1);
      if (t < -1e-6 || t > line.length - 1 + 1e-6) return null;
      const i = clamp(Math.floor(t), 0, line.length - 2);
      return [i, clamp(t - i, 0, 1)];
    };
    const a = place(s.x, x), b = place(s.y, y);
    if (!a || !b) return null;
    const [i, u] = a, [j, v] = b;
    return (s.z[j][i] * (1 - u) + s.z[j][i + 1] * u) * (1 - v) + (s.z[j + 1][i] * (1 - u) + s.z[j + 1][i + 1] * u) * v;
  };

  const START = { yaw: -0.6, pitch: 0.55, zoom: 1 };

  const drawRelief = (canvas, s, range, color, view, cursor) => {
    const on = sheet(canvas);
    if (!on) return;
    const { pen, width, height } = on, tint = ink();
    const size = Math.min(width, height * 1.2) * 0.5 * view.zoom;
    const [cy, sy, cp, sp] = [Math.cos(view.yaw), Math.sin(view.yaw), Math.cos(view.pitch), Math.sin(view.pitch)];
    const tall = 0.62 * view.height;
    const unit = (line, v) => (v - line[0]) / (line[line.length - 1] - line[0]) - 0.5;
    /* x to the right, y away from the reader, z up, each of size one; depth grows away from the reader */
    const project = (x, y, z) => {
      const across = x * cy + y * sy, away = -x * sy + y * cy, up = (z - 0.5) * tall;
      const depth = away * cp - up * sp;
      const near = 1 / (1 + 0.22 * depth);
      return [width / 2 + across * size * near, height * 0.42 - (up * cp + away * sp) * size * near, depth];
    };
    const at = (i, j) => project(unit(s.x, s.x[i]), unit(s.y, s.y[j]), clamp(range.share(s.z[j][i]), 0, 1));
    const points = s.y.map((_, j) => s.x.map((__, i) => at(i, j)));
    const line = (a, b, style) => {
      pen.strokeStyle = style; pen.beginPath(); pen.moveTo(a[0], a[1]); pen.lineTo(b[0], b[1]); pen.stroke();
    };
    /* the floor, and the corner at the back with the heights */
    pen.lineWidth = 1;
    const corners = [[-0.5, -0.5], [0.5, -0.5], [0.5, 0.5], [-0.5, 0.5]];
    for (let k = 0; k < 4; k++) line(project(...corners[k], 0), project(...corners[(k + 1) % 4], 0), tint.rule);
    const sides = corners.map(([x, y]) => ({ x, y, floor: project(x, y, 0) }));
    const back = sides.reduce((a, b) => (b.floor[2] > a.floor[2] ? b : a));
    for (const other of [[-back.x, back.y], [back.x, -back.y]]) {
      for (const t of range.ticks) {
        const z = range.share(t);
        line(project(back.x, back.y, z), project(...other, z), tint.rule);
      }
    }
    const quads = [];
    for (let j = 0; j + 1 < s.y.length; j++) {
      for (let i = 0; i + 1 < s.x.length; i++) {
        const four = [points[j][i], points[j][i + 1], points[j + 1][i + 1], points[j + 1][i]];
        const mean = [s.z[j][i], s.z[j][i + 1], s.z[j + 1][i + 1], s.z[j + 1][i]]
          .reduce((sum, v) => sum + range.share(v), 0) / 4;
        quads.push({ four, mean, depth: four.reduce((sum, p) => sum + p[2], 0) });
      }
    }
    quads.sort((a, b) => b.depth - a.depth);
    for (const { four, mean } of quads) {
      const its = css(color(mean));
      pen.fillStyle = its;
      pen.strokeStyle = "rgba(0,0,0,.18)";
      pen.lineWidth = 0.6;
      pen.beginPath();
      four.forEach((p, k) => (k ? pen.lineTo(p[0], p[1]) : pen.moveTo(p[0], p[1])));
      pen.closePath(); pen.fill(); pen.stroke();
    }
    const dot = (x, y, v, fill, name) => {
      const floor = project(unit(s.x, x), unit(s.y, y), clamp(range.share(v), 0, 1));
      pen.beginPath(); pen.arc(floor[0], floor[1], 4, 0, 2 * Math.PI);
      pen.fillStyle = fill; pen.strokeStyle = "#000"; pen.lineWidth = 1.2; pen.fill(); pen.stroke();
      if (name) {
        pen.textAlign = "left"; pen.lineWidth = 3; pen.strokeStyle = tint.card; pen.fillStyle = tint.ink;
        pen.strokeText(name, floor[0] + 7, floor[1] - 5); pen.fillText(name, floor[0] + 7, floor[1] - 5);
      }
    };
    const many = s.marks.length > 1;
    for (const m of s.marks) dot(m.x, m.y, m.loss, "#fff", many ? m.name[0] : "");
    if (cursor) {
      const v = lossAt(s, cursor.x, cursor.y);
      if (v !== null) dot(cursor.x, cursor.y, v, "#ff5f1f", "");
    }
    /* names and numbers stand outside of the floor, on the sides that face the reader; where two axes meet, a number
       that would stand on what is written already is left out */
    pen.fillStyle = tint.soft;
    const written = [];
    const label = (text, [x, y], align) => {
      const wide = pen.measureText(text).width;
      const left = x - { left: 0, center: wide / 2, right: wide }[align];
      const box = [left - 2, y - 10, left + wide + 2, y + 2];
      if (written.some((b) => box[0] < b[2] && b[0] < box[2] && box[1] < b[3] && b[1] < box[3])) return;
      written.push(box);
      pen.textAlign = align; pen.fillText(text, x, y);
    };
    label(`x: ${s.axes.x.name}`, [4, height - 18], "left");
    label(`y: ${s.axes.y.name}`, [4, height - 4], "left");
    const frontY = project(0, -0.5, 0)[2] < project(0, 0.5, 0)[2] ? -1 : 1;
    const frontX = project(-0.5, 0, 0)[2] < project(0.5, 0, 0)[2] ? -1 : 1;
    /* a letter at the middle of each axis, what it means at the foot: names would run into numbers */
    pen.font = pen.font.replace("11px", "bold 12px");
    for (const [letter, x, y] of [["x", 0.17, 0.5 * frontY * 1.3], ["y", 0.5 * frontX * 1.3, 0.17]]) {
      const p = project(x, y, 0);
      label(letter, [p[0], p[1] + 4], "center");
    }
    pen.font = pen.font.replace("bold 12px", "11px");
    const ticksWanted = width < 340 ? 2 : 4;
    for (const t of ticks(s.x[0], s.x[s.x.length - 1], ticksWanted)) {
      const p = project(unit(s.x, t), 0.5 * frontY * 1.14, 0);
      label(short(t), [p[0], p[1] + 4], "center");
    }
    for (const t of ticks(s.y[0], s.y[s.y.length - 1], ticksWanted)) {
      const p = project(0.5 * frontX * 1.14, unit(s.y, t), 0);
      label(short(t), [p[0], p[1] + 4], "center");
    }
    const side = sides.filter((c) => c !== back && c.floor[2] < back.floor[2])
      .reduce((a, b) => (b.floor[0] < a.floor[0] ? b : a));
    const top = project(side.x, side.y, 1);
    label("loss, nats", [Math.max(top[0] - 24, 3), Math.max(top[1] - 12, 11)], "left");
    for (const t of range.ticks) {
      const p = project(side.x, side.y, range.share(t));
      label(short(t), [Math.max(p[0] - 6, 24), p[1] + 4], "right");
    }
  };

  const MARGIN = { left: 56, right: 12, top: 10, bottom: 40 };

  const frameOf = (width, height) => ({
    x: MARGIN.left, y: MARGIN.top, w: width - MARGIN.left - MARGIN.right, h: height - MARGIN.top - MARGIN.bottom,
  });

  /* Where a contour of a level crosses the cells, as pieces of lines in grid coordinates. */
  const contour = (z, level) => {
    const found = [];
    for (let j = 0; j + 1 < z.length; j++) {
      for (let i = 0; i + 1 < z[0].length; i++) {
        const around = [[i, j], [i + 1, j], [i + 1, j + 1], [i, j + 1]];
        const crossed = [];
        for (let k = 0; k < 4; k++) {
          const [a, b] = [around[k], around[(k + 1) % 4]];
          const [u, v] = [z[a[1]][a[0]], z[b[1]][b[0]]];
          if (u < level === v < level) continue;
          const t = (level - u) / (v - u);
          crossed.push([a[0] + (b[0] - a[0]) * t, a[1] + (b[1] - a[1]) * t]);
        }
        for (let k = 0; k + 1 < crossed.length; k += 2) found.push([crossed[k], crossed[k + 1]]);
      }
    }
    return found;
  };

  const drawMap = (canvas, s, range, color, cursor) => {
    const on = sheet(canvas);
    if (!on) return;
    const { pen, width, height } = on, tint = ink(), box = frameOf(width, height);
    const nx = s.x.length, ny = s.y.length, fine = 4;
    const [w, h] = [(nx - 1) * fine + 1, (ny - 1) * fine + 1];
    const image = pen.createImageData(w, h);
    for (let r = 0; r < h; r++) {
      for (let c = 0; c < w; c++) {
        const [i, j] = [Math.min(Math.floor(c / fine), nx - 2), Math.min(Math.floor((h - 1 - r) / fine), ny - 2)];
        const [u, v] = [c / fine - i, (h - 1 - r) / fine - j];
        const z = (s.z[j][i] * (1 - u) + s.z[j][i + 1] * u) * (1 - v) + (s.z[j + 1][i] * (1 - u) + s.z[j + 1][i + 1] * u) * v;
        image.data.set([...color(range.share(z)), 255], 4 * (r * w + c));
      }
    }
    const small = document.createElement("canvas");
    small.width = w; small.height = h;
    small.getContext("2d").putImageData(image, 0, 0);
    pen.imageSmoothingEnabled = true;
    pen.drawImage(small, box.x, box.y, box.w, box.h);
    const px = (v) => box.x + box.w * (v - s.x[0]) / (s.x[nx - 1] - s.x[0]);
    const py = (v) => box.y + box.h * (1 - (v - s.y[0]) / (s.y[ny - 1] - s.y[0]));
    pen.lineWidth = 0.8;
    for (const t of range.ticks.flatMap((t, k, all) => (k + 1 < all.length ? [t, (t + all[k + 1]) / 2] : [t]))) {
      pen.strokeStyle = range.share(t) > 0.6 ? "rgba(0,0,0,.55)" : "rgba(255,255,255,.6)";
      pen.beginPath();
      for (const [a, b] of contour(s.z, t)) {
        pen.moveTo(box.x + box.w * a[0] / (nx - 1), box.y + box.h * (1 - a[1] / (ny - 1)));
        pen.lineTo(box.x + box.w * b[0] / (nx - 1), box.y + box.h * (1 - b[1] / (ny - 1)));
      }
      pen.stroke();
    }
    pen.strokeStyle = tint.soft; pen.lineWidth = 1; pen.strokeRect(box.x, box.y, box.w, box.h);
    pen.fillStyle = tint.soft; pen.textAlign = "center";
    for (const t of ticks(s.x[0], s.x[nx - 1], 4)) pen.fillText(short(t), px(t), box.y + box.h + 14);
    pen.fillText(fitting(pen, "x", s.axes.x, box.w), box.x + box.w / 2, box.y + box.h + 32);
    pen.textAlign = "right";
    for (const t of ticks(s.y[0], s.y[ny - 1], 4)) pen.fillText(short(t), box.x - 6, py(t) + 4);
    pen.save();
    pen.translate(11, box.y + box.h / 2); pen.rotate(-Math.PI / 2); pen.textAlign = "center";
    pen.fillText(fitting(pen, "y", s.axes.y, box.h), 0, 0);
    pen.restore();
    for (const m of s.marks) {
      pen.beginPath(); pen.arc(px(m.x), py(m.y), 4, 0, 2 * Math.PI);
      pen.fillStyle = "#fff"; pen.strokeStyle = "#000"; pen.lineWidth = 1.2; pen.fill(); pen.stroke();
      if (s.marks.length > 1) {
        pen.textAlign = "left"; pen.lineWidth = 3; pen.strokeStyle = "#000"; pen.fillStyle = "#fff";
        pen.strokeText(m.name[0], px(m.x) + 7, py(m.y) - 6); pen.fillText(m.name[0], px(m.x) + 7, py(m.y) - 6);
      }
    }
    if (cursor && lossAt(s, cursor.x, cursor.y) !== null) {
      for (const [style, wide] of [["#000", 3], ["#fff", 1.2]]) {
        pen.strokeStyle = style; pen.lineWidth = wide;
        pen.beginPath();
        pen.moveTo(px(cursor.x), box.y); pen.lineTo(px(cursor.x), box.y + box.h);
        pen.moveTo(box.x, py(cursor.y)); pen.lineTo(box.x + box.w, py(cursor.y));
        pen.stroke();
      }
    }
  };

  for (const root of document.querySelectorAll(".landscape")) {
    const data = JSON.parse(root.querySelector("script[type='application/json']").textContent);
    const color = colorOf(data.colors);
    const [log, own, height] = [".log", ".own", ".height"].map((name) => root.querySelector(name));
    const panels = [...root.querySelectorAll(".surface")].map((element, i) => ({
      s: data.surfaces[i],
      relief: element.querySelector(".relief"), map: element.querySelector(".map"),
      low: element.querySelector(".low"), high: element.querySelector(".high"),
      ramp: element.querySelector(".ramp"), readout: element.querySelector(".readout"),
    }));
    const view = { ...START, height: 1 };
    let cursor = null;
    let waiting = false;

    const paint = () => {
      waiting = false;
      const shared = rangeOf(data.surfaces, log.checked);
      view.height = Number(height.value);
      for (const p of panels) {
        const range = own && own.checked ? rangeOf([p.s], log.checked) : shared;
        drawRelief(p.relief, p.s, range, color, view, cursor);
        drawMap(p.map, p.s, range, color, cursor);
        p.low.textContent = short(range.low);
        p.high.textContent = `${short(range.high)} nats`;
        p.ramp.style.background = `linear-gradient(to right, ${data.colors.join(", ")})`;
        const here = p.s.marks[0], base = p.s.marks.length > 1 ? here.name : "the run";
        const v = cursor ? lossAt(p.s, cursor.x, cursor.y) : null;
        p.readout.textContent = v === null ? `${base}: loss ${short(here.loss)} nats` : `x ${short(cursor.x)}, y ${short(cursor.y)}: loss ${short(v)} nats, ` +
          `${v >= here.loss ? "+" : "\u2212"}${short(Math.abs(v - here.loss))} from ${base}`;
      }
    };
    const redraw = () => {
      if (!waiting) { waiting = true; requestAnimationFrame(paint); }
    };

    for (const p of panels) {
      const turn = (yaw, pitch) => {
        view.yaw += yaw;
        view.pitch = clamp(view.pitch + pitch, 0.05, 1.5);
        redraw();
      };
      p.relief.addEventListener("pointerdown", (event) => {
        p.relief.setPointerCapture(event.pointerId);
        let [x, y] = [event.clientX, event.clientY];
        const move = (e) => {
          turn((e.clientX - x) * 0.01, (e.clientY - y) * 0.01);
          [x, y] = [e.clientX, e.clientY];
        };
        const end = () => {
          p.relief.removeEventListener("pointermove", move);
          for (const name of ["pointerup", "pointercancel"]) p.relief.removeEventListener(name, end);
        };
        p.relief.addEventListener("pointermove", move);
        for (const name of ["pointerup", "pointercancel"]) p.relief.addEventListener(name, end);
      });
      p.relief.addEventListener("keydown", (event) => {
        const keys = { ArrowLeft: [-0.12, 0], ArrowRight: [0.12, 0], ArrowUp: [0, -0.08], ArrowDown: [0, 0.08] };
        if (event.ctrlKey || event.metaKey || event.altKey) return;
        if (keys[event.key]) turn(...keys[event.key]);
        else if (event.key === "+" || event.key === "=") view.zoom = Math.min(2.5, view.zoom * 1.12);
        else if (event.key === "-") view.zoom = Math.max(0.5, view.zoom / 1.12);
        else if (event.key === "0") Object.assign(view, START);
        else return;
        event.preventDefault();
        redraw();
      });
      const step = (line) => (line[line.length - 1] - line[0]) / (line.length - 1);
      const put = (x, y) => {
        const { s } = p;
        cursor = { x: clamp(x, s.x[0], s.x[s.x.length - 1]), y: clamp(y, s.y[0], s.y[s.y.length - 1]) };
        redraw();
      };
      const point = (event) => {
        const r = p.map.getBoundingClientRect(), box = frameOf(r.width, r.height), { s } = p;
        const [u, v] = [(event.clientX - r.left - box.x) / box.w, 1 - (event.clientY - r.top - box.y) / box.h];
        put(s.x[0] + u * (s.x[s.x.length - 1] - s.x[0]), s.y[0] + v * (s.y[s.y.length - 1] - s.y[0]));
      };
      p.map.addEventListener("pointermove", point);
      p.map.addEventListener("pointerdown", point);
      p.map.addEventListener("keydown", (event) => {
        const moves = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, 1], ArrowDown: [0, -1] };
        if (event.ctrlKey || event.metaKey || event.altKey) return;
        if (event.key === "Escape" || event.key === "0") { cursor = null; redraw(); event.preventDefault(); return; }
        const move = moves[event.key];
        if (!move) return;
        event.preventDefault();
        const from = cursor || p.s.marks[0];
        put(from.x + move[0] * step(p.s.x), from.y + move[1] * step(p.s.y));
      });
    }
    for (const control of [log, own, height]) if (control) control.addEventListener("input", redraw);
    root.querySelector(".reset").addEventListener("click", () => {
      Object.assign(view, START);
      [height.value, cursor, log.checked] = ["1", null, data.log];
      if (own) own.checked = false;
      redraw();
    });
    new ResizeObserver(redraw).observe(root);
    new MutationObserver(redraw).observe(document.documentElement, { attributeFilter: ["data-theme"] });
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", redraw);
    addEventListener("beforeprint", paint);
    paint();
  }
})();
