
"use strict";
(() => {
  const said = JSON.parse(document.getElementById("said").textContent);
  const at = (id) => document.getElementById(id);
  const place = "sfumato-blind-" + said.page;
  const fresh = () => ({ voter: "", id: Math.random().toString(36).slice(2, 8), votes: [] });
  let state = fresh();
  try {
    const kept = JSON.parse(localStorage.getItem(place));
    if (kept && Array.isArray(kept.votes)) state = kept;
  } catch (error) { /* a browser that keeps nothing: the votes live until the page is closed */ }
  let since = performance.now();

  const keep = () => {
    try { localStorage.setItem(place, JSON.stringify(state)); } catch (error) { /* as above */ }
  };
  const show = () => {
    const n = state.votes.length, all = said.pairs.length, over = n >= all;
    at("vote").hidden = over;
    at("done").hidden = !over;
    at("progress").max = all;
    at("progress").value = n;
    at("count").textContent = n + " of " + all;
    at("undo").disabled = n === 0;
    at("save").classList.toggle("primary", over);
    if (!over) {
      const pair = said.pairs[n];
      at("left-picture").src = pair.left;
      at("right-picture").src = pair.right;
      at("asked").textContent = pair.asked && "asked for: " + pair.asked;
      const next = said.pairs[n + 1];
      if (next) for (const uri of [next.left, next.right]) new Image().src = uri;
    }
    since = performance.now();
  };
  const vote = (answer) => {
    if (state.votes.length >= said.pairs.length) return;
    const pair = said.pairs[state.votes.length].pair;
    state.votes.push({ pair, answer, seconds: Math.round(performance.now() - since) / 1000 });
    const side = at(answer);
    side.classList.add("chosen");
    setTimeout(() => side.classList.remove("chosen"), 180);
    keep();
    show();
  };
  const back = () => { if (state.votes.pop()) { keep(); show(); } };
  const save = () => {
    const voter = state.voter.trim() || "voter-" + state.id;
    const text = JSON.stringify({ format: 1, page: said.page, voter, votes: state.votes }, null, 1);
    const link = document.createElement("a");
    link.href = URL.createObjectURL(new Blob([text], { type: "application/json" }));
    link.download = "votes-" + voter.replace(/[^A-Za-z0-9_-]+/g, "_") + ".json";
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 10000);
  };

  for (const side of ["left", "right"]) {
    const picture = at(side + "-picture");
    picture.onload = () => picture.classList.toggle("small", picture.naturalWidth < 200);
  }
  at("left").onclick = () => vote("left");
  at("right").onclick = () => vote("right");
  at("tie").onclick = () => vote("tie");
  at("undo").onclick = back;
  at("undo-last").onclick = back;
  at("save").onclick = save;
  at("restart").onclick = () => {
    if (!confirm("Throw away your votes on this page and begin again?")) return;
    state = fresh();
    keep();
    at("voter").value = "";
    show();
  };
  at("voter").value = state.voter;
  at("voter").oninput = () => { state.voter = at("voter").value; keep(); };
  addEventListener("keydown", (event) => {
    if (event.target === at("voter") || event.ctrlKey || event.metaKey || event.altKey || event.repeat) return;
    const answer = { ArrowLeft: "left", ArrowRight: "right", ArrowDown: "tie" }[event.key];
    if (answer) { event.preventDefault(); vote(answer); }
    if (event.key === "ArrowUp") { event.preventDefault(); back(); }
  });
  show();
})();
