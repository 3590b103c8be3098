// The table of predictions: unpacked from the page itself, filtered, drawn so many rows at a time, opened side by side.
// All text is set as text, never as HTML; the page's policy lets no other script run and nothing be loaded.
"use strict";

const AT_ONCE = 25;
const MARKS = { right: "✓", wrong: "✗", malformed: "!" };
const place = (id) => document.getElementById(id);
const form = place("filters");
const short = (number) => String(Number(number.toPrecision(3)));
const outcome = (said) => (said.reason ? "malformed" : said.right === null ? "" : said.right ? "right" : "wrong");
const picture = (src, alt) => Object.assign(document.createElement("img"), { src, alt });

function make(tag, className, ...inside) {
  const made = Object.assign(document.createElement(tag), { className });
  made.append(...inside);
  return made;
}

function block(title, text, kinds = {}) {
  const pre = make("pre", "", ...text.split("\n").map((line) => make("span", kinds[line[0]] || "", line || " ")));
  return [make("h4", "note", title), Object.assign(pre, { tabIndex: 0, ariaLabel: title })]; // scrolls by keyboard too
}

function card(model, said) {
  const numbers = Object.entries({ reward: said.value, ...said.parts }).map(([name, value]) => `${name} ${short(value)}`);
  const made = make("article", "", make("b", "", `${model} `), make("span", `chip ${outcome(said)}`, outcome(said)));
  made.append(make("div", "note", [...numbers, said.reason].filter(Boolean).join(" · ")));
  if (said.picture) {
    made.append(make("div", "columns", ...said.columns.map((label) => make("small", "", label))));
    made.append(picture(said.picture, `prediction of ${model}`));
  }
  if (said.diff) made.append(...block("against what happened", said.diff, { "+": "plus", "-": "minus" }));
  if ("text" in said) made.append(...block("the answer as written", said.text || "(nothing)"));
  return made;
}

function row(one, models) {
  const marks = models.map((model) => {
    const said = one.said[model];
    const [kind, value] = said ? [outcome(said), short(said.value)] : ["", "–"];
    const mark = make("span", `mark ${kind}`, MARKS[kind] || value);
    mark.title = mark.ariaLabel = `${model}: ${kind} reward ${value}`;
    mark.dataset.model = model;
    return mark;
  });
  const about = make("small", "", [one.id, one.kind, one.world].filter(Boolean).join(" · "));
  const made = make("details", "row", make("summary", "", make("span", "asked", make("b", "", one.action), about), ...marks));
  made.addEventListener("toggle", () => {
    if (!made.open || made.children.length > 1) return;
    const cards = Object.entries(one.said).map(([model, said]) => card(model, said));
    const drawn = one.state.startsWith("data:image/");
    const state = drawn ? [picture(one.state, "the state before")] : one.state ? block("the state before", one.state) : [];
    made.append(make("div", "opened", ...state, make("div", "grid two", ...cards)));
  });
  return made;
}

function chosen(rows) {
  const { slice, world, verb, model, was, order, words } = Object.fromEntries(new FormData(form));
  const asked = (one) => (model ? [one.said[model] || []].flat() : Object.values(one.said));
  const mean = (one) => asked(one).reduce((sum, said) => sum + said.value, 0) / asked(one).length;
  const differs = (one) => was === "differs" && new Set(Object.values(one.said).map((said) => said.value)).size > 1;
  const found = rows
    .filter((one) => (!slice || one.kind.split(", ").includes(slice)) && (!world || one.world === world))
    .filter((one) => (!verb || one.verb === verb) && `${one.id} ${one.action}`.toLowerCase().includes(words.toLowerCase()))
    .filter((one) => asked(one).length && (!was || differs(one) || asked(one).some((said) => outcome(said) === was)));
  return order ? found.sort((a, b) => Number(order) * (mean(a) - mean(b))) : found;
}

function start(rows) {
  const models = [...new Set(rows.flatMap((one) => Object.keys(one.said)))];
  const choices = { slice: (one) => one.kind.split(", "), world: (one) => one.world, verb: (one) => one.verb };
  for (const [name, of] of Object.entries(choices)) {
    const found = [...new Set(rows.flatMap(of))].filter(Boolean).sort();
    form[name].append(...found.map((text) => new Option(text)));
    form[name].parentElement.hidden = found.length < 2;
  }
  form.model.append(...models.map((text) => new Option(text)));
  place("heads").append(make("span", ""), ...models.map((model) => make("small", "", model.replace("/", "/\u200b"))));
  place("predictions").style.setProperty("--models", models.length);
  let found = rows;
  const draw = () => {
    const at = place("rows").children.length;
    place("rows").append(...found.slice(at, at + AT_ONCE).map((one) => row(one, models)));
    place("more").hidden = at + AT_ONCE >= found.length;
  };
  const filter = () => {
    found = chosen(rows);
    const shares = models.map((model) => {
      const said = found.map((one) => one.said[model]).filter((one) => one && one.right !== null);
      return said.length ? `; ${model} ${((100 * said.filter((one) => one.right).length) / said.length).toFixed(1)} % right` : "";
    });
    place("count").textContent = `${found.length.toLocaleString("en")} of ${rows.length.toLocaleString("en")} rows${shares.join("")}`;
    place("rows").replaceChildren();
    draw();
  };
  form.addEventListener("input", filter);
  form.addEventListener("submit", (event) => event.preventDefault());
  place("more").addEventListener("click", draw);
  filter();
  place("rows").firstChild.open = true;
  place("predictions").hidden = false;
}

const bytes = Uint8Array.from(atob(place("packed").textContent), (letter) => letter.charCodeAt(0));
new Response(new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"))).json().then(start);
