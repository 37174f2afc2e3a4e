// Sorting, filters, theme, charts (drawn by plotly), method details and copying. No requests.
(() => {
  "use strict";
  const all = (selector, root = document) => [...root.querySelectorAll(selector)];
  const root = document.documentElement;
  const { figures, themes } = JSON.parse(document.getElementById("data").textContent);
  const status = document.getElementById("status");

  // ---- charts -------------------------------------------------------------------------------
  const config = {
    displaylogo: false,
    responsive: true,
    modeBarButtons: [["zoomIn2d", "zoomOut2d", "resetScale2d", "toImage"]],
    toImageButtonOptions: { format: "svg" },
  };

  // a copy of a figure's value with palette colours swapped for the theme's
  const tinted = (value, colours) => {
    if (typeof value === "string") return Object.hasOwn(colours, value) ? colours[value] : value;
    if (Array.isArray(value)) return value.map((item) => tinted(item, colours));
    if (value === null || typeof value !== "object") return value;
    return Object.fromEntries(Object.entries(value).map(([key, item]) => [key, tinted(item, colours)]));
  };

  const draw = (chart) => {
    const figure = figures[chart.dataset.figure];
    const theme = themes[root.dataset.theme];
    const section = chart.closest("[data-section]");
    const hidden = section ? all(".legend input:not(:checked)", section).map((box) => box.value) : [];
    const data = figure.data.map((trace) => ({
      ...tinted(trace, theme.colours),
      visible: !hidden.includes(trace.meta),
    }));
    const narrow = chart.clientWidth < 480;
    const layout = { ...figure.layout, template: theme.template };
    if (narrow) layout.margin = { ...layout.margin, l: 44, r: 8 };
    Plotly.react(chart, data, layout, config);
    chart.dataset.drawn = "true";
  };

  const redraw = (scope) => all(".chart[data-drawn]", scope).forEach(draw);
  const watcher = new IntersectionObserver(
    (entries) => entries.filter((entry) => entry.isIntersecting).forEach((entry) => {
      watcher.unobserve(entry.target);
      draw(entry.target);
    }),
    { rootMargin: "300px" },
  );
  all(".chart").forEach((chart) => watcher.observe(chart));

  all(".views input").forEach((radio) => radio.addEventListener("change", () => {
    const chart = radio.closest("figure").querySelector(".chart");
    chart.dataset.figure = radio.value;
    draw(chart);
  }));
  all(".legend").forEach((legend) => {
    const section = legend.closest("[data-section]");
    legend.addEventListener("change", () => redraw(section));
    all("[data-all]", legend).forEach((button) => button.addEventListener("click", () => {
      all("input", legend).forEach((box) => { box.checked = Boolean(button.dataset.all); });
      redraw(section);
    }));
  });

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

  const sortBy = (table, head) => {
    const ascends = head.getAttribute("aria-sort") === "ascending";
    const sorted = head.hasAttribute("aria-sort");
    const up = sorted ? !ascends : head.dataset.kind !== "down";
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
  const filter = () => {
    const wanted = form.elements.text.value.trim().toLowerCase();
    const setting = form.elements.setting ? form.elements.setting.value : "";
    const facets = all("[data-facet]", form).filter((select) => select.value);
    let shown = 0;
    let total = 0;
    let settings = 0;
    all("[data-section]").forEach((section) => {
      const fits = (select) => section.getAttribute(`data-${select.dataset.facet.replaceAll("_", "-")}`) === select.value;
      section.hidden = Boolean(setting && section.id !== setting) || !facets.every(fits);
      settings += section.hidden ? 0 : 1;
      const rows = all("[data-row]", section);
      rows.forEach((row) => { row.hidden = !row.dataset.row.includes(wanted); });
      const left = rows.filter((row) => !row.hidden).length;
      section.querySelector(".none").hidden = left > 0;
      total += rows.length;
      shown += section.hidden ? 0 : left;
    });
    document.getElementById("nothing").hidden = settings > 0;
    status.textContent = `${shown} of ${total} rows shown.`;
  };
  if (form) { // a page of papers has nothing to filter
    form.addEventListener("input", filter);
    form.addEventListener("reset", () => setTimeout(filter));
    form.addEventListener("submit", (event) => event.preventDefault());
    filter(); // browsers restore form values when a page is opened again
  }

  // ---- method details -----------------------------------------------------------------------
  const link = (hash) => {
    try { history.replaceState(null, "", hash || location.pathname + location.search); } catch { /* some browsers refuse it for files */ }
  };
  const open = (dialog) => {
    dialog.showModal();
    dialog.querySelector(".body").scrollTop = 0;
    all(".chart", dialog).forEach(draw);
    link(`#${dialog.id}`);
  };
  all("[data-open]").forEach((button) => button.addEventListener("click", () =>
    open(document.getElementById(button.dataset.open))));
  all("dialog").forEach((dialog) => {
    dialog.addEventListener("close", () => link(""));
    dialog.addEventListener("click", (event) => { if (event.target === dialog) dialog.close(); });
    dialog.querySelector("[data-close]").addEventListener("click", () => dialog.close());
  });
  const openLinked = () => {
    const target = document.getElementById(decodeURIComponent(location.hash.slice(1)));
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
