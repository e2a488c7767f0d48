"use strict";
(() => {
  const BUTTONS = [["zoom2d", "pan2d", "resetScale2d", "toImage"]];

  // Figures name their colours as CSS variables; this function inserts the values of the current colour scheme.
  const coloured = (value, style) => {
    if (typeof value === "string") {
      return value.startsWith("var(--") ? style.getPropertyValue(value.slice(4, -1)).trim() : value;
    }
    if (Array.isArray(value)) return value.map((item) => coloured(item, style));
    if (value === null || typeof value !== "object") return value;
    return Object.fromEntries(Object.entries(value).map(([key, item]) => [key, coloured(item, style)]));
  };
  const pictures = [...document.querySelectorAll("[data-figure]")].map((place) => [
    place, JSON.parse(document.getElementById("figure-" + place.dataset.figure).textContent),
  ]);
  const draw = () => {
    const style = getComputedStyle(document.documentElement);
    for (const [place, figure] of pictures) {
      const { data, layout } = coloured(figure, style);
      const narrow = place.clientWidth < 620;
      if (narrow) {
        layout.xaxis.nticks = 4;
        layout.margin.t += 26; // room for the second line of the legend
        layout.height += 26;
      }
      const config = { displaylogo: false, responsive: true, modeBarButtons: BUTTONS };
      Plotly.react(place, data, layout, { ...config, displayModeBar: narrow ? false : "hover" });
    }
  };
  draw();
  for (const query of ["(prefers-color-scheme: dark)", "print"]) matchMedia(query).addEventListener("change", draw);

  // Sortable tables: numbers sort by `data-v`, text by its content, and unknown values stay last.
  const key = (row, column) => row.cells[column].dataset.v ?? row.cells[column].textContent.trim();
  const compare = (a, b, numeric, sign) => {
    if (a === "" || b === "") return (a === "") - (b === "");
    return sign * (numeric ? a - b : a.localeCompare(b, "en", { numeric: true }));
  };
  for (const table of document.querySelectorAll("table.sortable")) {
    const heads = [...table.tHead.rows[0].cells];
    heads.forEach((head, column) => {
      const button = document.createElement("button");
      button.type = "button";
      button.append(...head.childNodes);
      head.append(button);
      button.addEventListener("click", () => {
        const down = head.getAttribute("aria-sort") === "ascending";
        heads.forEach((other) => other.removeAttribute("aria-sort"));
        head.setAttribute("aria-sort", down ? "descending" : "ascending");
        const numeric = head.classList.contains("n");
        const rows = [...table.tBodies[0].rows];
        rows.sort((a, b) => compare(key(a, column), key(b, column), numeric, down ? -1 : 1));
        table.tBodies[0].append(...rows);
      });
    });
  }
})();
