// Draws the panels of every plot with Plotly once they come into view, in the colours of the page.
(() => {
  const plots = JSON.parse(document.getElementById("plots").textContent);
  const palette = JSON.parse(document.getElementById("palette").textContent);
  const SYMBOLS = {ring: "-open"};
  const SHAPES = ["circle", "square", "triangle-up", "diamond"];   // with colours: more builders than there are of these
  const SIZES = {dot: 9, ring: 9, star: 15, faint: 7};
  const panels = new Map();   // element -> panel
  const colour = name => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
  const escaped = text => text.replaceAll("&", "&amp;").replaceAll("<", "&lt;").replaceAll("\n", "<br>");

  const ofMarks = marks => {
    const tint = marks.colour < 0 ? "#8a939c" : palette[marks.colour % palette.length];
    const shape = SHAPES[Math.floor(Math.max(marks.colour, 0) / palette.length) % SHAPES.length];
    const symbol = marks.style === "star" ? "star" : shape + (SYMBOLS[marks.style] ?? "");
    if (marks.style === "bar")
      return {type: "bar", orientation: "h", x: marks.y, y: marks.x.map(String), marker: {color: tint}};
    const trace = {
      type: "scatter", mode: marks.style === "line" ? "lines" : "markers", name: marks.name, x: marks.x, y: marks.y,
      legendgroup: marks.name, showlegend: !["line", "ring"].includes(marks.style), opacity: marks.style === "faint" ? 0.55 : 1,
      line: {color: tint, width: 1.5}, marker: {color: tint, symbol, size: SIZES[marks.style]},
      hoverinfo: marks.style === "line" ? "skip" : undefined, customdata: marks.paste,
    };
    if (marks.about.length) {
      trace.text = marks.about.map(escaped);
      trace.hovertemplate = "%{text}<extra></extra>";
    }
    if (marks.low.length)
      trace.error_y = {
        type: "data", symmetric: false, color: tint, thickness: 1.5, width: 5,
        array: marks.high.map((end, i) => end === null ? 0 : end - marks.y[i]),
        arrayminus: marks.low.map((end, i) => end === null ? 0 : marks.y[i] - end),
      };
    return trace;
  };

  const shapes = panel => {
    const found = panel.x_lines.map(x => (
      {type: "line", x0: x, x1: x, y0: 0, y1: 1, yref: "paper", line: {color: colour("--soft"), width: 1, dash: "dot"}}));
    if (panel.band) {
      const {mean, low, high} = panel.band, across = {xref: "paper", x0: 0, x1: 1, layer: "below"};
      found.push({...across, type: "rect", y0: low, y1: high, line: {width: 0}, fillcolor: colour("--soft"), opacity: 0.15});
      found.push({...across, type: "line", y0: mean, y1: mean, line: {color: colour("--text"), width: 1.5}});
    }
    if (panel.diagonal) {
      const ends = panel.marks.flatMap(marks => [...marks.x, ...marks.y]), most = 1.1 * Math.max(...ends);
      found.push({type: "line", x0: 0, y0: 0, x1: most, y1: most, layer: "below", line: {color: colour("--soft"), width: 1}});
    }
    return found;
  };

  const axis = (title, log) => ({
    title: {text: title, font: {size: 12}}, type: log ? "log" : undefined, gridcolor: colour("--line"),
    zerolinecolor: colour("--line"), linecolor: colour("--line"), automargin: true,
    exponentformat: "power",
  });

  const draw = element => {
    const panel = panels.get(element), marks = panel.marks.map(ofMarks);
    const traces = panel.cells.length
      ? [{type: "heatmap", z: panel.cells, x: panel.x_names, y: panel.y_names, colorscale: "Viridis", colorbar: {thickness: 10}}]
      : marks;
    const bars = traces.some(trace => trace.type === "bar");
    const band = panel.band ? [{
      xref: "paper", x: 1, xanchor: "right", y: panel.band.mean, yanchor: "bottom", text: panel.band.name,
      showarrow: false, font: {size: 11},
    }] : [];
    const layout = {
      title: {text: escaped(panel.title), font: {size: 13}, x: 0, xanchor: "left", xref: "paper"},
      paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)", font: {color: colour("--text"), size: 12},
      xaxis: axis(panel.x, panel.x_log), yaxis: axis(bars ? "" : panel.y, panel.y_log), shapes: shapes(panel),
      annotations: band, margin: {l: 50, r: 12, t: 36, b: 40}, hovermode: "closest",
      legend: {orientation: "h", y: -0.22, yanchor: "top", font: {size: 11}},
      showlegend: !bars && !panel.cells.length && traces.length > 1,
      hoverlabel: {align: "left", font: {size: 12}},
    };
    if (panel.x_log) {   // a factor: dense, 1, is always seen
      const ends = [1, ...panel.marks.flatMap(marks => marks.x)];
      layout.xaxis.range = [Math.log10(Math.min(...ends) / 1.1), Math.log10(Math.max(...ends) * 1.3)];
    }
    if (panel.x_names.length) layout.xaxis.type = layout.yaxis.type = "category";
    Plotly.react(element, traces, layout, {responsive: true, displaylogo: false, displayModeBar: false});
    if (element.dataset.drawn) return;
    element.dataset.drawn = "yes";
    element.on("plotly_click", event => {
      const line = event.points[0].customdata;
      if (line) element.parentElement.querySelector("pre").replaceChildren(line);
      element.parentElement.querySelector("pre").hidden = !line;
    });
  };

  for (const place of document.querySelectorAll("[data-plot]"))
    for (const panel of plots[place.dataset.plot].panels) {
      const box = document.createElement("div"), element = document.createElement("div"), line = document.createElement("pre");
      box.className = panel.cells.length ? "plot low" : "plot";
      line.hidden = true;
      box.append(element, line);
      place.append(box);
      panels.set(element, panel);
    }
  const seen = new IntersectionObserver(
    entries => entries.filter(entry => entry.isIntersecting).forEach(entry => {
      seen.unobserve(entry.target);
      draw(entry.target);
    }),
    {rootMargin: "400px"});
  for (const element of panels.keys()) seen.observe(element);
  const again = () => [...panels.keys()].filter(element => element.dataset.drawn).forEach(draw);
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", again);
  addEventListener("beforeprint", () => {
    document.querySelectorAll("details").forEach(one => one.open = true);
    [...panels.keys()].forEach(draw);
  });
})();
