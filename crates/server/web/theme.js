// Runs before the first paint, so a stored theme never flashes the other one.
try {
  const stored = localStorage.getItem("theme");
  if (stored) document.documentElement.dataset.theme = stored;
} catch { /* a browser that stores nothing follows the system */ }
