// Runs before the first paint, so that the page does not flash in the other colours.
try {
  document.documentElement.dataset.theme = JSON.parse(localStorage.getItem("moss.theme")) || "system";
} catch {
  document.documentElement.dataset.theme = "system";
}
