// Sets the theme before anything is painted: the reader's choice, else the system's.
(() => {
  let stored = null;
  try { stored = localStorage.getItem("ltrobust-theme"); } catch { /* no storage from disk */ }
  const dark = matchMedia("(prefers-color-scheme: dark)").matches;
  document.documentElement.dataset.theme = stored === "dark" || stored === "light" ? stored : dark ? "dark" : "light";
})();
