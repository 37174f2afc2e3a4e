// Sorting, filters, theme, charts (drawn by chart.js), method details and copying. No requests.
(() => {
  "use strict";
  const all = (selector, root = document) => [...root.querySelectorAll(selector)];
  const root = document.documentElement;
  const { figures, themes } = JSON.parse(document.getElementById("data").textContent);
  const status = document.getElementById("status");

  // ---- charts -------------------------------------------------------------------------------
  const draw = (chart, theme = root.dataset.theme, wide = 0) => {
    const section = chart.closest("[data-section]");
    const hidden = section ? all(".legend input:not(:checked)", section).map((box) => box.value) : [];
    watcher.unobserve(chart);
    drawChart(chart, figures[chart.dataset.figure], themes[theme], hidden, wide);
    chart.dataset.drawn = "true";
  };
  const redraw = (scope) => all(".chart[data-drawn]", scope).forEach((chart) => draw(chart));
  const watcher = new IntersectionObserver(
    (entries) => entries.filter((entry) => entry.isIntersecting).forEach((entry) => draw(entry.target)),
    { rootMargin: "300px" },
  );
  all(".chart").forEach((chart) => watcher.observe(chart));
  let width = innerWidth;
  addEventListener("resize", () => {
    if (innerWidth !== width) redraw(document);
    width = innerWidth;
  });
  // on paper every view of every chart is there, in dark ink and scaled to the column; what can be
  // opened is open
  const PAPER = 640;
  let opened = [];
  addEventListener("beforeprint", () => {
    all("main .chart").forEach((chart) => draw(chart, "light", PAPER));
    opened = all("main details:not([open])");
    opened.forEach((one) => { one.open = true; });
  });
  addEventListener("afterprint", () => {
    redraw(document);
    opened.forEach((one) => { one.open = false; });
  });

  all(".views input").forEach((radio) => radio.addEventListener("change", () =>
    all(".chart", radio.closest("figure")).forEach((chart) => {
      chart.hidden = chart.dataset.figure !== radio.value;
      if (!chart.hidden) draw(chart);
    })));
  all(".legend").forEach((legend) => {
    const section = legend.closest("[data-section]");
    legend.addEventListener("change", () => redraw(section));
    all("[data-all]", legend).forEach((button) => button.addEventListener("click", () => {
      all("input", legend).forEach((box) => { box.checked = Boolean(button.dataset.all); });
      redraw(section);
    }));
  });
  all("[data-save]").forEach((button) => button.addEventListener("click", () => {
    const chart = button.closest("figure").querySelector(".chart:not([hidden])");
    draw(chart);
    const copy = chart.querySelector("svg.plot").cloneNode(true);
    copy.setAttribute("xmlns", "http://www.w3.org/2000/svg");
    const link = document.createElement("a");
    link.href = URL.createObjectURL(new Blob([copy.outerHTML], { type: "image/svg+xml" }));
    link.download = `${chart.dataset.figure}.svg`;
    link.click();
    URL.revokeObjectURL(link.href);
  }));

  // ---- two methods side by side ----------------------------------------------------------------
  const classLines = (name) => {
    const [counts, ...lines] = figures[name].data;
    return { counts, lines: lines.filter((trace) => trace.type === "line") };
  };
  const row = (cells, kind) => {
    const made = document.createElement("tr");
    cells.forEach((text, place) => {
      const cell = document.createElement(kind === "th" || !place ? "th" : "td");
      if (kind === "th" || !place) cell.scope = kind === "th" ? "col" : "row";
      cell.className = place ? "score" : "";
      cell.textContent = text;
      made.append(cell);
    });
    return made;
  };
  const percent = (value) => value === null || value === undefined ? "–" : value.toFixed(2);
  const pair = (box) => {
    const chosen = all("[data-side]", box);
    const names = chosen.map((select) => select.selectedOptions[0].textContent);
    const [first, second] = chosen.map((select) => classLines(select.value));
    all(".chart", box).forEach((chart, side) => {
      chart.dataset.figure = chosen[side].value;
      chart.closest("figure").querySelector("h4").textContent = names[side];
      if (chart.dataset.drawn) draw(chart);
    });
    const shared = first.lines.map((line) => [line, second.lines.find((other) => other.name === line.name)]).filter((two) => two[1]);
    const heads = shared.flatMap(([line]) => [...names.map((name) => `${name}, ${line.name}`), "difference"]);
    box.querySelector("thead").replaceChildren(row(["Class", "Training images", ...heads], "th"));
    box.querySelector("tbody").replaceChildren(...first.counts.y.map((count, place) => row([
      first.counts.hover[place][0],
      count.toLocaleString("en"),
      ...shared.flatMap((two) => {
        const [a, b] = two.map((line) => line.y[place]);
        const far = a === null || b === null ? null : b - a;
        return [percent(a), percent(b), far === null ? "–" : `${far < 0 ? "−" : "+"}${percent(Math.abs(far))}`];
      }),
    ], "td")));
  };

  // ---- theme --------------------------------------------------------------------------------
  const toggle = document.getElementById("theme");
  const setTheme = (name) => {
    root.dataset.theme = name;
    toggle.setAttribute("aria-pressed", String(name === "dark"));
    redraw(document);
  };
  setTheme(root.dataset.theme);
  toggle.addEventListener("click", () => {
    const name = root.dataset.theme === "dark" ? "light" : "dark";
    try { localStorage.setItem("ltrobust-theme", name); } catch { /* not remembered */ }
    setTheme(name);
  });

  // ---- sorting ------------------------------------------------------------------------------
  const compare = (a, b, text) => text ? a.localeCompare(b) : Number(a) - Number(b);

  const sortBy = (table, head, wanted = null) => {
    const ascends = head.getAttribute("aria-sort") === "ascending";
    const sorted = head.hasAttribute("aria-sort");
    const up = wanted ?? (sorted ? !ascends : head.dataset.kind !== "down");
    all("th[aria-sort]", table).forEach((other) => other.removeAttribute("aria-sort"));
    head.setAttribute("aria-sort", up ? "ascending" : "descending");
    const place = columnOf(table, head);
    const text = head.dataset.kind === "text";
    const rows = all("tbody tr", table).map((row) => ({ row, key: row.cells[place].dataset.sort }));
    rows.sort((a, b) => {
      if ((a.key === "") !== (b.key === "")) return a.key === "" ? 1 : -1; // missing comes last
      return (up ? 1 : -1) * compare(a.key, b.key, text);
    });
    table.tBodies[0].append(...rows.map((item) => item.row));
    show(table.closest("[data-section]"));
    remember();
    const button = head.querySelector("button");
    const name = button.getAttribute("aria-label") || button.textContent.trim();
    status.textContent = `Sorted by ${name}, ${up ? "ascending" : "descending"}.`;
  };

  // headings stand in two lines: the scores' come after those that span both
  const columnOf = (table, head) => all("th[data-kind]", table.tHead).indexOf(head);

  all(".board th[data-kind] button").forEach((button) => button.addEventListener("click", () =>
    sortBy(button.closest("table"), button.closest("th"))));

  // ---- filters ------------------------------------------------------------------------------
  const form = document.getElementById("filters");
  const PAGE = 200; // rows of a table at once
  // show the rows that match, as many as were asked for; tell how many match
  const show = (section) => {
    const wanted = form.elements.text.value.trim().toLowerCase();
    const rows = all("[data-row]", section);
    rows.forEach((row) => { row.hidden = !row.dataset.row.includes(wanted); });
    const matching = rows.filter((row) => !row.hidden);
    const limit = Number(section.dataset.limit || PAGE);
    matching.forEach((row, place) => row.classList.toggle("later", place >= limit));
    section.querySelector(".none").hidden = matching.length > 0;
    const more = section.querySelector(".more");
    more.hidden = matching.length <= limit;
    more.querySelector("span").textContent = `${Math.min(limit, matching.length)} of ${matching.length} rows`;
    return matching.length;
  };
  const filter = () => {
    const setting = form.elements.setting ? form.elements.setting.value : "";
    const facets = all("[data-facet]", form).filter((select) => select.value);
    let shown = 0;
    let settings = 0;
    all("[data-section]").forEach((section) => {
      const fits = (select) => section.getAttribute(`data-${select.dataset.facet.replaceAll("_", "-")}`) === select.value;
      section.hidden = Boolean(setting && section.id !== setting) || !facets.every(fits);
      settings += section.hidden ? 0 : 1;
      const left = show(section);
      shown += section.hidden ? 0 : left;
    });
    document.getElementById("nothing").hidden = settings > 0;
    status.textContent = `${shown} of ${all("[data-row]").length} rows shown.`;
  };

  // ---- the address holds filters, order and the two methods ---------------------------------------
  const link = (hash) => {
    try { history.replaceState(null, "", hash || location.pathname + location.search); } catch { /* some browsers refuse it for files */ }
  };
  const state = () => {
    const found = new URLSearchParams();
    all("input, select", form).forEach((field) => field.value && found.set(field.name, field.value));
    all("[data-section]").forEach((section) => {
      const heads = all("th[data-kind]", section);
      const sorted = heads.findIndex((head) => head.hasAttribute("aria-sort"));
      const up = heads[sorted]?.getAttribute("aria-sort") === "ascending";
      if (sorted > 0 || (sorted === 0 && !up)) found.set(`sort-${section.id}`, `${sorted}${up ? "up" : "down"}`);
      const sides = all("[data-side]", section);
      if (sides.some((select, side) => select.selectedIndex !== side)) found.set(`pair-${section.id}`, sides.map((select) => select.selectedIndex).join("-"));
    });
    return found.toString() && `#?${found}`;
  };
  const remember = () => form && link(state());
  const restore = () => {
    if (!location.hash.startsWith("#?")) return;
    const wanted = new URLSearchParams(location.hash.slice(2));
    all("input, select", form).forEach((field) => { field.value = wanted.get(field.name) || ""; });
    all("select", form).forEach((field) => { if (field.selectedIndex < 0) field.value = ""; });
    all("[data-section]").forEach((section) => {
      const [, place, way] = /^(\d+)(up|down)$/.exec(wanted.get(`sort-${section.id}`) || "") || [];
      const head = all("th[data-kind]", section)[place];
      if (head) sortBy(head.closest("table"), head, way === "up");
      const sides = (wanted.get(`pair-${section.id}`) || "").split("-");
      all("[data-side]", section).forEach((select, side) => {
        if (select.options[sides[side]]) select.selectedIndex = sides[side];
      });
    });
    remember();
  };
  if (form) { // a page of papers has nothing to filter
    form.addEventListener("input", () => { filter(); remember(); });
    form.addEventListener("reset", () => setTimeout(() => { filter(); remember(); }));
    form.addEventListener("submit", (event) => event.preventDefault());
    all(".more button").forEach((button) => button.addEventListener("click", () => {
      const section = button.closest("[data-section]");
      section.dataset.limit = Number(section.dataset.limit || PAGE) + PAGE;
      show(section);
    }));
    restore();
    filter(); // browsers restore form values when a page is opened again
    all(".pair").forEach((box) => {
      box.addEventListener("change", () => { pair(box); remember(); });
      pair(box);
    });
  }

  // ---- method details -----------------------------------------------------------------------
  const open = (dialog) => {
    dialog.showModal();
    dialog.querySelector(".body").scrollTop = 0;
    all(".chart", dialog).forEach((chart) => draw(chart));
    link(`#${dialog.id}`);
  };
  all("[data-open]").forEach((button) => button.addEventListener("click", () =>
    open(document.getElementById(button.dataset.open))));
  all("dialog").forEach((dialog) => {
    dialog.addEventListener("close", remember);
    dialog.addEventListener("click", (event) => { if (event.target === dialog) dialog.close(); });
    dialog.querySelector("[data-close]").addEventListener("click", () => dialog.close());
  });
  const openLinked = () => {
    const target = document.getElementById(decodeURIComponent(location.hash.slice(1)));
    if (target instanceof HTMLDetailsElement) target.open = true; // what the marks mean
    if (target instanceof HTMLDialogElement && !target.open) open(target);
  };
  addEventListener("hashchange", openLinked);
  openLinked();

  // ---- copying ------------------------------------------------------------------------------
  const select = (element) => {
    const range = document.createRange();
    range.selectNodeContents(element);
    const selection = getSelection();
    selection.removeAllRanges();
    selection.addRange(range);
  };
  all("[data-copy]").forEach((button) => button.addEventListener("click", async () => {
    const source = document.getElementById(button.dataset.copy);
    const note = button.parentElement.querySelector(".status");
    let copied = false;
    try {
      await navigator.clipboard.writeText(source.textContent);
      copied = true;
    } catch {
      select(source); // files opened from disk may have no clipboard: the old way, else by hand
      try { copied = document.execCommand("copy"); } catch { copied = false; }
    }
    note.textContent = copied ? "Copied." : "Selected: press Ctrl+C (or ⌘C) to copy.";
  }));
})();
