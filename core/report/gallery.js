"use strict";
(() => {
  const $ = (id) => document.getElementById(id);
  const data = JSON.parse($("data").textContent);
  const form = $("filters"), grid = $("cards"), viewer = $("viewer");
  const all = [...grid.children].map((card, k) => ({
    card, k, link: card.querySelector("h3 a"), name: card.querySelector("h3").textContent.toLowerCase(),
  }));
  const SAMPLE = ["label", "predicted", "outcome", "status"], COLUMN = ["method", "layer", "goal", "file"];
  const wanted = (name) => form.elements[name]?.value ?? "";
  let visible = all, current = all[0], viewed = null, moved = false;

  /* Which pictures of each sample: a rule of style hides the others, so thousands of elements stay as they are. */
  function columns() {
    const fits = (c, keys) => keys.every((key) => !wanted(key) || !c[key] || c[key] === wanted(key));
    const chosen = data.columns.map((c) => fits(c, COLUMN));
    const hidden = data.columns.flatMap((_, k) => (chosen[k] ? [] : [`.cards .c${k}`]));
    const shown = chosen.filter(Boolean).length;
    if (shown === 1) hidden.push(".cards .own", ".cards .what");
    $("columns").textContent = hidden.length ? `${hidden.join()}{display:none}` : "";
    grid.style.setProperty("--shown", Math.max(1, shown + (shown > 1 && grid.querySelector(".own") ? 1 : 0)));
    return chosen.indexOf(true);
  }

  function update() {
    const first = columns(), words = wanted("words").toLowerCase();
    const by = wanted("sort"), sign = Number(wanted("direction") || 1);
    const key = by.startsWith("*") ? data.columns[first]?.keys[by.slice(1)] : data.keys[by];
    const rank = (each) => key?.[each.k] ?? null;
    visible = all.filter((each) => SAMPLE.every((name) => !wanted(name) || String(data[name][each.k]) === wanted(name))
      && each.name.includes(words));
    if (by) visible.sort((a, b) => {
      const x = rank(a), y = rank(b);
      return x === null || y === null ? (x === null) - (y === null) : sign * (x - y) || a.k - b.k;
    });
    if (!by && sign < 0) visible.reverse();
    const kept = new Set(visible);
    for (const each of all) each.card.hidden = !kept.has(each);
    const ordered = visible.every((each, at) => !at || each.k > visible[at - 1].k);
    if (moved || !ordered) grid.append(...visible.map((each) => each.card));
    moved = !ordered;
    $("nothing").hidden = visible.length > 0;
    $("count").textContent = `${visible.length.toLocaleString("en")} of ${all.length.toLocaleString("en")} samples`;
    roam(kept.has(current) ? current : visible[0]);
  }

  /* One card is a stop of the Tab key, arrows go on from there. */
  function roam(to, focus) {
    for (const each of new Set([current, to])) if (each) each.link.tabIndex = each === to ? 0 : -1;
    if (to) current = to;
    if (focus) to?.link.focus();
  }

  function neighbour(key) {
    const at = visible.indexOf(current), top = (each) => each.card.offsetTop;
    const across = Math.max(1, visible.findIndex((each) => top(each) > top(visible[0])));
    const step = { ArrowLeft: -1, ArrowRight: 1, ArrowUp: -across, ArrowDown: across }[key];
    if (key === "Home") return visible[0];
    if (key === "End") return visible.at(-1);
    return step && visible[at + step];
  }

  function view(each) {
    if (!each) return;
    viewed = each;
    $("viewed").textContent = each.link.textContent;
    const copy = each.card.cloneNode(true);
    copy.querySelector("h3").remove();
    $("view").replaceChildren(...copy.childNodes);
    for (const image of $("view").querySelectorAll("img")) image.loading = "eager";
    if (!viewer.open) viewer.showModal();
    const last = { "-1": visible[0], "1": visible.at(-1) };
    for (const button of viewer.querySelectorAll("[data-step]")) button.ariaDisabled = each === last[button.dataset.step];
    $("view").scrollTop = 0;
  }

  const step = (by) => view(visible[visible.indexOf(viewed) + by]);
  const of = (node) => all.find((each) => each.card === node?.closest?.(".card"));

  form.addEventListener("input", update);
  form.addEventListener("submit", (event) => event.preventDefault());
  form.addEventListener("reset", () => setTimeout(update));
  grid.addEventListener("click", (event) => {
    const each = of(event.target);
    if (!each || event.ctrlKey || event.metaKey || event.shiftKey || !event.target.closest("a, img")) return;
    event.preventDefault();
    view(each);
  });
  grid.addEventListener("focusin", (event) => roam(of(event.target) ?? current));
  grid.addEventListener("keydown", (event) => {
    const to = event.altKey || event.ctrlKey || event.metaKey ? undefined : neighbour(event.key);
    if (!to) return;
    event.preventDefault();
    roam(to, true);
  });
  viewer.addEventListener("click", (event) => {
    const button = event.target.closest("button");
    if (event.target === viewer || button?.hasAttribute("data-close")) viewer.close();
    else if (button?.dataset.step) step(Number(button.dataset.step));
  });
  viewer.addEventListener("keydown", (event) => {
    const by = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
    if (by) step(by);
  });
  viewer.addEventListener("close", () => {
    $("view").replaceChildren();
    roam(viewed, true); // not where the browser puts it: one may have gone on
  });

  /* A link to a sample that the filters hide shows it all the same. */
  function arrive() {
    const each = all.find(({ card }) => `#${card.id}` === location.hash);
    if (!each) return;
    if (each.card.hidden) {
      form.reset();
      update();
    }
    roam(each, true);
    each.card.scrollIntoView({ block: "center" });
  }

  for (const each of all) each.link.tabIndex = -1;
  form.hidden = false;
  document.documentElement.classList.add("script");
  update();
  addEventListener("hashchange", arrive);
  arrive();
})();
