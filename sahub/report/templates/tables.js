// Tables that sort by a click on a heading, keep the rows that hold all typed words, and hide columns.
(() => {
  const value = cell => {
    const text = cell.textContent.trim(), number = parseFloat(text.replaceAll(",", ""));
    return text === "-" ? null : Number.isNaN(number) ? text : number;
  };
  const compare = (one, other) =>
    one === null || other === null ? (one === null) - (other === null)
      : typeof one === "number" && typeof other === "number" ? one - other : String(one).localeCompare(String(other));

  for (const tool of document.querySelectorAll("[data-tools]")) {
    const table = document.getElementById(tool.dataset.tools), body = table.tBodies[0], heads = [...table.tHead.rows[0].cells];
    heads.forEach((head, place) => {
      const sort = () => {
        const down = head.getAttribute("aria-sort") === "ascending";
        heads.forEach(other => other.removeAttribute("aria-sort"));
        head.setAttribute("aria-sort", down ? "descending" : "ascending");
        const keyed = [...body.rows].map(row => [value(row.cells[place]), row]);
        keyed.sort(([a], [b]) => a === null || b === null || !down ? compare(a, b) : compare(b, a));
        body.append(...keyed.map(([, row]) => row));
      };
      head.tabIndex = 0;
      head.addEventListener("click", sort);
      head.addEventListener("keydown", event => { if (event.key === "Enter") sort(); });
    });
    tool.querySelector("input[type=search]").addEventListener("input", event => {
      const words = event.target.value.toLowerCase().split(/\s+/).filter(Boolean);
      for (const row of body.rows) {
        const text = row.textContent.toLowerCase();
        row.hidden = !words.every(word => text.includes(word));
      }
    });
    tool.querySelectorAll("input[type=checkbox]").forEach((box, place) => {
      const show = () => [...table.rows].forEach(row => row.cells[place].hidden = !box.checked);
      box.addEventListener("change", show);
      show();
    });
  }
})();
