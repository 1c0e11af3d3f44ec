"use strict";
document.documentElement.classList.add("js");

// --- light, dark, or as the system says
{
  const button = document.getElementById("theme"), root = document.documentElement;
  const words = { "": "as the system", light: "light", dark: "dark" }, order = ["", "dark", "light"];
  let kept = "";
  try { kept = localStorage.getItem("lipfw-theme") || ""; } catch { /* a page from a file may not keep anything */ }
  const show = (theme) => {
    if (theme) root.dataset.theme = theme; else delete root.dataset.theme;
    button.textContent = `Theme: ${words[theme]}`;
  };
  button.hidden = false;
  show(kept in words ? kept : "");
  button.addEventListener("click", () => {
    const next = order[(order.indexOf(root.dataset.theme || "") + 1) % order.length];
    show(next);
    try { localStorage.setItem("lipfw-theme", next); } catch { /* as above */ }
  });
}

// --- tables sort by the column whose heading is clicked; what has no number comes last
{
  const number = (text) => {
    const found = text.replace(/,/g, "").replace("−", "-").match(/[-+]?\d+(\.\d+)?(e[-+]?\d+)?/i);
    return found ? parseFloat(found[0]) : NaN;
  };
  for (const table of document.querySelectorAll("table.sorts")) {
    const heads = [...table.tHead.rows[0].cells], body = table.tBodies[0];
    heads.forEach((head, column) => {
      const button = document.createElement("button");
      button.type = "button";
      button.append(...head.childNodes);
      if (!button.textContent.trim()) button.setAttribute("aria-label", "sort by name");
      head.append(button);
      button.addEventListener("click", () => {
        const down = head.getAttribute("aria-sort") === "ascending";
        heads.forEach((h) => h.removeAttribute("aria-sort"));
        head.setAttribute("aria-sort", down ? "descending" : "ascending");
        const text = (row) => row.cells[column].textContent.trim();
        const numeric = column > 0 && [...body.rows].some((row) => !Number.isNaN(number(text(row))));
        const compare = (a, b) => {
          if (!numeric) return text(a).localeCompare(text(b), undefined, { numeric: true }) * (down ? -1 : 1);
          const [x, y] = [number(text(a)), number(text(b))];
          if (Number.isNaN(x) || Number.isNaN(y)) return Number.isNaN(x) - Number.isNaN(y);
          return (x - y) * (down ? -1 : 1);
        };
        body.append(...[...body.rows].sort(compare));
      });
    });
  }
}

// --- pictures one over the other: what was given left of the line, what was restored right of it
for (const viewer of document.querySelectorAll(".viewer")) {
  const stage = viewer.querySelector(".stage"), given = [...stage.querySelectorAll(".given")];
  const rounds = [...stage.querySelectorAll(".restored")];
  const line = viewer.querySelector(".line"), round = viewer.querySelector(".round");
  const [left, right] = viewer.querySelectorAll("output"), kinds = viewer.querySelectorAll("[type=radio]");
  const caption = (figure) => figure.querySelector("figcaption").textContent;
  const show = () => {
    const kind = [...kinds].find((k) => k.checked)?.value ?? given[0]?.dataset.kind;
    for (const f of given) {
      f.classList.toggle("off", f.dataset.kind !== kind);
      f.classList.toggle("under", f.dataset.kind === kind);
      if (f.dataset.kind === kind) left.textContent = caption(f);
    }
    const chosen = round ? Number(round.value) : 0;
    rounds.forEach((f, i) => { f.hidden = false; f.classList.toggle("off", i !== chosen); });
    right.textContent = caption(rounds[chosen]);
    if (round) round.setAttribute("aria-valuetext", caption(rounds[chosen]));
    stage.style.setProperty("--at", `${line.value}%`);
    line.setAttribute("aria-valuetext", `${line.value} % of the picture as given`);
  };
  const drag = (event) => {
    const box = stage.getBoundingClientRect();
    line.value = Math.min(100, Math.max(0, 100 * (event.clientX - box.left) / box.width));
    show();
  };
  stage.addEventListener("pointerdown", (event) => {
    if (event.isPrimary && event.button === 0) { stage.setPointerCapture(event.pointerId); drag(event); }
  });
  stage.addEventListener("pointermove", (event) => { if (stage.hasPointerCapture(event.pointerId)) drag(event); });
  stage.addEventListener("dragstart", (event) => event.preventDefault());
  for (const input of viewer.querySelectorAll("input")) input.addEventListener("input", show);
  show();
}
