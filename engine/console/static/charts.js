// The curves: uPlot over what /console/series says, in the colours of the legends.
"use strict";
const charts = (() => {
  const DASH = { popularity: [6, 4], yesterday: [2, 3] };
  const HEIGHT = { auc: 250, logloss: 250, flow: 200 };
  const STEPS = [1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 10800, 21600, 43200, 86400, 172800];
  const EMPTY = {
    away: "Unavailable: the reason stands below.",
    windows: "No window has been scored yet.",
    live: "Nothing was learnt while this page was open.",
    flow: "The curve begins with the second look.",
  };
  const plots = new Map();
  let last = null, chosen = false;

  const span = () => document.querySelector('input[name="span"]:checked')?.value ?? "windows";
  const said = (kind, value) => value == null ? "" : kind === "flow" ? Math.round(value).toLocaleString("en")
    : value.toFixed(kind === "auc" ? 3 : 4);

  function clock(seconds, withSeconds, withDay) {
    const at = new Date(seconds * 1000), two = (n) => String(n).padStart(2, "0");
    const hour = `${two(at.getHours())}:${two(at.getMinutes())}${withSeconds ? ":" + two(at.getSeconds()) : ""}`;
    return withDay ? `${two(at.getDate())}.${two(at.getMonth() + 1)}. ${hour}` : hour;
  }

  // [times, a column a series], and the words for when there is nothing to draw.
  function columns(kind, data, names) {
    const away = data.away.includes(kind === "flow" ? "flow" : "learning");
    if (kind === "flow") return [[data.flow.t, ...names.map((name) => data.flow[name] ?? data.flow.t.map(() => null))], away ? EMPTY.away : EMPTY.flow];
    const popularity = `popularity_${kind}`;
    const before = data.yesterday.filter((one) => one[kind] != null);
    if (span() === "windows") {
      const rows = data.windows;
      const ours = [rows.map((one) => one.t), rows.map((one) => one[kind]), rows.map((one) => one[popularity])];
      const theirs = [before.map((one) => one.t), before.map((one) => one[kind])];
      return [uPlot.join([ours, theirs]), away ? EMPTY.away : EMPTY.windows];
    }
    const then = (t) => before.find((one) => one.t >= t)?.[kind] ?? null;
    return [[data.live.t, data.live[kind], data.live[popularity], data.live.t.map(then)], away ? EMPTY.away : EMPTY.live];
  }

  function made(figure) {
    const kind = figure.dataset.chart, box = figure.querySelector(".plot");
    const items = [...figure.querySelectorAll("[data-series]")];
    const ink = getComputedStyle(figure), grid = getComputedStyle(box).borderTopColor;
    const axis = { stroke: ink.color, font: `12px ${ink.fontFamily}`, grid: { stroke: grid, width: 1 }, ticks: { stroke: grid, width: 1, size: 4 } };
    const read = (u) => items.forEach((item, at) => {
      const column = u.data[at + 1] ?? [];
      let i = u.cursor.idx;
      if (i == null) for (i = column.length - 1; i >= 0 && column[i] == null; i--);
      item.querySelector("[data-value]").textContent = said(kind, column[i]);
    });
    const plot = new uPlot({
      width: Math.max(box.clientWidth, 100), height: HEIGHT[kind], padding: [8, 26, 0, 0], legend: { show: false },
      cursor: { y: false, points: { size: 7 }, sync: kind === "flow" ? undefined : { key: "learning" }, drag: { x: false, y: false } },
      scales: {
        x: { time: true },
        y: { range: (u, low, high) => {
          if (low == null) return kind === "flow" ? [0, 10] : [0, 1];
          if (kind === "flow") return [0, Math.max(1, high * 1.1)];
          const room = Math.max(0.004, (high - low) * 0.15);
          return [low - room, high + room];
        } },
      },
      axes: [
        { ...axis, space: 76, size: 32, incrs: STEPS, values: (u, splits) => {
          const step = splits.length > 1 ? splits[1] - splits[0] : 60, wide = u.scales.x.max - u.scales.x.min > 86400;
          return splits.map((at) => clock(at, step < 60, wide));
        } },
        { ...axis, size: 52, values: (u, splits) => splits.map((at) => kind === "flow" ? at.toLocaleString("en")
          : at.toFixed(splits.length > 1 ? Math.max(2, Math.ceil(-Math.log10(splits[1] - splits[0]) - 1e-9)) : 2)) },
      ],
      series: [{}, ...items.map((item) => ({
        stroke: getComputedStyle(item.querySelector(".swatch")).color, width: 2, dash: DASH[item.dataset.series],
        points: { show: (u, at) => u.data[at].length <= 16, size: 6 },
      }))],
      hooks: { setCursor: [read], setData: [read] },
    }, [[], ...items.map(() => [])], box);
    new ResizeObserver(() => plot.setSize({ width: Math.max(box.clientWidth, 100), height: HEIGHT[kind] })).observe(box);
    return plot;
  }

  // Until somebody chooses: the last minutes while there are too few windows for a curve.
  function choose(data) {
    const some = (column) => column.filter((value) => value != null).length >= 3;
    const wanted = !some(data.windows.map((one) => one.auc)) && some(data.live.auc) ? "live" : "windows";
    if (!chosen) document.querySelector(`input[name="span"][value="${wanted}"]`).checked = true;
  }

  function draw(data) {
    last = data;
    choose(data);
    for (const figure of document.querySelectorAll("[data-chart]")) {
      const names = [...figure.querySelectorAll("[data-series]")].map((item) => item.dataset.series);
      const [rows, nothing] = columns(figure.dataset.chart, data, names);
      const drawn = rows.slice(1).some((column) => column.some((value) => value != null));
      figure.querySelector(".plot").dataset.nothing = drawn ? "" : nothing;
      if (!plots.has(figure)) plots.set(figure, made(figure));
      plots.get(figure).setData(rows);
    }
  }

  function again() {
    for (const plot of plots.values()) plot.destroy();
    plots.clear();
    if (last) draw(last);
  }

  function pick() {
    chosen = true;
    if (last) draw(last);
  }

  return { draw, again, pick };
})();
