// Before anything is painted: the theme that was chosen here, else the system's.
"use strict";
try {
  const chosen = localStorage.getItem("headrace-theme");
  if (chosen === "light" || chosen === "dark") document.documentElement.dataset.theme = chosen;
} catch { /* storage may be forbidden: then the system's theme it is */ }
