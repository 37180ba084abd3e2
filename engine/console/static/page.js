// The key, the theme, what is said when something fails, and when to look again.
"use strict";
(() => {
  const KEY = "headrace-key", THEME = "headrace-theme", LOOK_MS = 2000;
  const at = (id) => document.getElementById(id);
  let asking = false, state = "";

  const key = () => sessionStorage.getItem(KEY) ?? "";
  const headers = () => key() ? { Authorization: `Bearer ${key()}` } : {};

  function ask(why) {
    const first = !asking;
    asking = true;
    at("key").hidden = false;
    document.body.dataset.asking = "";
    if (why) at("key-why").textContent = why;
    if (first) at("key-value").focus();
  }

  at("key-form").addEventListener("submit", (event) => {
    event.preventDefault();
    sessionStorage.setItem(KEY, at("key-value").value.trim());
    at("key-value").value = "";
    at("key").hidden = true;
    delete document.body.dataset.asking;
    at("key-forget").hidden = false;
    asking = false;
    document.body.dispatchEvent(new Event("key"));
    look();
    at("main").focus();
  });
  at("key-forget").hidden = !key();
  at("key-forget").addEventListener("click", () => {
    sessionStorage.removeItem(KEY);
    location.reload();
  });

  // Polls rest while nobody sees them, and while a key is being asked for.
  document.body.addEventListener("htmx:config:request", (event) => {
    const ctx = event.detail.ctx;
    if (ctx.sourceElement.hasAttribute("data-part") && (document.hidden || asking)) event.preventDefault();
    Object.assign(ctx.request.headers, headers());
  });
  document.addEventListener("visibilitychange", () => {
    if (!document.hidden) {
      document.body.dispatchEvent(new Event("key"));
      look();
    }
  });

  const notice = (element) => element.closest("section")?.querySelector(".notice");
  function tell(element, text) {
    const line = notice(element);
    if (!line) return;
    if (line.textContent !== text) line.textContent = text;
    line.hidden = !text;
  }

  document.body.addEventListener("htmx:after:request", (event) => {
    const ctx = event.detail.ctx;
    if (ctx.response.status < 400) return tell(ctx.sourceElement, "");
    let body = {};
    try { body = JSON.parse(ctx.text); } catch { /* no words of the engine's */ }
    if (ctx.response.status === 401) return ask(key() ? "The engine does not know this key: is it revoked? Give another." : "");
    tell(ctx.sourceElement, body.error ? `Not shown: ${body.error}; ${body.next ?? "see the log of the engine"}.` : `Not shown: the engine answered ${ctx.response.status}.`);
  });
  document.body.addEventListener("htmx:error", (event) => {
    const element = event.detail.ctx?.sourceElement;
    if (element) tell(element, "The engine does not answer. The page goes on asking.");
  });

  document.body.addEventListener("htmx:after:swap", () => {
    document.querySelector("form.doubt:not(:focus-within)")?.focus();
    const line = document.querySelector("#summary .state");
    const now = line?.className ?? "";
    if (line && now !== state && state) at("said").textContent = line.textContent.trim();
    state = now;
  });

  async function look() {
    if (document.hidden || asking || !document.querySelector("[data-chart]")) return;
    try {
      const answer = await fetch("/console/series", { headers: headers() });
      if (answer.ok) charts.draw(await answer.json());
    } catch { /* the panels say it */ }
  }

  for (const one of document.querySelectorAll('input[name="span"]')) one.addEventListener("change", charts.pick);

  // A key presses the button that names it, where nobody is typing.
  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || event.repeat || event.target.closest("input, textarea, select")) return;
    const button = document.querySelector(`button[data-key="${CSS.escape(event.key)}"]`);
    if (!button) return;
    event.preventDefault();
    button.click();
  });

  const system = matchMedia("(prefers-color-scheme: dark)");
  const dark = () => (document.documentElement.dataset.theme ?? (system.matches ? "dark" : "light")) === "dark";
  function themed() {
    at("theme").setAttribute("aria-label", `Switch to the ${dark() ? "light" : "dark"} theme`);
    charts.again();
  }
  at("theme").addEventListener("click", () => {
    const chosen = dark() ? "light" : "dark";
    document.documentElement.dataset.theme = chosen;
    try { localStorage.setItem(THEME, chosen); } catch { /* then it holds for this page */ }
    themed();
  });
  system.addEventListener("change", themed);
  themed();
  look();
  setInterval(look, LOOK_MS);
})();
