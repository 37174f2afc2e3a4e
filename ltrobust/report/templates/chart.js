// Draws a figure (what screen.py makes of a panel) as SVG, with texts under the pointer. No requests.
const drawChart = (() => {
  "use strict";
  const FAMILY = "system-ui, -apple-system, 'Segoe UI', Roboto, 'Helvetica Neue', Arial, sans-serif";
  const SIZE = 12;
  const NEAR = 24; // pixels from which a point is pointed at
  let serial = 0;

  const node = (parent, name, attributes = {}, text = null) => {
    const made = document.createElementNS("http://www.w3.org/2000/svg", name);
    Object.entries(attributes).forEach(([key, value]) => made.setAttribute(key, value));
    if (text !== null) made.textContent = text;
    parent.append(made);
    return made;
  };
  const pen = document.createElement("canvas").getContext("2d");
  const wide = (text, size = SIZE) => {
    pen.font = `${size}px ${FAMILY}`;
    return pen.measureText(text).width;
  };
  const widest = (texts) => texts.reduce((most, text) => Math.max(most, wide(text)), 0);
  const cut = (text, limit) => text.length <= limit ? text
    : `${text.slice(0, Math.floor((limit - 1) / 2))}…${text.slice(text.length - Math.ceil((limit - 1) / 2))}`;
  const round = (value) => Math.round(value * 100) / 100;

  // ---- axes ---------------------------------------------------------------------------------
  const ends = (trace, side, place) => {
    const error = trace[`error_${side}`] || { array: [], arrayminus: [] };
    const value = trace[side][place];
    return [value - (error.arrayminus[place] || 0), value + (error.array[place] || 0)];
  };
  // the limits of an axis: powers of ten where it is logarithmic
  const limits = (axis, traces, side) => {
    if (axis.span) return axis.span;
    if (axis.names) return [-0.6, axis.ticks.length - 0.4];
    const found = (axis.ticks || []).map(([place]) => place);
    traces.forEach((trace) => {
      if (trace.type === "band" && side === "y") found.push(...trace.low, ...trace.high);
      else trace[side].forEach((value, place) => value === null || found.push(...ends(trace, side, place)));
    });
    const known = found.filter((value) => value !== null && (!axis.log || value > 0))
      .map((value) => axis.log ? Math.log10(value) : value);
    if (!known.length) return [0, 1];
    const low = known.reduce((a, b) => Math.min(a, b));
    const high = known.reduce((a, b) => Math.max(a, b));
    const room = 0.07 * (high - low) || 0.1 * Math.abs(high) || 1;
    return [axis.zero && low >= 0 ? 0 : low - room, high + room];
  };
  const steps = (axis, [low, high], room) => {
    if (axis.ticks) return axis.ticks;
    if (axis.log) {
      const powers = Array.from({ length: Math.floor(high) - Math.ceil(low) + 1 }, (_, n) => Math.ceil(low) + n);
      return powers.map((power) => [10 ** power, (10 ** power).toLocaleString("en")]);
    }
    const rough = (high - low) / Math.max(2, Math.min(6, room / 60));
    const power = 10 ** Math.floor(Math.log10(rough));
    let step = power * [1, 2, 5, 10].find((factor) => factor * power >= rough * 0.999);
    if (axis.whole) step = Math.max(1, step);
    const digits = Math.max(0, -Math.floor(Math.log10(step)));
    const first = Math.ceil(low / step - 1e-9);
    const count = Math.floor(high / step + 1e-9) - first + 1;
    return Array.from({ length: count }, (_, n) => [(first + n) * step, ((first + n) * step).toFixed(digits)]);
  };
  // those ticks whose texts stand apart
  const apart = (ticks, at) => {
    let end = -Infinity;
    return ticks.filter(([place, text]) => {
      const half = wide(text) / 2;
      if (at(place) - half < end) return false;
      end = at(place) + half + 8;
      return true;
    });
  };

  // ---- looks --------------------------------------------------------------------------------
  const shape = (symbol, r) => ({
    circle: `M${-r},0a${r},${r} 0 1,0 ${2 * r},0a${r},${r} 0 1,0 ${-2 * r},0`,
    square: `M${-r},${-r}h${2 * r}v${2 * r}h${-2 * r}z`,
    "triangle-up": `M0,${-1.2 * r}L${1.1 * r},${0.8 * r}H${-1.1 * r}z`,
    "triangle-down": `M0,${1.2 * r}L${1.1 * r},${-0.8 * r}H${-1.1 * r}z`,
    diamond: `M0,${-1.35 * r}L${1.1 * r},0L0,${1.35 * r}L${-1.1 * r},0z`,
    cross: `M${-0.4 * r},${-1.2 * r}h${0.8 * r}v${0.8 * r}h${0.8 * r}v${0.8 * r}h${-0.8 * r}v${0.8 * r}h${-0.8 * r}v${-0.8 * r}h${-0.8 * r}v${-0.8 * r}h${0.8 * r}z`,
    x: `M${-r},${-0.5 * r}L${-0.5 * r},${-r}L0,${-0.5 * r}L${0.5 * r},${-r}L${r},${-0.5 * r}L${0.5 * r},0L${r},${0.5 * r}L${0.5 * r},${r}L0,${0.5 * r}L${-0.5 * r},${r}L${-r},${0.5 * r}L${-0.5 * r},0z`,
  })[symbol];
  const marker = (parent, trace, x, y, r) => node(parent, "path", {
    class: "point",
    transform: `translate(${round(x)},${round(y)})`,
    d: trace.cross ? `M${-r},${-r}L${r},${r}M${-r},${r}L${r},${-r}` : shape(trace.symbol, r),
    fill: trace.hollow || trace.cross ? "none" : trace.colour,
    stroke: trace.colour,
    "stroke-width": trace.hollow || trace.cross ? 1.5 : 0,
  });
  const HATCHES = {
    "/": "M-1,9L9,-1", "\\": "M-1,-1L9,9", x: "M-1,9L9,-1M-1,-1L9,9",
    "+": "M4,0V8M0,4H8", "-": "M0,4H8", ".": "M3,4h2",
  };
  const filling = (defs, trace) => {
    if (!trace.hatch && !trace.hollow) return trace.colour;
    const id = `hatch-${(serial += 1)}`;
    const pattern = node(defs, "pattern", { id, width: 8, height: 8, patternUnits: "userSpaceOnUse" });
    if (!trace.hollow) node(pattern, "rect", { width: 8, height: 8, fill: trace.colour });
    const stroke = trace.hollow ? trace.colour : "#ffffff";
    node(pattern, "path", { d: HATCHES[trace.hollow ? "/" : trace.hatch], stroke, fill: "none" });
    return `url(#${id})`;
  };
  const mixed = (share, dark) => {
    const part = (hex, place) => parseInt(hex.slice(1 + 2 * place, 3 + 2 * place), 16);
    const parts = [0, 1, 2].map((p) => Math.round(part("#eef3fa", p) * (1 - share) + part(dark, p) * share));
    return `rgb(${parts.join(",")})`;
  };

  // ---- one trace each; `spots` collects what the pointer finds ---------------------------------
  const whiskers = (parent, trace, at, colour) => ["x", "y"].forEach((side) => {
    const error = trace[`error_${side}`];
    if (!error) return;
    const paths = trace.x.map((x, place) => {
      if (x === null || trace.y[place] === null || !(error.array[place] || error.arrayminus[place])) return "";
      const [low, high] = ends(trace, side, place).map((value) => round(at[side](value)));
      const other = round(side === "x" ? at.y(trace.y[place]) : at.x(x));
      return side === "x"
        ? `M${low},${other}H${high}M${low},${other - 3}v6M${high},${other - 3}v6`
        : `M${other},${low}V${high}M${other - 3},${low}h6M${other - 3},${high}h6`;
    });
    if (paths.some(Boolean)) node(parent, "path", { class: "error", d: paths.join(""), stroke: colour, "stroke-width": 1.2, fill: "none" });
  });
  const told = (trace, place) => (trace.template || trace.hover?.[place] || [trace.name]).map((line) =>
    line.replace("{x}", trace.x[place]).replace("{y}", (trace.y[place] ?? 0).toFixed(2)));

  const drawn = {
    counts: (g, trace, at, { theme, plot }) => {
      const gap = trace.x.length > 20 ? 0 : 0.08;
      trace.x.forEach((x, place) => {
        const top = at.counts(Math.max(1e-9, trace.y[place]));
        node(g, "rect", {
          x: round(at.x(x - 0.5 + gap)), width: round(at.x(x + 0.5 - gap) - at.x(x - 0.5 + gap)),
          y: round(top), height: round(Math.max(0, plot.bottom - top)), fill: theme.bar,
        });
      });
      return trace.x.map((x, place) => ({ x: at.x(x), y: plot.bottom - 6, lines: told(trace, place), behind: true }));
    },
    band: (g, trace, at) => {
      const there = trace.x.map((x, place) => [x, trace.low[place], trace.high[place]]).filter((p) => p[1] !== null);
      const upper = there.map(([x, , high]) => `${round(at.x(x))},${round(at.y(high))}`);
      const lower = there.reverse().map(([x, low]) => `${round(at.x(x))},${round(at.y(low))}`);
      node(g, "polygon", { points: [...upper, ...lower].join(" "), fill: trace.colour, opacity: 0.15 });
      return [];
    },
    bars: (g, trace, at, { defs, plot }) => {
      const fill = filling(defs, trace);
      const spots = [];
      trace.x.forEach((x, place) => {
        if (trace.y[place] === null) return;
        const [left, right] = [at.x(x - trace.width / 2), at.x(x + trace.width / 2)];
        const [top, foot] = [at.y(Math.max(0, trace.y[place])), at.y(Math.min(0, trace.y[place]))];
        const box = { x: round(left), y: round(top), width: round(right - left), height: round(foot - top) };
        node(g, "rect", { class: "point", ...box, fill, ...(trace.hollow ? { stroke: trace.colour, "stroke-width": 1.2 } : {}) });
        if (trace.text?.[place]) node(g, "text", { x: (left + right) / 2, y: plot.bottom - 4, "text-anchor": "middle", fill: "#ffffff" }, trace.text[place]);
        spots.push({ ...box, lines: told(trace, place) });
      });
      whiskers(g, trace, at, "#606770");
      return spots;
    },
    line: (g, trace, at) => {
      let open = false;
      const d = trace.x.map((x, place) => {
        if (trace.y[place] === null) { open = false; return ""; }
        const step = `${open ? "L" : "M"}${round(at.x(x))},${round(at.y(trace.y[place]))}`;
        open = true;
        return step;
      }).join("");
      if (trace.type === "line") {
        node(g, "path", { class: "line", d, fill: "none", stroke: trace.colour, "stroke-width": 2, "stroke-dasharray": trace.dash || "none", opacity: trace.faint ? 0.4 : 1 });
      }
      whiskers(g, trace, at, trace.colour);
      const spots = [];
      trace.x.forEach((x, place) => {
        if (x === null || trace.y[place] === null) return;
        const spot = { x: at.x(x), y: at.y(trace.y[place]), lines: told(trace, place) };
        if (trace.symbol) marker(g, trace, spot.x, spot.y, trace.type === "points" ? 5.5 : 3.5);
        spots.push(spot);
      });
      return spots;
    },
  };
  drawn.points = drawn.line;

  // names beside points, where they hide neither a point nor another name
  const nameBeside = (g, traces, at, plot, theme) => {
    const taken = traces.flatMap((trace) => trace.x.map((x, p) => [at.x(x) - 6, at.y(trace.y[p]) - 6, 12, 12]));
    const hits = (a, b) => a[0] < b[0] + b[2] && b[0] < a[0] + a[2] && a[1] < b[1] + b[3] && b[1] < a[1] + a[3];
    traces.filter((trace) => trace.label).forEach((trace) => {
      const [x, y, w] = [at.x(trace.x[0]), at.y(trace.y[0]), wide(trace.label)];
      const tries = [12, 20, 30, 42].flatMap((far) => [
        [x + 9, y - far], [x - 9 - w, y - far], [x + 9, y + far], [x - 9 - w, y + far], [x - w / 2, y - far - 4], [x - w / 2, y + far + 4],
      ]).map(([left, middle]) => [Math.min(Math.max(left, plot.left + 2), plot.right - w - 2), middle - 8, w, 16]);
      const inside = (box) => box[1] > plot.top && box[1] + 16 < plot.bottom;
      const box = tries.find((one) => inside(one) && !taken.some((other) => hits(one, other))) || tries[0];
      taken.push(box);
      node(g, "text", { x: round(box[0]), y: round(box[1] + 12), fill: theme.ink }, trace.label);
    });
  };

  // ---- whole figures ------------------------------------------------------------------------
  const frame = (svg, figure, theme, traces, width, height) => {
    const { x, y, y2 } = figure.layout;
    const [across, up] = [limits(x, traces.filter((t) => t.type !== "counts"), "x"), limits(y, traces.filter((t) => t.type !== "counts" || !y2), "y")];
    const scale = (axis, [low, high], from, to) => (value) =>
      from + ((Math.min(Math.max(axis.log ? Math.log10(value) : value, low), high) - low) / (high - low)) * (to - from);
    const rows = steps(y, up, height - 80);
    const counts = y2 ? steps(y2, y2.span, 0) : [];
    const plot = { left: 30 + widest(rows.map((r) => r[1])), top: 12, right: width - (y2 ? 34 + widest(counts.map((r) => r[1])) : 16) };
    const columns = steps(x, across, plot.right - plot.left);
    const names = columns.map((column) => cut(column[1], 18));
    const turned = x.names && widest(names) + 8 > (plot.right - plot.left) / (across[1] - across[0]);
    plot.bottom = height - 14 - (x.title ? 22 : 0) - (turned ? 0.72 * widest(names) + 8 : 14);
    const at = { x: scale(x, across, plot.left, plot.right), y: scale(y, up, plot.bottom, plot.top) };
    at.counts = y2 ? scale(y2, y2.span, plot.bottom, plot.top) : at.y;
    const grid = node(svg, "g", { stroke: theme.grid });
    rows.forEach(([value, text]) => {
      if (value < up[0] - 1e-9 && !y.log) return;
      const level = round(at.y(value));
      node(grid, "path", { d: `M${plot.left},${level}H${plot.right}` });
      node(svg, "text", { class: "ytick", x: plot.left - 7, y: level + 4, "text-anchor": "end", fill: theme.soft }, text);
    });
    (x.names ? columns : apart(columns, at.x)).forEach(([value, text]) => {
      const place = round(at.x(value));
      if (!x.names && !y2) node(grid, "path", { d: `M${place},${plot.top}V${plot.bottom}` });
      const turn = turned ? { transform: `rotate(-45 ${place} ${plot.bottom + 14})`, "text-anchor": "end" } : { "text-anchor": "middle" };
      node(svg, "text", { class: "xtick", x: place, y: plot.bottom + (turned ? 14 : 17), fill: theme.soft, ...turn }, cut(text, 18));
    });
    counts.forEach(([value, text]) => node(svg, "text", { x: plot.right + 7, y: round(at.counts(value)) + 4, fill: theme.soft }, text));
    node(svg, "text", { class: "xtitle", x: (plot.left + plot.right) / 2, y: height - 8, "text-anchor": "middle", fill: theme.ink }, x.title);
    const beside = (title, place, name) => node(svg, "text", { class: name, "text-anchor": "middle", fill: theme.ink, transform: `translate(${place},${(plot.top + plot.bottom) / 2}) rotate(-90)` }, cut(title, Math.floor((plot.bottom - plot.top) / 6)));
    beside(y.title, 13, "ytitle");
    if (y2) beside(y2.title, width - 6, "y2title");
    return { at, plot };
  };

  const drawHeat = (svg, trace, theme, width, height) => {
    const left = 10 + Math.min(widest(trace.rows.map((name) => cut(name, 24))), 0.4 * width);
    const columns = trace.columns.map((name) => cut(name, 18));
    const across = (width - left - 12) / columns.length;
    const named = across > 12;
    const turned = widest(columns) + 8 > across;
    const plot = { left, top: 34, right: width - 12, bottom: height - (named ? (turned ? 0.72 * widest(columns) + 14 : 24) : 8) };
    const down = (plot.bottom - plot.top) / trace.rows.length;
    const [low, high] = trace.span;
    const cells = node(svg, "g");
    const spots = [];
    trace.z.forEach((values, row) => values.forEach((value, column) => {
      const box = { x: round(left + column * across), y: round(plot.top + row * down), width: round(across) + 0.3, height: round(down) + 0.3 };
      const share = value === null ? 0 : Math.min(1, Math.max(0, (value - low) / (high - low)));
      node(cells, "rect", { class: "cell", ...box, fill: value === null ? "none" : mixed(share, trace.colour) });
      const text = value === null ? "" : `${value.toFixed(1)}${trace.signs?.[row]?.[column] || ""}`;
      if (across > 34 && down > 11) node(cells, "text", { x: box.x + across / 2, y: box.y + down / 2 + 4, "text-anchor": "middle", "font-size": 10.5, fill: share > 0.6 && trace.colour === "#0072B2" ? "#ffffff" : "#1b2130" }, text);
      const lines = trace.hover?.[row]?.[column] ? [trace.hover[row][column]] : [`${trace.columns[column]}: ${text}%`];
      spots.push({ ...box, lines: [trace.rows[row], ...lines] });
    }));
    if (down > 8) trace.rows.forEach((name, row) => node(svg, "text", { class: "ytick", x: left - 6, y: round(plot.top + (row + 0.5) * down + 4), "text-anchor": "end", fill: theme.soft }, cut(name, Math.max(6, Math.min(24, Math.floor(left / 6.5))))));
    if (named) columns.forEach((name, column) => {
      const place = round(left + (column + 0.5) * across);
      const turn = turned ? { transform: `rotate(-45 ${place} ${plot.bottom + 12})`, "text-anchor": "end" } : { "text-anchor": "middle" };
      node(svg, "text", { class: "xtick", x: place, y: plot.bottom + (turned ? 12 : 16), fill: theme.soft, ...turn }, name);
    });
    node(svg, "text", { x: left, y: 18, fill: theme.soft }, low.toFixed(0));
    Array.from({ length: 12 }, (_, n) => node(svg, "rect", { x: left + 14 + 7 * n, y: 8, width: 7, height: 12, fill: mixed(n / 11, trace.colour) }));
    node(svg, "text", { x: left + 104, y: 18, fill: theme.soft }, `${high.toFixed(0)}   ${cut(trace.unit, Math.max(8, Math.floor((width - left - 140) / 6.2)))}`);
    return spots;
  };

  const key = (chart, traces, theme) => {
    const list = document.createElement("div");
    list.className = "key";
    traces.filter((trace) => trace.legend).forEach((trace) => {
      const entry = document.createElement("span");
      const svg = node(entry, "svg", { width: 26, height: 12, "aria-hidden": "true" });
      if (trace.type === "bars") node(svg, "rect", { x: 5, y: 1, width: 16, height: 10, fill: filling(node(svg, "defs"), trace), stroke: trace.colour });
      if (trace.type === "line") node(svg, "path", { d: "M0,6H26", stroke: trace.colour, "stroke-width": 2, "stroke-dasharray": trace.dash || "none" });
      if (trace.symbol) marker(svg, trace, 13, 6, 4);
      entry.append(trace.legend);
      entry.style.color = theme.ink;
      list.append(entry);
    });
    chart.append(list);
  };

  const point = (chart, svg, spots) => {
    const tip = document.createElement("div");
    tip.className = "tip";
    tip.hidden = true;
    chart.append(tip);
    const inside = (spot, x, y) => x >= spot.x && x <= spot.x + spot.width && y >= spot.y && y <= spot.y + spot.height;
    const far = (spot, x, y) => Math.hypot(spot.x - x, spot.y - y) + (spot.behind ? 8 : 0);
    const find = (x, y) => {
      const held = spots.find((spot) => spot.width !== undefined && inside(spot, x, y));
      if (held) return held;
      const points = spots.filter((spot) => spot.width === undefined && far(spot, x, y) < NEAR);
      return points.reduce((best, spot) => !best || far(spot, x, y) < far(best, x, y) ? spot : best, null);
    };
    svg.addEventListener("pointermove", (event) => {
      const area = svg.getBoundingClientRect();
      const spot = find(event.clientX - area.left, event.clientY - area.top);
      tip.hidden = spot === null;
      if (spot === null) return;
      tip.replaceChildren(...spot.lines.map((line, place) => {
        const row = document.createElement(place ? "div" : "strong");
        row.textContent = line;
        return row;
      }));
      const x = event.clientX - chart.getBoundingClientRect().left;
      tip.style.left = `${Math.max(0, Math.min(x + 14, chart.clientWidth - tip.offsetWidth - 4))}px`;
      tip.style.top = `${Math.max(0, event.clientY - chart.getBoundingClientRect().top - tip.offsetHeight - 12)}px`;
    });
    svg.addEventListener("pointerleave", () => { tip.hidden = true; });
  };

  // a value with palette colours swapped for the theme's
  const tinted = (trace, colours) => trace.colour in colours ? { ...trace, colour: colours[trace.colour] } : trace;

  return (chart, figure, theme, hidden = [], asked = 0) => {
    const width = asked || Math.max(240, chart.clientWidth);
    const traces = figure.data.filter((trace) => !hidden.includes(trace.meta)).map((trace) => tinted(trace, theme.colours));
    chart.replaceChildren();
    if (figure.layout.legend) key(chart, traces, theme);
    const height = figure.layout.height;
    const svg = node(chart, "svg", {
      class: "plot", viewBox: `0 0 ${width} ${height}`, width, height, "aria-hidden": "true",
      "font-family": FAMILY, "font-size": SIZE,
    });
    const defs = node(svg, "defs");
    if (figure.data[0]?.type === "heat") return point(chart, svg, drawHeat(svg, traces[0], theme, width, height));
    const { at, plot } = frame(svg, figure, theme, traces, width, height);
    const spots = [];
    traces.forEach((trace) => {
      const g = node(svg, "g", { class: `trace ${trace.type}` });
      spots.unshift(...drawn[trace.type](g, trace, at, { theme, plot, defs }));
    });
    const named = traces.filter((trace) => trace.type === "points");
    if (named.some((trace) => trace.label)) nameBeside(node(svg, "g", { class: "names" }), named, at, plot, theme);
    return point(chart, svg, spots);
  };
})();
