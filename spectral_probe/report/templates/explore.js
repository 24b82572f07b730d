"use strict";
// Draws the charts of the page from the data in it, and connects them with their controls.
(() => {
  const content = JSON.parse(document.getElementById("content").textContent);
  const views = {};
  const clicks = new Map();
  const scheme = window.matchMedia("(prefers-color-scheme: dark)");

  // A table is stored by columns: text as numbers of its distinct values, fractions as whole numbers, and the pairs of
  // keys of a grid once. The charts read rows.
  const listOf = (column) => {
    if (Array.isArray(column)) return column;
    if (column.names) return column.at.map((number) => column.names[number]);
    return column.at.map((value) => (value === null ? null : value / column.unit));
  };
  const rowsOf = ({ grid, ...columns }) => {
    const lists = Object.entries(columns).map(([name, column]) => [name, listOf(column)]);
    if (grid) {
      const [[first, firsts], [second, seconds]] = grid;
      lists.push([first, firsts.flatMap((value) => seconds.map(() => value))]);
      lists.push([second, firsts.flatMap(() => seconds)]);
    }
    const n = lists.length ? lists[0][1].length : 0;
    return Array.from({ length: n }, (_, i) => Object.fromEntries(lists.map(([name, list]) => [name, list[i]])));
  };
  const datasets = Object.fromEntries(Object.entries(content.data).map(([name, columns]) => [name, rowsOf(columns)]));

  const config = () => {
    const style = getComputedStyle(document.documentElement);
    const color = (name) => style.getPropertyValue(name).trim();
    const [text, soft, line] = [color("--text"), color("--soft"), color("--line")];
    const palette = content.palettes[scheme.matches ? "dark" : "light"];
    return {
      background: "transparent",
      font: "system-ui, sans-serif",
      view: { stroke: null },
      axis: { labelColor: text, titleColor: text, gridColor: line, domainColor: soft, tickColor: soft,
        labelFontSize: 12, titleFontSize: 12, titleFontWeight: "normal" },
      title: { color: text, subtitleColor: soft, anchor: "start", frame: "bounds", fontSize: 13, subtitleFontSize: 12 },
      legend: { labelColor: text, titleColor: text },
      rule: { color: soft },
      text: { color: text },
      mark: { color: palette[0] },
      range: { category: palette,
        diverging: scheme.matches
          ? ["#8cc2ff", "#2f6db5", "#20262d", "#b04a33", "#ffa58c"] : ["#2166ac", "#92c5de", "#f7f7f7", "#f4a582", "#b2182b"] },
    };
  };

  const valueOf = (control) => {
    if (control.tagName === "FIELDSET") {
      return [...control.querySelectorAll("input:checked")].map((input) => input.value);
    }
    return control.type === "checkbox" ? control.checked : control.value;
  };

  const signalsOf = (panel) => Object.fromEntries(
    [...panel.querySelectorAll("[data-signal]")].map((control) => [control.dataset.signal, valueOf(control)]));

  // Sets those signals of a chart that it has.
  let drawing = 0;
  const update = async (name, signals) => {
    document.documentElement.dataset.drawing = String(drawing += 1);
    const known = new Set((content.specs[name].params || []).map((parameter) => parameter.name));
    Object.entries(signals).filter(([signal]) => known.has(signal)).forEach(([signal, value]) => {
      views[name].signal(signal, value);
    });
    await views[name].runAsync();
    const box = document.getElementById(`chart-${name}`);
    const isEmpty = !box.querySelector(".mark-symbol.role-mark path, .mark-rect.role-mark path");
    box.classList.toggle("empty", isEmpty);
    if (isEmpty) document.getElementById(`point-${name}`).textContent = "There are no values for this choice.";
    document.documentElement.dataset.drawing = String(drawing -= 1);
  };

  const draw = async (name, panel) => {
    const box = document.getElementById(`chart-${name}`);
    const spec = content.specs[name];
    const result = await vegaEmbed(box, { ...spec, datasets: { ...spec.datasets, ...datasets } }, {
      actions: false, renderer: "svg", config: config(),
      tooltip: { theme: scheme.matches ? "dark" : "light" },
    });
    views[name] = result.view;
    if (clicks.has(panel)) views[name].addEventListener("click", clicks.get(panel));
    await update(name, signalsOf(panel));
  };

  // Arrow keys step through the points of a chart, with the tooltip of each and its words for a screen reader.
  const stepThrough = (box, name) => {
    let at = -1;
    const points = () => [...box.querySelectorAll(".mark-symbol.role-mark path, .mark-rect.role-mark path")]
      .map((path) => ({ path, frame: path.getBoundingClientRect() }))
      .sort((a, b) => a.frame.x - b.frame.x || a.frame.y - b.frame.y);
    box.addEventListener("keydown", (event) => {
      const step = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1 }[event.key];
      if (event.key === "Escape") document.querySelector("#vg-tooltip-element")?.classList.remove("visible");
      if (event.key === "Enter" && points()[at]) {
        points()[at].path.dispatchEvent(new MouseEvent("click", { bubbles: true }));
      }
      if (!step) return;
      event.preventDefault();
      const all = points();
      if (!all.length) return;
      at = (at + step + all.length) % all.length;
      const { path, frame } = all[at];
      const place = { bubbles: true, clientX: frame.x + frame.width / 2, clientY: frame.y + frame.height / 2 };
      for (const kind of ["mouseover", "pointerover", "mousemove", "pointermove"]) {
        path.dispatchEvent(new (kind.startsWith("p") ? PointerEvent : MouseEvent)(kind, place));
      }
      document.getElementById(`point-${name}`).textContent = path.getAttribute("aria-label");
    });
  };

  // A click on a point chooses the entry of a menu that the point names; the items of the entry are listed.
  const pick = (panel, names) => {
    const menu = panel.querySelector(`[data-signal="${panel.dataset.picks}"]`);
    const list = panel.querySelector(".history");
    const show = () => {
      const chosen = Number(menu.value);
      const items = datasets.histories.filter(({ user }) => user === chosen).map(({ item }) => datasets.items[item].name);
      list.replaceChildren(...(items.length ? items : ["The items of this user are not in the run."]).map((text) => {
        const entry = document.createElement("li");
        entry.textContent = text;
        return entry;
      }));
    };
    menu.addEventListener("change", show);
    show();
    return (event, item) => {
      const entry = item && item.datum ? item.datum[panel.dataset.picks] : undefined;
      if (entry === undefined || menu.value === String(entry)) return;
      menu.value = String(entry);
      menu.dispatchEvent(new Event("change", { bubbles: true }));
    };
  };

  const start = async (panel) => {
    const names = panel.dataset.charts.split(" ");
    panel.hidden = false;
    for (const name of names) await draw(name, panel);
    for (const control of panel.querySelectorAll("[data-signal]")) {
      control.addEventListener("change", () => names.forEach((name) => update(name, signalsOf(panel))));
    }
    names.forEach((name) => stepThrough(document.getElementById(`chart-${name}`), name));
    if (panel.dataset.picks) {
      clicks.set(panel, pick(panel, names));
      names.forEach((name) => views[name].addEventListener("click", clicks.get(panel)));
    }
  };

  const sortable = (table) => {
    const body = table.tBodies[0];
    const number = (text) => Number.parseFloat(text.replace("−", "-").replace(/,/g, ""));
    [...table.tHead.rows[0].cells].forEach((head, column) => {
      const button = document.createElement("button");
      button.type = "button";
      button.className = "sort";
      button.setAttribute("aria-label", `Sort by ${head.textContent.trim()}`);
      button.textContent = "↕";
      head.append(" ", button);
      button.addEventListener("click", () => {
        const isUp = head.getAttribute("aria-sort") !== "ascending";
        const cells = [...body.rows].map((row) => ({ row, text: row.cells[column].textContent.trim() }));
        const areNumbers = cells.some(({ text }) => !Number.isNaN(number(text)) && /^[+−-]?[\d.]/.test(text))
          && column > 0;
        cells.sort((a, b) => {
          if (!areNumbers) return a.text.localeCompare(b.text, "en", { numeric: true });
          const [x, y] = [number(a.text), number(b.text)];
          return Number.isNaN(x) - Number.isNaN(y) || x - y;
        });
        if (!isUp) cells.reverse();
        body.append(...cells.map(({ row }) => row));
        [...table.tHead.rows[0].cells].forEach((other) => other.removeAttribute("aria-sort"));
        head.setAttribute("aria-sort", isUp ? "ascending" : "descending");
      });
    });
  };

  document.querySelectorAll("table.sortable").forEach(sortable);
  const drawAll = Promise.all([...document.querySelectorAll(".panel")].map(start)).then(() => {
    document.querySelectorAll("details.static").forEach((details) => { details.open = false; });
    document.documentElement.dataset.ready = "yes";
  });
  scheme.addEventListener("change", async () => {
    await drawAll;
    for (const panel of document.querySelectorAll(".panel")) {
      for (const name of panel.dataset.charts.split(" ")) await draw(name, panel);
    }
  });
})();
