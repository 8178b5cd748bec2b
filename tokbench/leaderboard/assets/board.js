(function () {
  "use strict";
  var root = document.documentElement;
  root.classList.add("scripted");
  function all(selector, from) { return Array.prototype.slice.call((from || document).querySelectorAll(selector)); }
  function make(tag, text, name) {
    var node = document.createElement(tag);
    if (text !== undefined) node.textContent = text;
    if (name) node.className = name;
    return node;
  }

  // Colours: as the system, light, dark. Storage may be refused; the choice then lasts for the page.
  var theme = document.getElementById("theme");
  var themes = ["auto", "light", "dark"];
  function stored() { try { return localStorage.getItem("tokbench-theme"); } catch (e) { return null; } }
  function setTheme(name) {
    if (name === "auto") root.removeAttribute("data-theme"); else root.setAttribute("data-theme", name);
    theme.textContent = name.charAt(0).toUpperCase() + name.slice(1);
    theme.setAttribute("aria-label", "Colours: " + (name === "auto" ? "as the system" : name));
    theme.dataset.now = name;
  }
  setTheme(themes.indexOf(stored()) >= 0 ? stored() : "auto");
  theme.addEventListener("click", function () {
    var next = themes[(themes.indexOf(theme.dataset.now) + 1) % 3];
    setTheme(next);
    try { localStorage.setItem("tokbench-theme", next); } catch (e) { return; }
  });

  // Sorting: the ranked body only; anchors stay below, cells without a number go last either way.
  function sortKey(row, column) {
    var cell = row.cells[column];
    if (!cell) return null;
    if (cell.dataset.v !== undefined) return Number(cell.dataset.v);
    return cell.tagName === "TH" || !cell.classList.contains("num") && cell.colSpan === 1 ? cell.textContent.trim().toLowerCase() : null;
  }
  all("th .sort").forEach(function (button) {
    button.addEventListener("click", function () {
      var head = button.parentNode, table = head.closest("table"), column = head.cellIndex;
      var first = button.dataset.dir === "higher" ? "descending" : "ascending";
      var other = first === "ascending" ? "descending" : "ascending";
      var order = head.getAttribute("aria-sort") === first ? other : first;
      all("thead th[aria-sort]", table).forEach(function (th) { th.setAttribute("aria-sort", "none"); });
      head.setAttribute("aria-sort", order);
      all("tbody", table).forEach(function (body) {
        var rows = all("tr", body).filter(function (r) { return r.dataset.name !== undefined; });
        rows.map(function (row, i) { return { row: row, key: sortKey(row, column), i: i }; })
          .sort(function (a, b) {
            if (a.key === null || b.key === null) return (a.key === null) - (b.key === null) || a.i - b.i;
            var sign = a.key < b.key ? -1 : a.key > b.key ? 1 : 0;
            return (order === "ascending" ? sign : -sign) || a.i - b.i;
          })
          .forEach(function (entry) { body.appendChild(entry.row); });
      });
    });
  });

  // Filters.
  var form = document.querySelector("form.filters");
  if (form) {
    var field = function (id) { return document.getElementById(id); };
    var filter = function () {
      var text = field("f-text").value.trim().toLowerCase(), hz = Number(field("f-hz").value), bps = Number(field("f-bps").value);
      var kind = field("f-kind").value, hide = field("f-anchors").checked, shown = {}, known = {};
      all("table.results tbody tr[data-name]").forEach(function (row) {
        var d = row.dataset, name = row.cells[0].textContent;
        var keep = d.name.indexOf(text) >= 0 && (!hz || Number(d.hz) <= hz) && (!kind || d.kind.indexOf(kind) >= 0) &&
          (!bps || d.bps !== "" && Number(d.bps) <= bps) && !(hide && row.parentNode.classList.contains("anchors"));
        row.hidden = !keep;
        known[name] = 1;
        if (keep) shown[name] = 1;
      });
      all("tbody.anchors").forEach(function (body) {
        body.hidden = !all("tr[data-name]", body).some(function (row) { return !row.hidden; });
      });
      field("f-count").textContent = Object.keys(shown).length + " of " + Object.keys(known).length + " tokenizers";
    };
    form.addEventListener("input", filter);
    form.addEventListener("submit", function (event) { event.preventDefault(); });
    form.addEventListener("reset", function () { setTimeout(filter, 0); });
    filter();
  }

  // The drawer: origin of a cell.
  var holder = document.getElementById("data"), drawer = document.getElementById("drawer");
  if (holder && drawer && drawer.showModal) {
    var data = JSON.parse(holder.textContent), base = holder.dataset.root;
    var list = function (facts) {
      var dl = make("dl", undefined, "facts");
      facts.forEach(function (fact) {
        var line = make("div"), dd = make("dd");
        line.appendChild(make("dt", fact[0]));
        if (fact[2]) {
          var link = make("a", fact[1]);
          link.href = base + fact[2];
          dd.appendChild(link);
        } else dd.appendChild(fact[3] ? make("code", fact[1]) : document.createTextNode(fact[1]));
        line.appendChild(dd);
        dl.appendChild(line);
      });
      return dl;
    };
    document.addEventListener("click", function (event) {
      var link = event.target.closest && event.target.closest("a[data-cell]");
      if (!link || event.ctrlKey || event.metaKey || event.shiftKey || event.button) return;
      var part = link.dataset.cell.split("/");
      var column = data.columns[part[0] + "/" + part[2]], result = data.results[part[0] + "/" + part[1]];
      event.preventDefault();
      document.getElementById("drawer-title").textContent = result.name + ": " + column.title;
      var body = document.getElementById("drawer-body");
      body.textContent = "";
      [["This number", data.cells[link.dataset.cell]], ["The metric", column.facts], ["The run", result.facts]].forEach(function (entry) {
        body.appendChild(make("h3", entry[0]));
        body.appendChild(list(entry[1]));
      });
      drawer.showModal();
      drawer.scrollTop = 0;
    });
    drawer.addEventListener("click", function (event) { if (event.target === drawer) drawer.close(); });
  }

  // Audio: small players in place of the browser's, one position for all clips of an utterance.
  var ICONS = { play: "M2 1l11 7-11 7z", pause: "M2 1h4v14H2zM9 1h4v14H9z" };
  var active = null;
  function icon(button, name) {
    button.firstChild.firstChild.setAttribute("d", ICONS[name]);
  }
  function stamp(seconds) { return seconds.toFixed(1) + " s"; }
  function group(clip) { return all(".clip", clip.closest(".clips")); }
  function audioOf(clip) { return clip.querySelector("audio"); }
  function choose(clip) {
    all(".clip.on").forEach(function (c) { c.classList.remove("on"); });
    clip.classList.add("on");
    active = clip;
  }
  function start(clip, position) {
    var audio = audioOf(clip);
    all("audio").forEach(function (other) { if (other !== audio) other.pause(); });
    choose(clip);
    var go = function () {
      if (position !== null) audio.currentTime = Math.min(position, Math.max(0, audio.duration - 0.02));
      var playing = audio.play();
      if (playing) playing.catch(function (error) {
        if (error.name !== "AbortError") clip.querySelector(".time").textContent = "cannot play";
      });
    };
    if (audio.readyState >= 1) go(); else { audio.addEventListener("loadedmetadata", go, { once: true }); audio.load(); }
  }
  function move(to) {
    if (!to || to === active) return;
    var from = audioOf(active), position = from.ended ? 0 : from.currentTime, playing = !from.paused;
    from.pause();
    if (playing) start(to, position);
    else { choose(to); pending(to, position); }
    to.scrollIntoView({ block: "nearest" });
    to.querySelector("button").focus({ preventScroll: true });
  }
  function pending(clip, position) {
    var audio = audioOf(clip);
    var seek = function () { audio.currentTime = Math.min(position, audio.duration); };
    if (audio.readyState >= 1) seek(); else { audio.addEventListener("loadedmetadata", seek, { once: true }); audio.load(); }
  }
  all(".clip").forEach(function (clip) {
    var audio = audioOf(clip), label = audio.getAttribute("aria-label");
    var player = make("div", undefined, "player"), button = make("button"), bar = make("input"), time = make("span", undefined, "time");
    var svg = document.createElementNS("http://www.w3.org/2000/svg", "svg");
    svg.setAttribute("viewBox", "0 0 15 16");
    svg.setAttribute("aria-hidden", "true");
    svg.appendChild(document.createElementNS("http://www.w3.org/2000/svg", "path"));
    button.type = "button";
    button.appendChild(svg);
    icon(button, "play");
    button.setAttribute("aria-label", "Play " + label);
    bar.type = "range"; bar.min = 0; bar.max = Number(audio.dataset.seconds); bar.step = 0.01; bar.value = 0;
    bar.setAttribute("aria-label", "Position, " + label);
    time.textContent = stamp(Number(audio.dataset.seconds));
    audio.removeAttribute("controls");
    audio.parentNode.insertBefore(player, audio);
    [button, bar, time, audio].forEach(function (node) { player.appendChild(node); });
    button.addEventListener("click", function () { if (audio.paused) start(clip, audio.ended ? 0 : null); else audio.pause(); });
    bar.addEventListener("input", function () { choose(clip); pending(clip, Number(bar.value)); });
    audio.addEventListener("play", function () { icon(button, "pause"); button.setAttribute("aria-label", "Pause " + label); });
    audio.addEventListener("pause", function () { icon(button, "play"); button.setAttribute("aria-label", "Play " + label); });
    audio.addEventListener("timeupdate", function () { bar.value = audio.currentTime; time.textContent = stamp(audio.currentTime); });
    audio.addEventListener("error", function () { time.textContent = "cannot play"; });
  });
  if (document.querySelector(".clip")) {
    var lastOther = null;
    document.addEventListener("keydown", function (event) {
      if (event.ctrlKey || event.metaKey || event.altKey) return;
      var tag = event.target.tagName, key = event.key.toLowerCase();
      if (tag === "INPUT" && event.target.type !== "range" || tag === "SELECT" || tag === "SUMMARY") return;
      if (!active) {
        if ("ab".indexOf(key) < 0 && key !== " " || tag === "A" || tag === "BUTTON") return;
        choose(document.querySelector(".clip"));
      }
      var clips = group(active), at = clips.indexOf(active);
      if (!active.classList.contains("original")) lastOther = active;
      if (key === " " && tag !== "BUTTON" && tag !== "A") {
        var audio = audioOf(active);
        if (audio.paused) start(active, audio.ended ? 0 : null); else audio.pause();
      } else if (key === "arrowdown") move(clips[at + 1]);
      else if (key === "arrowup") move(clips[at - 1]);
      else if (key === "a") move(clips[0]);
      else if (key === "b") move(lastOther && clips.indexOf(lastOther) >= 0 ? lastOther : clips[1]);
      else return;
      event.preventDefault();
    });
  }
})();
