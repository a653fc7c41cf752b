// Reads values off a chart under the pointer, and switches curves on and off. The page is whole without it.
for (const plot of document.querySelectorAll(".plot")) {
  const { xMax, curves, headings, differences } = JSON.parse(plot.querySelector("script").textContent);
  const cursor = plot.querySelector(".cursor"), reading = plot.querySelector(".reading");
  const off = new Set();

  const show = (event) => {
    const box = plot.getBoundingClientRect();
    const share = Math.min(1, Math.max(0, (event.clientX - box.left) / box.width));
    const lines = curves.filter((curve) => !curve.keys.some((key) => off.has(key)));
    if (!lines.length) return hide();
    const place = Math.round(share * (lines[0].y.length - 1));
    const known = lines.filter((curve) => curve.y[place] !== null);
    const values = known.map((curve) => ({ curve, y: curve.y[place], differences }));
    values.sort((a, b) => b.y - a.y);
    const title = headings.length ? headings[place] : "r = " + (share * xMax).toFixed(2);
    reading.replaceChildren(heading(title), ...values.map(row));
    cursor.hidden = reading.hidden = false;
    cursor.style.left = `${100 * share}%`;
    const left = share * box.width, width = reading.offsetWidth, margin = 30;
    const beside = share < 0.5 ? left + 12 : left - width - 12;
    reading.style.left = `${Math.max(-margin, Math.min(beside, box.width + margin / 2 - width))}px`;
  };
  const hide = () => { cursor.hidden = reading.hidden = true; };
  plot.addEventListener("pointermove", show);
  plot.addEventListener("pointerdown", show);
  plot.addEventListener("pointerleave", hide);
  plot.addEventListener("switch", (event) => {
    const { key, on } = event.detail;
    if (on) off.delete(key); else off.add(key);
    for (const path of plot.querySelectorAll(".series")) {
      const keys = path.dataset.keys.split(" ");
      if (path.dataset.part === "band") keys.push("bands");
      path.classList.toggle("off", keys.some((name) => off.has(name)));
    }
  });
}

for (const button of document.querySelectorAll(".switches button")) {
  button.addEventListener("click", () => {
    const on = button.getAttribute("aria-pressed") !== "true";
    button.setAttribute("aria-pressed", String(on));
    const plot = button.closest("section").querySelector(".plot");
    plot.dispatchEvent(new CustomEvent("switch", { detail: { key: button.dataset.key, on } }));
  });
}

function heading(title) {
  const line = document.createElement("div");
  line.append(title);
  return line;
}

function row({ curve, y, differences }) {
  const line = document.createElement("div"), value = document.createElement("b");
  line.innerHTML = '<svg viewBox="0 0 20 6"><path d="M0 3H20" fill="none" stroke-width="2.4"/></svg>';
  const stroke = line.querySelector("path");
  stroke.style.stroke = curve.colour;
  if (curve.dash) stroke.setAttribute("stroke-dasharray", "5 3");
  value.textContent = differences ? (y > 0 ? "+" : "") + (100 * y).toFixed(1) + " points" : (100 * y).toFixed(1) + " %";
  line.append(curve.label, value);
  return line;
}
