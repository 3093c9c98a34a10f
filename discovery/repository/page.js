(function () {
  "use strict";
  var input = document.getElementById("q"), found = document.getElementById("found");
  var articles = Array.prototype.slice.call(document.querySelectorAll("article"));
  var texts = articles.map(function (a) { return a.textContent.toLowerCase(); });
  if (articles.length > 1) input.parentNode.hidden = false;
  input.addEventListener("input", function () {
    var words = input.value.toLowerCase().split(/\s+/), n = 0;
    articles.forEach(function (a, i) {
      a.hidden = !words.every(function (w) { return texts[i].includes(w); });
      if (!a.hidden) n++;
    });
    found.textContent = input.value ? n + " of " + articles.length : "";
  });
  if (!navigator.clipboard) return; // not in a secure context
  document.querySelectorAll(".command").forEach(function (p) {
    var button = document.createElement("button"), code = p.querySelector("code");
    button.textContent = "Copy";
    button.setAttribute("aria-label", "Copy: " + code.textContent);
    button.addEventListener("click", function () {
      navigator.clipboard.writeText(code.textContent).then(function () {
        button.textContent = "Copied";
        setTimeout(function () { button.textContent = "Copy"; }, 2000);
      }, function () { // the browser refuses: what is selected can be copied by hand
        getSelection().selectAllChildren(code);
      });
    });
    p.appendChild(button);
  });
})();
